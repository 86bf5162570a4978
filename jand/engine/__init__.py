"""What runs a model: a worker process of our own, or a remote provider. The daemon's side imports nothing of llama.cpp."""
