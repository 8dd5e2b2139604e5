"""Shows what network a checkpoint holds: `sne-jax inspect`.

  python experiments/inspect_network.py --help

says how it is used, and all that it can do.
"""

import sys

import experiments
from sne_jax.cli import main

if __name__ == "__main__":
  main.start(
    "inspect",
    "python experiments/inspect_network.py",
    sys.argv[1:],
    tuple(experiments.__path__),
  )
