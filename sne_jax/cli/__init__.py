"""The command `sne-jax`, and what programs say and are told in a terminal."""
