"""Layers on weight-space features that keep entries apart, and encodings.

All commute with permutations of hidden neurons; those without positions also
with permutations of inputs and outputs, and with uncoupled ones.

Dimensions: as in `features`; `q` frequencies.

References:
  Zhou et al., Permutation Equivariant Neural Functionals, NeurIPS 2023,
  arXiv:2302.14040; Neural Functional Transformers, NeurIPS 2023,
  arXiv:2305.13546; and the authors' code.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.encoders.functionals.features import (
  Features,
  Layout,
  each,
  fold,
  unfold,
)
from sne_jax.encoders.sets.layers import affine


def uniform(fan_in: int):
  """Returns the initialiser within +-1/sqrt(fan-in).

  Args:
    fan_in: inputs of all maps whose outputs are added up.
  """
  bound = fan_in**-0.5

  def draw(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return draw


class Map(nn.Module):
  """Parameters of an affine map: called, it gives kernel and bias."""

  inputs: int
  outputs: int
  fan_in: int = 0  # Joint fan-in; 0: `inputs`.

  @nn.compact
  def __call__(self):
    """Returns kernel `[I, O]` and bias `[O]`."""
    init = uniform(self.fan_in or self.inputs)
    return (
      self.param("kernel", init, (self.inputs, self.outputs)),
      self.param("bias", init, (self.outputs,)),
    )


class Pointwise(nn.Module):
  """An affine map of the channels of every entry, one map per tensor."""

  layout: Layout
  channels: int

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Returns features of `channels` channels."""

    def mapped(name, tensor, outputs):
      return affine(tensor, *Map(tensor.shape[-1], outputs, name=name)())

    places = [layer.places for layer in self.layout.layers]
    return each(
      x,
      lambda l, w: mapped(f"weight_maps_{l}", w, self.channels * places[l]),
      lambda l, v: mapped(f"bias_maps_{l}", v, self.channels),
    )


class ChannelNorm(nn.Module):
  """Layer norm over the channels of an entry.

  The deviation is the unbiased one and `epsilon` is added to it, as in the
  authors' code; over a single channel it is 0 and gives the bias alone.
  """

  epsilon: float = 1e-5
  scale: str = "scale"  # What the parameter is called.

  @nn.compact
  def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """Returns the normed entries."""
    centered = x - x.mean(axis=-1, keepdims=True)
    square = jnp.sum(centered**2, axis=-1, keepdims=True)
    variance = square / max(x.shape[-1] - 1, 1)
    positive = variance > 0  # The root has no gradient at 0.
    deviation = jnp.where(
      positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0
    )
    return _moved(self, centered / (deviation + self.epsilon), self.scale)


class BatchNorm(nn.Module):
  """Norm of each feature over all other axes, the batch included.

  There are no running statistics: every batch is normed by its own, in
  evaluation too.
  """

  @nn.compact
  def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """Returns the normed features."""
    axes = tuple(range(x.ndim - 1))
    x = x - jnp.mean(x, axes, keepdims=True)
    root = jnp.sqrt(jnp.mean(x**2, axes, keepdims=True) + 1e-5)
    return _moved(self, x / root)


def _moved(module: nn.Module, x, name: str = "scale"):
  """Returns features times a learned scale, plus a learned bias."""
  lead, shape = (1,) * (x.ndim - 1), x.shape[-1:]
  scale = module.param(name, nn.initializers.ones, shape)
  bias = module.param("bias", nn.initializers.zeros, shape)
  return x * scale.reshape(*lead, -1) + bias.reshape(*lead, -1)


