"""Batches are a function of seed and step, and every epoch covers all rows."""

import numpy as np
import pytest

from sne_jax.zoo import batching


def test_an_epoch_is_a_permutation():
  order = batching.epoch_order(0, 0, 50)
  assert sorted(order) == list(range(50))
  assert not np.array_equal(order, np.arange(50))


def test_seeds_and_epochs_differ():
  orders = {
    tuple(batching.epoch_order(seed, epoch, 20))
    for seed in range(3)
    for epoch in range(3)
  }
  assert len(orders) == 9


def test_is_what_it_was():
  # A change of this list would make resumed runs differ from unbroken ones.
  order = batching.epoch_order(0, 0, 8)
  assert order.tolist() == [3, 2, 1, 6, 0, 7, 4, 5]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 10, 23])
def test_every_epoch_covers_all_rows_once(batch_size):
  rows = np.array([5, 7, 11, 13, 17, 19, 23, 29, 31, 37])
  steps = 10
  batches = [batching.batch_rows(9, s, batch_size, rows) for s in range(steps)]
  assert all(len(batch) == batch_size for batch in batches)
  stream = np.concatenate(batches)
  for first in range(0, len(stream) - 9, 10):
    assert sorted(stream[first : first + 10]) == sorted(rows)
  if len(stream) > 10:
    again = stream[10:20]
    assert not np.array_equal(stream[: len(again)], again), "epochs differ"


def test_a_step_needs_no_steps_before_it():
  rows = np.arange(12)
  forth = [batching.batch_rows(1, s, 5, rows) for s in range(20)]
  batching._epoch_order.cache_clear()
  back = [batching.batch_rows(1, s, 5, rows) for s in reversed(range(20))]
  for one, other in zip(forth, reversed(back), strict=True):
    np.testing.assert_array_equal(one, other)


def test_nobody_can_spoil_the_order():
  with pytest.raises(ValueError, match="read-only"):
    batching.epoch_order(0, 0, 5)[0] = 3


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ((0, 0, 0, [1]), "batch_size"),
    ((0, -1, 1, [1]), "step"),
    ((-1, 0, 1, [1]), "seed"),
    ((0, 0, 1, []), "n must be at least 1"),
    ((0, 0, 1, np.ones((1, 1))), "one axis"),
  ],
)
def test_bad_arguments_are_named(args, message):
  with pytest.raises(ValueError, match=message):
    batching.batch_rows(*args)
