"""Convolutions by band and by phase against the plain ones, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks.families import banded, dense, layers


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("tall", "wide"), [(3, 3), (5, 2), (1, 4)])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("way", [banded.banded, banded.by_phase])
def test_both_ways_are_the_convolution(way, padding, tall, wide, stride):
  rng = np.random.default_rng(0)
  draw = lambda *s: jnp.asarray(rng.standard_normal(s), jnp.float32)
  kernel, x = draw(4, 2, tall, wide), draw(2, 7, 8, 3)
  plain = lambda x: layers.convolution(
    {"a.weight": kernel}, "a", x, stride, padding
  )
  wanted, back = jax.vjp(plain, x)
  found, own_back = jax.vjp(lambda x: way(kernel, x, stride, padding), x)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
  along = draw(*wanted.shape)
  np.testing.assert_allclose(
    own_back(along)[0], back(along)[0], rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize("side", [5, 20])  # By band, and by phase.
def test_biases_are_added(side):
  rng = np.random.default_rng(0)
  tensors = {"a.weight": rng.standard_normal((2, 1, 3, 3), np.float32)}
  tensors["a.bias"] = np.array([3.0, -1.0], np.float32)
  x = jnp.asarray(rng.standard_normal((1, side, side, 2)), jnp.float32)
  np.testing.assert_allclose(
    banded.convolution(tensors, "a", x),
    layers.convolution(tensors, "a", x),
    *(1e-4, 1e-5),
  )


@pytest.mark.parametrize("bias", [True, False])
def test_dense_networks_run_alike_with_inputs_last(bias):
  spec = dense.inr((2, 5, 4, 3), bias=bias)
  rng = np.random.default_rng(0)
  weights = rng.standard_normal(spec.num_weights, np.float32)
  x = rng.standard_normal((6, 2), np.float32)
  tensors = spec.unflatten(jnp.asarray(weights))
  np.testing.assert_allclose(
    dense.run_inputs_last(spec, tensors, x),
    dense.run(spec, tensors, x),
    *(1e-3, 1e-4),
  )
