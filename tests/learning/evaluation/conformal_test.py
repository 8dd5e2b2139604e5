"""Intervals that cover what they say, and codes that are unlike others."""

import math

import numpy as np
import pytest

from sne_jax.learning.evaluation import conformal, novelty
from sne_jax.networks import families


def test_the_rank_is_that_of_split_conformal():
  errors = np.arange(1.0, 10.0)  # 9 errors: rank ceil(10 c).
  assert conformal.half_width(errors, 0.5) == 5.0
  assert conformal.half_width(errors[::-1], 0.85) == 9.0
  assert conformal.half_width(errors, 0.95) == math.inf


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_new_members_are_covered(coverage):
  rng = np.random.default_rng(0)
  shares = []
  for _ in range(300):
    errors = np.abs(rng.standard_t(3, size=60))
    half = conformal.half_width(errors, coverage)
    truth = rng.standard_t(3, size=200)
    shares.append(conformal.covered(truth, np.zeros(200), half))
  # At least the coverage on average, and hardly more than 1 / (N + 1) above.
  assert coverage - 0.01 < np.mean(shares) < coverage + 1 / 61 + 0.01


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0])
def test_coverage_out_of_range(coverage):
  with pytest.raises(ValueError, match="within"):
    conformal.half_width(np.ones(3), coverage)


@pytest.mark.parametrize("errors", [np.zeros(0), np.array([1.0, np.nan])])
def test_errors_that_say_nothing(errors):
  with pytest.raises(ValueError, match="finite errors"):
    conformal.half_width(errors, 0.5)


def test_codes_far_from_all_others_are_unlike():
  rng = np.random.default_rng(0)
  reference, others, same = rng.normal(size=(3, 200, 8)) * np.arange(1, 9)
  found = novelty.unlikeness(same, reference, others)
  assert np.mean(found > 1) < 0.05
  assert (novelty.unlikeness(same + 60, reference, others) > 2).all()
  # Scaled coordinates change nothing.
  scale = 10.0 ** np.arange(-4, 4)
  scaled = [x * scale for x in (same, reference, others)]
  np.testing.assert_allclose(novelty.unlikeness(*scaled), found)
  with pytest.raises(ValueError, match="0 others"):
    novelty.unlikeness(same, reference, others[:0])


def test_architectures_are_known_by_their_tensors():
  one = novelty.architecture(families.inr((1, 4, 1)))
  assert one == novelty.architecture(families.inr((1, 4, 1)))
  assert one != novelty.architecture(families.inr((1, 5, 1)))
