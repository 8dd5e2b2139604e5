"""Sets of rows, grouped by size into a few padded rectangles.

Dimensions: `S` sets of at most `Q` members.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Sets(NamedTuple):
  """`S` sets of at most `Q` members each, as rows of some table."""

  members: Any  # int32 [S, Q], rows of the table; 0 where masked
  mask: Any  # bool [S, Q]


class Readers(NamedTuple):
  """For every row of a table, which places of an index array name it.

  The gradient of a gather is then a gather too. Without it is a scatter, which
  is slow on a CPU. Empty where a batch does not have them.
  """

  groups: tuple[Sets, ...]  # sets of places in the flat index array, by size
  order: Any  # int32 [rows], row of each set; one past the last: no place


def edges(counts: Sequence[int] | np.ndarray) -> np.ndarray:
  """Returns where each of several consecutive pieces begins, and the end."""
  return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def place(sizes: np.ndarray, shapes) -> tuple[np.ndarray, np.ndarray]:
  """Gives every set a rectangle, and a row among the rows of all rectangles.

  Args:
    sizes: int [n], members of each set.
    shapes: width and height of the rectangles, by width; a set goes to the
      narrowest that holds it.
  """
  group = np.searchsorted([width for width, *_ in shapes], sizes)
  row = np.zeros(len(sizes), np.int64)
  first = edges([height for _, height, *_ in shapes])
  for number in range(len(shapes)):
    block = np.flatnonzero(group == number)
    row[block] = first[number] + np.arange(len(block))
  return group, row


def fill(group, sizes, rows, shapes) -> tuple[Sets, ...]:
  """Writes the members of sets into the rectangles that `place` gave them.

  Args:
    group: int [n], the rectangle of each set.
    sizes: int [n], members of each set.
    rows: the members, set after set.
    shapes: width and height of each rectangle, and maybe more.
  """
  starts = edges(sizes)
  filled = []
  for number, (width, height, *_) in enumerate(shapes):
    block = np.flatnonzero(group == number)
    members = np.zeros((height, width), np.int32)
    mask = np.zeros((height, width), bool)
    places = np.arange(width)[None, :]
    real = places < sizes[block][:, None]
    found = np.minimum(starts[block][:, None] + places, len(rows) - 1)
    members[: len(block)] = np.where(real, rows[found], 0)
    mask[: len(block)] = real
    filled.append(Sets(members, mask))
  return tuple(filled)


def readers(index: np.ndarray, rows: int) -> Readers:
  """Lists the places of an index array that name each row of a table but 0."""
  flat = index.reshape(-1)
  sizes = np.bincount(flat, minlength=rows)
  places = np.argsort(flat, kind="stable")[sizes[0] :]
  sizes[0] = 0  # Row 0 stands for "none" and has no gradient.
  named = np.flatnonzero(sizes)
  widths, heights = np.unique(sizes[named], return_counts=True)
  shapes = list(zip(widths.tolist(), heights.tolist(), strict=True))
  group, row = place(sizes[named], shapes)
  order = np.full(rows, len(named), np.int32)
  order[named] = row
  return Readers(fill(group, sizes[named], places, shapes), order)


def no_readers(index: np.ndarray, rows: int) -> Readers:
  """Returns readers that are empty: the gradient is then a scatter."""
  del index, rows
  return Readers((), np.zeros(0, np.int32))
