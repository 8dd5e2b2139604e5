"""Runs that are compared: variants, contests, matrices, probes."""
