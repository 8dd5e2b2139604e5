"""Reads the files of a zoo, and says in one line what is wrong with them.

The format is described in `store`. Every function takes the folder to read,
`path`, and what errors call it, `name`.

Dimensions: `M` members of a zoo, `N` rows of a weights file, `P` weights.
"""

import functools
import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from sne_jax import digests, errors
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.store import correct, files, masks, splits, tables

FORMAT = "sne_jax zoo"
VERSION = 2
"""From 2 on the index names the splits, and seals itself (`digests`)."""

INDEX_FILE = "zoo.json"
MEMBERS_FILE = "members.parquet"
SPLITS_FILE = "splits.parquet"
SPLITS_KEY = "splits"
"""Of their entry in the index; zoos of version 1 have none."""

OWN_COLUMNS = ("id", "spec", "row", "valid")
SPLIT_COLUMNS = ("split", "id", "part")
FOREIGN = "point to the folder of a zoo written by sne_jax"


def read_index(path: str, name: str) -> dict[str, Any]:
  """Reads `zoo.json` and checks that it has the fields that we need.

  Raises:
    ZooError: it is not what was written, or no index.
  """
  bad = functools.partial(errors.fault, name, INDEX_FILE)

  try:
    with open(os.path.join(path, INDEX_FILE), encoding="utf-8") as file:
      index = json.load(file)
  except (FileNotFoundError, NotADirectoryError) as error:
    raise bad("file is missing", FOREIGN) from error
  except ValueError as error:
    raise bad(f"not JSON ({error})") from error
  if not isinstance(index, dict) or index.get("format") != FORMAT:
    raise bad(f"not the index of a zoo (format is not {FORMAT!r})", FOREIGN)
  version = index.get("version")
  if not isinstance(version, int) or version < 1:
    raise bad(f"format version is {version!r}")
  if version > VERSION:
    raise bad(
      f"format version {version}, this sne_jax reads up to {VERSION}",
      "install a newer sne_jax",
    )
  if version > 1 or digests.SEAL in index:
    try:
      index = digests.unsealed(index)
    except ValueError as error:
      raise bad(str(error)) from error
  fields = {"specs": list, "members": dict, "properties": dict}
  for key, kind in (fields | {"provenance": dict, "licence": str}).items():
    if not isinstance(index.get(key), kind):
      raise bad(f"field {key!r} is missing or no {kind.__name__}")
  counts = [(index["members"], "count")]
  optional = {correct.KEY: "images", masks.KEY: "weights", SPLITS_KEY: "rows"}
  for key, count in optional.items():
    if key in index:
      entry = index[key]
      counts.append((entry if isinstance(entry, dict) else {}, count))
  for entry in index["specs"]:
    weights = entry.get("weights") if isinstance(entry, dict) else None
    counts.append((weights if isinstance(weights, dict) else {}, "rows"))
  for entry, key in counts:
    file = entry.get("file")
    if not isinstance(file, str) or file in ("", ".", "..") or "/" in file:
      raise bad(f"{file!r} is no name of a file in the folder")
    if not isinstance(entry.get(key), int):
      raise bad(f"{file}: {key!r} is {entry.get(key)!r}")
    if not isinstance(entry.get("sha256"), str):
      raise bad(f"{file}: 'sha256' is {entry.get('sha256')!r}")
  for key, entry in index["properties"].items():
    if key in OWN_COLUMNS or not isinstance(entry, dict):
      raise bad(f"property {key!r} is not described rightly")
  return index


def read_specs(name: str, index) -> tuple[spec_lib.NetworkSpec, ...]:
  """Reads the specs of an index."""
  specs = []
  for number, entry in enumerate(index["specs"]):
    try:
      specs.append(spec_lib.NetworkSpec.from_json(entry.get("spec")))
    except (ValueError, AttributeError) as error:
      raise errors.fault(name, INDEX_FILE, f"spec {number}: {error}") from error
  return tuple(specs)


def map_weights(path: str, name: str, spec, entry) -> np.ndarray:
  """Maps a weights file and checks its size and shape."""
  bad = functools.partial(errors.fault, name, entry["file"])
  file = os.path.join(path, entry["file"])
  if not os.path.exists(file):
    raise bad("file is missing")
  try:
    rows = files.map_rows(file)
  except errors.CheckpointError as error:
    raise bad(error.problem) from error
  due = (entry["rows"], spec.num_weights)
  if rows.shape != due:
    raise bad(f"shape is {rows.shape} where {due} is due")
  return rows


def check_digest(path: str, name: str, entry) -> None:
  """Compares the checksum of a short file."""
  try:
    digest = digests.of_file(os.path.join(path, entry["file"]))
  except FileNotFoundError as error:
    raise errors.fault(name, entry["file"], "file is missing") from error
  _compare(name, entry, digest)


def _compare(name: str, entry, digest: str) -> None:
  if digest != entry["sha256"]:
    raise errors.fault(
      name,
      entry["file"],
      f"contents changed: SHA-256 is {digest[:12]}..., {INDEX_FILE} says"
      f" {entry['sha256'][:12]}...",
    )


