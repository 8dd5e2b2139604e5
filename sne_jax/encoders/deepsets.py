"""Set functions without attention: pooling, DeepSets, and a dense map.

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

from sne_jax.encoders import set_layers
from sne_jax.encoders.set_layers import Dense

POOLINGS = ("mean", "sum", "max")


class Mean(NamedTuple):
  """The mean of some elements of a set, as sum and count; in float32."""

  total: Any  # [..., D]
  count: Any  # [..., 1]

  @property
  def mean(self):
    """Zeros for no elements."""
    return self.total / jnp.maximum(self.count, 1)


def mean_part(x: Float[Array, "... N D"], mask: set_layers.Mask | None) -> Mean:
  """Returns what a part of a set adds to its mean."""
  mask = jnp.ones(x.shape[:-1], bool) if mask is None else mask
  total = pool(x.astype(jnp.float32), mask, "sum")
  return Mean(total, mask.sum(-1, keepdims=True).astype(jnp.float32))


def merge(one: Mean, other: Mean) -> Mean:
  """Joins two parts of a mean."""
  return Mean(one.total + other.total, one.count + other.count)


class DeepSets(nn.Module):
  """Set to vector: `rho(pool(phi(x)))`, two perceptrons and a pooling."""

  options: set_layers.SetOptions
  phi_layers: int = 2
  rho_layers: int = 2
  pooling: str = "mean"

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... N D"],
    mask: set_layers.Mask | None = None,
    deterministic: bool = True,
  ) -> Float[Array, "... W"]:
    """Returns the vector of the set, permutation-invariant."""
    o = self.options
    x = set_layers.clean("x", x, mask, o)
    drop = nn.Dropout(o.dropout, deterministic=deterministic)
    for layer in range(self.phi_layers):
      x = Dense(o.width, o, name=f"phi_{layer}")(x)
      x = drop(set_layers.activate(o, x))
    x = pool(x, mask, self.pooling)
    for layer in range(self.rho_layers):
      x = Dense(o.width, o, name=f"rho_{layer}")(x)
      if layer + 1 < self.rho_layers:
        x = drop(set_layers.activate(o, x))
    return x


class DeepSetsBlock(nn.Module):
  """Equivariant set to set map `x -> act(Gamma x - Lambda pool(x))`."""

  options: set_layers.SetOptions
  pooling: str = "mean"
  is_linear: bool = False

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... N D"],
    mask: set_layers.Mask | None = None,
    deterministic: bool = True,
    *,
    stage: str = "all",
    whole: Mean | None = None,
  ) -> Any:
    """Returns the new elements; without activation if `is_linear`.

    In parts (see `sets.PARTS`) where the pooling is a mean.
    """
    o = self.options
    x = set_layers.clean("x", x, mask, o)
    if stage == "part":
      return mean_part(x, mask)
    pooled = pool(x, mask, self.pooling) if whole is None else whole.mean
    pooled = Dense(o.width, o, use_bias=False, name="Lambda")(pooled)
    x = Dense(o.width, o, name="Gamma")(x) - pooled[..., None, :]
    if not self.is_linear:
      if o.norm != "none":
        x = set_layers.layer_norm(o, "norm")(x)
      drop = nn.Dropout(o.dropout, deterministic=deterministic)
      x = drop(set_layers.activate(o, x))
    return set_layers.zero(x, mask)


class LinearChunk(nn.Module):
  """A dense map of the ordered, padded chunk to a vector; sees the order."""

  options: set_layers.SetOptions

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... N D"],
    mask: set_layers.Mask | None = None,
    deterministic: bool = True,
  ) -> Float[Array, "... W"]:
    """Returns the vector; `N` is fixed by the parameters."""
    del deterministic
    x = set_layers.clean("x", x, mask, self.options)
    x = x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
    return Dense(self.options.width, self.options, name="linear")(x)


def pool(
  x: Float[Array, "... N D"], mask: set_layers.Mask | None, how: str
) -> Float[Array, "... D"]:
  """Pools the real elements of a set.

  Args:
    x: the set.
    mask: real elements; None if all are.
    how: `mean`, `sum` or `max`.

  Returns:
    One vector per set, zeros for an empty set.

  Raises:
    ValueError: `how` is not one of these, or the mask has another shape.
  """
  set_layers.check_choice("pooling", how, POOLINGS)
  if mask is None:
    return {"mean": jnp.mean, "sum": jnp.sum, "max": jnp.max}[how](x, axis=-2)
  set_layers.check_mask("x", x, mask)
  place = mask[..., None]
  if how == "max":
    lowest = jnp.finfo(x.dtype).min
    top = jnp.where(place, x, lowest).max(-2)
    return jnp.where(mask.any(-1)[..., None], top, 0)
  total = jnp.where(place, x, 0).sum(-2)
  if how == "sum":
    return total
  return total / jnp.maximum(mask.sum(-1), 1).astype(x.dtype)[..., None]
