"""What `sne-jax sweep` and `experiments/sweep.py` are made of."""
