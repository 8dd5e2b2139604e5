"""Maps of codes: the number beside them, and that they are drawn."""

import numpy as np
import pytest

from experiments.reports import maps


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def test_mixed_labels_are_at_chance(rng):
  codes = rng.normal(size=(600, 4))
  labels = rng.permutation(np.repeat(["a", "b", "c"], [100, 200, 300]))
  assert abs(maps.mixing(codes, labels) - 1) < 0.05


def test_clusters_are_apart(rng):
  labels = np.repeat(["a", "b"], 50)
  codes = rng.normal(size=(100, 4)) + 20.0 * (labels == "b")[:, None]
  assert maps.mixing(codes, labels) == 0.0


def test_every_coordinate_counts_alike(rng):
  labels = np.repeat(["a", "b"], 50)
  codes = rng.normal(size=(100, 2))
  codes[:, 0] += 10.0 * (labels == "b")
  codes[:, 1] *= 1e4  # Would drown the first without standardising.
  assert maps.mixing(codes, labels) < 0.05


def test_a_rare_label_counts_as_much_as_a_frequent_one(rng):
  # The rare one is apart, the two frequent ones are mixed.
  labels = np.array(["rare"] * 20 + ["x", "y"] * 200)
  codes = rng.normal(size=(420, 3)) + 50.0 * (labels == "rare")[:, None]
  assert 0.5 < maps.mixing(codes, labels) < 0.75


def test_what_is_refused(rng):
  with pytest.raises(ValueError, match="two labels"):
    maps.mixing(rng.normal(size=(30, 2)), np.repeat("a", 30))
  with pytest.raises(ValueError, match="more than 10 networks"):
    maps.mixing(rng.normal(size=(8, 2)), np.repeat(["a", "b"], 4))


@pytest.mark.slow
def test_pictures(rng, tmp_path):
  codes = rng.normal(size=(40, 5))
  colors = {"zoo": np.repeat(["a", "b"], 20), "accuracy": rng.uniform(size=40)}
  found = maps.draw(tmp_path, codes, colors)
  assert len(found) == 2
  for path in found.values():
    assert path.stat().st_size > 5000
