"""Samplers: anchors, what is mixed, what is kept."""

import jax
import numpy as np
import pytest

from sne_jax.learning.generative import densities

# Anchor `e` is `10 e` everywhere, so a draw shows its anchors and its noise.
ANCHORS = np.broadcast_to(10 * np.arange(6.0)[:, None, None], (6, 20, 3))
ANCHORS = ANCHORS.astype(np.float32)


def key():
  return jax.random.key(0)


def drawn(**options):
  found = np.asarray(
    densities.kde(key(), ANCHORS, 50, bandwidth=0.1, **options)
  )
  anchors = np.round(found / 10)
  return anchors, found - 10 * anchors


def distinct(x):
  """Number of distinct values in each draw."""
  return np.array([len(np.unique(row)) for row in x.reshape(len(x), -1)])


def test_densities_mix_what_they_say():
  anchors, noise = drawn()
  assert (distinct(anchors) > 1).all()
  assert (anchors == anchors[..., :1]).all()  # A token has one anchor.
  assert abs(noise.std() - 0.1) < 0.01 and (distinct(noise) > 50).all()
  anchors, _ = drawn(mode="individual")
  assert (anchors != anchors[..., :1]).any()
  anchors, noise = drawn(mode="joint")
  assert (distinct(anchors) == 1).all() and (distinct(noise) > 50).all()
  assert len(np.unique(anchors)) == 6


def test_coupled_densities_copy_one_anchor():
  anchors, noise = drawn(coupled=True)
  assert (distinct(anchors) == 1).all()
  np.testing.assert_allclose(
    noise, np.broadcast_to(noise[:, :1], noise.shape), atol=1e-5
  )
  assert noise.std() > 0.05
  # One number of noise for all, where every number has its own density.
  anchors, noise = drawn(mode="individual", coupled=True)
  assert (distinct(anchors) == 1).all() and np.ptp(noise, (1, 2)).max() < 1e-5


def test_one_anchor_without_noise_comes_back_and_draws_repeat():
  found = densities.kde(key(), ANCHORS[2:3], 4, bandwidth=0.0)
  np.testing.assert_array_equal(found, np.repeat(ANCHORS[2:3], 4, axis=0))
  again = densities.kde(key(), ANCHORS, 50, bandwidth=0.1)
  np.testing.assert_array_equal(
    again, densities.kde(key(), ANCHORS, 50, bandwidth=0.1)
  )


def test_the_best_are_kept_in_order():
  codes = ANCHORS[:5]
  kept = densities.best(codes, [0.1, np.nan, 0.9, 0.5, 0.9], 4)
  np.testing.assert_array_equal(kept.codes[:, 0, 0], [20, 40, 30, 0])
  np.testing.assert_array_equal(kept.scores, [0.9, 0.9, 0.5, 0.1])


def test_bootstrapping_climbs_and_ends_sorted():
  seen = []

  def score(codes):
    seen.append(np.asarray(codes))
    return -np.abs(np.asarray(codes) - 27).mean((1, 2))

  options = {"num": 30, "keep": 5, "bandwidth": 2.0, "mode": "joint"}
  first = densities.subsample(key(), ANCHORS, score, **options)
  last = densities.subsample(key(), ANCHORS, score, rounds=4, **options)
  assert len(seen) == 5 and all(len(codes) == 30 for codes in seen)
  assert (np.diff(last.scores) <= 0).all()
  assert last.scores.mean() > first.scores.mean()
  # The anchors of the second round are what the first has kept.
  near = np.abs(seen[-1].mean((1, 2)) - 27)
  assert near.max() < 8


@pytest.mark.parametrize(
  ("run", "message"),
  [
    (lambda: densities.kde(key(), ANCHORS[:0], 3), "no anchors"),
    (lambda: densities.kde(key(), ANCHORS, 0), "num must be at least 1"),
    (
      lambda: densities.kde(key(), ANCHORS, 3, mode="all"),
      "unknown mode 'all'",
    ),
    (lambda: densities.kde(key(), ANCHORS, 3, bandwidth=-1.0), "bandwidth"),
    (lambda: densities.best(ANCHORS, [1.0], 1), "6 codes need as many scores"),
    (lambda: densities.best(ANCHORS, [1.0] * 6, 7), "cannot keep 7 of 6"),
    (
      lambda: densities.subsample(key(), ANCHORS, len, rounds=0),
      "rounds must be at least 1",
    ),
  ],
)
def test_bad_input_is_one_clear_line(run, message):
  with pytest.raises(ValueError, match=message) as error:
    run()
  assert "\n" not in str(error.value)
