"""Neural functional networks as encoders: `nfn_np` and `nfn_hnp`.

Normalised weights, encodings of values and positions, equivariant layers with
ReLU between, an invariant pooling and one dense layer, whose units are the
code (the authors' head is it, with 1000 units, and another such layer).

Dimensions: as in `features`; `D` width of the code.

Reference: Zhou et al., Permutation Equivariant Neural Functionals, NeurIPS
2023, arXiv:2302.14040, and the authors' code.
"""

import dataclasses
import functools

import flax.linen as nn
import jax

from sne_jax.encoders import interface
from sne_jax.encoders.batches import joining, tied
from sne_jax.encoders.functionals import feature_layers, features, nfn_linear
from sne_jax.encoders.functionals import per_weight as per_weight_lib
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec

LEAST_LAYERS = {"nfn_np": 1, "nfn_hnp": 2}
"""Fewest layers of a network that each can read."""

FOURIER_SCALE = 3.0
"""Deviation of the frequencies of values, the authors'."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NFNOptions(Checked):
  """Options of nfn_np and nfn_hnp.

  Attributes:
    width: units of the code, a dense layer after the pooling; the authors' head
      has 1000.
    channels: of every equivariant layer.
    last_channels: of the last one; 0: as the others.
    layers: equivariant layers, at least 1.
    io_embed: learned vectors at inputs and outputs inside every NP layer;
      without them it cannot tell inputs, or outputs, apart (nfn_np only).
    complete: give the last weight the bias of the neuron that it reads, which
      the authors' layer misses (nfn_hnp only).
    pool: hnp (inputs and outputs kept apart; needs a hidden layer) or np.
    fourier: frequencies of Gaussian Fourier features of the values; 0: none.
    positions: none, sinusoidal (channels that mark inputs and outputs) or
      learned (vectors that are added; needs more than one channel).
    normalise: how inputs are normalised: tensor (a mean and deviation for each
      tensor, exactly equivariant), element (for each weight, the authors'
      mode, only nearly invariant), or none.
  """

  width: int = option(256, least=1)
  channels: int = option(32, least=1)
  last_channels: int = option(0, least=0)
  layers: int = option(3, least=1)
  io_embed: bool = True
  complete: bool = True
  pool: str = option("hnp", choices=("hnp", "np"))
  fourier: int = option(0, least=0)
  positions: str = option("none", choices=("none", "sinusoidal", "learned"))
  normalise: str = option("tensor", choices=tied.NORMALISATIONS)


class Equivariant(nn.Module):
  """The equivariant part: weights in, weights out.

  `layout.flat` turns its result into `[B, P, channels]`.
  """

  options: NFNOptions
  layout: features.Layout
  kind: str

  @nn.compact
  def __call__(self, x: features.Features) -> features.Features:
    """Maps features of one channel to features of the last layer."""
    o = self.options
    if o.fourier:
      table = feature_layers.frequencies(o.fourier, FOURIER_SCALE)
      x = feature_layers.fourier(self.layout, x, table)
    if o.positions == "sinusoidal":
      x = feature_layers.io_sinusoidal(self.layout, x)
    elif o.positions == "learned":
      x = feature_layers.LearnedPositions(self.layout, name="positions")(x)
    for number in range(o.layers):
      is_last = number + 1 == o.layers
      channels = (is_last and o.last_channels) or o.channels
      x = jax.tree.map(nn.relu, self._linear(channels, f"layer_{number}")(x))
    return x

  def _linear(self, channels: int, name: str) -> nn.Module:
    return linear(self.kind, self.options, self.layout, channels, name=name)


class NFN(nn.Module):
  """Encodes networks of one architecture as `[B, D]`."""

  options: NFNOptions
  normaliser: tied.Normaliser
  kind: str

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    o = self.options
    layout = layout_of(self.kind, o, self.normaliser.spec)
    x = layout.features(self.normaliser(batch))
    x = Equivariant(o, layout, self.kind, name="equivariant")(x)
    pool = {"np": feature_layers.np_pool, "hnp": feature_layers.hnp_pool}
    pooled = pool[o.pool](layout, x)
    pooled = pooled.reshape(len(pooled), -1)
    return nn.relu(nn.Dense(o.width, name="code")(pooled))


def layout_of(
  kind: str, options: NFNOptions, spec: NetworkSpec
) -> features.Layout:
  """Returns the layout; an error names encoders that can read the spec."""
  least = max(LEAST_LAYERS[kind], 2 if options.pool == "hnp" else 1)
  return features.layout_of(spec, kind, least=least)


def linear(
  kind: str,
  options: NFNOptions,
  layout: features.Layout,
  channels: int,
  **words,
) -> nn.Module:
  """Returns an equivariant linear layer of the kind."""
  if kind == "nfn_np":
    return nfn_linear.NPLinear(layout, channels, options.io_embed, **words)
  return nfn_linear.HNPLinear(layout, channels, options.complete, **words)


def per_weight(kind: str, options: NFNOptions, measured) -> nn.Module:
  """Returns the module of a value for every weight; see `interface.Row`."""
  normaliser = tied.opened(measured)
  layout = layout_of(kind, options, normaliser.spec)
  body = Equivariant(options, layout, kind)
  last = linear(kind, options, layout, 1)
  return per_weight_lib.PerWeight(normaliser, layout, body, last)


def row(kind: str, **words) -> interface.Row:
  """Returns the row of `nfn_np` or `nfn_hnp`."""
  return tied.row(
    kind,
    functools.partial(NFN, kind=kind),
    check=functools.partial(layout_of, kind),
    per_weight=functools.partial(per_weight, kind),
    options=NFNOptions,
    prefix="nfn_",
    **words,
  )
