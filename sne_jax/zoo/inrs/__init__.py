"""Zoos of implicit representations of sine waves."""
