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
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from sne_jax.encoders import (
  feature_layers,
  features,
  interface,
  joining,
  nfn_linear,
  tied,
)
from sne_jax.networks.checked import Checked, option

LEAST_LAYERS = {"nfn_np": 1, "nfn_hnp": 2}
"""Fewest layers of a network that each can read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NFNOptions(Checked):
  """Options of nfn_np and nfn_hnp.

  Attributes:
    width: units of the code, a dense layer behind the pooling; the authors'
      head has 1000.
    channels: of every equivariant layer.
    last_channels: of the last one; 0: as the others.
    layers: equivariant layers, at least 1.
    io_embed: learned vectors at inputs and outputs inside every NP layer;
      without them it cannot tell inputs, or outputs, apart (nfn_np only).
    complete: give the last weight the bias of the neuron that it reads, which
      the authors' layer misses (nfn_hnp only).
    init: uniform or kaiming, as the authors offer them.
    norm: layer norm over channels behind every layer: none or simple.
    dropout: share of channels dropped behind every layer while training.
    pool: hnp (inputs and outputs kept apart; needs a hidden layer) or np.
    fourier: frequencies of Gaussian Fourier features of the values; 0: none.
    fourier_scale: deviation of these frequencies.
    positions: none, sinusoidal (channels that mark inputs and outputs) or
      learned (vectors that are added; needs more than one channel).
    bands: frequencies of sinusoidal positions.
    max_freq: twice the highest of these.
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
  init: str = option("uniform", choices=feature_layers.INITIALISERS)
  norm: str = option("none", choices=("none", "simple"))
  dropout: float = option(0.0, least=0, below=1)
  pool: str = option("hnp", choices=("hnp", "np"))
  fourier: int = option(0, least=0)
  fourier_scale: float = 3.0
  positions: str = option("none", choices=("none", "sinusoidal", "learned"))
  bands: int = option(6, least=1)
  max_freq: float = 10.0
  normalise: str = option("tensor", choices=tied.NORMALISATIONS)


class Equivariant(nn.Module):
  """The equivariant part: weights in, weights out.

  `layout.flat` turns its result into `[B, P, channels]`, for example to edit
  networks (with `feature_layers.LearnedScale`).
  """

  options: NFNOptions
  layout: features.Layout
  kind: str

  @nn.compact
  def __call__(
    self, x: features.Features, deterministic: bool = True
  ) -> features.Features:
    """Maps features of one channel to features of the last layer."""
    o = self.options
    if o.fourier:
      table = feature_layers.frequencies(
        x.biases[0].shape[-1], o.fourier, o.fourier_scale
      )
      x = feature_layers.fourier(self.layout, x, table)
    if o.positions == "sinusoidal":
      x = feature_layers.io_sinusoidal(
        self.layout, x, max_freq=o.max_freq, bands=o.bands
      )
    elif o.positions == "learned":
      x = feature_layers.LearnedPositions(self.layout, name="positions")(x)
    for number in range(o.layers):
      is_last = number + 1 == o.layers
      channels = (is_last and o.last_channels) or o.channels
      x = self._linear(channels, f"layer_{number}")(x)
      if o.norm == "simple":
        x = feature_layers.SimpleNorm(name=f"norm_{number}")(x)
      x = jax.tree.map(nn.relu, x)
      drop = feature_layers.ChannelDropout(o.dropout, name=f"drop_{number}")
      x = drop(x, deterministic)
    return x

  def _linear(self, channels: int, name: str) -> nn.Module:
    o = self.options
    if self.kind == "nfn_np":
      return nfn_linear.NPLinear(
        self.layout, channels, o.io_embed, o.init, name=name
      )
    return nfn_linear.HNPLinear(
      self.layout, channels, o.complete, o.init, name=name
    )


class NFN(nn.Module):
  """Encodes networks of one architecture as `[B, D]`."""

  options: NFNOptions
  layout: features.Layout
  kind: str
  normaliser: tied.Normaliser

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    o = self.options
    x = self.layout.features(self.normaliser(batch))
    x = Equivariant(o, self.layout, self.kind, name="equivariant")(
      x, deterministic
    )
    pool = {"np": feature_layers.np_pool, "hnp": feature_layers.hnp_pool}
    pooled = pool[o.pool](self.layout, x)
    pooled = pooled.reshape(len(pooled), -1)
    return nn.relu(nn.Dense(o.width, name="code")(pooled))


def layout_of(kind: str, options: NFNOptions, spec) -> features.Layout:
  """Returns the layout; an error names encoders that can read the spec."""
  least = max(LEAST_LAYERS[kind], 2 if options.pool == "hnp" else 1)
  return features.layout_of(spec, kind, least=least)


def measure(
  kind: str, options: NFNOptions, networks: Sequence[interface.Network]
) -> dict[str, Any]:
  """See `tied.measure`; networks that cannot be read are refused."""
  layout_of(kind, options, networks[0][0])
  return tied.measure(kind, options.normalise, networks)


def build(
  kind: str,
  options: NFNOptions,
  measured: Mapping[str, Any],
) -> interface.Encoder:
  """Builds the encoder."""
  spec, normaliser = tied.opened(measured)
  layout = layout_of(kind, options, spec)
  return interface.Encoder(
    make_packer=lambda specs: tied.packer(specs, spec, kind),
    module=NFN(options, layout, kind, normaliser, name="encoder"),
  )


measure_np = functools.partial(measure, "nfn_np")
measure_hnp = functools.partial(measure, "nfn_hnp")
build_np = functools.partial(build, "nfn_np")
build_hnp = functools.partial(build, "nfn_hnp")
