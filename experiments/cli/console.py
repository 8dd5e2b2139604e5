"""What a program of ours says to its terminal."""

import experiments
from sne_jax.cli import console


def setup() -> None:
  """Keeps log lines to those of this project, and to warnings of others."""
  console.setup(tuple(experiments.__path__))
