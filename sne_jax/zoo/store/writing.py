"""Writes zoos, all or nothing; the format is described in `store`.

Dimensions: `M` members of a zoo, `N` rows of a weights file, `P` weights.
"""

import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax import atomic, digests, errors, room, version
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.store import correct, files, lock, reading, store, tables
from sne_jax.zoo.store import masks as masks_lib

_PASSING = re.compile(
  r"(members|splits)(-\w+)?\.parquet|(correct|masks)-\w+\.safetensors|\..+\.tmp"
)
"""Files of which a zoo has only those that its index names."""


class Property(NamedTuple):
  """A property of the members, to be written."""

  values: np.ndarray | Sequence  # [M] of float, int, bool or str.
  description: str
  units: str = ""


def write_zoo(
  path: str | os.PathLike,
  *,
  specs: Sequence[spec_lib.NetworkSpec],
  weights: Sequence[Any],  # Arrays; of several specs, so no one N and P.
  ids: Sequence[str] | np.ndarray,
  spec_numbers: Sequence[int] | np.ndarray | None = None,
  rows: Sequence[int] | np.ndarray | None = None,
  valid: Sequence[bool] | np.ndarray | None = None,
  properties: Mapping[str, Property] | None = None,
  splits: Mapping[str, Mapping[str, Sequence[str] | np.ndarray]] | None = None,
  provenance: Mapping[str, Any] | None = None,
  licence: str = "unknown",
  right: correct.Correct | None = None,
  masks: masks_lib.Masks | None = None,
  staging: str | os.PathLike | None = None,
) -> store.Zoo:
  """Writes a zoo: all of it, or nothing. Equal inputs give equal bytes.

  The files are written into a folder beside `path`, checked as `Zoo.open`
  checks them, and moved into place by one rename.

  Args:
    path: folder to make. May exist if it is empty.
    specs: the architectures.
    weights: for each spec its networks `[N, P]`; written in blocks, so memory
      maps are fine, and so is what has a shape and slices to arrays.
    ids: `[M]` a name for every member, unique, that never changes.
    spec_numbers: `[M]` place in `specs`; may be left out if there is one.
    rows: `[M]` row in the weights of the spec; may be left out if there is one
      spec, and members are in the order of its rows.
    valid: `[M]` False where training diverged, default True. Only valid
      members must have finite weights.
    properties: what is known of the members.
    splits: for each split and part, ids; see also `splits.random_split`.
    provenance: how the zoo came to be, plain values; no dates, so that making
      it anew gives the same bytes.
    licence: of the data.
    right: which test images each member classifies rightly.
    masks: which weights of each member are kept; of one spec.
    staging: folder to write in, on the same file system as `path`; what is
      there is removed. Default: a new one.

  Returns:
    The zoo, opened.

  Raises:
    ZooError: `path` holds something, or what is given is no valid zoo.
  """
  path = os.path.abspath(path)
  count = len(ids)
  _check(path, specs, weights, count, spec_numbers, rows)
  columns = {
    "id": np.array([str(name) for name in ids], str),
    "spec": _integers(spec_numbers, np.zeros(count)),
    "row": _integers(rows, np.arange(count)),
    "valid": np.asarray(np.ones(count) if valid is None else valid, bool),
  }
  columns |= _property_columns(path, properties or {})
  for name, values in columns.items():
    if values.shape != (count,):
      raise errors.fault(
        path,
        reading.MEMBERS_FILE,
        f"column {name!r} has shape {values.shape}",
        f"give one value for each of the {count} members",
      )
  staged = os.fspath(staging or f"{path}.writing-{secrets.token_hex(4)}")
  shutil.rmtree(staged, ignore_errors=True)
  os.makedirs(staged)
  try:
    index = {
      "format": reading.FORMAT,
      "version": reading.VERSION,
      "sne_jax": version.VERSION,
      "specs": [
        _write_weights(path, staged, number, spec, array)
        for number, (spec, array) in enumerate(zip(specs, weights, strict=True))
      ],
      "properties": {
        name: {"description": item.description, "units": item.units}
        for name, item in (properties or {}).items()
      },
      "provenance": dict(provenance or {}),
      "licence": licence,
    }
    index["members"] = _write_members(staged, reading.MEMBERS_FILE, columns)
    if right is not None:
      index[correct.KEY] = correct.write(staged, right)
    if masks is not None:
      index[masks_lib.KEY] = masks_lib.write(staged, masks)
    numbered = {
      name: reading.check_split(path, name, parts, columns["id"])
      for name, parts in (splits or {}).items()
    }
    rows = _split_rows(numbered, columns["id"])
    index[reading.SPLITS_KEY] = _write_splits(staged, reading.SPLITS_FILE, rows)
    _write_index(staged, index)
    store.read_zoo(staged, name=path, verify=True)
    try:
      os.rename(staged, path)
    except OSError as error:
      if room.shortage(error) is not None:
        raise
      raise errors.fault(
        path, "", f"cannot be made ({error.strerror})", "choose another folder"
      ) from error
  finally:
    shutil.rmtree(staged, ignore_errors=True)
  atomic.sync_folder(os.path.dirname(path))
  return store.Zoo.open(path, verify=False)


