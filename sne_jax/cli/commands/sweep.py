r"""Searches over the options of a training on your own networks.

  sne-jax sweep --networks=FOLDER --table=labels.csv --targets=accuracy \
    --grid="learning_rate=3e-4,1e-3,3e-3;width=32,64" --workdir=runs/sweep

A sweep is many trainings of `sne-jax train` that differ in some options, each
in a process of its own. --grid tries every combination, --random draws:

  sne-jax sweep --flagfile=own.flags --num_trials=16 --workdir=runs/search \
    --random="learning_rate=log:1e-4:1e-2;encoder=sne,stat_pool"

--sampler=tpe chooses new values by what others have given, --pruner=median or
hyperband stops trials that fall behind. A sweep takes Optuna, and Ray unless
--address=none runs trials one after another: pip install optuna ray. The trial
that is best on the validation networks is selected, and its test numbers, and
no others, are reported. --workdir gets report.md, figures/, results.json, and
trials/NUMBER/, the folder of each training.

The same command continues what was stopped; trials that have finished are kept.
"""

import dataclasses

from absl import flags

from sne_jax.cli.commands import train
from sne_jax.cli.sweeping import options as sweep_options
from sne_jax.cli.sweeping.options import SweepOptions

CLASSES = (SweepOptions, *train.CLASSES)
DEFAULTS = train.DEFAULTS
TOPICS = {
  "What to vary, and where": tuple(
    field.name for field in dataclasses.fields(SweepOptions)
  ),
  **train.TOPICS,
}
POSITIONAL = False
more = train.more


def main(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> int:
  """Reads the flags and runs the trials that they ask for.

  Returns:
    0, or 1 where trials have failed.

  Raises:
    ValueError, RayFailed: see `sweep.run`; Optuna is missing.
  """
  del argv
  sweep_options.need("optuna")
  from sne_jax.cli.sweeping import sweep, trainings  # They need Optuna.

  return sweep.run(trainings.SUBJECT, flag_values)
