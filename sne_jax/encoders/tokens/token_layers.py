"""Layers that the autoencoders of weights share.

Dimensions: `B` networks, `...` leading axes, `D` and `F` widths of input and
output, `T` entries of a table.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sne_jax.encoders.functionals import feature_layers
from sne_jax.encoders.sets.layers import affine
from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectionOptions(Checked):
  """Options of the projection head of hyper-representations.

  Attributes:
    layers: hidden layers, each with batch norm and ReLU.
    width: of the hidden layers.
    outputs: width of what is contrasted.
  """

  layers: int = option(3, least=0)
  width: int = option(50, least=1)
  outputs: int = option(20, least=1)


class Linear(nn.Module):
  """An affine map with first values as in the authors' framework.

  Attributes:
    features: `F`.
    init: uniform (kernel and bias in +-1/sqrt(fan-in)) or kaiming (normal of
      variance 2/fan-in, biases 0.01).
  """

  features: int
  init: str = "uniform"

  @nn.compact
  def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... F"]:
    """Returns `x @ kernel + bias`."""
    inputs = x.shape[-1]
    kernel = bias = feature_layers.uniform(inputs)
    if self.init == "kaiming":
      kernel = nn.initializers.normal((2 / inputs) ** 0.5)
      bias = nn.initializers.constant(0.01)
    return affine(
      x,
      self.param("kernel", kernel, (inputs, self.features)),
      self.param("bias", bias, (self.features,)),
    )


class Table(nn.Module):
  """A learned vector for each entry; called, it gives all of them."""

  entries: int
  features: int
  stddev: float = 1.0

  @nn.compact
  def __call__(self) -> Float[Array, "T F"]:
    """Returns the table."""
    init = nn.initializers.normal(self.stddev)
    shape = (self.entries, self.features)
    return jnp.asarray(self.param("embedding", init, shape))


class ProjectionHead(nn.Module):
  """From a code to what is contrasted: linear, batch norm, ReLU; repeated."""

  options: ProjectionOptions

  @nn.compact
  def __call__(self, z: Float[Array, "B D"]) -> Float[Array, "B F"]:
    """Returns projections; call it for each view on its own."""
    o = self.options
    widths = [o.width] * o.layers + [o.outputs]
    for layer, width in enumerate(widths):
      z = Linear(width, "kaiming", name=f"layers_{3 * layer}")(z)
      z = feature_layers.BatchNorm(name=f"layers_{3 * layer + 1}")(z)
      z = nn.relu(z) if layer < o.layers else z
    return z
