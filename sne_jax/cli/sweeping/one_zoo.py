"""Makes, or checks, the zoo of `sne-jax sweep` before its trials start.

Trials that start at once would be in each other's way when they make the same
zoo; and what is wrong with the data is said once, not by every trial. It is a
program of its own so that the sweep itself holds no device.
"""

from sne_jax.cli import config, console, main
from sne_jax.cli.commands import train
from sne_jax.cli.sweeping import trainings

if __name__ == "__main__":
  main.define_flags(train)
  console.setup()
  config.run_main(trainings.prepare)