class SimpleNorm(nn.Module):
  """A `ChannelNorm` of its own for every tensor, kernel places included."""

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Returns the normed features."""
    return each(
      x,
      lambda l, w: ChannelNorm(name=f"w_norms_{l}")(w),
      lambda l, v: ChannelNorm(name=f"v_norms_{l}")(v),
    )


def frequencies(count: int, scale: float) -> np.ndarray:
  """Returns fixed random frequencies `[1, q]` of Gaussian Fourier features.

  They are drawn from a fixed seed, so a saved model needs no buffer.
  """
  draw = np.random.default_rng(0).standard_normal((1, count))
  return (scale * draw).astype(np.float32)


def fourier(
  layout: Layout, x: Features, table: Float[Array | np.ndarray, "c q"]
) -> Features:
  """Gaussian Fourier features of every entry: sines first, then cosines."""

  def encode(values):  # [..., c]
    angle = 2 * jnp.pi * (values @ jnp.asarray(table, values.dtype))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)

  weights = []
  for layer, w in zip(layout.layers, x.weights, strict=True):
    channels_last = jnp.swapaxes(unfold(w, layer.places), -1, -2)
    weights.append(fold(jnp.swapaxes(encode(channels_last), -1, -2)))
  return Features(tuple(weights), tuple(encode(v) for v in x.biases))


def _marks(levels, bias_levels, inputs, outputs):
  """Yields marks of weights `[1, 1 or O, 1 or I, c]` and of biases, by layer.

  Args:
    levels: of the weight of each layer, `[L, c]`.
    bias_levels: of its bias, `[L, c]`.
    inputs: of the inputs of the first layer, `[I, c]`.
    outputs: of the outputs of the last, `[O, c]`.
  """
  for number, (level, bias) in enumerate(zip(levels, bias_levels, strict=True)):
    mark, bias = level[None, None, None, :], bias[None, None, :]
    if number == 0:
      mark = mark + inputs[None, None, :, :]
    if number + 1 == len(levels):
      mark = mark + outputs[None, :, None, :]
      bias = bias + outputs[None, :, :]
    yield mark, bias


def io_sinusoidal(
  layout: Layout, x: Features, *, bands: int = 6, levels: bool = False
) -> Features:
  """Appends channels that mark inputs, outputs and, if asked for, layers.

  Args:
    layout: of the networks.
    x: the features.
    bands: frequencies, up to 5; `2 bands + 1` channels are appended.
    levels: mark the layers too; without, hidden tensors get zeros.
  """
  bank = np.linspace(1, 5, bands)

  def phi(count):  # [count, 2 bands + 1]
    position = np.linspace(-1, 1, count)[:, None]
    angle = np.pi * position * bank[None, :]
    parts = [np.sin(angle), np.cos(angle), position]
    return np.concatenate(parts, axis=-1)

  def append(array, marks, places=1):
    cut = unfold(array, places)
    marks = jnp.asarray(marks[..., None], array.dtype)
    marks = jnp.broadcast_to(
      marks, (*array.shape[:-1], marks.shape[-2], places)
    )
    return fold(jnp.concatenate([cut, marks], axis=-2))

  depth, layers = phi(len(layout)) * levels, layout.layers
  ends = phi(layers[0].inputs), phi(layers[-1].outputs)
  marks = list(_marks(depth, depth, *ends))
  return each(
    x,
    lambda l, w: append(w, marks[l][0], layers[l].places),
    lambda l, v: append(v, marks[l][1]),
  )


class LearnedPositions(nn.Module):
  """Adds learned vectors that mark layers, inputs and outputs."""

  layout: Layout

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Returns features of the same shape."""
    layers = self.layout.layers
    channels = x.biases[0].shape[-1]
    normal = nn.initializers.normal(1.0)
    table = lambda name, rows: self.param(name, normal, (rows, channels))
    marks = list(
      _marks(
        table("weight_emb", len(layers)),
        table("bias_emb", len(layers)),
        table("inp_emb", layers[0].inputs),
        table("out_emb", layers[-1].outputs),
      )
    )
    return each(
      x,
      lambda l, w: w + jnp.repeat(marks[l][0], layers[l].places, axis=-1),
      lambda l, v: v + marks[l][1],
    )


def np_pool(layout: Layout, x: Features) -> Float[Array, "B c N"]:
  """Mean of every tensor per channel and place: `sum of (K + 1)` numbers."""
  parts = []
  for layer, w, v in zip(layout.layers, *x, strict=True):
    parts.append(unfold(w.mean(axis=(1, 2)), layer.places))
    parts.append(v.mean(axis=1)[..., None])
  return jnp.concatenate(parts, axis=-1)


def hnp_pool(layout: Layout, x: Features) -> Float[Array, "B c N"]:
  """The same, but inputs and outputs are kept apart.

  Raises:
    ValueError: there is no hidden layer.
  """
  last = len(layout) - 1
  if not last:
    raise ValueError(
      f"HNP pooling needs a hidden layer, but {layout.spec.describe()} has"
      " none; use NP pooling"
    )
  parts = []
  for number, (layer, w, v) in enumerate(zip(layout.layers, *x, strict=True)):
    if number in (0, last):
      kept = w.mean(axis=1 if number == 0 else 2)  # [B, io, cK]
      kept = jnp.swapaxes(unfold(kept, layer.places), 1, 2)  # [B, c, io, K]
      parts.append(fold(kept))
    else:
      parts.append(unfold(w.mean(axis=(1, 2)), layer.places))
    if number == last:
      parts.append(jnp.swapaxes(v, 1, 2))
    else:
      parts.append(v.mean(axis=1)[..., None])
  return jnp.concatenate(parts, axis=-1)
