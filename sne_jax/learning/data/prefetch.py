"""Batches prepared in the background, in order.

Dimensions: none; batches are any values.
"""

import collections
from collections.abc import Callable, Generator
from concurrent import futures
from typing import Any

NUM_PREFETCH = 2
"""Batches that are prepared while the device computes."""


def prefetch(
  batch_fn: Callable[[int], Any],
  first: int,
  last: int,
  *,
  depth: int = NUM_PREFETCH,
) -> Generator[Any, None, None]:
  """Yields `batch_fn(s)` for `s` from `first` to below `last`, in order.

  One background thread prepares up to `depth` batches ahead. What `batch_fn`
  raises is raised here, at the place of its batch.
  """
  pool = futures.ThreadPoolExecutor(1, thread_name_prefix="prefetch")
  try:
    pending = collections.deque(
      pool.submit(batch_fn, s) for s in range(first, min(first + depth, last))
    )
    for step in range(first, last):
      batch = pending.popleft().result()
      if step + depth < last:
        pending.append(pool.submit(batch_fn, step + depth))
      yield batch
      del batch
  finally:
    pool.shutdown(wait=True, cancel_futures=True)
