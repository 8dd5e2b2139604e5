"""Checkpoints of a run, and the work directory that they belong to.

A work directory holds one run: `config.json` says which, and
`checkpoints/latest/<step>` and `checkpoints/best/<step>` hold the whole state
and the best parameters. A checkpoint appears under its name only when it is
complete. The best parameters are written before the state that names them as
the best, and removed only after a state that names others, so that a run that
is killed at any moment finds both. This is the only module that knows Orbax.

Dimensions: none; states are any trees of arrays.
"""

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from orbax.checkpoint.experimental import v1 as ocp

from sne_jax.atomic import write_atomically

CONFIG = "config.json"
_WHOLE = ("_CHECKPOINT_METADATA", "state/_METADATA", "state/manifest.ocdbt")
"""What a complete checkpoint contains."""


class CheckpointError(RuntimeError):
  """A checkpoint could not be written or read."""


class WorkdirError(ValueError):
  """A work directory belongs to another configuration."""


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

    Best parameters that the state does not name are removed: the run is going
    to find them again.

    Args:
      state: a state of the same structure, shapes, types and devices.

    Raises:
      CheckpointError: the latest state cannot be read as such a state.
    """
    step = self.latest_step
    record = LoopRecord()
    if step is not None:
      path = self._latest / str(step)
      state = _load(path, jax.tree.map(_like, state))
      record = LoopRecord(**_metadata(path))
    self._forget_best(record)
    return state, record

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
      CheckpointError: the disk is full; what was saved before is still whole.
    """
    _save(self._latest / str(step), state, dataclasses.asdict(record))
    for old in sorted(_steps(self._latest))[: -self._keep]:
      _remove(self._latest / str(old))
    self._forget_best(record)

  def save_best(self, step: int, params, metrics: Mapping[str, float]) -> None:
    """Saves the parameters of a new best; those before stay until `save`.

    Raises:
      CheckpointError: the disk is full; what was saved before is still whole.
    """
    params = jax.tree.map(np.asarray, params)
    _save(self._best / str(step), params, {"step": step, **metrics})

  def _forget_best(self, record):
    for step in _steps(self._best):
      if record.best_value is None or step != record.best_step:
        _remove(self._best / str(step))


def load_best(workdir: str | os.PathLike) -> tuple[Any, dict[str, Any]]:
  """Reads the best parameters of a run, for use without its training code.

  Returns:
    The parameters as nested dicts of numpy arrays, and the metrics of their
    evaluation together with their `step`.

  Raises:
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
  return jax.tree.map(np.asarray, _load(path, None)), _metadata(path)


def claim_workdir(
  workdir: str | os.PathLike,
  config: Mapping[str, Any],
  *,
  ignore: Sequence[str] = (),
  file: str = CONFIG,
) -> bool:
  """Makes a work directory the home of one configuration.

  Args:
    workdir: the run's folder; created where missing.
    config: plain values, possibly nested, that decide what the run computes.
    ignore: names of entries that do not: differences in them are no fault.
      Names of nested entries are joined by dots; a name covers all below it.
    file: that keeps the configuration.

  Returns:
    True where the directory was claimed now, False where this configuration
    had claimed it before.

  Raises:
    WorkdirError: it belongs to another configuration, or to an unknown one.
    ValueError: `config` holds values that JSON does not know.
  """
  workdir = pathlib.Path(workdir)
  path = workdir / file
  try:
    text = json.dumps(config, indent=2, sort_keys=True)
  except TypeError as error:
    raise ValueError(
      f"config must hold plain values only (numbers, texts, lists): {error}"
    ) from error
  if not path.exists():
    if (workdir / "checkpoints").exists():
      raise WorkdirError(
        f"{workdir} holds checkpoints but no {file} to say of what; choose"
        " another workdir, or remove this one"
      )
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text + "\n")
    return True
  try:
    before = _flatten(json.loads(path.read_text()))
  except ValueError as error:
    raise WorkdirError(
      f"{path} cannot be read ({error}); choose another workdir, or restore"
      " this file"
    ) from error
  now = _flatten(json.loads(text))
  lines = []
  for name in sorted(before.keys() | now.keys()):
    if any(name == i or name.startswith(i + ".") for i in ignore):
      continue
    there, here = before.get(name, _ABSENT), now.get(name, _ABSENT)
    if there != here:
      part = name.removeprefix("networks.")
      lines.append(
        f"the networks of {part} differ"  # Two checksums say no more.
        if part != name
        else f"{name}: {_show(there)} there, {_show(here)} now"
      )
  if lines:
    raise WorkdirError(
      f"{workdir} holds a run of another configuration ({'; '.join(lines)});"
      " choose another workdir, or give the same as there"
    )
  return False


_ABSENT = object()


def _show(value):
  return "absent" if value is _ABSENT else json.dumps(value)


def _flatten(value, prefix=""):
  """Returns nested entries under names joined by dots."""
  if not isinstance(value, dict) or not value:
    return {prefix: value}
  flat = {}
  for name, entry in value.items():
    flat |= _flatten(entry, f"{prefix}.{name}" if prefix else name)
  return flat


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


def _save(path, tree, metadata):
  try:
    with _quiet():
      ocp.save(path, tree, custom_metadata=metadata)
  except Exception as error:
    if not _is_disk_full(error):
      raise
    for part in path.parent.iterdir():  # Give the space back.
      if not _is_whole(part):
        shutil.rmtree(part, ignore_errors=True)
    steps = _steps(path.parent)
    kept = (
      f"the one of step {max(steps)} is whole" if steps else "there is none"
    )
    raise CheckpointError(
      f"the disk is full: the checkpoint of step {path.name} does not fit into"
      f" {path.parent} (of the checkpoints before, {kept}). Free space there"
      " and start the same command again; it continues from the latest one"
    ) from error


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


def _is_disk_full(error: BaseException | None) -> bool:
  """Tells whether a full disk caused an error."""
  while error is not None:
    full = isinstance(error, OSError) and error.errno in (
      errno.ENOSPC,
      errno.EDQUOT,
    )
    text = str(error).lower()
    if full or "no space left on device" in text or "disk quota" in text:
      return True
    error = error.__cause__ or error.__context__
  return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Silences what Orbax logs about a checkpoint; its errors are raised."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)
  try:
    yield
  finally:
    logging.set_verbosity(before)
