"""Files of PyTorch, read without it where that can be done."""
