r"""Trains on your own networks, and reports how well it went.

  sne-jax train --networks=FOLDER --table=labels.csv --targets=accuracy \
    --workdir=RUN

The table has a column `file` and others, of which --targets names the ones to
predict. Networks are read once, into a zoo beside the run, and split by group
into training, validation and test. --workdir gets a model, which `sne-jax
predict --workdir=RUN model.pt` and `Predictor.load` read, and

  report.html            how well it predicts the test networks; begin there
  report.md, figures/    the same as text and pictures
  results.json           the same, to compute with
  flags.txt              the options; --flagfile=flags.txt repeats them

The same command continues what was stopped, and ends with the same numbers.
"""

import dataclasses
import os
import pathlib
from typing import Any

from absl import flags

from sne_jax import atomic, fitting
from sne_jax.atomic import write_atomically
from sne_jax.cli import config, encoder_options, own
from sne_jax.cli.atlas import gathering
from sne_jax.cli.encoder_options import EncoderOptions
from sne_jax.cli.reports import fitted, run_report
from sne_jax.encoders import table
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.learning.data import folders
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.data.pipeline import DataOptions
from sne_jax.learning.objectives.model import HeadOptions
from sne_jax.learning.training import workdirs
from sne_jax.learning.training.loop import TrainOptions
from sne_jax.learning.training.optimizers import OptimizerOptions
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.chunking import ChunkOptions
from sne_jax.zoo.store import lock, splits, store


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnOptions(Checked):
  """What to learn, and where.

  Attributes:
    workdir: folder for everything that the run writes; a run that was stopped
      continues there.
    targets: columns of the table to predict, separated by commas.
    loss: mse for any numbers; bce for numbers in [0, 1]; classes for one column
      of text or whole numbers.
    encoder: name of the encoder, such as sne or stat_pool.
    encoder_file: Python files that register encoders of your own, separated by
      commas; they are run first.
    seeds: number of independent trainings, whose mean predicts. Ask for more
      later, and those that are finished are kept.
    references: also fit constant, ridge and boosted-tree references.
    devices: local devices to share every batch; 0: all.
  """

  workdir: str = "runs/own"
  targets: str = ""
  loss: str = option("mse", choices=("mse", "bce", "classes"))
  encoder: str = "sne"
  encoder_file: str = ""
  seeds: int = option(1, least=1)
  references: bool = True
  devices: int = option(0, least=0)

  def __post_init__(self):
    super().__post_init__()
    if not config.words(self.targets):
      raise ValueError(
        "targets is empty; name the columns to predict by --targets"
      )
    if self.loss == "classes" and len(config.words(self.targets)) != 1:
      raise ValueError(
        f"loss is classes, but targets is {self.targets!r}; name one column"
      )
    table.row(self.encoder)  # Raises.


CLASSES = (
  *(own.OwnOptions, LearnOptions, TrainOptions, DataOptions),
  *(OptimizerOptions, ChunkOptions, SNEOptions, EncoderOptions),
)
DEFAULTS = {"num_steps": 1500, "eval_every": 100, "save_every": 500}
TOPICS = {
  "Your networks": (
    *("networks", "table", "targets", "group_column", "file_column"),
    *("skip_unreadable", "overrides", "zoo_out"),
  ),
  "What to learn, and how": (
    *("workdir", "loss", "encoder", "encoder_option", "seeds", "num_steps"),
    *("learning_rate", "batch_size", "width", "eval_every", "patience"),
    *("references", "devices", "wandb"),
  ),
}
POSITIONAL = False


def more(flag_values: flags.FlagValues) -> str:
  """Returns what `--help` shows of the options of another encoder."""
  encoder_options.load_files(str(flag_values["encoder_file"].value))
  return encoder_options.described(str(flag_values["encoder"].value))


def main(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Reads the flags, converts the networks, trains and reports.

  Raises:
    ValueError: options, table, files or work directory that are wrong.
    TrainingDiverged: no seed has finished.
  """
  del argv
  encoder_options.load_files(str(flag_values["encoder_file"].value))
  options: dict[type, Any] = {
    cls: config.from_flags(cls, flag_values=flag_values) for cls in CLASSES
  }
  given, learn = options[own.OwnOptions], options[LearnOptions]
  check_given(given)
  targets = config.words(learn.targets)
  workdir = pathlib.Path(learn.workdir)
  with atomic.made_folders(workdir), lock.folder_lock(str(workdir)):
    workdirs.tidy(workdir)
    zoo = given.zoo(learn.workdir, targets, learn.loss)
    name = os.path.basename(os.path.abspath(zoo.path))
    parts = parts_of(zoo, targets)
    predictor = fitting.fit(
      parts["train"],
      parts["val"],
      tests={"test": parts["test"]},
      workdir=workdir,
      seeds=learn.seeds,
      **how(options, learn),
    )
    text = config.to_flagfile(*options.values())
    write_atomically(workdir / "flags.txt", text)
    results = fitted.results(
      predictor,
      parts,
      title=f"{learn.targets} of {name}",
      config=config.resolved(*options.values()),
      references=learn.references,
      notes=folders.remarks(zoo),
    )
    results[gathering.ZOOS] = gathering.where(workdir, {name: zoo.path})
    figures = fitted.draw(workdir / "figures", predictor, parts["test"])
    atlas = fitted.atlas(predictor, parts["test"])
    page = run_report.write(workdir, results, figures, atlas)
  print(results["headline"])
  print(f"The report is {page.with_suffix('.html')}, and {page}")
  print(f"For other files: sne-jax predict --workdir={workdir} FILES")
  print(f"To look at all networks: sne-jax explore {workdir}")


def check_given(given: own.OwnOptions) -> None:
  """Checks that networks are named.

  Raises:
    ValueError: they are not.
  """
  if not given.networks:
    raise ValueError(
      "networks is empty; name a folder of checkpoints by --networks, and their"
      " labels by --table"
    )


def how(options: dict[type, Any], learn: LearnOptions) -> dict[str, Any]:
  """Returns the options of a training as `fit` takes them."""
  row = table.row(learn.encoder)
  own_options = options[SNEOptions]
  if row.options is not SNEOptions:
    own_options = options[EncoderOptions].of(row)
  return {
    "encoder": learn.encoder,
    "options": own_options,
    "chunks": options[ChunkOptions],
    "head": HeadOptions(),
    "loss": learn.loss,
    "data": options[DataOptions],
    "optimizer": options[OptimizerOptions],
    "training": options[TrainOptions],
    "devices": learn.devices,
  }


def parts_of(zoo: store.Zoo, targets) -> dict[str, Networks]:
  """Returns the networks of each part of a zoo's own split."""
  return {
    part: Networks.from_zoo(zoo, targets, part=part) for part in splits.PARTS
  }
