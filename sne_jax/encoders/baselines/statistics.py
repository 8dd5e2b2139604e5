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

REFS = {
  ("weights", "tensor"): "tensors",
  ("tensors", "below"): "weights",
  ("tensors", "above"): "weights",
}
"""Columns of a batch, for `of_batch`, that name rows of other tables."""

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


def places(spec: NetworkSpec) -> dict[str, np.ndarray]:
  """Returns where the quantiles of tensors lie among their sorted weights.

  These are columns of the table `tensors` of a batch.
  """
  size = np.array([t.size for t in spec.tensors], np.int32)
  start = np.array(spec.offsets, np.int32)[:, None]
  quarters = np.arange(5)[None, :] * (size[:, None] - 1)
  below = quarters // 4
  above = np.minimum(below + 1, size[:, None] - 1)
  return {
    "size": size,
    "below": (start + below).astype(np.int32),
    "above": (start + above).astype(np.int32),
    "rest": (quarters % 4 / 4).astype(np.float32),
  }


def of_batch(batch: joining.Joined, values: Any) -> Float[Array, "K 7"]:
  """Returns `tensor_statistics` of the tensors of a batch of any networks.

  Args:
    batch: its weights name their `tensor`, its tensors have `places`.
    values: of the weights `[T]`.
  """
  weights, tensors = batch.tables["weights"], batch.tables["tensors"]
  owner, count = weights["tensor"], len(tensors["size"])
  # Sorted by tensor, then value: tensors keep their places.
  _, values = jax.lax.sort((jnp.asarray(owner), values), num_keys=2)

  def total(x):
    return jax.ops.segment_sum(x, owner, count)

  size = jnp.maximum(jnp.asarray(tensors["size"]), 1).astype(values.dtype)
  mean = total(values) / size
  real = jnp.asarray(weights["real"])
  square = total(jnp.where(real, values - mean[owner], 0) ** 2)
  variance = square / jnp.maximum(size - 1, 1)
  low, high = values[tensors["below"]], values[tensors["above"]]
  rest = jnp.asarray(tensors["rest"]).astype(values.dtype)
  return jnp.concatenate(
    [mean[:, None], variance[:, None], low + (high - low) * rest], axis=1
  )


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
