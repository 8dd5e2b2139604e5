"""Statistics of a network's tensors: a simple and very strong description.

Each tensor gives 7 numbers: mean, variance, and the quantiles 0, 25, 50, 75,
100 % (linear interpolation). They do not change when neurons are permuted, nor
when the entries of one tensor are shuffled, which does change the function.

Dimensions: `N` networks, `P` weights, `T` tensors of a network; in a batch, `T`
weights and `K` tensors.

References:
  Unterthiner et al., Predicting Neural Network Accuracy from Weights, 2020,
  arXiv:2002.11448 (there the deviation in place of the variance).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.encoders.batches import joining
from sne_jax.networks.spec import NetworkSpec

PERCENTS = (0, 25, 50, 75, 100)
"""Which quantiles the last five are."""

SETS = {"tensors": (("weights", "tensor"),)}
"""Sets of a batch that `of_batch` reads: the weights of every tensor."""

ROLES = ("weight", "bias")
"""What tensors are pooled apart: multiplied ones, and shifts and norms."""


def tensor_statistics(
  spec: NetworkSpec,
  weights: Any,
  *,
  ddof: int = 1,
  percents: Sequence[int] = PERCENTS,
  xp: Any = np,
) -> Any:
  """Returns 7 statistics of each tensor.

  Shapes: weights `[..., P]` -> `[..., 7 T]`; the 7 of the first tensor come
  first: mean, variance, quantiles. A view: differentiable with `jax.numpy`.

  Args:
    spec: the architecture.
    weights: of networks of that spec. A weight that is not finite makes the
      statistics of its tensor not finite.
    ddof: the variance is over `size - ddof`: 1 unbiased, 0 population. The
      variance of a single entry is 0 in both.
    percents: which quantiles. Schuerholt et al. (2021) have 1, 25, 50, 75, 99,
      and `ddof` 0.
    xp: the array module, `numpy` or `jax.numpy`.

  Raises:
    ValueError: `ddof` is neither 0 nor 1, a percent is not in 0 to 100, or the
      last axis is not `P` long.
  """
  per_tensor = _per_tensor(spec, weights, ddof, xp, percents)
  return xp.concatenate(per_tensor, axis=-1)


def pooled_statistics(spec: NetworkSpec, weights: Any, *, xp: Any = np) -> Any:
  """Returns statistics of one length for every architecture.

  Of the 7 numbers of each tensor come mean, least, most, first and last over
  tensors, for weights and for biases (with norm vectors) apart. A network
  without any of the one has zeros there.

  Shapes: weights `[..., P]` -> `[..., 70]`.

  Args:
    spec: the architecture.
    weights: of networks of that spec.
    xp: the array module, `numpy` or `jax.numpy`.

  Raises:
    ValueError: see `tensor_statistics`.
  """
  per_tensor = _per_tensor(spec, weights, 1, xp)
  pooled = []
  for wanted in ROLES:
    chosen = [
      numbers
      for tensor, numbers in zip(spec.tensors, per_tensor, strict=True)
      if role(tensor.kind) == wanted
    ]
    if not chosen:
      pooled.append(xp.zeros_like(xp.concatenate(per_tensor[:1] * 5, axis=-1)))
      continue
    stacked = xp.stack(chosen, axis=-2)  # [..., tensors, 7]
    pooled += [
      xp.mean(stacked, axis=-2),
      xp.min(stacked, axis=-2),
      xp.max(stacked, axis=-2),
      chosen[0],
      chosen[-1],
    ]
  return xp.concatenate(pooled, axis=-1)


def of_batch(batch: joining.Joined, values: Any) -> Float[Array, "K 7"]:
  """Returns `tensor_statistics` of the tensors of a batch of any networks.

  Args:
    batch: with `SETS`.
    values: of the weights `[T]`.
  """
  rows = [_of_rows(values[m], mask) for m, mask in batch.sets["tensors"]]
  return jnp.concatenate(rows)[batch.order["tensors"]]


def role(kind: str) -> str:
  """Returns which of `ROLES` a kind of tensor has."""
  is_shift = kind.endswith("_bias") or kind.startswith("norm_")
  return "bias" if is_shift else "weight"


def _per_tensor(spec, weights, ddof, xp, percents=PERCENTS) -> list[Any]:
  """Returns `[..., 7]` for each tensor."""
  if ddof not in (0, 1):
    raise ValueError(f"ddof must be 0 or 1, got {ddof}")
  for percent in percents:
    if not 0 <= percent <= 100:
      raise ValueError(f"percents must be from 0 to 100, got {percent}")
  tensors = spec.unflatten(weights)
  lead = weights.shape[:-1]
  per_tensor = []
  for tensor in spec.tensors:
    flat = tensors[tensor.name].reshape(*lead, tensor.size)
    mean = xp.mean(flat, axis=-1, keepdims=True)
    square = xp.sum((flat - mean) ** 2, axis=-1, keepdims=True)
    variance = square / max(tensor.size - ddof, 1)
    quantiles = _quantiles(xp.sort(flat, axis=-1), tensor.size, percents, xp)
    per_tensor.append(xp.concatenate([mean, variance, quantiles], axis=-1))
  return per_tensor


def _quantiles(ordered, size: int, percents, xp):
  """Quantiles `[..., 5]` of sorted `[..., size]`, by linear steps."""
  parts = []
  for percent in percents:
    below, rest = divmod(percent * (size - 1), 100)
    above = min(below + 1, size - 1)
    low, high = ordered[..., below], ordered[..., above]
    parts.append(low + (high - low) * (rest / 100) if rest else low)
  return xp.stack(parts, axis=-1)


def _of_rows(x, mask):
  """Statistics `[S, 7]` of the masked numbers of rows `[S, Q]`."""
  size = jnp.sum(mask, axis=1, keepdims=True)
  total = lambda y: jnp.sum(jnp.where(mask, y, 0), axis=1, keepdims=True)
  mean = total(x) / jnp.maximum(size, 1).astype(x.dtype)
  variance = total((x - mean) ** 2) / jnp.maximum(size - 1, 1).astype(x.dtype)
  last = jnp.maximum(size - 1, 0)
  scaled = jnp.asarray(PERCENTS)[None, :] // 25 * last
  below = scaled // 4
  both = jnp.concatenate([below, jnp.minimum(below + 1, last)], axis=1)
  low, high = jnp.split(_ordered(jnp.where(mask, x, jnp.inf), both), 2, axis=1)
  quantiles = low + (high - low) * (scaled % 4).astype(x.dtype) / 4
  return jnp.concatenate([mean, variance, quantiles], axis=1)


@jax.custom_jvp
def _ordered(x, places):
  """Returns what is at these places `[S, n]` of the sorted rows `[S, Q]`.

  They are sorted as integers of the same order, which on a CPU takes a seventh
  of the time. Places of equal numbers share the derivative.
  """
  kind = {4: jnp.int32, 8: jnp.int64}[x.dtype.itemsize]
  rest = jnp.iinfo(kind).max  # All bits but the sign.
  turned = lambda bits: jnp.where(bits < 0, bits ^ rest, bits)
  bits = turned(jax.lax.bitcast_convert_type(x, kind))
  found = jnp.take_along_axis(jax.lax.sort(bits, is_stable=False), places, 1)
  return jax.lax.bitcast_convert_type(turned(found), x.dtype)


@_ordered.defjvp
def _ordered_jvp(primals, tangents):
  x, places = primals
  found = _ordered(x, places)
  is_it = x[:, :, None] == found[:, None, :]
  tangent = jnp.where(is_it, tangents[0][:, :, None], 0).sum(axis=1)
  return found, tangent / jnp.maximum(is_it.sum(axis=1), 1)
