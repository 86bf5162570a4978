"""What lies on the disk: watching it, knowing when it is whole, and reading it into findings. Knows nothing of downloads and engines."""
