"""What `experiments/sweep.py` sweeps: runs of run.py."""
