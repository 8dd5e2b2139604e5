"""Rows of a picture, and the histograms of their weights."""

import numpy as np
import pytest

from sne_jax.cli.reports import network_rows
from sne_jax.networks import families

SPEC = families.inr((2, 5, 4, 1))


def test_few_tensors_are_a_row_each_in_the_order_of_their_depth():
  rows = network_rows.rows_of(SPEC)
  assert [row.label for row in rows] == [t.name for t in SPEC.tensors]
  assert [row.size for row in rows] == [10, 5, 20, 4, 4, 1]
  assert rows[2].shape == (4, 5) and rows[2].word == "linear"


def test_many_tensors_are_joined_by_level_and_none_is_lost():
  deep = families.inr((2, *[3] * 9, 1))  # 20 tensors on 10 levels.
  for most, count in ((16, 10), (10, 10), (4, 4)):
    rows = network_rows.rows_of(deep, most)
    assert len(rows) == count
    places = [place for row in rows for place in row.places]
    assert sorted(places) == list(range(len(deep.tensors)))
    assert sum(row.size for row in rows) == deep.num_weights
    assert rows[0].first == 0 and rows[-1].last == deep.num_levels - 1
  assert rows[0].label == "levels 0 to 2: layer1.weight and 5 more"
  assert network_rows.rows_of(deep, 10)[3].label.startswith("level 3: ")


def test_histograms_are_those_of_numpy(monkeypatch):
  rng = np.random.default_rng(0)
  vectors = list(rng.uniform(-1, 1, (7, SPEC.num_weights)).astype(np.float32))
  rows = network_rows.rows_of(SPEC)
  found = network_rows.weights_of(SPEC, rows, vectors)
  monkeypatch.setattr(network_rows, "BLOCK", 2 * SPEC.num_weights)
  blocks = network_rows.weights_of(SPEC, rows, vectors)
  for one, other in zip(found, blocks, strict=True):
    np.testing.assert_array_equal(one, other)
  for n, vector in enumerate(vectors):
    x = vector[15:35].astype(float)  # The third tensor.
    low, high, mean, deviation = found.ranges[n, 2]
    assert low == x.min().astype(np.float32) and high == x.max().astype("f")
    assert mean == pytest.approx(x.mean()) and deviation == pytest.approx(
      x.std()
    )
    counts, _ = np.histogram(x, network_rows.BINS, (x.min(), x.max()))
    share = counts / counts.max()
    np.testing.assert_array_equal(found.counts[n, 2], np.ceil(255 * share))


def test_an_outlier_does_not_squash_the_rest():
  wide = families.inr((40, 40, 1))
  weights = np.random.default_rng(0).normal(size=wide.num_weights)
  weights[3] = 1e4
  rows = network_rows.rows_of(wide)
  found = network_rows.weights_of(wide, rows, [weights])
  high = found.ranges[0, 0, 1]
  assert high == pytest.approx(4 * weights[:1600].std() + weights[:1600].mean())
  assert found.counts[0, 0, -1] > 0  # It is in the last bin.


def test_rows_of_equal_weights_have_one_bin():
  found = network_rows.weights_of(
    SPEC, network_rows.rows_of(SPEC), [np.full(SPEC.num_weights, 0.5)]
  )
  assert (found.counts[0] > 0).sum(axis=1).tolist() == [1] * 6
