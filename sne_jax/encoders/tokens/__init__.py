"""Encoders of tokens: SANE and hyper-representations."""
