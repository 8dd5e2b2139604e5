"""Set functions without attention: DeepSets, and the mean.

Dimensions: `...` leading axes, `N` elements, `D` width of the input, `W` width
of the output.

References:
  Zaheer et al., Deep Sets, NeurIPS 2017, arXiv:1703.06114; the block is the
  set layer of Navon et al., ICML 2023, arXiv:2301.12780.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sne_jax.encoders.sets import layers
from sne_jax.encoders.sets.layers import Mask, Set, dense


class Mean(NamedTuple):
  """The mean of some elements of a set, as sum and count; in float32."""

  total: Any  # [..., D]
  count: Any  # [..., 1]

  @property
  def mean(self):
    """Zeros for no elements."""
    return self.total / jnp.maximum(self.count, 1)


def mean_part(x: Set, mask: Mask | None) -> Mean:
  """Returns what a part of a set adds to its mean."""
  mask = jnp.ones(x.shape[:-1], bool) if mask is None else mask
  total = layers.zero(x.astype(jnp.float32), mask).sum(-2)
  return Mean(total, mask.sum(-1, keepdims=True).astype(jnp.float32))


def merge(one: Mean, other: Mean) -> Mean:
  """Joins two parts of a mean."""
  return Mean(one.total + other.total, one.count + other.count)


class DeepSets(nn.Module):
  """Set to vector: `rho(mean(phi(x)))`, with two layers in `rho`."""

  options: layers.SetOptions
  phi_layers: int = 2

  @nn.compact
  def __call__(
    self, x: Set, mask: Mask | None = None, deterministic: bool = True
  ) -> Float[Array, "... W"]:
    """Returns the vector of the set, permutation-invariant."""
    o = self.options
    x = layers.clean("x", x, mask, o)
    drop = nn.Dropout(o.dropout, deterministic=deterministic)
    for layer in range(self.phi_layers):
      x = dense(o, f"phi_{layer}")(x)
      x = drop(layers.activate(o, x))
    x = dense(o, "rho_0")(mean(x, mask))
    x = drop(layers.activate(o, x))
    return dense(o, "rho_1")(x)


class DeepSetsBlock(nn.Module):
  """Equivariant set to set map `x -> act(Gamma x - Lambda mean(x))`."""

  options: layers.SetOptions

  @nn.compact
  def __call__(
    self,
    x: Set,
    mask: Mask | None = None,
    deterministic: bool = True,
    *,
    stage: str = "all",
    whole: Mean | None = None,
  ) -> Any:
    """Returns the new elements; or in parts, see `blocks.PARTS`."""
    o = self.options
    x = layers.clean("x", x, mask, o)
    if stage == "part":
      return mean_part(x, mask)
    pooled = mean(x, mask) if whole is None else whole.mean
    pooled = dense(o, "Lambda", use_bias=False)(pooled)
    x = dense(o, "Gamma")(x) - pooled[..., None, :]
    if o.norm != "none":
      x = layers.layer_norm(o, "norm")(x)
    drop = nn.Dropout(o.dropout, deterministic=deterministic)
    return layers.zero(drop(layers.activate(o, x)), mask)


def mean(x: Set, mask: Mask | None) -> Float[Array, "... D"]:
  """Returns the mean of the real elements, all if the mask is None.

  Zeros for an empty set.

  Raises:
    ValueError: the mask has another shape.
  """
  if mask is None:
    return x.mean(-2)
  layers.check_mask("x", x, mask)
  count = jnp.maximum(mask.sum(-1), 1).astype(x.dtype)
  return layers.zero(x, mask).sum(-2) / count[..., None]
