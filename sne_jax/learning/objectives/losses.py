"""Losses of predicted properties and of learned invariance.

Every loss is a mean over members, and over targets, with weights. Members of
weight 0 (the padding of a batch) count for nothing: neither their values nor
their gradients reach the loss, not even where they are nan.

Dimensions: `B` members of a batch, `T` target properties, `K` classes of one,
`D` width of a code.
"""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

MemberWeight = (
  Float[Array, "B"]
  | Bool[Array, "B"]
  | Float[Array, "B T"]
  | Bool[Array, "B T"]
)


def mse(
  prediction: Float[Array, "B T"],
  target: Float[Array, "B T"],
  *,
  member_weight: MemberWeight | None = None,
) -> Float[Array, ""]:
  """Mean squared error, in the squared unit of the targets.

  Args:
    prediction: predicted properties.
    target: true properties.
    member_weight: at least 0, or a mask; `[B, T]` where some properties of a
      member are unknown. All 1 by default.

  Raises:
    ValueError: shapes do not agree (see `weighted_mean`).
  """
  _check_pair(prediction, target)
  prediction, target, weight = _present(prediction, target, member_weight)
  error = jnp.square(prediction - target)
  return weighted_mean(error, weight)


def bce_with_logits(
  logits: Float[Array, "B T"],
  target: Float[Array, "B T"],
  *,
  member_weight: MemberWeight | None = None,
) -> Float[Array, ""]:
  """Binary cross-entropy of `sigmoid(logits)` against soft targets, in nats.

  The gradient with respect to a logit is `sigmoid(logit) - target`: finite for
  any logit. The least value is not 0 but the entropy of the targets.

  Args:
    logits: the head's output before the sigmoid.
    target: properties in [0, 1], such as accuracies; not made binary.
    member_weight: as in `mse`.

  Raises:
    ValueError: shapes do not agree (see `weighted_mean`).
  """
  _check_pair(logits, target)
  logits, target, weight = _present(logits, target, member_weight)
  error = optax.sigmoid_binary_cross_entropy(logits, target)
  return weighted_mean(error, weight)


def cross_entropy_with_logits(
  logits: Float[Array, "B K"],
  target: Float[Array, "B 1"],
  *,
  member_weight: Float[Array, "B"] | Bool[Array, "B"] | None = None,
) -> Float[Array, ""]:
  """Cross-entropy of `softmax(logits)` against classes, in nats.

  The gradient with respect to the logits of a member is its probabilities less
  1 at its class.

  Args:
    logits: the head's output before the softmax.
    target: numbers of the classes, 0 to `K - 1`, as floats like all targets.
      The loss is nan where a member has another number.
    member_weight: at least 0, or a mask.

  Raises:
    ValueError: shapes do not agree.
  """
  if logits.ndim != 2 or target.shape != (logits.shape[0], 1):
    raise ValueError(
      "logits and target must be of shapes [B, K] and [B, 1], got"
      f" {logits.shape} and {target.shape}; give the numbers of the classes"
    )
  weight = _member_weight(target, member_weight)
  real = weight > 0
  logits = jnp.where(real, logits, 0.0)
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  target = jnp.where(real, target, 0.0)
  number = jnp.clip(jnp.nan_to_num(target), 0, logits.shape[1] - 1)
  number = number.astype(jnp.int32)
  error = optax.softmax_cross_entropy_with_integer_labels(logits, number[:, 0])
  known = number.astype(target.dtype) == target
  return weighted_mean(jnp.where(known, error[:, None], jnp.nan), weight)


def soft_cross_entropy_with_logits(
  logits: Float[Array, "B K"],
  target: Float[Array, "B K"],
  *,
  member_weight: Float[Array, "B"] | Bool[Array, "B"] | None = None,
) -> Float[Array, ""]:
  """Cross-entropy of `softmax(logits)` against probabilities, in nats.

  For targets between classes, such as those of mixed networks; with all of the
  probability at one class it is `cross_entropy_with_logits`.

  Args:
    logits: the head's output before the softmax.
    target: probabilities of the classes, of sum 1 (not checked).
    member_weight: at least 0, or a mask.

  Raises:
    ValueError: shapes do not agree.
  """
  _check_pair(logits, target)
  logits, target, weight = _present(logits, target, member_weight)
  error = optax.softmax_cross_entropy(logits, target)
  return weighted_mean(error[:, None], weight[:, :1])


def invariance_error(
  first: Float[Array, "B D"],
  second: Float[Array, "B D"],
  *,
  member_weight: Float[Array, "B"] | Bool[Array, "B"] | None = None,
) -> Float[Array, ""]:
  """`1/2` the mean over members of `|F(x) - F(g x)|^2`, `g` a symmetry.

  The squared norm sums over `D`, so that a code of width `D` and a single
  logit are each measured in the own square unit.

  Args:
    first: logits or codes of the networks.
    second: the same of the transformed networks.
    member_weight: at least 0, or a mask.

  References:
    Moskalev et al., On genuine invariance learning without weight-tying, 2023,
    arXiv:2308.03904.
  """
  _check_pair(first, second)
  first, second, weight = _present(first, second, member_weight)
  norm = jnp.sum(jnp.square(first - second), axis=-1, keepdims=True)  # [B, 1]
  return 0.5 * weighted_mean(norm, weight[:, :1])


def weighted_mean(
  values: Float[Array, "B T"],
  member_weight: MemberWeight | None = None,
) -> Float[Array, ""]:
  """Weighted mean over the members of each target, then over targets.

  A target's mean is over its own members of non-zero weight; a target without
  any counts as 0, and so does a batch without members.

  Args:
    values: one per member and target.
    member_weight: at least 0, or a mask, `[B]` or `[B, T]`.

  Raises:
    ValueError: `values` is not `[B, T]`, or weights have another shape.
  """
  weight = _member_weight(values, member_weight)
  values = jnp.where(weight > 0, values, 0.0)
  total = jnp.sum(weight, axis=0)  # [T]
  sums = jnp.sum(values * weight, axis=0)
  means = jnp.where(total > 0, sums / jnp.where(total > 0, total, 1.0), 0.0)
  return jnp.mean(means)


def _member_weight(values, member_weight) -> Float[Array, "B T"]:
  """Returns the weights as floats of the shape of `values`."""
  if member_weight is None:
    return jnp.ones_like(values)
  weight = jnp.asarray(member_weight, values.dtype)
  if weight.ndim == 1:
    weight = weight[:, None]
  members, targets = values.shape
  if weight.shape not in ((members, 1), (members, targets)):
    raise ValueError(
      f"member_weight must be of shape [{members}] or {[members, targets]}, got"
      f" {list(jnp.shape(member_weight))}"
    )
  return jnp.broadcast_to(weight, values.shape)


def _check_pair(first, second) -> None:
  """Raises unless both are `[B, T]`."""
  if first.ndim != 2 or first.shape != second.shape:
    raise ValueError(
      "prediction and target must both be of one shape [B, T], got"
      f" {first.shape} and {second.shape}; give a single target as [B, 1]"
    )


def _present(first, second, member_weight):
  """Returns both in float32 or wider, 0 where absent, and the weights.

  The zeros go in before any arithmetic: a gradient of `where` around a nan
  would be nan.
  """
  dtype = jnp.promote_types(jnp.result_type(first, second), jnp.float32)
  first, second = jnp.asarray(first, dtype), jnp.asarray(second, dtype)
  weight = _member_weight(first, member_weight)
  real = weight > 0
  return jnp.where(real, first, 0.0), jnp.where(real, second, 0.0), weight