def add_split(
  path: str | os.PathLike,
  name: str,
  parts: Mapping[str, Sequence[str] | np.ndarray],
  *,
  replace: bool = False,
) -> store.Zoo:
  """Adds a split to a zoo on disk; returns the zoo, opened anew.

  Whenever it is killed, the zoo is the old one or the new one.

  Args:
    path: folder of the zoo.
    name: of the split.
    parts: for each part its member ids, as `splits.random_split` gives them.
    replace: whether a split of that name may be replaced by another. Adding
      the same one again does nothing.

  Raises:
    ZooError: the split exists and differs, names a member that is missing, or
      has a member twice.
  """
  path = os.path.abspath(path)
  with lock.folder_lock(path):
    zoo = store.Zoo.open(path, verify=False)
    ids = zoo.members["id"]
    numbers = reading.check_split(path, name, parts, ids)
    old_splits = {n: zoo.split(n, invalid=True) for n in zoo.splits}
    old = old_splits.get(name)
    if old is not None and not replace and not _same_parts(old, numbers):
      raise errors.fault(
        path,
        reading.SPLITS_FILE,
        f"another split {name!r} exists",
        "choose another name, or replace it (replace=True)",
      )
    if old is not None and _same_parts(old, numbers):
      _tidy(path, reading.read_index(path, path))
      return zoo
    rows = _split_rows(old_splits | {name: numbers}, ids)
    index = reading.read_index(path, path)
    index[reading.SPLITS_KEY] = _replace_splits(path, index, rows)
    _write_index(path, index)
    return store.Zoo.open(path, verify=False)


def relabel(
  path: str | os.PathLike,
  right: correct.Correct,
  properties: Mapping[str, np.ndarray],
) -> store.Zoo:
  """Writes anew what was measured of the members; returns the zoo, opened.

  Weights and splits stay. Whenever it is killed, the zoo is the old one or the
  new one.

  Args:
    path: folder of the zoo.
    right: which test images each member classifies rightly.
    properties: new values `[M]` of some that the zoo has; none: they stay.

  Raises:
    ZooError: another process writes here, or the zoo has no such property.
    ValueError: arrays of other shapes.
  """
  path = os.path.abspath(path)
  with lock.folder_lock(path):
    zoo = store.Zoo.open(path, verify=False)
    columns = dict(zoo.members)
    for name, values in properties.items():
      old = zoo.property(name)
      new = tables.plain_column(path, reading.MEMBERS_FILE, name, values)
      if new.shape != old.shape or len(right.packed) != len(zoo):
        raise ValueError(
          f"{len(right.packed)} rows of bits and {name} {new.shape} for the"
          f" {len(zoo)} members of {path}"
        )
      columns[name] = new
    index = reading.read_index(path, path)
    index[correct.KEY] = correct.write(path, right)
    if properties:
      # A name of its own: until the index names it, the old one is in use.
      content = b"".join(columns[name].tobytes() for name in properties)
      file = _new_name(index, "members", content)
      index["members"] = _write_members(path, file, columns)
    if reading.SPLITS_KEY not in index:  # A zoo of version 1.
      old = {name: zoo.split(name, invalid=True) for name in zoo.splits}
      rows = _split_rows(old, columns["id"])
      index[reading.SPLITS_KEY] = _replace_splits(path, index, rows)
    _write_index(path, index)
    return store.Zoo.open(path, verify=False)


def _check(path: str, specs, weights, count: int, spec_numbers, rows) -> None:
  """Refuses a folder that holds something, and arguments that do not fit."""
  if os.path.exists(path) and not (
    os.path.isdir(path) and not os.listdir(path)
  ):
    raise errors.fault(
      path, "", "something is there already", "remove it or choose another"
    )
  if len(weights) != len(specs) or not count:
    raise errors.fault(
      path,
      "",
      f"{len(specs)} specs, {len(weights)} weights, {count} members given",
      "give weights for every spec, and at least one member",
    )
  if len(specs) > 1 and (spec_numbers is None or rows is None):
    raise errors.fault(
      path, "", f"{len(specs)} specs given", "give spec_numbers and rows too"
    )


