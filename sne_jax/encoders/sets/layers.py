"""What all set functions share: options, linear maps, norms, masks.

Dimensions: `...` leading axes, `N` elements, `D` and `F` widths of the input
and output of a linear map, `W` width of the set functions.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sne_jax.networks.checked import Checked, option

Set = Float[Array, "... N D"]
Mask = Bool[Array, "... N"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetOptions(Checked):
  """What all set functions of an encoder share.

  Attributes:
    width: width `W` of every output; a multiple of heads.
    heads: attention heads.
    form: coded: as in the authors' code: the residual is the projected query,
      there is no output matrix, and the feed-forward is one linear map and a
      ReLU. published: as in the paper: output matrix, feed-forward of two
      layers, and a linear map in front of an input whose width is not `W`.
    norm: layer norm: none, post (after each residual sum, the authors' `ln`) or
      pre (before attention and feed-forward; in the coded form only inputs of
      width `W` are normed, since norming one number would erase it).
    feed_forward: published form: hidden width of the feed-forward, in multiples
      of `W`.
    activation: of the published feed-forward and of DeepSets: relu or gelu
      (exact).
    dropout: share of entries dropped from each residual branch in training.
    dtype: of the computation: float32, bfloat16 (parameters, softmax and norms
      stay in float32) or float64 (needs `jax_enable_x64`).

  Raises:
    ValueError: a field has a value that is not allowed; names both.
  """

  width: int = option(64, least=1)
  heads: int = option(4, least=1)
  form: str = option("coded", choices=("coded", "published"))
  norm: str = option("post", choices=("none", "post", "pre"))
  feed_forward: int = option(2, least=1)
  activation: str = option("relu", choices=("relu", "gelu"))
  dropout: float = option(0.0, least=0, below=1)
  dtype: str = option("float32", choices=("float32", "bfloat16", "float64"))

  def __post_init__(self):
    super().__post_init__()
    if self.width % self.heads:
      raise ValueError(
        f"width is {self.width}; must be a multiple of heads {self.heads}, for"
        f" example {self.heads * max(1, self.width // self.heads)}"
      )

  @property
  def score_scale(self) -> float:
    """The factor of the attention scores.

    The authors' code divides by the root of the width; the paper writes that of
    `d`, the width that one head sees.
    """
    parts = 1 if self.form == "coded" else self.heads
    return (self.width // parts) ** -0.5


class Dense(nn.Module):
  """`nn.Dense` as one plain matrix product over all leading axes.

  Gradients of a product over several leading axes are about half as fast on a
  CPU as those of the same product over one.

  Attributes:
    features: `F`.
    use_bias: whether there is a bias.
    dtype: of the computation; None: that of the input.
    kernel_init: initialiser of the kernel `[D, F]`.
    bias_init: initialiser of the bias `[F]`.
  """

  features: int
  use_bias: bool = True
  dtype: str | None = None
  kernel_init: Callable[..., Any] = nn.initializers.lecun_normal()
  bias_init: Callable[..., Any] = nn.initializers.zeros

  @nn.compact
  def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... F"]:
    """Returns `x @ kernel + bias`."""
    shape = (x.shape[-1], self.features)
    kernel, bias = self.param("kernel", self.kernel_init, shape), None
    if self.use_bias:
      bias = self.param("bias", self.bias_init, shape[1:])
    return affine(x.astype(self.dtype or x.dtype), kernel, bias)


def dense(options: SetOptions, name: str, *, use_bias: bool = True) -> Dense:
  """Returns a map to the width of the options, in their dtype."""
  return Dense(options.width, use_bias, options.dtype, name=name)


def affine(
  x: Float[Array, "... D"],
  kernel: Float[Array | np.ndarray, "D F"],
  bias: Float[Array | np.ndarray, "F"] | None,
) -> Float[Array, "... F"]:
  """Returns `x @ kernel + bias`, in the dtype of `x`."""
  y = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
  if bias is not None:
    y = y + bias.astype(x.dtype)[None]
  return y.reshape(*x.shape[:-1], kernel.shape[1])


def activate(
  options: SetOptions, x: Float[Array, "..."]
) -> Float[Array, "..."]:
  """Applies the activation of the options."""
  gelu = options.activation == "gelu"
  return nn.gelu(x, approximate=False) if gelu else nn.relu(x)


def feed_forward(
  options: SetOptions, x: Float[Array, "... W"]
) -> Float[Array, "... W"]:
  """The published feed-forward, as `feed_forward_0`, `_1` of the caller."""
  hidden = options.feed_forward * options.width
  x = Dense(hidden, dtype=options.dtype, name="feed_forward_0")(x)
  return dense(options, "feed_forward_1")(activate(options, x))


def layer_norm(options: SetOptions, name: str) -> nn.LayerNorm:
  """Layer norm in float32, with the epsilon of the authors' framework."""
  return nn.LayerNorm(epsilon=1e-5, dtype=options.dtype, name=name)


def check_mask(
  name: str, x: Float[Array, "... N D"], mask: Bool[Array, "..."]
) -> None:
  """Raises `ValueError` if a mask does not have the shape of its set."""
  if mask.shape != x.shape[:-1]:
    raise ValueError(
      f"the mask of {name} must have the shape {x.shape[:-1]} of its set"
      f" {x.shape} without the last axis, got {mask.shape}"
    )


def clean(
  name: str,
  x: Float[Array, "... N D"],
  mask: Mask | None,
  options: SetOptions,
) -> Float[Array, "... N D"]:
  """Casts a set to the dtype of the options and zeroes what is not real.

  Raises:
    ValueError: the mask does not have the shape of the set.
  """
  if mask is not None:
    check_mask(name, x, mask)
  return zero(x.astype(options.dtype), mask)


def zero(
  x: Float[Array, "... N D"], mask: Bool[Array, "..."] | None
) -> Float[Array, "... N D"]:
  """Zeroes the rows that are not real; the mask may be broadcast."""
  return x if mask is None else jnp.where(mask[..., None], x, 0)
