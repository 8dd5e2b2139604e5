"""Joined batches: concatenated tables of any networks, for any encoder.

What an encoder wants to know of a network is a few tables (its weights, its
tensors, its neurons, its edges, ...) computed from the spec alone. A batch
concatenates the tables of its networks. A column may name rows of another
table: such numbers are moved along. Rows that name the same row of another
table are a set of it (chunks of a layer, layers of a network); sets come as
padded rectangles, grouped by size.

Counts are rounded up to `buckets` sizes, so the number of compilations is
bounded. Padding rows name a row beyond the end, which sums over segments leave
out. A batch of one spec has no padding. Nothing computed from a batch may
depend on its padding, nor on which networks share it.

Two tables are always there: `weights` and `networks`.

Dimensions: `T` weights of the batch, `B` networks, `S` sets of at most `Q`
rows.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax.encoders.batches import buckets
from sne_jax.networks.spec import NetworkSpec

Tables = Mapping[str, Mapping[str, np.ndarray]]
"""By table and column, an array of as many rows as the table has."""

Column = tuple[str, str]
"""A table and a column of it; rows name their `network` in any table."""

Sizes = tuple[tuple[tuple[str, int], int], ...]
"""Counts of a batch: rows by `(table, 0)`, sets by `(name, width)`."""


class Sets(NamedTuple):
  """`S` sets of at most `Q` members each, as rows of some table."""

  members: Any  # int32 [S, Q], rows of the table; 0 where masked
  mask: Any  # bool [S, Q]


class Joined(NamedTuple):
  """A batch of networks of any specs."""

  weights: Any  # float32 [T], 0 after the last network
  tables: dict[str, dict[str, Any]]  # columns, and `real` [rows], by table
  sets: dict[str, tuple[Sets, ...]]  # by name, and by width
  order: dict[str, Any]  # int32 [owners], the place of each one's set among all

  @property
  def room(self) -> int:
    """Length of `weights`, padding included."""
    return self.tables["weights"]["real"].shape[-1]


class _Members(NamedTuple):
  """The sets of one kind that a network brings, set after set."""

  sizes: np.ndarray  # int [owners]
  column: np.ndarray  # int8 [members], number of the column they come from
  row: np.ndarray  # int32 [members], row in the table of the network


class _Part(NamedTuple):
  """What a network of one layout adds to every batch."""

  tables: Tables
  rows: dict[str, int]
  sets: dict[str, _Members]

  def counts(self, *, exact: bool) -> Counter[tuple[str, int]]:
    """Returns what it adds to the `Sizes` of a batch."""
    counts = Counter({(name, 0): n for name, n in self.rows.items() if n})
    for name, members in self.sets.items():
      for size in members.sizes.tolist():
        width = max(size, 1) if exact else buckets.width_of(size)
        counts[name, width] += 1
    return counts


class Packer:
  """Packs networks of any specs; see `interface.Packer`.

  Args:
    specs: the architectures; a network is named by its number among them.
    describe: from a spec to its tables.
    refs: by column, the table whose rows it names.
    none: tables whose row 0 stands for "none": those of a network are numbered
      from 1.
    sets: by name, the columns (all of one target) whose rows are members of
      sets, one for each row that they name. A row's place in the columns'
      tables, one after the other, is its number as a member.
    shared: tables that every batch has as they are, whatever its networks.
    seen_as: what the encoder sees of a spec; those that it sees alike are one
      architecture to it. Usually the layout: activations and options are not
      seen.
  """

  def __init__(
    self,
    specs: Sequence[NetworkSpec],
    describe: Callable[[NetworkSpec], Tables],
    *,
    refs: Mapping[Column, str] | None = None,
    none: Sequence[str] = (),
    sets: Mapping[str, Sequence[Column]] | None = None,
    shared: Tables | None = None,
    seen_as: Callable[[NetworkSpec], NetworkSpec] = lambda spec: spec.layout,
  ):
    self.specs = tuple(specs)
    seen = [seen_as(spec) for spec in self.specs]
    known = {spec: place for place, spec in enumerate(dict.fromkeys(seen))}
    self._number = np.array([known[spec] for spec in seen])
    self._refs, self._none, self._sets = refs or {}, none, sets or {}
    self._shared = {name: dict(table) for name, table in (shared or {}).items()}
    self._parts = [self._part(spec, describe(spec)) for spec in known]
    self._counts = [
      {exact: part.counts(exact=exact) for exact in (False, True)}
      for part in self._parts
    ]
    self._template = functools.lru_cache(maxsize=8)(self._build)

  def pack(self, numbers, weights, sizes: Sizes | None = None) -> Joined:
    """Returns networks `weights[b]` of spec `numbers[b]` as one batch.

    Args:
      numbers: the spec of each network.
      weights: the vector of each.
      sizes: see `template`.

    Raises:
      ValueError: a vector does not have its spec's length.
    """
    template = self.template(numbers, sizes)
    flat = self.flat(numbers, weights, template.room)
    return template._replace(weights=flat)

  def flat(self, numbers, weights, total: int) -> np.ndarray:
    """Concatenates the vectors of networks, padded to `total` weights.

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

    They can be stacked, one for each device.

    Args:
      batches: the specs of the networks of each batch; equally many in each.
      sizes: room that every batch is given at least.

    Raises:
      ValueError: the batches do not hold equally many networks, or none.
    """
    needed = self.sizes(batches, exact=sizes is None)
    shared = Counter(dict(needed)) | Counter(dict(sizes or ()))
    key = tuple(sorted(shared.items()))
    return [
      self._template(tuple(self._number[np.asarray(numbers)].tolist()), key)
      for numbers in batches
    ]

  def sizes(self, batches, *, exact: bool = False) -> Sizes:
    """Returns sizes that each of the batches fits in.

    Args:
      batches: the specs of the networks of each batch; equally many in each.
      exact: do not round up where all networks are of one architecture.

    Raises:
      ValueError: the batches do not hold equally many networks, or none.
    """
    lengths = [len(numbers) for numbers in batches]
    if len(set(lengths)) != 1 or 0 in lengths:
      raise ValueError(
        "batches of one shape must hold equally many networks, at least 1; got"
        f" {lengths}"
      )
    counted = [
      Counter(self._number[np.asarray(numbers)].tolist()) for numbers in batches
    ]
    exact = exact and self._alike(set().union(*counted))
    # What each batch needs of everything that is counted; all get the most.
    largest = Counter()
    for numbers in counted:
      total = Counter()
      for number, times in numbers.items():
        for key, count in self._counts[number][exact].items():
          total[key] += times * count
      largest |= total  # The larger of each.
    return tuple(
      (key, count if exact else buckets.round_up(count))
      for key, count in sorted(largest.items())
    )

  def reserve(
    self, numbers: np.ndarray, batch_size: int, *, copies: int = 1
  ) -> Sizes | None:
    """Returns room for nearly all random batches of a zoo.

    Args:
      numbers: int `[N]`, the spec of every member.
      batch_size: members of a batch.
      copies: how often each member is packed.

    Returns:
      What `template` takes as `sizes`; None where all members bring as much
      (those of one architecture): their batches have one shape anyway.
    """
    present, members = np.unique(self._number[numbers], return_counts=True)
    if self._alike(present):
      return None
    counts = [self._counts[number][False] for number in present]
    keys = sorted(set().union(*counts))
    rooms = buckets.expected(
      np.array([[count[key] for key in keys] for count in counts]),
      members / len(numbers),
      batch_size,
      copies,
    )
    return tuple(zip(keys, rooms, strict=True))

  def _alike(self, numbers) -> bool:
    """Whether networks of these specs all bring as much into a batch."""
    first, *others = (self._counts[number][True] for number in numbers)
    return all(counts == first for counts in others)

  def _part(self, spec: NetworkSpec, tables: Tables) -> _Part:
    """Works out what a network brings; its sets are in order of owners."""
    always = {"weights": spec.num_weights, "networks": 1}
    rows = always | {
      name: len(next(iter(columns.values())))
      for name, columns in tables.items()
      if columns
    }
    sets = {}
    for name, columns in self._sets.items():
      # The owner of each row of each table; a stable sort by owner then lists
      # the members set after set, in the order of tables and rows.
      owners = [
        tables.get(table, {}).get(column, np.zeros(rows[table], int))
        for table, column in columns
      ]
      counts = [len(part) for part in owners]
      owner = np.concatenate(owners)
      order = np.argsort(owner, kind="stable")
      sets[name] = _Members(
        np.bincount(owner, minlength=rows[self._target(columns[0])]),
        np.repeat(np.arange(len(counts), dtype=np.int8), counts)[order],
        np.concatenate([np.arange(n, dtype=np.int32) for n in counts])[order],
      )
    return _Part(tables, rows, sets)

  def _target(self, column: Column) -> str:
    """Returns the table whose rows a column names."""
    return self._refs.get(column, "networks")

  def _build(self, numbers: tuple[int, ...], sizes: Sizes) -> Joined:
    """Concatenates what networks bring: tables, then sets over their rows."""
    parts = [self._parts[number] for number in numbers]
    counted = dict(sizes)
    # By table: where the rows of each network begin, counted without row 0,
    # and the rows of the batch, row 0 and padding included.
    first = {t: _edges([p.rows[t] for p in parts]) for t in parts[0].rows}
    total = {
      table: counted.get((table, 0), 0) + (table in self._none)
      for table in first
    }
    total["networks"] = len(numbers)  # Never padded.
    tables = {}
    for table, count in total.items():
      row = np.arange(count) - (table in self._none)
      tables[table] = {"real": (row >= 0) & (row < first[table][-1])} | {
        name: self._column((table, name), parts, first, total)
        for name in parts[0].tables.get(table, {})
      }
    sets, order = {}, {}
    for name, columns in self._sets.items():
      each = [part.sets[name] for part in parts]
      sets[name], place = _rectangles(
        np.concatenate([e.sizes for e in each]),
        np.concatenate([e.row for e in each])
        + self._shift(columns, each, first, total),
        [(w, n) for (key, w), n in sizes if key == name and w],
      )
      # Owners of padding take the first set: nothing reads what they get.
      order[name] = np.zeros(total[self._target(columns[0])], np.int32)
      order[name][: len(place)] = place
    return Joined(None, tables | self._shared, sets, order)

  def _column(self, column: Column, parts, first, total) -> np.ndarray:
    """Concatenates a column; row numbers in it move by the rows before."""
    table, name = column
    pieces = [part.tables[table][name] for part in parts]
    target, base = self._refs.get(column), int(table in self._none)
    padding = 0
    if target is not None:
      starts = first[target][:-1].tolist()
      if target in self._none:  # Its row 0 is "none", in every network.
        move = lambda piece, start: np.where(piece > 0, piece + start, 0)
      else:
        move, padding = np.add, total[target]  # Beyond the last row.
      pieces = list(map(move, pieces, starts))
    out = np.empty((total[table], *pieces[0].shape[1:]), pieces[0].dtype)
    stop = base + first[table][-1]
    np.concatenate(pieces, out=out[base:stop])
    out[:base], out[stop:] = 0, padding
    return out

  def _shift(self, columns, each, first, total) -> np.ndarray:
    """Returns how far the row numbers of the members of sets move.

    Members are numbered over the tables of all columns, padding included: by
    the tables before, and in a table by the networks before.
    """
    bases = _edges([total[table] for table, _ in columns])[:-1, None]
    shift = bases + np.stack([first[table][:-1] for table, _ in columns])
    lengths = [len(e.row) for e in each]
    if len(columns) == 1:
      return np.repeat(shift[0], lengths)
    network = np.repeat(np.arange(len(each)), lengths)
    return shift[np.concatenate([e.column for e in each]), network]


def _edges(counts: Sequence[int] | np.ndarray) -> np.ndarray:
  """Returns where each of several consecutive pieces begins, and the end."""
  return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def _rectangles(
  sizes: np.ndarray, members: np.ndarray, shapes: Sequence[tuple[int, int]]
) -> tuple[tuple[Sets, ...], np.ndarray]:
  """Writes sets into padded rectangles.

  Args:
    sizes: int `[n]`, members of each set.
    members: of all sets, set after set.
    shapes: width and height of each rectangle, by width; a set goes to the
      narrowest that holds it.

  Returns:
    The rectangles, and the place of each set among the rows of them all.
  """
  # The rectangle of each set, and where its members begin.
  group = np.searchsorted([width for width, _ in shapes], sizes)
  starts, place = _edges(sizes), np.zeros(len(sizes), np.int32)
  filled, above = [], 0
  for number, (width, height) in enumerate(shapes):
    block = np.flatnonzero(group == number)
    place[block] = above + np.arange(len(block))
    above += height
    # A row for each set of this width; places after its members are masked.
    within = np.arange(width)
    rows = np.zeros((height, width), np.int32)
    mask = np.zeros((height, width), bool)
    mask[: len(block)] = within < sizes[block][:, None]
    member = np.minimum(starts[block][:, None] + within, len(members) - 1)
    rows[: len(block)] = np.where(mask[: len(block)], members[member], 0)
    filled.append(Sets(rows, mask))
  return tuple(filled), place
