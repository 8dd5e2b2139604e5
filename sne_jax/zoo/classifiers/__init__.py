"""Zoos of image classifiers, trained as populations."""
