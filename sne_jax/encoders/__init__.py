"""Encoders: networks to vectors."""
