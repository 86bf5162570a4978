"""What a model is: its JSON, its binaries, its states. No I/O of its own, no asyncio; everything here can be tested with plain values."""