def read_members(path: str, name: str, index) -> dict[str, np.ndarray]:
  """Reads the members' columns `[M]` and checks them against the index."""
  entry = index["members"]
  file = entry["file"]
  bad = functools.partial(errors.fault, name, file)
  columns = [*OWN_COLUMNS, *index["properties"]]
  members = tables.read_table(path, name, file, columns)
  for column, kind in zip(OWN_COLUMNS, "Uiib", strict=True):
    dtype = members[column].dtype
    if dtype.kind != kind:
      raise bad(f"column {column!r} is of type {dtype}")
  ids = members["id"]
  if len(ids) != entry["count"]:
    raise bad(f"{len(ids)} rows where {entry['count']} are due")
  unique, counts = np.unique(ids, return_counts=True)
  if (counts > 1).any():
    raise bad(
      f"ids occur more than once: {listed(unique[counts > 1])}",
      "give every member an id of its own",
    )
  _check_rows(name, file, index, members)
  return members


def _check_rows(name: str, file: str, index, members) -> None:
  """Checks that every member's spec and row exist."""
  bad = functools.partial(errors.fault, name, file)
  rows = np.array([entry["weights"]["rows"] for entry in index["specs"]])
  spec, row, ids = members["spec"], members["row"], members["id"]
  wrong = np.flatnonzero((spec < 0) | (spec >= len(rows)))
  if wrong.size:
    raise bad(
      f"member {ids[wrong[0]]!r} has spec {spec[wrong[0]]}; there are"
      f" {len(rows)} specs"
    )
  wrong = np.flatnonzero((row < 0) | (row >= rows[spec]))
  if wrong.size:
    first = wrong[0]
    raise bad(
      f"member {ids[first]!r} has row {row[first]};"
      f" {index['specs'][spec[first]]['weights']['file']} has"
      f" {rows[spec[first]]} rows"
    )


def check_weights(
  path: str,
  name: str,
  number: int,
  entry,
  rows: Float[np.ndarray, "N P"],
  members: dict[str, np.ndarray],
) -> None:
  """Goes through one weights file: its checksum, and finite where valid."""
  digest, finite = files.scan_rows(os.path.join(path, entry["file"]), rows)
  _compare(name, entry, digest)
  mine = np.flatnonzero(members["valid"] & (members["spec"] == number))
  bad = mine[~finite[members["row"][mine]]]
  if bad.size:
    raise errors.fault(
      name,
      entry["file"],
      f"weights of {bad.size} valid members are NaN or infinite:"
      f" {listed(members['id'][bad])}",
      "mark these members as not valid",
    )


def read_splits(
  path: str, name: str, index, ids: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
  """Reads the splits: for each, the member numbers of its parts, ascending."""
  file = SPLITS_FILE
  if SPLITS_KEY in index:
    file = index[SPLITS_KEY]["file"]
    check_digest(path, name, index[SPLITS_KEY])
  table = tables.read_table(path, name, file, SPLIT_COLUMNS)
  for column in SPLIT_COLUMNS:
    if table[column].dtype.kind != "U":
      raise errors.fault(name, file, f"column {column!r} is not of strings")
  by_name = {}
  for split in np.unique(table["split"]):
    rows = table["split"] == split
    pairs = {
      part: table["id"][rows & (table["part"] == part)]
      for part in np.unique(table["part"][rows])
    }
    by_name[str(split)] = check_split(name, str(split), pairs, ids)
  return by_name


def check_split(
  name: str, split: str, parts, ids: np.ndarray
) -> dict[str, np.ndarray]:
  """Checks the parts of a split; returns their member numbers, ascending.

  Args:
    name: what errors call the folder.
    split: name of the split.
    parts: for each part, its member ids.
    ids: all member ids `[M]`, unique.
  """
  bad = functools.partial(errors.fault, name, SPLITS_FILE)
  what = f"split {split!r}"
  unknown = [part for part in parts if part not in splits.PARTS]
  if unknown or not parts:
    raise bad(
      f"{what} has {f'part {unknown[0]!r}' if unknown else 'no parts'}",
      f"parts are {', '.join(splits.PARTS)}",
    )
  order = np.argsort(ids)
  numbers = {}
  for part in sorted(parts, key=splits.PARTS.index):
    wanted = np.asarray(parts[part], dtype=str)
    places = np.searchsorted(ids, wanted, sorter=order)
    numbers[part] = order[np.minimum(places, len(ids) - 1)].astype(np.int64)
    missing = wanted[ids[numbers[part]] != wanted]
    if missing.size:
      raise bad(
        f"{what}, part {part!r} names {missing.size} missing members:"
        f" {listed(missing)}",
        f"name members that {MEMBERS_FILE} has",
      )
  unique, counts = np.unique(
    np.concatenate(list(numbers.values())), return_counts=True
  )
  if (counts > 1).any():
    raise bad(
      f"{what} has {(counts > 1).sum()} members more than once:"
      f" {listed(ids[unique[counts > 1]])}",
      "put every member into one part, once",
    )
  return {part: np.sort(some) for part, some in numbers.items()}


def listed(names: Iterable, most: int = 5) -> str:
  """Returns names for a message: the first few, and how many more."""
  texts = [repr(str(name)) for name in names]
  shown, more = ", ".join(texts[:most]), len(texts) - most
  return (shown or "none") + (f" and {more} more" if more > 0 else "")
