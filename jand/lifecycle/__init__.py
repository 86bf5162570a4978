"""From what lies on the disk to what runs: a registry of models, one actor for each, and the only place where their state changes."""
