"""Compares what two runs have left: to the bit, but for their clocks.

A stray file is one that the unbroken run has not, by its name; names with a
time in them (TensorBoard's events, which a resume adds to) count as one.
"""

import io
import json
import pathlib
import re

import numpy as np

CLOCKS = re.compile(
  r"time/.*|.*seconds.*|networks_per_second|costs|sha256|revision|_timestamp_nsecs"
)
"""Fields of clocks, and digests of what holds some."""

OF_ORBAX = ("_CHECKPOINT_METADATA", "commit_success.txt", "orbax.checkpoint")
OF_TIME = re.compile(r"second|\[s\]|\btrain s\b|networks/s|revision")
PASSING = re.compile(r"events\.out\.tfevents.*")
UNSURE = re.compile(r"costs\.png|report\.html|zoo\.log|log\.txt|study\.journal")
"""Files that hold times, or tell what has happened."""


def difference(one: pathlib.Path, other: pathlib.Path) -> list[str]:
  """Returns how two folders differ, in one line for each file.

  Args:
    one: a copy of what an unbroken run has left, at the same path as `other`.
    other: the folder in question.
  """
  first, second = names(one), names(other)
  said = [f"stray: {name}" for name in sorted(second.keys() - first.keys())]
  said += [f"missing: {name}" for name in sorted(first.keys() - second.keys())]
  for name in sorted(first.keys() & second.keys()):
    if UNSURE.fullmatch(name.rpartition("/")[2]):
      continue
    try:
      values = content(first[name]), content(second[name])
    except Exception as error:  # noqa: BLE001
      said.append(f"unreadable: {name} ({error})")
      continue
    if values[0] != values[1]:
      said.append(f"differs: {name}")
  return said


def names(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the files of a folder, and its empty folders, by their names.

  The files of a checkpoint count as one: only its digest of values does.
  """
  found = {}
  for path in sorted(folder.rglob("*")):
    name = path.relative_to(folder).as_posix()
    inside = re.match(r"(.*checkpoints/\w+/\d+)/", name)
    if inside:
      found[inside[1]] = folder / inside[1]
    elif PASSING.fullmatch(path.name):
      found[f"{pathlib.PurePosixPath(name).parent}/events"] = path
    elif path.is_file() or not any(path.iterdir()):
      found[name] = path
  return found


def content(path: pathlib.Path):
  """Returns what a file holds, without clocks."""
  if path.is_dir():
    return _checkpoint(path) if path.name.isdecimal() else None
  if PASSING.fullmatch(path.name) or path.name == "sha256.json":
    return None  # Digests are of files that are compared themselves.
  data = path.read_bytes()
  if path.suffix == ".npz":
    with np.load(io.BytesIO(data)) as archive:
      return {k: (v.dtype.str, v.tobytes()) for k, v in archive.items()}
  if path.suffix == ".json":
    return _plain(json.loads(data))
  if path.suffix == ".jsonl":
    return [_plain(json.loads(line)) for line in data.splitlines()]
  if path.suffix in (".md", ".csv"):
    return _without_clocks(data.decode())
  return data


def _checkpoint(path: pathlib.Path):
  """Returns the values of a checkpoint, and what it says of them."""
  import jax
  from orbax.checkpoint.experimental import v1 as ocp

  loaded = jax.tree.leaves_with_path(ocp.load(path))
  said = _plain(dict(ocp.metadata(path).custom_metadata or {}))
  values = []
  for place, leaf in loaded:
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    values.append((str(place), np.asarray(leaf).tobytes()))
  return values, said


def _plain(value):
  """Returns nested values without their clocks; their order counts."""
  if isinstance(value, dict):
    return [(k, _plain(v)) for k, v in value.items() if not CLOCKS.fullmatch(k)]
  return [_plain(v) for v in value] if isinstance(value, list) else value


def _without_clocks(text: str) -> str:
  """Returns a report without the rows and columns of its tables of times."""
  kept = []
  for block in text.split("\n\n"):
    rows = [[cell.strip() for cell in l.split("|")] for l in block.splitlines()]
    timed = [bool(OF_TIME.search(cell)) for cell in (rows or [[]])[0]]
    for row in rows:
      if len(row) != len(timed) or not any(timed):
        kept += [] if OF_TIME.search("|".join(row[:2])) else [row]
      else:
        kept.append([c for c, t in zip(row, timed, strict=True) if not t])
  return "\n".join(
    "|".join(row) for row in kept if set("".join(row)) - set("-:")
  )
