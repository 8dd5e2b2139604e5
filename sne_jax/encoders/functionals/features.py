"""Weight-space features: one array per weight and per bias of a plain network.

The neural functionals read networks that are a chain of layers, each a weight
and a bias: perceptrons and convolutional classifiers. Each entry has `c`
channels, 1 in the input. The places of a kernel, and the image places that a
dense layer after a flattening reads per channel, are channels too: they never
move under permutations of neurons. The channel is the outer index of a folded
weight: entry `channel * places + place`.

Dimensions: `B` networks, `P` weights of one, `L` layers, `O` outputs and `I`
inputs of a layer, `K` its places, `c` channels.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sne_jax.encoders.interface import unsupported
from sne_jax.networks.spec import NetworkSpec, TensorSpec

_WEIGHTS = ("linear_weight", "conv_weight")
_BIASES = ("linear_bias", "conv_bias")


class Features(NamedTuple):
  """Features of networks of one layout; a pytree, mapped by `jax.tree.map`."""

  weights: tuple[Float[Array, "B O I cK"], ...]
  biases: tuple[Float[Array, "B O c"], ...]


def each(
  x: Features,
  weight: Callable[[int, Array], Array],
  bias: Callable[[int, Array], Array],
) -> Features:
  """Maps the tensors of features, each with the number of its layer."""
  return Features(
    tuple(weight(number, w) for number, w in enumerate(x.weights)),
    tuple(bias(number, v) for number, v in enumerate(x.biases)),
  )


class Layer(NamedTuple):
  """The shape of a layer, and where its tensors lie in the flat vector."""

  outputs: int
  inputs: int
  places: int
  weight_start: int
  bias_start: int
  factors: tuple[int, ...]  # shape of the weight, input axis split in factors
  input_factor: int  # which of its axes are the input neurons


@dataclasses.dataclass(frozen=True)
class Layout:
  """The layers of an architecture, in order; hashable."""

  spec: NetworkSpec
  layers: tuple[Layer, ...]

  def __len__(self) -> int:
    return len(self.layers)

  def features(self, rows: Float[Array, "B P"]) -> Features:
    """Returns weights as features of one channel."""
    weights, biases = [], []
    for layer in self.layers:
      size = layer.outputs * layer.inputs * layer.places
      flat = rows[:, layer.weight_start : layer.weight_start + size]
      cut = flat.reshape(len(rows), *layer.factors)
      cut = jnp.moveaxis(cut, layer.input_factor + 1, 2)
      weights.append(
        cut.reshape(len(rows), layer.outputs, layer.inputs, layer.places)
      )
      start = layer.bias_start
      biases.append(rows[:, start : start + layer.outputs, None])
    return Features(tuple(weights), tuple(biases))

  def flat(self, features: Features) -> Float[Array, "B P c"]:
    """Returns features in the order of the flat vector, channels last."""
    pieces = []
    for layer, weight, bias in zip(self.layers, *features, strict=True):
      batch, channels = bias.shape[0], bias.shape[-1]
      rest = list(layer.factors[1:])
      del rest[layer.input_factor - 1]
      cut = weight.reshape(
        batch, layer.outputs, layer.inputs, channels, layer.places
      )
      cut = jnp.swapaxes(cut, 3, 4)
      cut = cut.reshape(batch, layer.outputs, layer.inputs, *rest, channels)
      cut = jnp.moveaxis(cut, 2, layer.input_factor + 1)
      pieces.append((layer.weight_start, cut.reshape(batch, -1, channels)))
      pieces.append((layer.bias_start, bias))
    pieces.sort(key=lambda piece: piece[0])
    return jnp.concatenate([piece for _, piece in pieces], axis=1)


def layout_of(spec: NetworkSpec, name: str, *, least: int = 1) -> Layout:
  """Returns the layout of a plain network.

  Args:
    spec: the architecture.
    name: of the encoder, for messages.
    least: fewest layers that it can read.

  Raises:
    ValueError: the network is no chain of layers with biases, or has too few;
      the message names encoders that can read it.
  """
  layers, before = [], None
  tensors = list(zip(spec.tensors, spec.offsets, strict=True))
  if spec.skips:
    raise unsupported(name, spec, "it has residual connections")
  for place in range(0, len(tensors), 2):
    weight, start = tensors[place]
    if weight.kind not in _WEIGHTS:
      raise unsupported(
        name, spec, f"{weight.name} is a {weight.kind}, no dense or conv weight"
      )
    if place + 1 == len(tensors) or tensors[place + 1][0].of != weight.name:
      raise unsupported(name, spec, f"{weight.name} has no bias")
    bias, bias_start = tensors[place + 1]
    if bias.kind not in _BIASES:
      raise unsupported(name, spec, f"{bias.name} is a {bias.kind}, no bias")
    factors, number = _factors(weight)
    group = weight.axes[1][number - 1].group
    if len(weight.axes[0]) != 1 or group != before:
      raise unsupported(
        name, spec, f"{weight.name} does not read the layer before it"
      )
    before = weight.axes[0][0].group
    layers.append(
      Layer(
        outputs=weight.shape[0],
        inputs=factors[number],
        places=weight.size // weight.shape[0] // factors[number],
        weight_start=start,
        bias_start=bias_start,
        factors=factors,
        input_factor=number,
      )
    )
  if len(layers) < least:
    words = "no hidden layer" if len(layers) == 1 else f"{len(layers)} layers"
    raise unsupported(name, spec, f"it has {words}; needed are {least} layers")
  return Layout(spec, tuple(layers))


def _factors(weight: TensorSpec) -> tuple[tuple[int, ...], int]:
  """Returns the shape with the input axis in factors, and the neurons' one.

  The neurons are the factor that has a group; in the first layer, the first.
  """
  inside = weight.axes[1]
  number = [place for place, f in enumerate(inside) if f.group is not None]
  shape = (weight.shape[0], *(f.size for f in inside), *weight.shape[2:])
  return shape, 1 + (number[0] if number else 0)


def unfold(x: Float[Array, "... cK"], places: int) -> Float[Array, "... c K"]:
  """Parts the channels of a folded weight from its places."""
  return x.reshape(*x.shape[:-1], x.shape[-1] // places, places)


def fold(x: Float[Array, "... c K"]) -> Float[Array, "... cK"]:
  """Inverse of `unfold`."""
  return x.reshape(*x.shape[:-2], math.prod(x.shape[-2:]))
