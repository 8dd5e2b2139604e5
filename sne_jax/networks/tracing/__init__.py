"""Specs of networks that are given as code, or as graphs."""
