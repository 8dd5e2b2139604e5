"""Converts a published zoo into a zoo of ours, once: `sne-jax convert`.

  python experiments/convert_zoo.py --help

says how it is used, and all that it can do.
"""

import sys

import experiments
from sne_jax.cli import main

if __name__ == "__main__":
  main.start(
    "convert",
    "python experiments/convert_zoo.py",
    sys.argv[1:],
    tuple(experiments.__path__),
  )
