"""Layers that the autoencoders of weights share.

Dimensions: `B` networks, `...` leading axes, `D` and `F` widths of input and
output, `T` entries of a table.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sne_jax.encoders import feature_layers
from sne_jax.encoders.set_layers import affine
from sne_jax.networks.checked import Checked, option

_HEAD_BIAS = 0.01  # First value of biases behind kaiming kernels.


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadOptions(Checked):
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
    kernel, bias = feature_layers.kernel_init(self.init, x.shape[-1])
    if self.init == "kaiming":
      bias = nn.initializers.constant(_HEAD_BIAS)
    return affine(
      x,
      self.param("kernel", kernel, (x.shape[-1], self.features)),
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


class Perceptron(nn.Module):
  """Widths that change evenly; leaky ReLU and dropout behind hidden layers.

  Attributes:
    features: `F`.
    hidden: hidden layers.
    dropout: share dropped behind each of them while training.
  """

  features: int
  hidden: int
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self, x: Float[Array, "... D"], deterministic: bool = True
  ) -> Float[Array, "... F"]:
    """Returns the last layer, without nonlinearity."""
    widths = np.linspace(x.shape[-1], self.features, self.hidden + 2)
    for layer, width in enumerate(widths[1:-1].astype(int).tolist()):
      x = Linear(width, "kaiming", name=f"layers_{3 * layer}")(x)
      x = nn.Dropout(self.dropout)(nn.leaky_relu(x), deterministic)
    last = f"layers_{3 * self.hidden}"
    return Linear(self.features, "kaiming", name=last)(x)


class BatchNorm(nn.Module):
  """Batch norm by the statistics of the batch.

  Running statistics are kept only where the caller makes `batch_stats`
  mutable, and used only where `use_running` is set: the references contrast by
  the batch's own statistics in evaluation too.
  """

  momentum: float = 0.1
  epsilon: float = 1e-5

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B D"],
    real: Bool[Array, "B"] | None = None,
    use_running: bool = False,
  ) -> Float[Array, "B D"]:
    """Returns the normalised rows.

    Args:
      x: rows.
      real: rows that count; all by default.
      use_running: normalise by `batch_stats`, which must then be given.
    """
    scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
    keeps = self.is_mutable_collection("batch_stats")
    if keeps or use_running:
      shape = x.shape[-1:]
      mean = self.variable("batch_stats", "running_mean", jnp.zeros, shape)
      var = self.variable("batch_stats", "running_var", jnp.ones, shape)
    where = None if real is None else real[:, None]
    if use_running:
      center, spread = mean.value, var.value
    else:
      center = jnp.mean(x, axis=0, where=where)
      spread = jnp.var(x, axis=0, where=where)
      if keeps and not self.is_initializing():
        count = x.shape[0] if real is None else jnp.sum(real)
        unbiased = spread * count / jnp.maximum(count - 1, 1)
        mean.value += self.momentum * (center - mean.value)
        var.value += self.momentum * (unbiased - var.value)
    x = (x - center[None]) / jnp.sqrt(spread + self.epsilon)[None]
    return x * scale[None] + bias[None]


class ProjectionHead(nn.Module):
  """From a code to what is contrasted: linear, batch norm, ReLU; repeated."""

  options: HeadOptions

  @nn.compact
  def __call__(
    self,
    z: Float[Array, "B D"],
    real: Bool[Array, "B"] | None = None,
    use_running: bool = False,
  ) -> Float[Array, "B F"]:
    """Returns projections; call it for each view on its own."""
    o = self.options
    for layer in range(o.layers + 1):
      is_last = layer == o.layers
      width = o.outputs if is_last else o.width
      z = Linear(width, "kaiming", name=f"layers_{3 * layer}")(z)
      z = BatchNorm(name=f"layers_{3 * layer + 1}")(z, real, use_running)
      z = z if is_last else nn.relu(z)
    return z
