"""Edits networks that are images, from their files: `sne-jax edit`.

  python experiments/edit.py --help

says how it is used, and all that it can do.
"""

import sys

import experiments
from sne_jax.cli import main

if __name__ == "__main__":
  main.start(
    "edit",
    "python experiments/edit.py",
    sys.argv[1:],
    tuple(experiments.__path__),
  )
