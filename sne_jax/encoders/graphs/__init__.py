"""Networks as graphs of their neurons."""
