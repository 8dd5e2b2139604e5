"""Encoders that see weights or their statistics, and no structure."""
