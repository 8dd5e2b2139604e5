"""Which members a batch holds: a function of the seed and the step.

Nothing is kept between calls, so a run that resumes at step `s` draws what the
unbroken run would have drawn.

Dimensions: `N` members to draw from, `B` members of a batch.
"""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def epoch_order(seed: int, epoch: int, n: int) -> Int[np.ndarray, "N"]:
  """Returns the order `[N]` of an epoch: a permutation of `0 .. n - 1`.

  It is the sorting order of raw random words of `PCG64`, a stream that numpy
  keeps the same from version to version (unlike its `permutation`).

  Args:
    seed: not negative.
    epoch: from 0.
    n: number of members, at least 1.

  Returns:
    int64 `[N]`, read-only.
  """
  if n < 1:
    raise ValueError(f"n must be at least 1, got {n}; are there any members?")
  if seed < 0 or epoch < 0:
    raise ValueError(f"seed and epoch must be 0 or more, got {seed}, {epoch}")
  return _epoch_order(int(seed), int(epoch), int(n))


def batch_rows(
  seed: int,
  step: int,
  batch_size: int,
  rows: np.ndarray | Sequence[int],
) -> Int[np.ndarray, "B"]:
  """Returns the rows `[B]` of one step's batch.

  The batches are cut, one after another, from the orders of epoch 0, 1,
  ... concatenated. So every epoch covers every row once, every batch is
  full, and the batch that meets the end of an epoch continues into the next (a
  row can be twice in that one).

  Args:
    seed: not negative.
    step: from 0.
    batch_size: `B`, at least 1; may exceed the number of rows.
    rows: `[N]` what to draw from, such as the member numbers of a part.
  """
  rows = np.asarray(rows)
  if batch_size < 1:
    raise ValueError(f"batch_size must be at least 1, got {batch_size}")
  if step < 0:
    raise ValueError(f"step must be 0 or more, got {step}")
  if rows.ndim != 1:
    raise ValueError(f"rows must have one axis, got shape {rows.shape}")
  parts, place = [], step * batch_size
  while place < (step + 1) * batch_size:
    order = epoch_order(seed, place // max(1, len(rows)), len(rows))
    first = place % len(rows)
    parts.append(order[first : first + (step + 1) * batch_size - place])
    place += len(parts[-1])
  return rows[np.concatenate(parts)]


@functools.lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
  words = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(n)
  order = np.argsort(words, kind="stable")
  order.setflags(write=False)
  return order
