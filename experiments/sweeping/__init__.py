"""What `experiments/sweep.py` is made of, one idea per file."""
