"""Zoos: many trained networks on disk."""
