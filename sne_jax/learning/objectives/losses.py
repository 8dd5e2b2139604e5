"""Losses of predicted properties and of learned invariance.

Every loss is a mean over members, and over targets, in float32 at least.

Dimensions: `B` members of a batch, `T` target properties, `K` classes of one,
`D` width of a code.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float


def mse(
  prediction: Float[Array, "B T"], target: Float[Array, "B T"]
) -> Float[Array, ""]:
  """Mean squared error, in the squared unit of the targets.

  Args:
    prediction: predicted properties.
    target: true properties.

  Raises:
    ValueError: shapes do not agree.
  """
  prediction, target = _pair(prediction, target)
  return _mean(jnp.square(prediction - target))


def bce_with_logits(
  logits: Float[Array, "B T"], target: Float[Array, "B T"]
) -> Float[Array, ""]:
  """Binary cross-entropy of `sigmoid(logits)` against soft targets, in nats.

  The gradient with respect to a logit is `sigmoid(logit) - target`: finite for
  any logit. The least value is not 0 but the entropy of the targets.

  Args:
    logits: the head's output before the sigmoid.
    target: properties in [0, 1], such as accuracies; they stay soft.

  Raises:
    ValueError: shapes do not agree.
  """
  logits, target = _pair(logits, target)
  return _mean(optax.sigmoid_binary_cross_entropy(logits, target))


def cross_entropy_with_logits(
  logits: Float[Array, "B K"], target: Float[Array, "B 1"]
) -> Float[Array, ""]:
  """Cross-entropy of `softmax(logits)` against classes, in nats.

  The gradient with respect to the logits of a member is its probabilities less
  1 at its class.

  Args:
    logits: the head's output before the softmax.
    target: numbers of the classes, 0 to `K - 1`, as floats like all targets.
      The loss is nan where a member has another number.

  Raises:
    ValueError: shapes do not agree.
  """
  if logits.ndim != 2 or target.shape != (logits.shape[0], 1):
    raise ValueError(
      "logits and target must be of shapes [B, K] and [B, 1], got"
      f" {logits.shape} and {target.shape}; give the numbers of the classes"
    )
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  number = jnp.clip(jnp.nan_to_num(target), 0, logits.shape[1] - 1)
  number = number.astype(jnp.int32)
  error = optax.softmax_cross_entropy_with_integer_labels(logits, number[:, 0])
  known = number.astype(target.dtype) == target
  return _mean(jnp.where(known, error[:, None], jnp.nan))


def soft_cross_entropy_with_logits(
  logits: Float[Array, "B K"], target: Float[Array, "B K"]
) -> Float[Array, ""]:
  """Cross-entropy of `softmax(logits)` against probabilities, in nats.

  For targets between classes, such as those of mixed networks; with all of the
  probability at one class it is `cross_entropy_with_logits`.

  Args:
    logits: the head's output before the softmax.
    target: probabilities of the classes, of sum 1 (not checked).

  Raises:
    ValueError: shapes do not agree.
  """
  logits, target = _pair(logits, target)
  return _mean(optax.softmax_cross_entropy(logits, target)[:, None])


def or_collapsed(
  loss: Callable[[Array, Array], Array],
  values: Float[np.ndarray, "T"],
  within: Float[np.ndarray, "T"],
) -> Callable[[Array, Array], Array]:
  """Returns the loss of a head that says apart which members have collapsed.

  Its outputs are `[B, 2 T]`: predictions, then logits. Members that have
  collapsed have no error of the prediction; the cross-entropy of the logits is
  added for all.

  Args:
    loss: of predictions `[B, T]`, a mean over members and targets.
    values: that targets collapse to, as the loss has them.
    within: targets so near to it have collapsed.
  """

  def joint(outputs, target):
    if outputs.ndim != 2 or outputs.shape[1] != 2 * target.shape[1]:
      raise ValueError(
        f"outputs are {outputs.shape} for targets {target.shape}; give"
        " predictions and logits, [B, 2 T]"
      )
    prediction, logits = jnp.split(outputs, 2, axis=1)
    one = lambda p, t: loss(p[None, None], t[None, None])
    errors = jax.vmap(jax.vmap(one))(prediction, target)
    # As exact as float32 has the targets.
    near = within + 1e-6 * (1 + np.abs(values))
    gone = jnp.abs(target - values[None, :]) <= near[None, :]
    kept = _mean(jnp.where(gone, 0.0, errors))
    return kept + bce_with_logits(logits, gone.astype(errors.dtype))

  return joint


def invariance_error(
  first: Float[Array, "B D"], second: Float[Array, "B D"]
) -> Float[Array, ""]:
  """`1/2` the mean over members of `|F(x) - F(g x)|^2`, `g` a symmetry.

  The squared norm sums over `D`, so that a code of width `D` and a single
  logit are each measured in their square unit.

  Args:
    first: logits or codes of the networks.
    second: the same of the transformed networks.

  References:
    Moskalev et al., On genuine invariance learning without weight-tying, 2023,
    arXiv:2308.03904.
  """
  first, second = _pair(first, second)
  return 0.5 * _mean(jnp.sum(jnp.square(first - second), -1, keepdims=True))


def _mean(values: Float[Array, "B T"]) -> Float[Array, ""]:
  """Returns the mean over targets of their means over members."""
  return jnp.mean(jnp.mean(values, axis=0))


def _pair(first, second):
  """Returns both in float32 or wider; raises unless both are `[B, T]`."""
  if first.ndim != 2 or first.shape != second.shape:
    raise ValueError(
      "prediction and target must both be of one shape [B, T], got"
      f" {first.shape} and {second.shape}; give a single target as [B, 1]"
    )
  dtype = jnp.promote_types(jnp.result_type(first, second), jnp.float32)
  return jnp.asarray(first, dtype), jnp.asarray(second, dtype)
