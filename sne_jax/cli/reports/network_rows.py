"""What a picture of a network shows: rows from input to output, and weights.

A row is a tensor, or, of networks that have too many, all tensors of a level or
of several; its weights are drawn as a histogram.

Dimensions: `N` networks of one spec, `P` weights of one, `R` rows, `B` bins.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from sne_jax.networks.spec import NetworkSpec

BINS = 20
MOST = 16
"""Rows of a picture in a page, unless told."""

WIDE = 4.0
"""A histogram ends so many deviations from the mean; its ends hold the rest."""

BLOCK = 1 << 22
"""Weights that are looked at at once."""

WORDS = ("linear", "conv", "norm", "attention", "embedding", "other")
"""What tensors are drawn as: the first word of their kind."""


class Row(NamedTuple):
  """Tensors that are drawn as one.

  Attributes:
    label: what it is called.
    word: one of `WORDS`: the largest tensor's.
    shape: of the largest tensor, or of the only one.
    first: its lowest level.
    last: its highest.
    size: number of weights.
    places: of its tensors in the spec.
    others: the further `WORDS` that it has.
  """

  label: str
  word: str
  shape: tuple[int, ...]
  first: int
  last: int
  size: int
  places: tuple[int, ...]
  others: tuple[str, ...]


class Weights(NamedTuple):
  """What the weights of each row are like.

  Attributes:
    ranges: `[N, R, 4]`: where the histogram begins and ends, mean, deviation.
    counts: `[N, R, B]`: how many there are, as shares of the fullest bin, of
      which 255 is all; 0 only where there is none.
  """

  ranges: Float[np.ndarray, "N R 4"]
  counts: UInt8[np.ndarray, "N R B"]


def rows_of(spec: NetworkSpec, most: int = MOST) -> tuple[Row, ...]:
  """Returns the rows of a network, from its input to its output.

  Args:
    spec: the network.
    most: rows, at most: tensors, else levels, else equal shares of the levels.
  """
  tensors = spec.tensors
  order = sorted(range(len(tensors)), key=lambda t: tensors[t].level)
  if len(order) <= most:
    return tuple(_row(spec, [place]) for place in order)
  levels: dict[int, list[int]] = {}
  for place in order:
    levels.setdefault(tensors[place].level, []).append(place)
  parts = np.array_split(np.arange(len(levels)), min(most, len(levels)))
  by_level = list(levels.values())
  return tuple(
    _row(spec, [place for level in part for place in by_level[level]])
    for part in parts
  )


def activation(spec: NetworkSpec, row: Row) -> str:
  """Returns what follows a row of weights; "" where nothing is known to."""
  is_layer = row.word in ("linear", "conv") and len(row.shape) > 1
  if not is_layer or row.last >= len(spec.activations):
    return ""
  name = spec.activations[row.last]
  return "" if name in ("none", "unknown") else name


def word_of(kind: str) -> str:
  """Returns which of `WORDS` a kind of tensor is drawn as."""
  word = kind.partition("_")[0]
  word = "embedding" if word in ("class", "position") else word
  return word if word in WORDS else "other"


def weights_of(
  spec: NetworkSpec, rows: Sequence[Row], vectors: Sequence[Any]
) -> Weights:
  """Returns the histograms of networks of one spec.

  Args:
    spec: theirs.
    rows: of `rows_of`.
    vectors: their weights `[P]`, N of them, finite.
  """
  step = max(1, BLOCK // max(spec.num_weights, 1))
  found = [
    _of_block(spec, rows, np.stack(vectors[start : start + step]))
    for start in range(0, len(vectors), step)
  ]
  ranges, counts = zip(*found, strict=True)
  return Weights(np.concatenate(ranges), np.concatenate(counts))


def _row(spec: NetworkSpec, places: list[int]) -> Row:
  tensors = [spec.tensors[place] for place in places]
  largest = max(tensors, key=lambda t: t.size)
  first, last = tensors[0].level, tensors[-1].level
  label = largest.name
  if len(tensors) > 1:
    more = f"level {first}" if first == last else f"levels {first} to {last}"
    label = f"{more}: {largest.name} and {len(tensors) - 1} more"
  word = word_of(largest.kind)
  every = dict.fromkeys(word_of(t.kind) for t in tensors)
  return Row(
    *(label, word, largest.shape, first, last),
    size=sum(t.size for t in tensors),
    places=tuple(places),
    others=tuple(other for other in every if other != word),
  )


def _of_block(spec, rows, weights) -> tuple[np.ndarray, np.ndarray]:
  """Ranges `[N, R, 4]` and counts `[N, R, B]` of weights `[N, P]`."""
  ranges = np.zeros((len(weights), len(rows), 4), np.float32)
  counts = np.zeros((len(weights), len(rows), BINS), np.uint8)
  for r, row in enumerate(rows):
    slices = [
      slice(spec.offsets[p], spec.offsets[p] + spec.tensors[p].size)
      for p in row.places
    ]
    x = np.concatenate([weights[:, s] for s in slices], axis=1, dtype=float)
    mean, deviation = x.mean(axis=1), x.std(axis=1)
    low = np.maximum(x.min(axis=1), mean - WIDE * deviation)
    high = np.minimum(x.max(axis=1), mean + WIDE * deviation)
    ranges[:, r] = np.stack([low, high, mean, deviation], axis=1)
    counts[:, r] = _counted(x, low, high)
  return ranges, counts


def _counted(x, low, high) -> np.ndarray:
  """Counts `[N, B]` of numbers `[N, Q]` between two ends."""
  wide = np.where(high > low, high - low, 1.0)[:, None]
  places = np.floor((x - low[:, None]) / wide * BINS)
  places = np.clip(places, 0, BINS - 1).astype(np.int64)
  places += BINS * np.arange(len(x))[:, None]
  counts = np.bincount(places.reshape(-1), minlength=BINS * len(x))
  counts = counts.reshape(len(x), BINS)
  return np.ceil(255 * counts / counts.max(axis=1, keepdims=True)).astype(
    np.uint8
  )
