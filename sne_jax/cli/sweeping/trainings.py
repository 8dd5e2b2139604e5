"""Trainings of `sne-jax train` as what a sweep sweeps."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags

import sne_jax
from sne_jax.cli import config, encoder_options
from sne_jax.cli.commands import train
from sne_jax.cli.encoder_options import EncoderOptions
from sne_jax.cli.own import OwnOptions
from sne_jax.cli.sweeping.subject import Programs, Subject
from sne_jax.learning.training.loop import TrainOptions

HERE = pathlib.Path(__file__).resolve().parent
SWEPT = ("encoder", "devices")
"""Options of `LearnOptions` that can be swept; the others, and all of
`OwnOptions`, say where a training is, or what it is judged on."""


@dataclasses.dataclass(frozen=True)
class Training:
  """All options of a training, by class; a `Run` of a sweep."""

  parts: tuple[Any, ...]  # As `train.CLASSES`.

  def of(self, cls: type) -> Any:
    """Returns the options of a class."""
    return self.parts[train.CLASSES.index(cls)]

  @property
  def workdir(self) -> str:
    """Folder of the training."""
    return self.of(train.LearnOptions).workdir

  @property
  def title(self) -> str:
    """What the training is called."""
    folder = os.path.basename(os.path.abspath(self.of(OwnOptions).networks))
    return f"{self.of(train.LearnOptions).targets} of {folder}"

  @property
  def seeds(self) -> range:
    """Seeds of the training."""
    return range(self.of(train.LearnOptions).seeds)

  @property
  def num_steps(self) -> int:
    """Steps of the training."""
    return self.of(TrainOptions).num_steps

  @property
  def eval_every(self) -> int:
    """Steps between two evaluations."""
    return self.of(TrainOptions).eval_every

  def encoders_in_use(self) -> tuple[str, ...]:
    """Returns the encoder that is trained."""
    return (self.of(train.LearnOptions).encoder,)

  def of_trial(
    self, folder: os.PathLike, title: str, changes: Mapping[str, Any]
  ) -> "Training":
    """Returns the options of a trial of a sweep.

    Raises:
      ValueError: options that do not go together.
    """
    del title
    return self.replaced(
      {**changes, "workdir": str(folder), "references": False}
    )

  def replaced(self, changes: Mapping[str, Any]) -> "Training":
    """Returns the options with some changed, by names of flags, or encoders'.

    Raises:
      ValueError: options that do not go together.
    """
    known = encoder_options.known()
    set_now = {name: value for name, value in changes.items() if name in known}
    parts = []
    for part in self.parts:
      if isinstance(part, EncoderOptions):
        part = part.replaced(set_now)
      names = {field.name for field in config.flag_fields(type(part))}
      mine = {name: v for name, v in changes.items() if name in names}
      parts.append(dataclasses.replace(part, **mine) if mine else part)
    return Training(tuple(parts))

  def groups(self, encoders: Iterable[str] = ()) -> tuple[Any, ...]:
    """Returns the option objects; of encoders, of those alone."""
    names = tuple(encoders) or self.encoders_in_use()
    return tuple(
      part.complete(names) if isinstance(part, EncoderOptions) else part
      for part in self.parts
    )

  def warn_of_unused(self, encoders: Iterable[str] = ()) -> None:
    """Logs what is set of encoders that take no part."""
    names = tuple(encoders) or self.encoders_in_use()
    self.of(EncoderOptions).warn_of_unused(names)


def options_of(flag_values: flags.FlagValues = flags.FLAGS) -> Training:
  """Returns the options that flags of `sne-jax train` say.

  Trials share a zoo, beside the folder of the sweep where none is named.

  Raises:
    ValueError: options that are wrong, or name no networks.
  """
  encoder_options.load_files(str(flag_values["encoder_file"].value))
  training = Training(
    tuple(
      config.from_flags(cls, flag_values=flag_values) for cls in train.CLASSES
    )
  )
  given = training.of(OwnOptions)
  train.check_given(given)
  return training.replaced({"zoo_out": given.folder(training.workdir)})


def prepare(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS):
  """Converts the networks, or opens their zoo, before trials start.

  Raises:
    ValueError, ZooError: table or files that are wrong.
  """
  del argv
  training = options_of(flag_values)
  learn = training.of(train.LearnOptions)
  training.of(OwnOptions).zoo(
    learn.workdir, config.words(learn.targets), learn.loss
  )


def swept_fields() -> dict[str, tuple[type, str, type]]:
  """Returns class, field and type of every option that can be swept, by name.

  The name is that of its flag, or, of an option of an encoder, that of
  `--encoder_option`.
  """
  return {
    name: row
    for name, row in encoder_options.fields(train.CLASSES).items()
    if row[0] is not OwnOptions
    and (row[0] is not train.LearnOptions or name in SWEPT)
  }


SUBJECT = Subject(
  options_of=options_of,
  fields=swept_fields,
  programs=Programs(HERE / "one_training.py", HERE / "one_zoo.py"),
  root=pathlib.Path(sne_jax.__file__).resolve().parents[1],
  repeat="sne-jax train",
  free=(
    *("LearnOptions.workdir", "LearnOptions.seeds", "LearnOptions.references"),
    *("OwnOptions.skip_unreadable", "TrainOptions.keep", "TrainOptions.wandb"),
  ),
)
