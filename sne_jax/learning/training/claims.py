"""Claims of work directories: each holds one run, and a file says which.

Dimensions: none.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sne_jax import digests
from sne_jax.atomic import write_atomically

CONFIG = "config.json"


class WorkdirError(ValueError):
  """A work directory belongs to another configuration."""


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
    DamagedError: the file is not what was written.
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
  digests.check(workdir, (file,))
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
