"""DWSNets: a block from every tensor to every other.

A block keeps the layer of hidden neurons that its source and its target share
(then it is a set map over these neurons), or none (then it is an affine map of
what is pooled). Inputs and outputs of the network never move, so their axes
are folded into features. The sum over all sources is divided by their number.

Two blocks of the published code give the last weight the same values for every
output; `complete` lets them differ, which the full characterisation allows.
Affine maps are single ones (`n_fc_layers=1`).

Dimensions: `B` networks, `M` layers, `F` features; neuron layers 0 to M of
`d` neurons; weights here are `[B, outputs, inputs, F]`.

Reference: Navon et al., Equivariant Architectures for Learning in Deep Weight
Spaces, ICML 2023, arXiv:2301.12780, and the authors' code.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders import interface
from sne_jax.encoders.batches import joining, tied
from sne_jax.encoders.functionals import feature_layers, features
from sne_jax.encoders.functionals import per_weight as per_weight_lib
from sne_jax.encoders.functionals.features import Features
from sne_jax.encoders.sets import stacks
from sne_jax.encoders.sets.layers import Dense
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec

NAME = "dws"
SET_LAYERS = ("ds", "sab")
NORMS = ("layer", "batch", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DWSOptions(Checked):
  """Options of dws.

  Attributes:
    width: of the code.
    channels: features of every layer.
    layers: equivariant layers, at least 1.
    set_layer: ds (DeepSets) or sab (attention, the authors' default).
    heads: attention heads of sab, or as many as divide the features.
    reduction: how neurons are pooled: max (the authors' default), mean, sum.
    diagonal: only blocks between neighbouring tensors.
    complete: let two blocks tell the outputs apart, which the authors' do not.
    norm: after every layer but the last: layer (over the features of an
      entry), none, or batch (of each feature, over all entries of a tensor and
      all networks of the batch, as the authors' code does while training: codes
      then depend on batch mates, at prediction too).
    normalise: how inputs are normalised: tensor (exactly equivariant), element
      (the authors' mode, only nearly invariant), or none.
  """

  width: int = option(64, least=1)
  channels: int = option(16, least=1)
  layers: int = option(3, least=1)
  set_layer: str = option("ds", choices=SET_LAYERS)
  heads: int = option(8, least=1)
  reduction: str = option("max", choices=("max", "mean", "sum"))
  diagonal: bool = False
  complete: bool = True
  norm: str = option("layer", choices=NORMS)
  normalise: str = option("tensor", choices=tied.NORMALISATIONS)


class Tensor(NamedTuple):
  """A tensor of a network as source or target of a block."""

  kind: str  # weight or bias
  number: int

  def hidden(self, depth: int) -> tuple[int, ...]:
    """The layers of hidden neurons that it touches."""
    first = self.number if self.kind == "weight" else self.number + 1
    layers = range(first, self.number + 2)
    return tuple(layer for layer in layers if 0 < layer < depth)


def _kernel(key, shape, dtype=jnp.float32):
  inputs, outputs = shape
  spread = 2 * math.sqrt(inputs / (outputs * (inputs + outputs)))
  return spread * jax.random.normal(key, shape, dtype)


def _bias(key, shape, dtype=jnp.float32):
  return jax.random.uniform(key, shape, dtype, -1e-4, 1e-4)


Affine = functools.partial(Dense, kernel_init=_kernel, bias_init=_bias)
"""An affine map with the authors' initial values."""


class DWSBlock(nn.Module):
  """What one tensor gives to another, before it is broadcast."""

  outputs: int
  is_set: bool
  options: DWSOptions

  @nn.compact
  def __call__(self, x):
    """Maps `[B, d, F]` (a set) or `[B, F]` to `outputs` features."""
    o = self.options
    if not self.is_set:
      return Affine(self.outputs, name="linear")(x)
    if o.set_layer == "sab":
      heads = math.gcd(o.heads, self.outputs)
      options = stacks.SetOptions(
        width=self.outputs, heads=heads, norm="none", dtype=str(x.dtype)
      )
      return stacks.MAB(options, name="mab")(x)
    pooled = _pool(x, 1, o.reduction)
    pooled = Affine(self.outputs, use_bias=False, name="Lambda")(pooled)
    return Affine(self.outputs, name="Gamma")(x) - pooled[:, None]


class Interior(nn.Module):
  """A weight between two hidden layers to itself: the mean of four maps."""

  outputs: int
  reduction: str

  @nn.compact
  def __call__(self, x):
    """Maps `[B, O, I, F]` to `[B, O, I, outputs]`."""
    how = self.reduction
    over_inputs, over_outputs = _pool(x, 2, how), _pool(x, 1, how)
    both = _pool(over_inputs, 1, how)
    linear = lambda name, x: Affine(self.outputs, name=name)(x)
    total = linear("lin_all", x) + linear("lin_n", over_inputs)[:, :, None]
    total = total + linear("lin_m", over_outputs)[:, None]
    return (total + linear("lin_both", both)[:, None, None]) / 4


class DWSLayer(nn.Module):
  """The equivariant linear layer (nonlinear with `max` or `sab`).

  Attributes:
    layout: of the networks; three layers or more, no kernels.
    features: of the output.
    options: of which set_layer, heads, reduction, diagonal and complete matter.
  """

  layout: features.Layout
  features: int
  options: DWSOptions

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Returns features of `features` channels."""
    depth = len(self.layout)
    tensors = [
      Tensor(kind, number)
      for kind in ("weight", "bias")
      for number in range(depth)
    ]
    kept = {
      (source, layer): _keep(x, source, layer, depth, self.options.reduction)
      for source in tensors
      for layer in (None, *source.hidden(depth))
    }
    totals = []
    for target in tensors:
      parts = [
        self._block(source, target, x, kept)
        for source in tensors
        if not self.options.diagonal or _is_near(source, target)
      ]
      total = functools.reduce(jnp.add, parts)
      layer = self.layout.layers[target.number]
      shape = (total.shape[0], layer.outputs)
      shape += (layer.inputs,) if target.kind == "weight" else ()
      total = jnp.broadcast_to(total, (*shape, self.features))
      totals.append(total / (2 * depth))
    return Features(tuple(totals[:depth]), tuple(totals[depth:]))

  def _block(self, source: Tensor, target: Tensor, x: Features, kept):
    """Returns what a source gives to a target, of the target's rank."""
    depth, o = len(self.layout), self.options
    name = f"{source.kind}_to_{target.kind}_{source.number}_{target.number}"
    if (
      source == target
      and source.kind == "weight"
      and len(source.hidden(depth)) == 2
    ):
      block = Interior(self.features, o.reduction, name=name)
      return block(x.weights[source.number])
    shared = set(source.hidden(depth)) & set(target.hidden(depth))
    layer = shared.pop() if shared else None
    fixed = self._fixed(source, target)
    width = fixed * self.features
    y = DWSBlock(width, layer is not None, o, name=name)(kept[source, layer])
    return self._spread(y, target, layer, fixed)

  def _fixed(self, source: Tensor, target: Tensor) -> int:
    """Returns how many inputs or outputs of the network a block tells apart."""
    depth, layers = len(self.layout), self.layout.layers
    if target == Tensor("weight", 0):
      return layers[0].inputs
    if target.number != depth - 1:
      return 1
    if not self.options.complete and target.kind == "weight":
      last = depth - 2
      if source == Tensor("weight", last) or (
        source.kind == "bias" and source.number < last
      ):
        return 1
    return layers[-1].outputs

  def _spread(self, y, target: Tensor, layer: int | None, fixed: int):
    """Gives a block's result the rank of its target, to be broadcast."""
    y = y.reshape(*y.shape[:-1], fixed, self.features)
    if layer is None:
      y = y[:, None]  # [B, 1 or d, fixed, F']
    is_last = target.number == len(self.layout) - 1
    if target.kind == "bias":
      return y[:, 0] if is_last else y[:, :, 0]
    if target.number == 0:
      return y  # [B, O, I, F']
    if is_last:
      return jnp.swapaxes(y, 1, 2)
    return y if layer == target.number + 1 else jnp.swapaxes(y, 1, 2)


class InvariantLayer(nn.Module):
  """Pools all neurons and maps what is left to a vector."""

  layout: features.Layout
  outputs: int
  reduction: str = "max"

  @nn.compact
  def __call__(self, x: Features):
    """Returns `[B, outputs]`."""
    depth = len(self.layout)

    def pooled(kind, number):
      return _keep(x, Tensor(kind, number), None, depth, self.reduction)

    order = [*range(1, depth - 1), 0, depth - 1]
    parts = [pooled("weight", number) for number in order]
    parts += [pooled("bias", number) for number in range(depth)]
    return nn.Dense(self.outputs, name="layer")(jnp.concatenate(parts, -1))


class Equivariant(nn.Module):
  """The equivariant part: weights in, weights out."""

  options: DWSOptions
  layout: features.Layout

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Maps features of one channel to features of `channels`."""
    o = self.options
    for number in range(o.layers):
      if number:
        if o.norm != "none":
          x = self._normed(x, f"norm_{number}")
        x = jax.tree.map(nn.relu, x)
      x = DWSLayer(self.layout, o.channels, o, name=f"layer_{number}")(x)
    return x

  def _normed(self, x: Features, name: str) -> Features:
    """A norm of its own for every tensor."""
    norms = {"layer": nn.LayerNorm, "batch": feature_layers.BatchNorm}
    norm = norms[self.options.norm]
    return features.each(
      x,
      lambda l, w: norm(name=f"{name}_weight_{l}")(w),
      lambda l, v: norm(name=f"{name}_bias_{l}")(v),
    )


class DWS(nn.Module):
  """Encodes networks of one architecture as `[B, D]`."""

  options: DWSOptions
  normaliser: tied.Normaliser

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    o = self.options
    layout = layout_of(self.normaliser.spec)
    x = layout.features(self.normaliser(batch))
    x = Equivariant(o, layout, name="equivariant")(x)
    x = jax.tree.map(nn.relu, x)
    pool = InvariantLayer(layout, o.width, o.reduction, name="invariant")
    return pool(x)


def layout_of(spec: NetworkSpec) -> features.Layout:
  """Returns the layout; an error names encoders that can read the spec."""
  layout = features.layout_of(spec, NAME, least=3)
  if any(layer.places > 1 for layer in layout.layers):
    raise interface.unsupported(NAME, spec, "it has convolutions")
  return layout


def per_weight(options: DWSOptions, measured) -> nn.Module:
  """Returns the module of a value for every weight; see `interface.Row`."""
  normaliser = tied.opened(measured)
  layout = layout_of(normaliser.spec)
  body = Equivariant(options, layout)
  last = DWSLayer(layout, 1, options)
  return per_weight_lib.PerWeight(normaliser, layout, body, last)


def _is_near(source: Tensor, target: Tensor) -> bool:
  """Whether the diagonal variant has a block."""
  step = target.number - source.number
  if source.kind == target.kind:
    return abs(step) <= 1 if source.kind == "weight" else step == 0
  return step in ((0, 1) if source.kind == "bias" else (0, -1))


def _keep(x: Features, source: Tensor, layer: int | None, depth: int, how: str):
  """Pools a source over all hidden neurons but those of one layer.

  Inputs and outputs of the network are folded into features, features fastest.

  Returns:
    `[B, d, F]`, or `[B, F]` if no layer is kept.
  """
  number = source.number
  value = (x.weights if source.kind == "weight" else x.biases)[number]
  if source.kind == "bias":  # [B, O, F]
    if number == depth - 1:
      return value.reshape(len(value), -1)
  elif number in (0, depth - 1):  # [B, O, I, F]
    value = jnp.swapaxes(value, 1, 2) if number else value
    value = value.reshape(*value.shape[:2], -1)
  elif layer == number:
    return _pool(value, 1, how)
  else:
    value = _pool(value, 2, how)
  return value if layer is not None else _pool(value, 1, how)


def _pool(x, axis: int, how: str):
  if how == "max":
    return _max(x, axis)
  return {"mean": jnp.mean, "sum": jnp.sum}[how](x, axis=axis)


def _max(x, axis: int):
  """The largest; its gradient goes to the first of equal ones.

  That of `jnp.max` was not a number in a program compiled without optimisation;
  probably `x` was computed twice and rounded differently, so that no entry
  equalled the largest.
  """
  place = jnp.argmax(x, axis, keepdims=True)
  return jnp.take_along_axis(x, place, axis).squeeze(axis)
