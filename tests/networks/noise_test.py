"""Damage to weights: how much of it, and to which."""

import numpy as np
import pytest

from sne_jax.networks import families, noise

SPEC = families.mlp((30, 40, 1))


def weights_of(seed=0):
  return families.random_weights(SPEC, np.random.default_rng(seed))


def test_noise_is_a_share_of_each_tensor():
  weights = weights_of()
  weights[:1200] *= 100  # The first tensor; others keep their own size.
  found = noise.add_noise(SPEC, weights, 0.1, np.random.default_rng(1))
  assert found.dtype == np.float32
  change, before = SPEC.unflatten(found - weights), SPEC.unflatten(weights)
  for name in ("layer0.weight", "layer0.bias", "layer1.weight"):
    share = change[name].std() / before[name].std()
    assert share == pytest.approx(0.1, rel=0.25)
    assert abs(change[name].mean()) < 0.05 * before[name].std()
  assert (change["layer1.bias"] == 0).all()


def test_masked_weights_are_zero_and_the_mean_stays():
  weights = np.full(20000, 3.0, np.float32)
  found = noise.mask(weights, 0.25, np.random.default_rng(0))
  assert found.dtype == np.float32
  np.testing.assert_allclose(np.unique(found), [0, 4], rtol=1e-6)
  assert found.mean() == pytest.approx(3, rel=0.02)
  assert (found == 0).mean() == pytest.approx(0.25, abs=0.02)
  other = noise.mask(weights, 0.25, np.random.default_rng(1))
  assert (found != other).any()


def test_the_smallest_weights_are_dropped():
  weights = np.array([0.5, -4, 3, -1, 2], np.float32)
  np.testing.assert_array_equal(
    noise.drop_smallest(weights, 0.4), [0, -4, 3, 0, 2]
  )
  np.testing.assert_array_equal(noise.drop_smallest(weights, 0.0), weights)
  long = weights_of()
  found = noise.drop_smallest(long, 0.3)
  assert (found == 0).mean() == pytest.approx(0.3, abs=0.01)
  assert np.abs(long[found == 0]).max() < np.abs(found[found != 0]).min()


def test_shares_out_of_range_are_refused():
  with pytest.raises(ValueError, match="probability is 1"):
    noise.mask(np.ones(3, np.float32), 1.0, np.random.default_rng(0))
  with pytest.raises(ValueError, match="share is -0.1"):
    noise.drop_smallest(np.ones(3, np.float32), -0.1)


def test_a_constant_moves_the_outputs_and_nothing_else():
  spec = families.mlp((3, 5, 4), "relu")
  weights = families.random_weights(spec, np.random.default_rng(0))
  moved = noise.shift_output(spec, weights, 0.7)
  x = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
  before, after = (
    np.asarray(families.forward(spec, w, x)) for w in (weights, moved)
  )
  np.testing.assert_allclose(after - before, 0.7, atol=1e-5)
  assert (moved != weights).sum() == 4


def test_biases_are_drawn_as_wide_as_pytorch_does():
  weights = weights_of()
  weights[1200:1240] = 0  # The biases of the first layer.
  found = noise.draw_biases(SPEC, weights, 0.5, np.random.default_rng(0))
  before, after = SPEC.unflatten(weights), SPEC.unflatten(found)
  for name in ("layer0.weight", "layer1.weight"):
    np.testing.assert_array_equal(after[name], before[name])
  drawn = np.abs(after["layer0.bias"])
  assert 0.4 / 30**0.5 < drawn.max() <= 0.5 / 30**0.5
  assert (after["layer1.bias"] != before["layer1.bias"]).all()
