"""Ceilings of tau: by hand, and where the true accuracies are known."""

import numpy as np
import pytest
from scipy import special, stats

from sne_jax.learning.evaluation import ceilings

N = 120
SPREAD = 0.5
"""Of a network's luck with an image; that of difficulty is 1."""


def population(kind, rng):
  """Returns abilities `[N]`, and the class of those that have collapsed."""
  collapsed = np.full(N, -1)
  if kind == "wide":
    return rng.normal(1.2, 1.0, N), collapsed
  if kind == "narrow":
    return rng.normal(1.5, 0.12, N), collapsed
  skewed = 1.9 - rng.exponential(0.6, N)
  if kind == "collapsed":
    dead = rng.random(N) < 0.3
    collapsed = np.where(dead, rng.choice(2, N, p=[0.7, 0.3]), -1)
  return skewed, collapsed


def drawn(ability, collapsed, images, rng):
  """Returns what is right on drawn images, of 10 classes, and the classes."""
  hard = rng.normal(size=images)
  luck = SPREAD * rng.normal(size=(N, images))
  classes = rng.integers(0, 10, images)
  of_class = classes == collapsed[:, None]
  right = ability[:, None] - hard + luck > 0
  return np.where(collapsed[:, None] >= 0, of_class, right), classes


def accuracies(ability, collapsed):
  """True ones, on infinitely many images."""
  true = special.ndtr(ability / np.sqrt(1 + SPREAD**2))
  return np.where(collapsed >= 0, 0.1, true)


def tau(one, other):
  return stats.kendalltau(one, other).statistic


@pytest.mark.parametrize(
  ("kind", "images", "within"),
  [
    ("wide", 100, 0.02),
    ("wide", 500, 0.01),
    ("skewed", 500, 0.012),
    ("narrow", 500, 0.015),
    ("narrow", 2000, 0.012),
    ("collapsed", 500, 0.015),
  ],
)
def test_the_estimate_is_that_of_known_accuracies(kind, images, within):
  rng = np.random.default_rng(0)
  errors, naive = [], []
  for _ in range(4):
    ability, collapsed = population(kind, rng)
    true = accuracies(ability, collapsed)
    draws = [drawn(ability, collapsed, images, rng) for _ in range(8)]
    wanted = np.mean([tau(true, right.mean(axis=1)) for right, _ in draws])
    for right, classes in draws[:2]:
      same = ceilings.collapsed(right, classes)
      np.testing.assert_array_equal(same, collapsed)
      found = ceilings.tau_ceiling([right], [same], splits=8)
      errors.append(found - wanted)
      again = right[:, rng.integers(0, images, images)]
      naive.append(tau(right.mean(axis=1), again.mean(axis=1)) - wanted)
  assert abs(np.mean(errors)) < within
  if kind == "narrow" and images == 500:  # Labels are no truth.
    assert np.mean(naive) > 2 * within


def test_several_zoos_have_images_of_their_own():
  """Cut in two, with the images drawn anew, the ceiling is about the same."""
  rng = np.random.default_rng(1)
  ability, collapsed = population("wide", rng)
  parts = [drawn(ability, collapsed, count, rng)[0] for count in (400, 600)]
  right = [parts[0][:60], parts[1][60:]]
  true = accuracies(ability, collapsed)
  labels = np.concatenate([bits.mean(axis=1) for bits in right])
  none = [np.full(60, -1)] * 2
  found = ceilings.tau_ceiling(right, none)
  assert found == pytest.approx(tau(true, labels), abs=0.03)


def test_without_noise_the_ceiling_is_one():
  right = np.arange(8)[:, None] > np.repeat(np.arange(8), 50)
  same = np.full(8, -1)
  assert ceilings.tau_ceiling([right], [same]) == pytest.approx(1, abs=0.02)
  # Networks that are the same tie in truth; where they are not, labels lose.
  twice = np.concatenate([right, right[:1], right[:1]])
  tied = np.array([0, *[-1] * 7, 0, 0])
  known = ceilings.tau_ceiling([twice], [tied])
  unknown = ceilings.tau_ceiling([twice], [np.full(10, -1)])
  assert known == pytest.approx(1, abs=0.02)
  labels = twice.mean(axis=1)
  assert unknown == pytest.approx(ceilings.tie_ceiling(labels), abs=1e-6)


def test_coins_have_no_ceiling():
  rng = np.random.default_rng(0)
  found = [
    ceilings.tau_ceiling([rng.random((80, 400)) < 0.9], [np.full(80, -1)])
    for _ in range(6)
  ]
  assert np.mean(found) < 0.25 and min(found) == 0


def test_the_tie_ceiling_by_hand():
  y = np.array([0.1, 0.1, 0.1, 0.5, 0.9])
  assert ceilings.tie_ceiling(y) == pytest.approx(np.sqrt(7 / 10))
  best = tau(y, [1, 2, 3, 4, 5])
  assert ceilings.tie_ceiling(y) == pytest.approx(best)
  assert ceilings.tie_ceiling(np.arange(5)) == 1
  assert np.isnan(ceilings.tie_ceiling(np.ones(1)))


def test_what_has_no_ceiling_is_nan():
  some = np.array([[True, False], [True, False]])
  none = [np.full(2, -1)]
  assert np.isnan(ceilings.tau_ceiling([some], none))
  assert np.isnan(ceilings.tau_ceiling([np.eye(2, 1, dtype=bool)], none))


def test_only_a_constant_class_is_collapsed():
  classes = np.array([0, 1, 1, 2])
  right = np.array([[0, 1, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
  found = ceilings.collapsed(right.astype(bool), classes)
  assert found.tolist() == [1, -1, 0, -1]
