"""Metrics, references, intervals and novelty."""
