"""One trial of `sne-jax sweep`: a training, `--flagfile=FLAGS_OF_A_TRIAL`."""

import sys

from sne_jax.cli import main

if __name__ == "__main__":
  main.start("train", "sne-jax train", sys.argv[1:])
