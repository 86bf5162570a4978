"""What runs in the child process: the only code that touches llama.cpp."""
