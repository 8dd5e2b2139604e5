"""Masked multihead attention between two sets, in two equal forms.

The plain form projects every key and value and then attends. The absorbed form
moves the projections to the side of the queries,

  (W_K y) . q = y . (W_K^T q),     sum_j a_j W_V y_j = W_V sum_j a_j y_j,

so that the keys are used as they are. It is the same function, and much
cheaper where the queries are few (pooling by a seed) or the keys narrow (a set
of scalars). `is_absorbed_cheaper` decides from the shapes alone.

A set too large to hold at once is attended to in parts: `attend_part` gives
what queries read from some of the keys, `merge` joins two parts, and `settled`
is the attention to all of them.

Dimensions: `...` leading (batch) axes, `N` queries, `M` keys, `Y` width of the
keys, `H` heads, `D` width of a head, `W = H D`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def is_absorbed_cheaper(
  num_queries: int, num_keys: int, key_dim: int, heads: int, head_dim: int
) -> bool:
  """Whether absorbing the projections costs fewer multiplications.

  Args:
    num_queries: `N`.
    num_keys: `M`.
    key_dim: `Y`.
    heads: `H`.
    head_dim: `D`.

  Returns:
    True where `absorbed_attention` needs fewer than `attention` with its
    projections of keys and values.
  """
  n, m, y, h, d = num_queries, num_keys, key_dim, heads, head_dim
  plain = 2 * m * y * h * d + 2 * h * n * m * d
  absorbed = 2 * h * n * y * d + 2 * h * n * m * y
  return absorbed < plain


def at_least_float32(dtype) -> jnp.dtype:
  """The dtype of scores and sums of numbers of a dtype."""
  return jnp.promote_types(dtype, jnp.float32)


def masked_softmax(
  logits: Float[Array, "..."], mask: Bool[Array, "..."] | None, axis: int
) -> Float[Array, "..."]:
  """Softmax over the real places of an axis, in float32 at least.

  Args:
    logits: scores; any finite value where the mask is False.
    mask: True at real places, of the rank of `logits`, each axis equal or 1;
      None if all are real.
    axis: the axis of the keys.

  Returns:
    Weights that are exactly 0 at masked places and sum to 1, or are all 0
    where nothing is real.
  """
  logits = logits.astype(at_least_float32(logits.dtype))
  if mask is not None:
    logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
  top = jax.lax.stop_gradient(logits.max(axis, keepdims=True))
  raised = jnp.exp(logits - top)
  if mask is None:
    return raised / raised.sum(axis, keepdims=True)
  raised = jnp.where(mask, raised, 0.0)
  total = raised.sum(axis, keepdims=True)
  return raised / jnp.where(total > 0, total, 1.0)


def attention(
  queries: Float[Array, "... N W"],
  keys: Float[Array, "... M W"],
  values: Float[Array, "... M W"],
  mask: Bool[Array, "... M"] | None,
  *,
  heads: int,
  scale: float,
  drop: Callable[[Array], Array] | None = None,
) -> Float[Array, "... N W"]:
  """Attends with projected queries, keys and values.

  Args:
    queries: projected queries.
    keys: projected keys.
    values: projected values.
    mask: True at real keys; None if all are.
    heads: `H`, divides `W`.
    scale: factor of the scores, for example `1 / sqrt(W)`.
    drop: applied to the attention weights, for example dropout.

  Returns:
    The heads' outputs side by side; zeros where no key is real.
  """
  logits, v = _scores(queries, keys, heads, scale), _split_heads(values, heads)
  place = None if mask is None else mask[..., None, None, :]
  weights = masked_softmax(logits, place, -1).astype(v.dtype)
  weights = weights if drop is None else drop(weights)
  attended = jnp.einsum("...nm,...md->...nd", weights, v)
  return _merge_heads(attended)


def absorbed_attention(
  queries: Float[Array, "... N W"],
  elements: Float[Array, "... M Y"],
  key_kernel: Float[Array, "Y W"],
  value_kernel: Float[Array, "Y W"],
  value_bias: Float[Array, "W"],
  mask: Bool[Array, "... M"] | None,
  *,
  heads: int,
  scale: float,
) -> Float[Array, "... N W"]:
  """Attends to unprojected keys; equals `attention` after projections.

  There is no bias of the keys: it adds the same score to every key of a query,
  and the softmax takes it away.

  Args:
    queries: projected queries, with the leading axes of `elements` or, if all
      sets share them, none.
    elements: the set attended to, before any projection.
    key_kernel: projection to keys.
    value_kernel: projection to values.
    value_bias: bias of the values.
    mask: True at real elements; None if all are.
    heads: `H`, divides `W`.
    scale: factor of the scores.

  Returns:
    The heads' outputs side by side; zeros where no element is real.
  """
  lead, (n, width) = elements.shape[:-2], queries.shape[-2:]
  m, key_dim = elements.shape[-2:]
  per_head = (key_dim, heads, width // heads)
  q = (queries * scale).reshape(*queries.shape[:-1], *per_head[1:])
  probes = jnp.einsum("...nhd,yhd->...hny", q, key_kernel.reshape(per_head))
  probes = probes.reshape(*probes.shape[:-3], heads * n, key_dim)
  row = jnp.swapaxes(elements, -1, -2)  # [..., Y, M]
  if key_dim == 1:  # An outer product, which fuses with the softmax.
    logits = jnp.broadcast_to(probes, (*lead, heads * n, 1)) * row
  elif probes.ndim < elements.ndim:
    logits = jnp.swapaxes(elements @ probes.T, -1, -2)
  else:
    logits = jnp.einsum("...ry,...my->...rm", probes, elements)
  place = None if mask is None else mask[..., None, :]
  weights = masked_softmax(logits, place, -1).astype(elements.dtype)
  if key_dim == 1:
    pooled = (weights * row).sum(-1, keepdims=True)
  else:
    pooled = jnp.einsum("...rm,...my->...ry", weights, elements)
  pooled = pooled.reshape(*lead, heads, n, key_dim)
  attended = jnp.einsum(
    "...hny,yhd->...nhd", pooled, value_kernel.reshape(per_head)
  ).reshape(*lead, n, width)
  bias = jnp.broadcast_to(value_bias, attended.shape)
  if mask is not None:
    bias = jnp.where(mask.any(-1)[..., None, None], bias, 0)
  return attended + bias


class Attended(NamedTuple):
  """What queries read from some of the keys; in float32 at least."""

  top: Any  # [..., H, N, 1], the largest score
  total: Any  # [..., H, N, 1], sum of exp(score - top)
  sums: Any  # [..., H, N, D], the same sum over values, each times its weight


def attend_part(
  queries: Float[Array, "... N W"],
  keys: Float[Array, "... M W"],
  values: Float[Array, "... M W"],
  mask: Bool[Array, "... M"] | None,
  *,
  heads: int,
  scale: float,
) -> Attended:
  """Attends to some of the keys; arguments as of `attention`."""
  logits, v = _scores(queries, keys, heads, scale), _split_heads(values, heads)
  real = True if mask is None else mask[..., None, None, :]
  logits = jnp.where(real, logits, jnp.finfo(logits.dtype).min)
  top = logits.max(-1, keepdims=True)
  raised = jnp.where(real, jnp.exp(logits - top), 0.0)
  return Attended(
    top=top,
    total=raised.sum(-1, keepdims=True),
    sums=jnp.einsum("...nm,...md->...nd", raised, v.astype(logits.dtype)),
  )


def merge(one: Attended, other: Attended) -> Attended:
  """Joins what the same queries read from two parts of the keys."""
  top = jnp.maximum(one.top, other.top)
  a, b = jnp.exp(one.top - top), jnp.exp(other.top - top)
  return Attended(
    top,
    a * one.total + b * other.total,
    a * one.sums + b * other.sums,
  )


def settled(part: Attended) -> Float[Array, "... N W"]:
  """Returns what `attention` to all the keys of a part gives."""
  total = jnp.where(part.total > 0, part.total, 1.0)
  return _merge_heads(part.sums / total)


def _scores(queries, keys, heads, scale):
  """Returns the scores `[..., H, N, M]` of projected queries and keys."""
  q, k = _split_heads(queries * scale, heads), _split_heads(keys, heads)
  if q.ndim < k.ndim:  # The same queries for every set.
    q = jnp.broadcast_to(q, (*k.shape[:-2], *q.shape[-2:]))
  return jnp.einsum(
    "...nd,...md->...nm", q, k, preferred_element_type=at_least_float32(q.dtype)
  )


def _split_heads(x, heads):
  """`[..., N, W]` to `[..., H, N, D]`."""
  x = x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)
  return jnp.swapaxes(x, -3, -2)


def _merge_heads(x):
  """`[..., H, N, D]` to `[..., N, W]`."""
  x = jnp.swapaxes(x, -3, -2)
  return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
