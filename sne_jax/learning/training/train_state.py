"""Checkpoints of a run, in its work directory.

`checkpoints/latest/<step>` and `checkpoints/best/<step>` hold the whole state
and the best parameters. A checkpoint appears under its name only when it is
complete, with the digests of its files. The best parameters are written before
the state that names them as the best, and removed only after no state names
them, so that a run that is killed at any moment finds both. This is the only
module that knows Orbax.

Dimensions: none; states are any trees of arrays.
"""

import contextlib
import dataclasses
import logging as python_logging
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from orbax.checkpoint.experimental import v1 as ocp

from sne_jax import atomic, digests, errors, room

_WHOLE = ("_CHECKPOINT_METADATA", "state/_METADATA", "state/manifest.ocdbt")
"""What a complete checkpoint contains."""

_OVERHEAD, _OF_ARRAY = 48_000, 1_200
"""Bytes that a checkpoint, and each array in it, takes beside its values."""

_REMEDY = (
  "restore the file, or remove the folder above checkpoints and start the same"
  " command again"
)

UNVERIFIED = (
  "restore the file, or train again; verify=False, or --noverify, reads it as"
  " it is"
)
"""The remedy where a model is read."""


class CheckpointError(RuntimeError):
  """A checkpoint could not be written or read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopRecord:
  """What the training loop knows beside its state.

  Attributes:
    best_value: the best value of the monitored metric; None before there is
      one.
    best_step: completed updates of the best parameters; 0 before there are.
    best_metrics: all metrics of the evaluation that gave the best value.
    bad_evaluations: evaluations since the best one.
    num_records: records in the metrics file when the state was saved.
    seconds: of training, without evaluating and saving.
    stopped_early: training has ended for want of improvement.
  """

  best_value: float | None = None
  best_step: int = 0
  best_metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
  bad_evaluations: int = 0
  num_records: int = 0
  seconds: float = 0.0
  stopped_early: bool = False


class Checkpoints:
  """The checkpoints of one run.

  One process writes at a time. Saving returns when the checkpoint is whole.
  """

  def __init__(self, workdir: str | os.PathLike, *, keep: int = 1):
    """Opens the folder and removes what interrupted writes have left.

    Args:
      workdir: the run's folder.
      keep: how many of the latest states to keep, at least 1.
    """
    self._latest = _folder(workdir, "latest")
    self._best = _folder(workdir, "best")
    self._keep = keep
    self._named: dict[int, int | None] = {}  # Best steps, by that of a state.
    for folder in (self._latest, self._best):
      folder.mkdir(parents=True, exist_ok=True)
      for path in folder.iterdir():
        if not _is_whole(path):
          logging.warning("removing an incomplete checkpoint: %s", path)
          shutil.rmtree(path) if path.is_dir() else path.unlink()

  @property
  def latest_step(self) -> int | None:
    """Completed updates of the latest state; None before there is one."""
    return max(_steps(self._latest), default=None)

  def restore_or_init(self, state) -> tuple[Any, LoopRecord]:
    """Returns the latest state, or `state` where nothing is saved yet.

    Where it, or the best parameters that it names, are damaged, it is removed,
    and the state before is taken, if that is intact. Best parameters that no
    state names are removed: the run is going to find them again.

    Args:
      state: a state of the same structure, shapes, types and devices.

    Raises:
      DamagedError: no state is intact.
      CheckpointError: the state cannot be read as such a state.
    """
    step, record = self._intact()
    if step is not None:
      state = _load(self._latest / str(step), jax.tree.map(_like, state))
    self._forget_old()
    return state, record

  def _intact(self) -> tuple[int | None, LoopRecord]:
    """Returns the last state that is intact, and its record."""
    steps, damage = sorted(_steps(self._latest), reverse=True), {}
    for step in steps:
      path = self._latest / str(step)
      try:
        digests.check(path, remedy=_REMEDY)
        record = LoopRecord(**_metadata(path))
        if record.best_value is not None:
          best = self._best / str(record.best_step)
          digests.check(best, remedy=_REMEDY)
          if not _is_whole(best):
            raise errors.damaged(best, "checkpoint is missing", _REMEDY)
      except errors.DamagedError as error:
        damage[step] = error
        continue
      for later, error in damage.items():
        logging.warning(
          "%s. Continuing from step %d, the checkpoint before", error, step
        )
        _remove(self._latest / str(later))
      self._named = {s: self._best_step(s) for s in _steps(self._latest)}
      return step, record
    if damage:
      raise damage[steps[0]]
    return None, LoopRecord()

  def _best_step(self, step: int) -> int | None:
    """Returns the step of the best parameters that a state names."""
    return _named_by(LoopRecord(**_metadata(self._latest / str(step))))

  def restore_best(self, params, record: LoopRecord):
    """Returns the parameters that `record` names the best, as numpy arrays.

    Args:
      params: a tree of the same structure, shapes and types.
      record: as `restore_or_init` returned it.

    Raises:
      CheckpointError: they cannot be read.
    """
    like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), params)
    return _load(self._best / str(record.best_step), like)

  def save(self, step: int, state, record: LoopRecord) -> None:
    """Saves a state, then removes those that it supersedes.

    Raises:
      CheckpointError: a disk is full, or read-only; what was saved before is
        still whole.
    """
    _save(self._latest / str(step), state, dataclasses.asdict(record))
    self._named[step] = _named_by(record)
    self._forget_old()

  def save_best(self, step: int, params, metrics: Mapping[str, float]) -> None:
    """Saves the parameters of a new best; those before stay until `save`.

    Raises:
      CheckpointError: a disk is full, or read-only; what was saved before is
        still whole.
    """
    params = jax.tree.map(np.asarray, params)
    _save(self._best / str(step), params, {"step": step, **metrics})

  def _forget_old(self):
    """Removes states beyond those to keep, and best ones that none names."""
    for old in sorted(_steps(self._latest))[: -self._keep]:
      _remove(self._latest / str(old))
      self._named.pop(old, None)
    for step in _steps(self._best):
      if step not in self._named.values():
        _remove(self._best / str(step))


def _named_by(record: LoopRecord) -> int | None:
  return None if record.best_value is None else record.best_step


def load_best(
  workdir: str | os.PathLike, *, verify: bool = True, remedy: str = UNVERIFIED
) -> tuple[Any, dict[str, Any]]:
  """Reads the best parameters of a run, for use without its training code.

  Args:
    workdir: the run's folder.
    verify: whether to compare the files with their digests, if they have any.
    remedy: what the user can do where they are damaged.

  Returns:
    The parameters as nested dicts of numpy arrays, and the metrics of their
    evaluation together with their `step`.

  Raises:
    DamagedError: a file is not what was written.
    CheckpointError: the folder holds none, or it cannot be read.
  """
  folder = _folder(workdir, "best")
  steps = _steps(folder)
  if not steps:
    raise CheckpointError(
      f"{folder} holds no parameters; train first, with an evaluation"
    )
  # While a run continues there may be two for a moment: take the newer.
  path = folder / str(max(steps))
  if verify:
    digests.check(path, remedy=remedy)
  return jax.tree.map(np.asarray, _load(path, None)), _metadata(path)


def _folder(workdir, name):
  return pathlib.Path(workdir).absolute() / "checkpoints" / name


def _steps(folder):
  """Returns the steps of which a folder holds a whole checkpoint."""
  if not folder.exists():
    return []
  return [int(path.name) for path in folder.iterdir() if _is_whole(path)]


def _is_whole(path):
  return path.name.isdecimal() and all(
    (path / part).exists() for part in _WHOLE
  )


def _remove(path):
  """Removes a checkpoint; at no moment does a part of it look like one."""
  doomed = path.with_name(path.name + ".removing")
  path.rename(doomed)
  shutil.rmtree(doomed)


def _like(x):
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def num_bytes(tree) -> int:
  """Returns the bytes that a checkpoint of a tree takes, about."""
  leaves = jax.tree.leaves(tree)
  values = sum(getattr(leaf, "nbytes", 8) for leaf in leaves)
  return values + _OVERHEAD + _OF_ARRAY * len(leaves)


def _save(path, tree, metadata):
  whole = path.with_name(path.name + ".new")
  shutil.rmtree(whole, ignore_errors=True)
  what = f"the checkpoint of step {path.name}"
  size = num_bytes(tree)
  try:
    room.check(path.parent, size, what)  # The library's errors are many.
    with room.writing(path.parent, what, size):
      with _quiet(), _without_threads():
        ocp.save(whole, tree, custom_metadata=metadata)
      digests.seal_folder(whole)
      whole.rename(path)
      atomic.sync_folder(path.parent)
  except OSError as error:
    if room.shortage(error) is None:
      raise
    for part in path.parent.iterdir():  # Give the space back.
      if not _is_whole(part):
        shutil.rmtree(part, ignore_errors=True)
    steps = _steps(path.parent)
    kept = (
      f"the one of step {max(steps)} is whole" if steps else "there is none"
    )
    raise CheckpointError(
      f"{error} (of the checkpoints before, {kept})"
    ) from error


@contextlib.contextmanager
def _without_threads() -> Iterator[None]:
  """Drops what Orbax's threads say of a failure, which is raised as well.

  Some say it late, so what drops it stays after a failure: log lines of its
  files, and the calls of an event loop that it has closed.
  """
  before, late = sys.unraisablehook, _Late()

  def hook(unraisable) -> None:
    error = unraisable.exc_value
    closed = isinstance(error, RuntimeError) and "loop is closed" in str(error)
    if not (closed and unraisable.object is None):
      before(unraisable)

  sys.unraisablehook = hook
  logging.get_absl_logger().addFilter(late)
  yield
  sys.unraisablehook = before  # Not where the body has failed.
  logging.get_absl_logger().removeFilter(late)


class _Late(python_logging.Filter):
  """Leaves out log lines of Orbax."""

  def filter(self, record: python_logging.LogRecord) -> bool:
    """Returns whether a line is of others."""
    return "orbax" not in pathlib.Path(record.pathname).parts


def _load(path, like):
  try:
    with _quiet():
      return ocp.load(path) if like is None else ocp.load(path, like)
  except Exception as error:
    raise CheckpointError(
      f"the checkpoint {path} cannot be read ({error}). If the model has"
      " changed since, choose another workdir; if files are damaged, remove"
      " this folder"
    ) from error


def _metadata(path) -> dict[str, Any]:
  with _quiet():
    metadata: Any = ocp.metadata(path).custom_metadata
  return dict(metadata or {})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Silences what Orbax logs about a checkpoint; its errors are raised."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)
  try:
    yield
  finally:
    logging.set_verbosity(before)
