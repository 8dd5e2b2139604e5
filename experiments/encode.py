"""Writes the codes of trained networks, from their files: `sne-jax encode`.

  python experiments/encode.py --help

says how it is used, and all that it can do.
"""

import sys

import experiments
from sne_jax.cli import main

if __name__ == "__main__":
  main.start(
    "encode",
    "python experiments/encode.py",
    sys.argv[1:],
    tuple(experiments.__path__),
  )
