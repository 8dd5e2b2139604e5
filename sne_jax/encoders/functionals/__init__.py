"""Encoders that are tied to one architecture and equivariant."""
