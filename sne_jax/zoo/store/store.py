"""A zoo on disk: many trained networks, their properties, and splits.

A zoo is a folder of plain data, nothing in which can run code:

- `zoo.json`: format version, specs, what the properties mean, provenance,
  licence, and the SHA-256 of the files below, and of all this;
- `weights-<k>.safetensors`: the networks of spec `k`, float32 `[N, P]`;
- `members.parquet`: for each member its id, spec, row in the weights file,
  whether it is valid, and its properties;
- `splits.parquet` (`splits-<digest>.parquet` since a split was added): which
  member is in which part of which split;
- `correct-<digest>.safetensors`, of classifiers: which test images each member
  classifies rightly (`correct`). Older zoos have none.
- `masks-<digest>.safetensors`, of tickets: which weights are kept (`masks`).

Zoos of version 1 are read too; they know no SHA-256 of splits and of `zoo.json`
itself, until a split is added or they are labelled anew.

Dimensions: `M` members of a zoo, `N` rows of a weights file, `P` weights.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sne_jax import errors
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.store import correct, frames, reading
from sne_jax.zoo.store import masks as masks_lib


class Zoo:
  """A zoo, opened for reading. Made by `Zoo.open`.

  Attributes:
    path: its folder.
    specs: `NetworkSpec` of each weights file.
    members: columns `[M]` by name: `id` (str), `spec` (int64, place in
      `specs`), `row` (int64, in the weights file), `valid` (bool, False where
      training diverged) and the properties (float64, int64, bool or str). A
      *member number* is a place in these columns.
    properties: for each property its `description` and `units`.
    provenance: how the zoo came to be, plain values.
    licence: of the data, as an SPDX identifier or words.
    correct: which test images each member classifies rightly; None where the
      zoo does not say. `make_zoo.py --label_images=N` adds it.
    masks: which weights of each member are kept; None where there are no masks.
  """

  def __init__(self, path: str, index: dict[str, Any]):
    """Holds what the index says; `read_zoo` adds the rest."""
    self.path = path
    self.specs: tuple[spec_lib.NetworkSpec, ...] = ()
    self.members: dict[str, np.ndarray] = {}
    self.properties: dict[str, dict[str, str]] = index["properties"]
    self.provenance: dict[str, Any] = index["provenance"]
    self.licence: str = index["licence"]
    self.correct: correct.Correct | None = None
    self.masks: masks_lib.Masks | None = None
    self._weights: list[np.ndarray] = []
    self._splits: dict[str, dict[str, np.ndarray]] = {}

  @classmethod
  def open(cls, path: str | os.PathLike, *, verify: bool = True) -> "Zoo":
    """Opens a zoo; weights are mapped, not read.

    Args:
      path: the folder.
      verify: whether to go once through all weights, in blocks, comparing
        checksums and looking for weights that are not finite. What is not as
        long as the weights is checked in any case.

    Raises:
      ZooError: the zoo is missing, damaged, or of a newer version. One line
        that names folder, file, value and remedy.
    """
    return read_zoo(os.fspath(path), name=os.fspath(path), verify=verify)

  def __len__(self) -> int:
    """Number of members."""
    return len(self.members["id"])

  def __repr__(self) -> str:
    """One line with the folder and the sizes."""
    return f"Zoo({self.path!r}: {len(self)} members, {len(self.specs)} specs)"

  @property
  def splits(self) -> tuple[str, ...]:
    """Names of the splits."""
    return tuple(self._splits)

  def weights(self, spec_number: int = 0) -> Float[np.ndarray, "N P"]:
    """Returns the weights file of a spec, mapped and read-only, by row.

    Raises:
      ZooError: no such spec.
    """
    if not 0 <= spec_number < len(self.specs):
      raise errors.fault(
        self.path,
        reading.INDEX_FILE,
        f"no spec {spec_number}",
        f"specs are 0 to {len(self.specs) - 1}",
      )
    return self._weights[spec_number]

  def vectors(
    self, members: Int[np.ndarray, "B"] | Sequence[int]
  ) -> list[np.ndarray]:
    """Returns the weights `[P]` of members of any specs, mapped, read-only."""
    spec, row = self.members["spec"], self.members["row"]
    return [self._weights[spec[m]][row[m]] for m in members]

  def property(self, name: str) -> np.ndarray:
    """Returns a property `[M]`, float64, int64, bool or str.

    Raises:
      ZooError: no such property; lists those there are.
    """
    self._need(name, self.properties, "property", reading.MEMBERS_FILE)
    return self.members[name]

  def split(self, name: str, *, invalid: bool = False) -> dict[str, np.ndarray]:
    """Returns the member numbers of every part of a split, ascending.

    Args:
      name: of the split.
      invalid: whether to include members that are not valid.

    Raises:
      ZooError: no such split; lists those there are.
    """
    more = "; add_split adds one"
    self._need(name, self._splits, "split", reading.SPLITS_FILE, more)
    valid = self.members["valid"]
    return {
      part: numbers if invalid else numbers[valid[numbers]]
      for part, numbers in self._splits[name].items()
    }

  def select(
    self,
    *,
    spec: int | None = None,
    split: str | None = None,
    part: str | None = None,
    invalid: bool = False,
    where: Mapping[str, Any] | None = None,
  ) -> Int[np.ndarray, "B"]:
    """Returns the numbers of the members that meet all conditions, ascending.

    Args:
      spec: only members of this spec.
      split: only members that are in this split; with `part`, in that part.
      part: train, val or test; needs `split`.
      invalid: whether to include members that are not valid.
      where: only members whose property equals the value, or is one of a
        list of values; for example `{"dataset": "mnist"}`.

    Raises:
      ZooError: unknown spec, split, part or property.
    """
    keep = np.ones(len(self), bool) if invalid else self.members["valid"].copy()
    if spec is not None:
      self.weights(spec)
      keep &= self.members["spec"] == spec
    if split is None and part is not None:
      raise errors.fault(
        self.path, "", f"part {part!r} of no split", "name one"
      )
    if split is not None:
      parts = self.split(split, invalid=True)
      if part is not None:
        of = f" in split {split!r}"
        self._need(part, parts, "part", reading.SPLITS_FILE, of)
      chosen = [parts[part]] if part is not None else list(parts.values())
      keep &= np.isin(np.arange(len(self)), np.concatenate(chosen))
    for name, value in (where or {}).items():
      keep &= np.isin(self.property(name), value)
    return np.flatnonzero(keep)

  def to_frame(self, library: str = "pandas") -> Any:
    """Returns the members as a data frame, without their weights.

    Beside `id`, `valid` and the properties there are `spec`, `architecture` (of
    the spec), `parameters`, and for each split a column `split NAME` with the
    part of each member, empty where it is in none.

    Args:
      library: pandas, polars, or arrow for a `pyarrow.Table`.

    Raises:
      ValueError: another library, or one that is not installed.
    """
    columns = {n: v for n, v in self.members.items() if n != "row"}
    spec = self.members["spec"]
    columns["architecture"] = np.array([s.family for s in self.specs])[spec]
    sizes = np.array([s.num_parameters for s in self.specs], np.int64)
    columns["parameters"] = sizes[spec]
    for name in self.splits:
      part_of = np.full(len(self), "", object)
      for part, numbers in self.split(name, invalid=True).items():
        part_of[numbers] = part
      columns[f"split {name}"] = part_of
    return frames.frame(columns, library)

  def _need(self, name, known, what: str, file: str, more: str = "") -> None:
    """Raises `ZooError` unless a name is known."""
    if name not in known:
      remedy = f"there are {reading.listed(known)}{more}"
      raise errors.fault(self.path, file, f"no {what} {name!r}", remedy)


def read_zoo(path: str, *, name: str, verify: bool) -> Zoo:
  """Reads and checks a zoo; see `Zoo.open`.

  Args:
    path: the folder.
    name: what errors call the folder.
    verify: see `Zoo.open`.
  """
  index = reading.read_index(path, name)
  while True:
    try:
      return _read(path, name, index, verify)
    except errors.ZooError:
      before, index = index, reading.read_index(path, name)
      if index == before:  # Nobody has written it anew meanwhile.
        raise


def _read(path: str, name: str, index: dict[str, Any], verify: bool) -> Zoo:
  """Reads and checks what an index names."""
  zoo = Zoo(path, index)
  zoo.specs = reading.read_specs(name, index)
  entries = [entry["weights"] for entry in index["specs"]]
  for spec, entry in zip(zoo.specs, entries, strict=True):
    zoo._weights.append(reading.map_weights(path, name, spec, entry))
  reading.check_digest(path, name, index["members"])
  zoo.members = reading.read_members(path, name, index)
  if correct.KEY in index:
    entry = index[correct.KEY]
    reading.check_digest(path, name, entry)
    zoo.correct = correct.read(path, name, entry, len(zoo))
  if masks_lib.KEY in index:
    entry = index[masks_lib.KEY]
    reading.check_digest(path, name, entry)
    shape = (len(zoo), zoo.specs[0].num_weights)
    zoo.masks = masks_lib.read(path, name, entry, shape)
  zoo._splits = reading.read_splits(path, name, index, zoo.members["id"])
  if verify:
    for number, entry in enumerate(entries):
      rows = zoo._weights[number]
      reading.check_weights(path, name, number, entry, rows, zoo.members)
  return zoo
