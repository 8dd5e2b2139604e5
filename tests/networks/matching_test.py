"""Matching: permutations are found again, and nothing gets farther."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks import families, matching, symmetry
from sne_jax.networks.spec import Factor, NetworkSpec, TensorSpec, plain_axis

SPECS = families.tiny_specs() | {
  "wide": families.inr((2, 32, 32, 1)),
  "deep": families.mlp((6, 16, 16, 16, 16, 3)),
  "vit": families.transformer(
    (1, 8, 8), 4, dim=8, depth=2, heads=4, hidden=12, num_classes=3
  ),
}


def pair(spec, seed=0):
  """Two unrelated networks."""
  rng = np.random.default_rng(seed)
  return [families.random_weights(spec, rng) for _ in range(2)]


def distance(one, other):
  return float(np.linalg.norm(np.float64(one) - np.float64(other)))


@pytest.mark.parametrize("name", [n for n in SPECS if "mlp" not in n])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_permutation_is_found_again(name, seed):
  """Of all but the narrowest, where the best of visits in turn may be poor."""
  spec = SPECS[name]
  rng = np.random.default_rng(seed)
  weights = families.random_weights(spec, rng)
  moved = weights[symmetry.draw_permutation(spec, rng)]
  assert distance(moved, weights) > 1
  index = matching.align(spec, weights, moved, rng)
  np.testing.assert_array_equal(moved[index], weights)


@pytest.mark.parametrize("name", ["wide", "cnn_flat_last", "vit"])
def test_noise_does_not_hide_a_permutation(name):
  spec = SPECS[name]
  rng = np.random.default_rng(3)
  weights, noise = pair(spec)
  hidden = symmetry.draw_permutation(spec, rng)
  moved = (weights + 0.02 * noise)[hidden]
  index = matching.align(spec, weights, moved, rng)
  np.testing.assert_array_equal(hidden[index], symmetry.identity(spec))


@pytest.mark.parametrize("name", SPECS)
def test_unrelated_networks_get_closer_and_stay_what_they_are(name):
  spec = SPECS[name]
  for seed in range(4):
    reference, weights = pair(spec, seed)
    rng = np.random.default_rng(seed)
    index = matching.align(spec, reference, weights, rng)
    assert index.dtype == np.int32
    assert distance(reference, weights[index]) < distance(reference, weights)
  shape = dict(spec.options).get("image_shape", (spec.tensors[0].shape[-1],))
  x = np.random.default_rng(1).standard_normal((5, *shape), np.float32)
  run = functools.partial(families.forward, spec)
  run = jax.jit(run, compiler_options={"xla_backend_optimization_level": "0"})
  before = run(weights, x)
  np.testing.assert_allclose(run(weights[index], x), before, atol=1e-4)
  # The control: the same order of numbers, for another network.
  wrong = np.random.default_rng(0).permutation(index)
  assert not jnp.abs(run(weights[wrong], x) - before).max() < 1e-2


def test_a_false_symmetry_is_not_undone():
  spec = SPECS["wide"]
  rng = np.random.default_rng(0)
  weights = families.random_weights(spec, rng)
  for draw in (symmetry.draw_uncoupled, symmetry.draw_input_shuffle):
    moved = weights[draw(spec, rng)]
    index = matching.align(spec, weights, moved, rng)
    assert distance(moved[index], weights) > 0.1


def test_one_hidden_layer_is_matched_best():
  spec = families.mlp((2, 4, 3))
  rng = np.random.default_rng(0)
  for seed in range(5):
    reference, weights = pair(spec, seed)
    index = matching.align(spec, reference, weights, rng)
    least = min(
      distance(
        reference,
        weights[symmetry.permutation_from(spec, {"n1": np.array(order)})],
      )
      for order in itertools.permutations(range(4))
    )
    assert distance(reference, weights[index]) == pytest.approx(least)


def test_heads_and_the_units_in_them_are_matched_best():
  """All other groups have one member: 2 heads of 2 units in two groups."""
  spec = families.transformer(
    (1, 4, 4), 4, dim=1, depth=1, heads=2, head_dim=2, hidden=1, num_classes=2
  )
  outer, *nested = [g for g, (size, _) in spec.groups.items() if size > 1]
  orders = [np.array(order) for order in ([0, 1], [1, 0])]
  inner = [np.stack(both) for both in itertools.product(orders, orders)]
  rng = np.random.default_rng(0)
  for seed in range(5):
    reference, weights = pair(spec, seed)
    index = matching.align(spec, reference, weights, rng)
    found = [
      distance(
        reference,
        weights[
          symmetry.permutation_from(
            spec, {outer: heads, nested[0]: one, nested[1]: two}
          )
        ],
      )
      for heads, one, two in itertools.product(orders, inner, inner)
    ]
    assert len(set(found)) > 16
    assert distance(reference, weights[index]) == pytest.approx(min(found))


def recurrent(size):
  """A group on both axes of a tensor: the product is not a plain sum."""
  hidden, fixed = plain_axis(size, "h"), plain_axis(2)
  return NetworkSpec(
    "unknown",
    (
      TensorSpec("in", "linear_weight", (size, 2), 0, (hidden, fixed)),
      TensorSpec("on", "linear_weight", (size, size), 1, (hidden, hidden)),
    ),
  )


def test_a_group_on_two_axes_never_gets_farther():
  spec = recurrent(6)
  rng = np.random.default_rng(0)
  gains = []
  for _ in range(50):
    reference, weights = rng.standard_normal((2, spec.num_weights))
    index = matching.align(spec, reference, weights, rng)
    before = distance(reference, weights)
    gains.append(before - distance(reference, weights[index]))
  assert min(gains) >= 0
  assert np.median(gains) > 0.5


def test_the_same_generator_gives_the_same_order():
  spec = SPECS["deep"]
  reference, weights = pair(spec)
  first, second, other = (
    matching.align(spec, reference, weights, np.random.default_rng(seed))
    for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, second)
  assert (first != other).any()


def test_a_network_without_hidden_neurons_stays():
  spec = families.mlp((3, 2))
  one, two = pair(spec)
  index = matching.align(spec, one, two, np.random.default_rng(0))
  np.testing.assert_array_equal(index, np.arange(8))


def test_what_cannot_be_matched_is_refused():
  spec = SPECS["wide"]
  one, two = pair(spec)
  rng = np.random.default_rng(0)
  with pytest.raises(ValueError, match="max_sweeps is 0"):
    matching.align(spec, one, two, rng, max_sweeps=0)
  with pytest.raises(ValueError, match="got an array of shape"):
    matching.align(spec, one[1:], two[1:], rng)
  with pytest.raises(ValueError, match="reference of inr of .* not finite"):
    matching.align(spec, np.where(two > 0.1, np.nan, one), two, rng)
  twins = (Factor(2, "h"), Factor(2, "u", per="h"), Factor(2, "v", per="h"))
  odd = NetworkSpec(
    "unknown", (TensorSpec("bias", "linear_bias", (8,), 0, (twins,)),)
  )
  with pytest.raises(ValueError, match="'u' and 'v'"):
    matching.align(odd, np.ones(8), np.ones(8), rng)
