"""Means, least and most of the rows of each segment.

Dimensions: rows `[R, D]` of segments that `owner` `[R]` numbers below `count`;
what it numbers beyond is left out.
"""

import functools

import jax
import jax.numpy as jnp


def mean(rows, owner, count: int):
  """Means of the rows of each segment; zeros where it has none."""
  ones = jnp.ones_like(rows[:, :1])
  total = jnp.concatenate([rows, ones], axis=-1)
  total = jax.ops.segment_sum(total, owner, count)
  return total[:, :-1] / jnp.maximum(total[:, -1:], 1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 3))
def extreme(function, rows, owner, count: int):
  """Returns `function(rows, owner, count)`, the least or most of segments.

  Its derivative is shared equally among equal extremes, as JAX does it, but
  takes one sum over segments, where JAX's own takes about twice the time.
  """
  return function(rows, owner, count)


@extreme.defjvp
def _extreme_jvp(function, count, primals, tangents):
  rows, owner = primals
  value = extreme(function, rows, owner, count)
  is_extreme = rows == value[owner]
  ties = jax.ops.segment_sum(is_extreme.astype(rows.dtype), owner, count)
  tangent = jnp.where(is_extreme, tangents[0], 0)
  tangent = jax.ops.segment_sum(tangent, owner, count)
  return value, tangent / jnp.maximum(ties, 1)
