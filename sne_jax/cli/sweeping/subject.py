"""What a sweep knows of the program whose runs are its trials."""

import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from absl import flags


class Programs(NamedTuple):
  """Python files that are given `--flagfile=...`; tests put others here."""

  trial: os.PathLike
  prepare: os.PathLike  # Makes, or checks, the zoo before trials need it.


@runtime_checkable
class Run(Protocol):
  """Options of one run of the program."""

  @property
  def workdir(self) -> str:
    """Folder of the run."""
    ...

  @property
  def title(self) -> str:
    """What the run is called."""
    ...

  @property
  def seeds(self) -> range:
    """Seeds of its trainings."""
    ...

  @property
  def num_steps(self) -> int:
    """Steps of a training."""
    ...

  @property
  def eval_every(self) -> int:
    """Steps between two evaluations."""
    ...

  def encoders_in_use(self) -> tuple[str, ...]:
    """Returns the encoders that take part."""
    ...

  def of_trial(
    self, folder: pathlib.Path, title: str, changes: Mapping[str, Any]
  ) -> "Run":
    """Returns the options of a trial, whose references are left out.

    Args:
      folder: of the trial.
      title: what it is called.
      changes: values of the swept options, by name.

    Raises:
      ValueError: options that do not go together.
    """
    ...

  def groups(self, encoders: Iterable[str] = ()) -> tuple[Any, ...]:
    """Returns the option objects; of encoders, of those alone."""
    ...

  def warn_of_unused(self, encoders: Iterable[str] = ()) -> None:
    """Logs what is set of encoders that take no part."""
    ...


class Subject(NamedTuple):
  """A program, and how a sweep makes runs of it."""

  options_of: Callable[[flags.FlagValues], Run]
  # Class, field and type of what can be swept, by name of the flag, or of an
  # option of an encoder.
  fields: Callable[[], dict[str, tuple[type, str, type]]]
  programs: Programs
  root: pathlib.Path  # On the path of these.
  repeat: str  # What a shell is given before `--flagfile=...`.
  prefixes: Mapping[type, str] = {}  # As of `config.to_flagfile`.
  refused: tuple[str, ...] = ()  # Flags that ask for more than one run.
  free: tuple[str, ...] = ()  # Options that may change when it continues.
