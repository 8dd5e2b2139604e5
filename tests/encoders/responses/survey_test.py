"""What says how answers are distributed names no class, input or unit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.responses import features, inputs

GOLDEN = [[1.039274, 0.787825], [1.592052, -0.039849]]
FUNCTIONS = {
  "level": features.survey_level,
  "units": features.survey_units,
}


def test_outputs_have_no_order_of_classes_or_inputs():
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.standard_normal((2, 6, 5)), jnp.float32)
  got = features.survey(logits, classes=True)
  for other in (
    logits[..., rng.permutation(5)],
    logits[:, rng.permutation(6)],
    logits + 7,
  ):
    again = features.survey(other, classes=True)
    np.testing.assert_allclose(again, got, rtol=1e-3, atol=1e-4)
  for other in (2 * logits, logits.at[:, :, 0].multiply(-1)):
    assert np.abs(features.survey(other, classes=True) - got).max() > 0.05


def test_signals_have_no_order_of_inputs_but_one_of_outputs():
  rng = np.random.default_rng(0)
  outputs = jnp.asarray(rng.standard_normal((2, 6, 3)), jnp.float32)
  got = features.survey(outputs, classes=False)
  np.testing.assert_allclose(
    features.survey(outputs[:, ::-1], classes=False), got, rtol=1e-4, atol=1e-5
  )
  other = features.survey(outputs[..., ::-1], classes=False)
  assert np.abs(other - got).max() > 0.05


@pytest.mark.parametrize("name", FUNCTIONS)
def test_levels_have_no_order_and_padding_is_nothing(name):
  rng = np.random.default_rng(0)
  before = jnp.asarray(rng.standard_normal((2, 5, 4, 6)), jnp.float32)
  after, mask = jax.nn.relu(before), jnp.ones((2, 5), bool)
  function = jax.jit(FUNCTIONS[name])
  got = function(before, after, mask)
  is_of_units = got.ndim == 3
  order = rng.permutation(5)
  moved = function(before[:, order], after[:, order], mask)
  moved = moved[:, np.argsort(order)] if is_of_units else moved
  np.testing.assert_allclose(moved, got, rtol=1e-3, atol=1e-4)
  turned = function(before[..., ::-1], after[..., ::-1], mask)
  np.testing.assert_allclose(turned, got, rtol=1e-3, atol=1e-4)
  wider = [jnp.concatenate([x, 3 + x], axis=1) for x in (before, after)]
  padded = function(*wider, jnp.concatenate([mask, ~mask], axis=1))
  padded = padded[:, :5] if is_of_units else padded
  np.testing.assert_allclose(padded, got, rtol=1e-3, atol=1e-4)
  other = function(before, jnp.tanh(before), mask)
  assert np.abs(other - got).max() > 0.05


def test_dead_units_have_finite_features_and_gradients():
  dead = jnp.zeros((1, 3, 4, 6))
  mask = jnp.ones((1, 3), bool)

  def total(x):
    parts = [function(x, x, mask).sum() for function in FUNCTIONS.values()]
    return sum(parts) + features.survey(x[:, :, 0], classes=True).sum()

  value, slope = jax.jit(jax.value_and_grad(total))(dead)
  assert np.isfinite(value) and np.isfinite(slope).all()


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 8, 8), (5,)])
def test_noise_is_the_same_everywhere_and_not_learned(shape):
  draw = lambda key: inputs.Inputs(8, (1, 16, 16), 5, "noise").init_with_output(
    jax.random.key(key), shape
  )
  (one, params), (other, _) = draw(0), draw(1)
  assert not params
  assert one.shape == (8, *shape)
  np.testing.assert_array_equal(one, other)
  assert np.unique(np.asarray(one).reshape(8, -1), axis=0).shape[0] == 8


def test_numbers_of_noise_are_those_of_before():
  """Model files rely on them."""
  images = inputs.Inputs(2, (1, 8, 8), 1, "noise").apply({}, (1, 8, 8))
  np.testing.assert_allclose(
    np.asarray(images)[:, 0, 0, :2], GOLDEN, rtol=1e-4, atol=1e-5
  )
