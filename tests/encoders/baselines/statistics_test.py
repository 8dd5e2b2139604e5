"""Statistics against numpy, their symmetries, and their gradients."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.baselines import statistics
from sne_jax.networks import families
from sne_jax.networks.spec import NetworkSpec, TensorSpec, plain_axis


def _spec(*layers, bias=True):
  """A dense network of the given (out, in) layers."""
  tensors = []
  for level, shape in enumerate(layers):
    name, axes = f"layer{level}", tuple(plain_axis(size) for size in shape)
    weight = TensorSpec(f"{name}.w", "linear_weight", shape, level, axes)
    tensors.append(weight)
    if bias:
      tensors.append(
        TensorSpec(
          f"{name}.b", "linear_bias", shape[:1], level, axes[:1], weight.name
        )
      )
  return NetworkSpec("unknown", tuple(tensors))


SPEC = _spec((5, 2), (4, 5), (1, 4))  # even and odd sizes, and a size of 1


def _weights(spec, members=3, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(members, spec.num_weights)).astype(np.float32)


def test_published_percentiles_give_the_authors_numbers():
  path = pathlib.Path(__file__).parents[2] / "fixtures"
  with np.load(path / "hyper_representation.npz") as found:
    weights, wanted = found["in/w"], found["s_of_w/out_bias1"]
    without = found["s_of_w/out_bias0"]
  spec = families.mlp((3, 4, 2))
  percents = (1, 25, 50, 75, 99)
  own = statistics.tensor_statistics(spec, weights, ddof=0, percents=percents)
  np.testing.assert_allclose(own, wanted, atol=1e-5)
  places = [n for n, t in enumerate(spec.tensors) if t.kind == "linear_weight"]
  own = own.reshape(len(own), -1, 7)[:, places].reshape(len(own), -1)
  np.testing.assert_allclose(own, without, atol=1e-5)
  for changes in ({"ddof": 1}, {"percents": statistics.PERCENTS}):
    options = {"ddof": 0, "percents": percents} | changes
    other = statistics.tensor_statistics(spec, weights, **options)
    assert abs(other - wanted).max() > 0.01
  with pytest.raises(ValueError, match="percents must be from 0 to 100"):
    statistics.tensor_statistics(spec, weights, percents=(1, 101))


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("xp", [np, jnp])
def test_values_are_those_of_numpy(ddof, xp):
  weights = _weights(SPEC)
  view = functools.partial(statistics.tensor_statistics, SPEC, ddof=ddof, xp=xp)
  view = view if xp is np else jax.jit(view)
  got = view(xp.asarray(weights))
  assert got.shape == (3, 7 * 6)
  assert got.dtype == np.float32
  for place, array in enumerate(SPEC.unflatten(weights).values()):
    flat = array.reshape(3, -1)
    rows = np.asarray(got)[:, 7 * place : 7 * place + 7]
    np.testing.assert_allclose(rows[:, 0], flat.mean(1), atol=1e-6)
    variance = 0.0 if flat.shape[1] == 1 else flat.var(1, ddof=ddof)
    np.testing.assert_allclose(rows[:, 1], variance, atol=1e-6)
    quantiles = np.quantile(flat, [0, 0.25, 0.5, 0.75, 1], axis=1).T
    np.testing.assert_allclose(rows[:, 2:], quantiles, atol=1e-6)


def test_by_hand():
  spec = _spec((4, 1), bias=False)
  got = statistics.tensor_statistics(spec, np.array([3.0, 1.0, 0.0, 2.0]))
  # Mean 1.5, squares 2.25 + 0.25 + 2.25 + 0.25 = 5 over 3.
  np.testing.assert_allclose(got, [1.5, 5 / 3, 0, 0.75, 1.5, 2.25, 3])


def test_small_cnn_zoo_has_56_features():
  assert statistics.tensor_statistics(
    _spec((2, 2), (2, 2), (2, 2), (2, 2)), np.zeros((1, 24))
  ).shape == (1, 56)


def test_shuffling_inside_a_tensor_is_not_seen_and_across_tensors_is():
  rng = np.random.default_rng(1)
  weights = _weights(SPEC)
  tensors = SPEC.unflatten(weights)
  inside = {
    name: rng.permuted(array.reshape(3, -1), axis=1).reshape(array.shape)
    for name, array in tensors.items()
  }
  inside = SPEC.flatten(inside, np)
  assert not np.array_equal(inside, weights)
  for view in (statistics.tensor_statistics, statistics.pooled_statistics):
    before = view(SPEC, weights)
    np.testing.assert_allclose(view(SPEC, inside), before, atol=1e-6)
    across = view(SPEC, weights[:, ::-1])
    assert np.abs(across - before).max() > 1e-2


def test_members_do_not_mix():
  weights = _weights(SPEC)
  for view in (statistics.tensor_statistics, statistics.pooled_statistics):
    for row, member in zip(view(SPEC, weights), weights, strict=True):
      np.testing.assert_allclose(row, view(SPEC, member), atol=1e-6)


def test_gradient_is_finite_also_for_one_entry():
  weights = jnp.asarray(_weights(SPEC)[0])
  gradient = jax.jit(
    jax.grad(lambda w: jnp.sum(statistics.tensor_statistics(SPEC, w, xp=jnp)))
  )(weights)
  assert jnp.isfinite(gradient).all()
  assert (gradient != 0).any()


def test_pooled_by_its_definition():
  weights = _weights(SPEC)
  each = statistics.tensor_statistics(SPEC, weights).reshape(3, 6, 7)
  kernels = each[:, ::2]
  got = statistics.pooled_statistics(SPEC, weights).reshape(3, 2, 5, 7)
  np.testing.assert_allclose(got[:, 0, 0], kernels.mean(1), atol=1e-6)
  np.testing.assert_array_equal(got[:, 0, 1], kernels.min(1))
  np.testing.assert_array_equal(got[:, 0, 2], kernels.max(1))
  np.testing.assert_array_equal(got[:, 1, 3], each[:, 1])
  np.testing.assert_array_equal(got[:, 1, 4], each[:, 5])


@pytest.mark.parametrize(
  "spec", [SPEC, _spec((3, 2)), _spec((3, 2), (2, 3), bias=False)]
)
def test_pooled_length_is_the_same_everywhere(spec):
  got = statistics.pooled_statistics(spec, _weights(spec))
  assert got.shape == (3, 70)
  assert np.isfinite(got).all()
  has_bias = any(t.kind == "linear_bias" for t in spec.tensors)
  assert (got[:, 35:] != 0).any() == has_bias


def test_faults_are_named():
  with pytest.raises(ValueError, match="ddof must be 0 or 1, got 2"):
    statistics.tensor_statistics(SPEC, _weights(SPEC), ddof=2)
  with pytest.raises(ValueError, match=r"has 44 weights, got .*\(3, 43\)"):
    statistics.tensor_statistics(SPEC, _weights(SPEC)[:, 1:])
