"""Flags, help and files that the programs are given."""
