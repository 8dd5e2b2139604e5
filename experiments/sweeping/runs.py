"""Runs of run.py as what a sweep sweeps."""

import pathlib

from absl import flags

from experiments import run
from experiments.cli import options as options_lib
from experiments.tasks import own_networks
from sne_jax.cli import config
from sne_jax.cli.sweeping.options import SweepOptions
from sne_jax.cli.sweeping.subject import Programs, Subject
from sne_jax.zoo.inrs import generate

HERE = pathlib.Path(__file__).resolve().parent
SWEPT_OF_RUN = (
  *("encoder", "head_width", "head_dropout", "loss", "train_share"),
  *("init_from", "pretrain", "devices", "head_collapsed"),
  "head_collapsed_within",
)
"""Options of `RunOptions` that can be swept. The others say where a run is, or
what it is judged on, as those of the zoo do; a sweep compares trainings on one
task."""


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags of a sweep, and all those of a run."""
  config.define_flags(SweepOptions, flag_values=flag_values)
  options_lib.define_flags(flag_values)


def swept_fields() -> dict[str, tuple[type, str, type]]:
  """Returns class, field and type of every option that can be swept, by name.

  The name is that of its flag, or, of an option of an encoder, that of
  `--encoder_option`.
  """
  return {
    name: field
    for name, field in options_lib.fields().items()
    if field[0] is not generate.InrZooOptions
    and (field[0] is not options_lib.RunOptions or name in SWEPT_OF_RUN)
  }


SUBJECT = Subject(
  options_of=own_networks.options_of,
  fields=swept_fields,
  programs=Programs(HERE.parent / "run.py", HERE / "prepare.py"),
  root=HERE.parents[1],
  repeat="python experiments/run.py",
  prefixes=options_lib.PREFIXES,
  refused=("variants", "matrix", "rates", "probes", "sample_from"),
  free=run.NOT_IDENTITY,
)
