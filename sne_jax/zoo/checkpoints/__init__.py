"""Single checkpoints of any framework, read without trusting them."""
