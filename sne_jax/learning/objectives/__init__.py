"""The model with its head, and what it is trained for."""
