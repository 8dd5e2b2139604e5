"""Bucket sizes: how far the counts of a packed batch are rounded up.

A compiled program serves one set of array shapes. So the counts of a mixed
batch (its weights, chunks, sets of a width, ...) are rounded up to a short
list of sizes, and a zoo's batches are all given room for what one of them may
need: nearly all of them then have one shape, and the others few.
"""

import numpy as np

SPREAD = 2.0
"""Standard deviations of room above the mean of what a batch needs."""


def round_up(count: int) -> int:
  """Returns the next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: the bucket sizes."""
  size = 1
  while size < count:
    size = size * 4 // 3 if size & (size - 1) else max(size * 3 // 2, size + 1)
  return size


def width_of(size: int) -> int:
  """Returns the width of the rectangle of sets of that size: 8, 16, 32, ...

  Few widths, since each costs a compilation of the set functions.
  """
  return max(8, 1 << (size - 1).bit_length())


def expected(
  counts: np.ndarray, shares: np.ndarray, batch_size: int, copies: int = 1
) -> list[int]:
  """Returns sizes that hold nearly every random batch of a zoo.

  Every sum over a batch gets room for its mean and `SPREAD` standard
  deviations of draws with replacement, but no more than for the largest
  networks only.

  Args:
    counts: `[specs, n]`, what a network of each spec brings of each of n things
      that are counted.
    shares: `[specs]`, the share of each among the members of the zoo; above 0.
    batch_size: networks drawn.
    copies: how often each of them is packed.
  """
  counts = np.asarray(counts, np.float64)
  share = np.asarray(shares, np.float64)[:, None]
  mean = (share * counts).sum(axis=0)
  variance = np.maximum((share * counts**2).sum(axis=0) - mean**2, 0)
  likely = batch_size * mean + SPREAD * np.sqrt(batch_size * variance)
  # Less a trifle, so that rounding does not push it over a whole number.
  likely = np.minimum(likely, batch_size * counts.max(axis=0)) - 1e-6
  return [round_up(copies * int(n)) for n in np.ceil(likely)]
