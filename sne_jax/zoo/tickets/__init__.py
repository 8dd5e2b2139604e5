"""Zoos of winning tickets: first weights, and which of them to keep."""
