"""Losses by hand, their floor, and their gradients."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from sne_jax.learning.objectives import losses

INVARIANCE = jax.jit(losses.invariance_error)
CROSS = jax.jit(losses.cross_entropy_with_logits)
CROSS_GRAD = jax.jit(
  jax.value_and_grad(losses.cross_entropy_with_logits, argnums=0)
)

BAD_SHAPE = (ValueError, jaxtyping.TypeCheckError)  # The hook is first.


def _batch(members=6, targets=3, seed=0):
  rng = np.random.default_rng(seed)
  prediction = jnp.asarray(rng.normal(size=(members, targets)), jnp.float32)
  target = jnp.asarray(rng.uniform(size=(members, targets)), jnp.float32)
  return prediction, target


def test_mse_by_hand():
  prediction = jnp.array([[1.0, 0.0], [2.0, 0.0]])
  target = jnp.array([[0.0, 0.0], [0.0, 4.0]])
  # Means over members: 5/2 and 16/2.
  assert losses.mse(prediction, target) == pytest.approx(5.25)


def test_bce_is_the_formula():
  logits, target = _batch()
  p = 1 / (1 + np.exp(-np.float64(logits)))
  y = np.float64(target)
  expected = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
  loss = losses.bce_with_logits(logits, target)
  assert loss == pytest.approx(expected, rel=1e-6)


def test_bce_is_finite_far_out_and_its_gradient_is_p_minus_y():
  logits = jnp.array([[-1e4], [1e4], [0.0]])
  target = jnp.array([[1.0], [0.0], [0.25]])
  loss, gradient = jax.jit(jax.value_and_grad(losses.bce_with_logits))(
    logits, target
  )
  assert loss == pytest.approx((2e4 + np.log(2)) / 3)
  np.testing.assert_allclose(gradient[:, 0] * 3, [-1.0, 1.0, 0.25], atol=1e-6)


def test_bce_meets_the_entropy_at_the_target_and_is_above_elsewhere():
  _, target = _batch()
  entropy = target * jnp.log(target) + (1 - target) * jnp.log1p(-target)
  floor = -float(jnp.mean(entropy))
  logits = jnp.log(target) - jnp.log1p(-target)
  best = losses.bce_with_logits(logits, target)
  assert best == pytest.approx(floor, abs=1e-6)
  assert losses.bce_with_logits(logits + 0.5, target) > floor + 1e-2


# Probabilities 1/8, 2/8, 5/8 and 1/4, 2/4, 1/4.
LOGITS = jnp.log(jnp.array([[1.0, 2.0, 5.0], [3.0, 6.0, 3.0]]))
NUMBERS = jnp.array([[2.0], [0.0]])


def test_cross_entropy_by_hand():
  errors = -np.log([5 / 8, 1 / 4])
  assert CROSS(LOGITS, NUMBERS) == pytest.approx(errors.mean(), rel=1e-6)
  # What all logits have in common says nothing.
  assert CROSS(LOGITS + 7, NUMBERS) == pytest.approx(errors.mean(), rel=1e-5)


def test_the_gradient_of_cross_entropy_is_p_less_the_class():
  _, gradient = CROSS_GRAD(LOGITS, NUMBERS)
  expected = [[1 / 8, 2 / 8, -3 / 8], [-3 / 4, 1 / 2, 1 / 4]]
  np.testing.assert_allclose(2 * gradient, expected, atol=1e-6)
  far = jnp.array([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]])
  value, gradient = CROSS_GRAD(far, NUMBERS)
  assert value == pytest.approx((1e4 + np.log(3)) / 2)
  assert jnp.isfinite(gradient).all()


def test_cross_entropy_of_probabilities_is_linear_in_them():
  soft = jax.jit(losses.soft_cross_entropy_with_logits)
  sure = jnp.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
  assert soft(LOGITS, sure) == pytest.approx(float(CROSS(LOGITS, NUMBERS)))
  target = jnp.array([[0.25, 0.0, 0.75], [0.0, 0.5, 0.5]])
  logs = -np.log([[1 / 8, 2 / 8, 5 / 8], [1 / 4, 1 / 2, 1 / 4]])
  expected = (logs * np.asarray(target)).sum(axis=1)
  assert soft(LOGITS, target) == pytest.approx(expected.mean(), rel=1e-6)
  gradient = jax.grad(losses.soft_cross_entropy_with_logits)(LOGITS, target)
  share = np.array([1 / 8, 2 / 8, 5 / 8]) - np.asarray(target[0])
  np.testing.assert_allclose(2 * gradient[0], share, atol=1e-6)


@pytest.mark.parametrize("number", [3.0, -1.0, 0.5, np.nan, np.inf])
def test_a_number_of_no_class_is_not_silent(number):
  assert jnp.isnan(CROSS(LOGITS, NUMBERS.at[1, 0].set(number)))


def test_low_precision_is_summed_in_float32():
  prediction = jnp.full((1024, 1), 1.0, jnp.bfloat16)
  loss = losses.mse(prediction, jnp.zeros((1024, 1), jnp.bfloat16))
  assert loss.dtype == jnp.float32
  assert loss == 1.0


def test_invariance_error_by_hand():
  first = jnp.array([[1.0, 2.0], [0.0, 0.0]])
  second = jnp.array([[0.0, 0.0], [0.0, 1.0]])
  # Squared norms 5 and 1; half of their mean.
  assert INVARIANCE(first, second) == pytest.approx(1.5)
  assert INVARIANCE(first, first) == 0


def test_shapes_are_checked():
  prediction, target = _batch()
  with pytest.raises(BAD_SHAPE):
    losses.mse(prediction[:, 0], target[:, 0])
  with pytest.raises(BAD_SHAPE):
    losses.mse(prediction, target[:, :1])
  for bad in (NUMBERS[:, 0], jnp.ones((2, 3)), jnp.ones((1, 1))):
    with pytest.raises(BAD_SHAPE):
      losses.cross_entropy_with_logits(LOGITS, bad)
  with pytest.raises(BAD_SHAPE):
    losses.soft_cross_entropy_with_logits(LOGITS, NUMBERS)


def test_collapsed_members_are_told_apart_by_hand():
  joint = losses.or_collapsed(losses.mse, np.array([0.1]), np.array([0.0]))
  target = jnp.array([[0.1], [0.5], [0.9], [0.1]], jnp.float32)
  values = np.array([3.0, 1.5, 0.9, -7.0])
  logits = np.array([2.0, -1.0, 0.0, 0.5])
  outputs = jnp.asarray(np.stack([values, logits], axis=1), jnp.float32)
  signs = np.array([1, -1, -1, 1])
  # The error of one member of four; and log(1 + exp(-x)) of the right side.
  expected = 1.0 / 4 + np.log1p(np.exp(-signs * logits)).mean()
  loss, gradient = jax.value_and_grad(joint)(outputs, target)
  assert loss == pytest.approx(expected, rel=1e-5)
  np.testing.assert_allclose(gradient[:, 0], [0, 2 / 4, 0, 0], atol=1e-6)
  wide = losses.or_collapsed(losses.mse, np.array([0.1]), np.array([0.4]))
  gradient = jax.grad(wide)(outputs, target)
  np.testing.assert_allclose(gradient[:, 0], 0, atol=1e-6)
  with pytest.raises(ValueError, match="predictions and logits"):
    joint(outputs[:, :1], target)
