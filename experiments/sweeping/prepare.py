"""Makes, or checks, the zoo of a sweep and its split, before trials start.

  python experiments/sweeping/prepare.py --flagfile=FLAGS_OF_A_TRIAL

Trials that start at once would be in each other's way when they make the same
zoo; and what is wrong with the data is said once, not by every trial. It is a
program of its own so that the sweep itself holds no device.
"""

from absl import flags

from experiments.cli import console
from experiments.cli import options as options_lib
from experiments.tasks import members
from sne_jax.cli import config


def main(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Makes or opens the zoo, and draws the split where it has none.

  Raises:
    ValueError: as a run would.
  """
  del argv
  members.gathered(options_lib.from_flags(flag_values))


if __name__ == "__main__":
  options_lib.define_flags()
  console.setup()
  config.run_main(main)
