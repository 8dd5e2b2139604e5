"""Predicts properties of trained networks from their files: `sne-jax predict`.

  python experiments/predict.py --help

says how it is used, and all that it can do.
"""

import sys

import experiments
from sne_jax.cli import main

if __name__ == "__main__":
  main.start(
    "predict",
    "python experiments/predict.py",
    sys.argv[1:],
    tuple(experiments.__path__),
  )
