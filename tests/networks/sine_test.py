"""The fast sine against float64, its derivative, and what is not finite."""

import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.networks.families import sine

Z = np.linspace(-1000, 1000, 400_001).astype(np.float32)


def test_value_and_derivative_are_accurate():
  value, slope = jax.jvp(jax.jit(sine.sine), (Z,), (np.ones_like(Z),))
  exact = Z.astype(np.float64)
  assert np.abs(value - np.sin(exact)).max() < 2e-7
  assert np.abs(slope - np.cos(exact)).max() < 2e-7


def test_reverse_mode_agrees_with_forward_mode():
  z = Z[::40_000]
  back = jax.vmap(jax.grad(sine.sine))(z)
  np.testing.assert_allclose(back, np.cos(z.astype(np.float64)), atol=2e-7)


def test_half_turns_have_the_right_sign():
  turns = np.arange(-6, 7)
  value = sine.sine(jnp.asarray((turns + 0.5) * np.pi, jnp.float32))
  np.testing.assert_allclose(value, np.where(turns % 2, -1, 1), atol=1e-6)


def test_not_finite_stays_not_finite():
  assert not np.isfinite(sine.sine(jnp.array([np.inf, -np.inf, np.nan]))).any()


def test_the_largest_numbers_stay_within_one():
  z = np.array([1e6, -3e9, 1e20, 3e38], np.float32)
  value, slope = jax.jvp(sine.sine, (z,), (np.ones_like(z),))
  assert (np.abs(value) <= 1.001).all() and (np.abs(slope) <= 1.001).all()