def _property_columns(
  path: str, properties: Mapping[str, Property]
) -> dict[str, np.ndarray]:
  """Returns the values of properties `[M]`, of plain types."""
  for name in properties:
    if name in reading.OWN_COLUMNS:
      raise errors.fault(
        path,
        reading.MEMBERS_FILE,
        f"no property can be called {name!r}",
        f"names taken are {', '.join(reading.OWN_COLUMNS)}",
      )
  return {
    name: tables.plain_column(path, reading.MEMBERS_FILE, name, item.values)
    for name, item in properties.items()
  }


def _same_parts(one, other) -> bool:
  """Whether two splits have the same members in each part that has any."""
  none = np.zeros(0, np.int64)
  return all(
    np.array_equal(one.get(part, none), other.get(part, none))
    for part in (*one, *other)
  )


def _integers(values, default: np.ndarray) -> np.ndarray:
  return np.asarray(default if values is None else values).astype(np.int64)


def _write_weights(
  path: str, staged: str, number: int, spec: spec_lib.NetworkSpec, array
) -> dict[str, Any]:
  """Writes one weights file; returns its entry in the index."""
  file = f"weights-{number}.safetensors"
  if array.ndim != 2 or array.shape[1] != spec.num_weights:
    raise errors.fault(
      path,
      file,
      f"array of shape {tuple(array.shape)} given",
      f"give [N, {spec.num_weights}], the weights of {spec.describe()}",
    )
  digest = files.write_rows(os.path.join(staged, file), array)
  weights = {"file": file, "rows": len(array), "sha256": digest}
  return {"spec": spec.to_json(), "weights": weights}


def _write_members(folder: str, file: str, columns) -> dict[str, Any]:
  """Writes the columns of the members; returns their entry in the index."""
  path = os.path.join(folder, file)
  tables.write_table(path, columns)
  digest = digests.of_file(path)
  return {"file": file, "count": len(columns["id"]), "sha256": digest}


def _split_rows(numbered, ids: np.ndarray) -> np.ndarray:
  """Returns splits, given as member numbers, as rows of `SPLIT_COLUMNS`."""
  table = [
    (split, str(ids[number]), part)
    for split, parts in sorted(numbered.items())
    for part, numbers in parts.items()
    for number in numbers
  ]
  return np.array(table, dtype=str).reshape(-1, 3)


def _write_splits(folder: str, file: str, rows: np.ndarray) -> dict[str, Any]:
  """Writes the splits; returns their entry in the index."""
  path = os.path.join(folder, file)
  columns = zip(reading.SPLIT_COLUMNS, rows.T, strict=True)
  tables.write_table(path, dict(columns))
  return {"file": file, "rows": len(rows), "sha256": digests.of_file(path)}


def _replace_splits(path: str, index: dict[str, Any], rows: np.ndarray):
  """Writes splits beside those in use; returns their entry in the index."""
  content = repr(rows.tolist()).encode()
  return _write_splits(
    path, _new_name(index, reading.SPLITS_KEY, content), rows
  )


def _new_name(index: dict[str, Any], key: str, content: bytes) -> str:
  """Returns a name for a table of other content than the one in use."""
  before = index.get(key, {}).get("sha256", "")
  return f"{key}-{digests.of_bytes(before.encode() + content)[:12]}.parquet"


def _write_index(path: str, index: dict[str, Any]) -> None:
  """Replaces the index; then removes files that it names no more.

  All that it names has to be there: this is the moment when a zoo changes.
  """
  index = digests.sealed(index | {"version": reading.VERSION})
  atomic.write_json(os.path.join(path, reading.INDEX_FILE), index)
  _tidy(path, index)


def _tidy(path: str, index: dict[str, Any]) -> None:
  """Removes what kills have left, and what the index names no more."""
  if reading.SPLITS_KEY not in index:
    return  # Of version 1: its splits are in use.
  keys = ("members", reading.SPLITS_KEY, correct.KEY, masks_lib.KEY)
  named = {index[key]["file"] for key in keys if key in index}
  for file in os.listdir(path):
    if file not in named and _PASSING.fullmatch(file):
      os.remove(os.path.join(path, file))
