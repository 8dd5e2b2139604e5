"""The loop, its state, and what it writes."""
