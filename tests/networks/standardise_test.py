"""Standardised layers: statistics by hand, inverses, symmetry."""

import json

import numpy as np
import pytest

from sne_jax.networks import families, standardise, symmetry, tokens

SPEC = families.mlp((2, 3, 2))
RESNET = families.tiny_specs()["resnet"]


def zoo(spec, count=6, seed=0):
  rng = np.random.default_rng(seed)
  scale = rng.uniform(0.1, 3, spec.num_weights)
  return (rng.standard_normal((count, spec.num_weights)) * scale + 1).astype(
    np.float32
  )


def test_statistics_by_hand():
  spec = families.mlp((1, 1, 1))  # Two layers of a weight and a bias.
  weights = np.array([[1, 2, 10, 20], [3, 4, 30, 40]], np.float32)
  found = standardise.measure(spec, weights)
  np.testing.assert_allclose(found["shift"], [2.5, 25])
  np.testing.assert_allclose(found["scale"], [1.290994, 12.909944], rtol=1e-6)
  within = standardise.measure(spec, weights, "within")
  np.testing.assert_allclose(within["scale"], np.sqrt([0.5, 50]))
  minmax = standardise.measure(spec, weights, "minmax")
  low = standardise.standardise(spec, minmax, weights)
  np.testing.assert_allclose(low[0], [-1, -1 / 3, -1, -1 / 3], rtol=1e-6)
  np.testing.assert_allclose(low[1], [1 / 3, 1, 1 / 3, 1], rtol=1e-6)


@pytest.mark.parametrize("mode", standardise.MODES)
@pytest.mark.parametrize("batch_norms", [True, False])
def test_restoring_is_the_inverse(mode, batch_norms):
  weights = zoo(RESNET)
  found = standardise.measure(RESNET, weights, mode, batch_norms=batch_norms)
  found = json.loads(json.dumps(found))  # Plain values.
  scaled = standardise.standardise(RESNET, found, weights)
  assert scaled.dtype == np.float32
  back = standardise.restore(RESNET, found, scaled)
  np.testing.assert_allclose(back, weights, rtol=1e-5, atol=1e-5)
  layer = tokens.layer_of(RESNET, batch_norms)
  if not batch_norms:
    np.testing.assert_array_equal(scaled[:, layer < 0], weights[:, layer < 0])
  if mode in ("pooled", "within"):
    for number in range(layer.max() + 1):
      assert abs(scaled[:, layer == number].mean()) < 1e-4
  # Other networks are scaled by the same numbers, not by their own.
  other = standardise.standardise(RESNET, found, 2 * weights)
  if mode == "pooled":
    assert abs(other[:, layer == 0].std() - 2) < 0.1


def test_what_never_varies_is_safe_and_running_statistics_count_once():
  weights = np.ones((3, SPEC.num_weights), np.float32)
  found = standardise.measure(SPEC, weights)
  np.testing.assert_array_equal(
    standardise.standardise(SPEC, found, weights), 0
  )
  assert min(found["scale"]) == standardise.SMALLEST
  one = standardise.measure(SPEC, zoo(SPEC, 1), "within")
  assert np.isfinite(one["scale"]).all()
  names = standardise.measure(RESNET, zoo(RESNET))["layers"]
  assert len(names) == len(set(names))


def test_standardising_commutes_with_permutations():
  rng = np.random.default_rng(1)
  weights = zoo(RESNET)
  found = standardise.measure(RESNET, weights)
  index = symmetry.draw_permutation(RESNET, rng)
  np.testing.assert_array_equal(
    standardise.standardise(RESNET, found, weights[:, index]),
    standardise.standardise(RESNET, found, weights)[:, index],
  )


def test_bad_input_is_named():
  with pytest.raises(ValueError, match="unknown mode 'median'"):
    standardise.measure(SPEC, zoo(SPEC), "median")
  with pytest.raises(ValueError, match="no training networks"):
    standardise.measure(SPEC, zoo(SPEC)[:0])
  found = standardise.measure(SPEC, zoo(SPEC))
  with pytest.raises(ValueError, match="measure training networks"):
    standardise.standardise(RESNET, found, zoo(RESNET))
