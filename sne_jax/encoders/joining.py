"""Joined batches: tables of any networks end to end, for any encoder.

What an encoder wants to know of a network is a few tables (its weights, its
tensors, its neurons, its edges, ...) made from the spec alone. A batch lays
the tables of its networks end to end. A column may name rows of another table:
such numbers are moved along. Counts are rounded up to `buckets` sizes, so the
number of compilations is bounded; padding rows name a row beyond the end,
which sums over segments leave out. A batch of one spec has no padding.

Two tables are always there: `weights` and `networks`. A table whose rows are
wanted network by network comes as `sets`, padded rectangles.

Dimensions: `T` weights of the batch, `B` networks, `P` weights of one.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax.encoders import buckets, rectangles
from sne_jax.encoders.rectangles import Sets
from sne_jax.networks.spec import NetworkSpec


class Joined(NamedTuple):
  """A batch of networks of any specs."""

  weights: Any  # float32 [T], 0 behind the last network
  tables: dict[str, dict[str, Any]]  # columns, and `real` [rows], by table
  sets: dict[str, tuple[Sets, ...]]  # rows of each network, by size
  order: dict[str, Any]  # int32 [B], the place of each network among sets

  @property
  def room(self) -> int:
    """Length of `weights`, padding included."""
    return self.tables["weights"]["real"].shape[-1]


@dataclasses.dataclass(frozen=True)
class Part:
  """What a network brings: by table and column, an array of as many rows."""

  tables: dict[str, dict[str, np.ndarray]]

  def rows(self, table: str) -> int:
    """Number of rows of a table."""
    return len(next(iter(self.tables[table].values())))


class Sizes(NamedTuple):
  """Rows of every table of a batch, and rectangles of every set."""

  rows: tuple[tuple[str, int], ...]
  sets: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]  # width, height


class Packer:
  """Packs networks of any specs; the interface is that of `packing.Packer`.

  Args:
    specs: the architectures; a network is named by its number among them.
    describe: from a spec to its `Part`.
    refs: by `(table, column)`, the table whose rows the column names.
    sets: tables whose rows are wanted network by network.
  """

  def __init__(
    self,
    specs: Sequence[NetworkSpec],
    describe: Callable[[NetworkSpec], Part],
    *,
    refs: Mapping[tuple[str, str], str],
    sets: Sequence[str] = (),
  ):
    self.specs = tuple(specs)
    self._parts = [describe(spec) for spec in self.specs]
    self._refs = dict(refs)
    self._sets = tuple(sets)
    self._tables = tuple(self._parts[0].tables)
    self._template = functools.lru_cache(maxsize=8)(self._build)

  def pack(self, numbers, weights, sizes: Sizes | None = None) -> Joined:
    """Returns networks `weights[b]` of spec `numbers[b]` as one batch.

    Raises:
      ValueError: a vector does not have its spec's length.
    """
    template = self.template(numbers, sizes)
    flat = self.flat(numbers, weights, template.room)
    return template._replace(weights=flat)

  def flat(self, numbers, weights, total: int) -> np.ndarray:
    """Lays the vectors of networks end to end, padded to `total` weights.

    Raises:
      ValueError: a vector does not have its spec's length.
    """
    for number, vector in zip(numbers, weights, strict=True):
      if np.shape(vector) != (self.specs[number].num_weights,):
        raise ValueError(
          f"{self.specs[number].describe()}: got weights of shape"
          f" {tuple(np.shape(vector))}"
        )
    flat = np.zeros(total, np.float32)
    np.concatenate(weights, out=flat[: sum(len(w) for w in weights)])
    return flat

  def template(self, numbers, sizes: Sizes | None = None) -> Joined:
    """Returns the batch of these specs without weights, cached.

    Args:
      numbers: the spec of each network.
      sizes: room that the batch is given at least; what needs more gets more.
    """
    return self.templates([numbers], sizes)[0]

  def templates(self, batches, sizes: Sizes | None = None) -> list[Joined]:
    """Returns batches that all have the same shapes, without weights.

    Raises:
      ValueError: the batches do not hold equally many networks, or none.
    """
    batches = [tuple(int(n) for n in numbers) for numbers in batches]
    if not batches or not batches[0] or len(set(map(len, batches))) > 1:
      raise ValueError(
        "batches of one shape must hold equally many networks, at least 1; got"
        f" {[len(numbers) for numbers in batches]}"
      )
    exact = sizes is None and len(set().union(*batches)) == 1
    needed = [self._needed(numbers, exact) for numbers in batches]
    shared = _common(needed if sizes is None else [*needed, sizes])
    return [self._template(numbers, shared) for numbers in batches]

  def reserve(
    self, numbers: np.ndarray, batch_size: int, *, copies: int = 1
  ) -> Sizes | None:
    """Returns room for nearly all random batches of a zoo, or None.

    See `packing.Packer.reserve`.
    """
    if len(np.unique(numbers)) == 1:
      return None
    shares = np.bincount(numbers, minlength=len(self.specs)) / len(numbers)

    def room(counts: Sequence[int | float]) -> int:
      found = np.asarray(counts, np.float64)
      mean = float(shares @ found)
      spread = math.sqrt(max(float(shares @ found**2) - mean**2, 0.0))
      likely = batch_size * mean + buckets.SPREAD * spread * batch_size**0.5
      likely = min(likely, batch_size * found[shares > 0].max()) - 1e-6
      return buckets.round_up(copies * math.ceil(likely))

    def heights(table: str) -> tuple[tuple[int, int], ...]:
      widths = [buckets.width_of(p.rows(table)) for p in self._parts]
      return tuple(
        (width, room([float(w == width) for w in widths]))
        for width in sorted(set(widths))
      )

    rows = {t: room([p.rows(t) for p in self._parts]) for t in self._tables}
    return Sizes(
      tuple(sorted(rows.items())), tuple((t, heights(t)) for t in self._sets)
    )

  def _needed(self, numbers: tuple[int, ...], exact: bool) -> Sizes:
    """Returns the sizes of one batch."""
    parts = [self._parts[n] for n in numbers]
    size = (lambda n: n) if exact else buckets.round_up
    width = (lambda n: n) if exact else buckets.width_of
    rows = {t: size(sum(p.rows(t) for p in parts)) for t in self._tables}
    sets = []
    for table in self._sets:
      heights: dict[int, int] = {}
      for part in parts:
        wide = width(part.rows(table))
        heights[wide] = heights.get(wide, 0) + 1
      shape = ((w, size(h)) for w, h in sorted(heights.items()))
      sets.append((table, tuple(shape)))
    return Sizes(tuple(sorted(rows.items())), tuple(sets))

  def _build(self, numbers: tuple[int, ...], sizes: Sizes) -> Joined:
    parts = [self._parts[n] for n in numbers]
    total = dict(sizes.rows) | {"networks": len(numbers)}  # Never padded.
    first = {
      t: rectangles.edges([p.rows(t) for p in parts]) for t in self._tables
    }
    tables = {}
    for table in self._tables:
      columns = {"real": np.arange(total[table]) < first[table][-1]}
      for name in parts[0].tables[table]:
        pieces = [p.tables[table][name] for p in parts]
        target = self._refs.get((table, name))
        fill = 0 if target is None else total[target]
        if target is not None:
          pieces = [
            (piece + start).astype(np.int32)
            for piece, start in zip(pieces, first[target][:-1], strict=True)
          ]
        shape = (total[table], *pieces[0].shape[1:])
        column = np.full(shape, fill, pieces[0].dtype)
        np.concatenate(pieces, out=column[: first[table][-1]])
        columns[name] = column
      tables[table] = columns
    sets, order = {}, {}
    for table, shape in sizes.sets:
      counts = np.array([p.rows(table) for p in parts])
      group, row = rectangles.place(counts, shape)
      members = np.arange(first[table][-1])
      sets[table] = rectangles.fill(group, counts, members, shape)
      order[table] = row.astype(np.int32)
    return Joined(None, tables, sets, order)


def _common(sizes: Sequence[Sizes]) -> Sizes:
  """Returns the least sizes that hold each of the given ones."""
  rows: dict[str, int] = {}
  sets: dict[str, dict[int, int]] = {}
  for each in sizes:
    for table, count in each.rows:
      rows[table] = max(count, rows.get(table, 0))
    for table, shape in each.sets:
      known = sets.setdefault(table, {})
      for width, height in shape:
        known[width] = max(height, known.get(width, 0))
  return Sizes(
    tuple(sorted(rows.items())),
    tuple((table, tuple(sorted(k.items()))) for table, k in sets.items()),
  )


def weight_rows(spec: NetworkSpec, **columns: np.ndarray) -> dict[str, Any]:
  """Returns the table of weights; `tensor` names each weight's tensor."""
  sizes = [t.size for t in spec.tensors]
  number = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
  return {"tensor": number} | columns


def network_row() -> dict[str, np.ndarray]:
  """Returns the one row of a network in the table of networks."""
  return {"number": np.zeros(1, np.int32)}
