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

from sne_jax.encoders.features import Features, Layout, fold, unfold
from sne_jax.encoders.set_layers import affine

INITIALISERS = ("uniform", "kaiming")


def kernel_init(kind: str, fan_in: int):
  """Returns initialisers of kernel and bias for a (joint) fan-in.

  Args:
    kind: uniform, both in +-1/sqrt(fan-in); or kaiming, normal of variance
      2/fan-in, and no bias.
    fan_in: inputs of all maps whose outputs are added up.
  """
  if kind == "kaiming":
    return nn.initializers.normal((2 / fan_in) ** 0.5), nn.initializers.zeros
  bound = fan_in**-0.5

  def uniform(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return uniform, uniform


class Map(nn.Module):
  """Parameters of an affine map: called, it gives kernel and bias."""

  inputs: int
  outputs: int
  fan_in: int = 0  # Joint fan-in; 0: `inputs`.
  scaling: str = "uniform"

  @nn.compact
  def __call__(self):
    """Returns kernel `[I, O]` and bias `[O]`."""
    kernel, bias = kernel_init(self.scaling, self.fan_in or self.inputs)
    return (
      self.param("kernel", kernel, (self.inputs, self.outputs)),
      self.param("bias", bias, (self.outputs,)),
    )


class Pointwise(nn.Module):
  """An affine map of the channels of every entry, one map per tensor."""

  layout: Layout
  channels: int

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Returns features of `channels` channels."""
    weights, biases = [], []
    for number, layer in enumerate(self.layout.layers):
      w, v = x.weights[number], x.biases[number]
      wide = self.channels * layer.places
      weights.append(
        affine(w, *Map(w.shape[-1], wide, name=f"weight_maps_{number}")())
      )
      biases.append(
        affine(
          v, *Map(v.shape[-1], self.channels, name=f"bias_maps_{number}")()
        )
      )
    return Features(tuple(weights), tuple(biases))


class ChannelNorm(nn.Module):
  """Layer norm over the channels of an entry.

  The deviation is the unbiased one and `epsilon` is added to it, as in the
  authors' code; over a single channel it is 0 and gives the bias alone.
  """

  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """Returns the normed entries."""
    scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
    lead = (1,) * (x.ndim - 1)
    centered = x - x.mean(axis=-1, keepdims=True)
    square = jnp.sum(centered**2, axis=-1, keepdims=True)
    variance = square / max(x.shape[-1] - 1, 1)
    positive = variance > 0  # The root has no gradient at 0.
    deviation = jnp.where(
      positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0
    )
    normed = centered / (deviation + self.epsilon)
    return normed * scale.reshape(*lead, -1) + bias.reshape(*lead, -1)


class SimpleNorm(nn.Module):
  """A `ChannelNorm` of its own for every tensor, kernel places included."""

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Returns the normed features."""
    return Features(
      tuple(
        ChannelNorm(name=f"w_norms_{number}")(w)
        for number, w in enumerate(x.weights)
      ),
      tuple(
        ChannelNorm(name=f"v_norms_{number}")(v)
        for number, v in enumerate(x.biases)
      ),
    )


class ChannelDropout(nn.Module):
  """Drops whole channels of weights, and single entries of biases."""

  rate: float

  @nn.compact
  def __call__(self, x: Features, deterministic: bool = True) -> Features:
    """Returns the features that are left, scaled."""
    if deterministic or not self.rate:
      return x
    whole = nn.Dropout(self.rate, broadcast_dims=(1, 2), name="weights")
    single = nn.Dropout(self.rate, name="biases")
    return Features(
      tuple(whole(w, deterministic) for w in x.weights),
      tuple(single(v, deterministic) for v in x.biases),
    )


class LearnedScale(nn.Module):
  """Multiplies every tensor by a number of its own: weight editing."""

  initial: float = 0.01

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Returns the scaled features."""
    init = nn.initializers.constant(self.initial)

    def scaled(kind, tensors):
      return tuple(
        self.param(f"{kind}_{number}", init, (1,)).reshape((1,) * t.ndim) * t
        for number, t in enumerate(tensors)
      )

    return Features(scaled("weight", x.weights), scaled("bias", x.biases))


def frequencies(channels: int, count: int, scale: float) -> np.ndarray:
  """Returns fixed random frequencies `[c, q]` of Gaussian Fourier features.

  They are drawn from a fixed seed, so a saved model needs no buffer.
  """
  draw = np.random.default_rng(0).standard_normal((channels, count))
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


def io_sinusoidal(
  layout: Layout,
  x: Features,
  *,
  max_freq: float = 10.0,
  bands: int = 6,
  levels: bool = False,
) -> Features:
  """Appends channels that mark inputs, outputs and, if asked for, layers.

  Args:
    layout: of the networks.
    x: the features.
    max_freq: twice the highest frequency.
    bands: frequencies; `2 bands + 1` channels are appended.
    levels: mark the layers too; without, hidden tensors get zeros.
  """
  bank = np.linspace(1, max_freq / 2, bands)

  def phi(count):  # [count, 2 bands + 1]
    position = np.linspace(-1, 1, count)[:, None]
    angle = np.pi * position * bank[None, :]
    parts = [np.sin(angle), np.cos(angle), position]
    return np.concatenate(parts, axis=-1)

  depth = phi(len(layout)) * levels
  last = len(layout) - 1

  def append(array, marks, places=1):
    cut = unfold(array, places)
    marks = jnp.asarray(marks[..., None], array.dtype)
    marks = jnp.broadcast_to(
      marks, (*array.shape[:-1], marks.shape[-2], places)
    )
    return fold(jnp.concatenate([cut, marks], axis=-2))

  weights, biases = [], []
  for number, layer in enumerate(layout.layers):
    mark = depth[number][None, None, None, :]
    bias_mark = mark[:, 0]
    if number == 0:
      mark = mark + phi(layer.inputs)[None, None, :, :]
    if number == last:
      outputs = phi(layer.outputs)
      mark = mark + outputs[None, :, None, :]
      bias_mark = bias_mark + outputs[None, :, :]
    weights.append(append(x.weights[number], mark, layer.places))
    biases.append(append(x.biases[number], bias_mark))
  return Features(tuple(weights), tuple(biases))


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
    levels = table("weight_emb", len(layers))
    bias_levels = table("bias_emb", len(layers))
    inputs = table("inp_emb", layers[0].inputs)
    outputs = table("out_emb", layers[-1].outputs)
    weights, biases = [], []
    for number, layer in enumerate(layers):
      mark = levels[number][None, None, None, :]
      bias_mark = bias_levels[number][None, None, :]
      if number == 0:
        mark = mark + inputs[None, None, :, :]
      if number + 1 == len(layers):
        mark = mark + outputs[None, :, None, :]
        bias_mark = bias_mark + outputs[None, :, :]
      mark = jnp.repeat(mark, layer.places, axis=-1)
      weights.append(x.weights[number] + mark)
      biases.append(x.biases[number] + bias_mark)
    return Features(tuple(weights), tuple(biases))


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
