"""Set functions on the flat set of a network's weights: no structure at all.

Every weight is one element, a scaled scalar. What remains of a network is the
distribution of its weights: the baselines that the layers, kinds and positions
of SNE are measured against.

Dimensions: `B` networks, `T` weights of the batch, `S` sets of at most `Q`
weights, `D` width.

References:
  Zaheer et al., Deep Sets, NeurIPS 2017, arXiv:1703.06114; Lee et al., Set
  Transformer, ICML 2019, arXiv:1810.00825.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from sne_jax.encoders import interface, joining, sets
from sne_jax.networks import scales
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlatSetOptions(Checked):
  """Options of deep_sets and set_transformer.

  Attributes:
    width: width of elements and of the code; a multiple of heads.
    heads: attention heads (set_transformer).
    blocks: layers per element before pooling (deep_sets), attention blocks
      over inducing points (set_transformer).
    inducing: inducing points of a block (set_transformer).
    pooling: mean, sum or max (deep_sets).
    dropout: share of units dropped while training.
    form: attention block as published, or as coded by the authors
      (set_transformer).
    tile: networks encoded at a time, each once more for the gradients, so that
      memory is that of a tile; 0: all at once. On a CPU, 2 is about twice as
      fast for networks of some thousand weights (set_transformer).
    weight_scale: weights are divided by the root mean square of the training
      weights: place (one for each kind of tensor at the first level, at the
      last, and between), global (one for all) or none.
  """

  width: int = option(64, least=1)
  heads: int = option(4, least=1)
  blocks: int = option(2, least=0)
  inducing: int = option(16, least=1)
  pooling: str = option("mean", choices=("mean", "sum", "max"))
  dropout: float = option(0.0, least=0, below=1)
  form: str = option("published", choices=("published", "coded"))
  tile: int = option(0, least=0)
  weight_scale: str = option("place", choices=("place", "global", "none"))

  def __post_init__(self):
    super().__post_init__()
    _ = self.set_options()  # Checks that width is a multiple of heads.

  def set_options(self, dtype: str = "float32") -> sets.SetOptions:
    """What the set functions share, for weights of a dtype."""
    return sets.SetOptions(
      width=self.width,
      heads=self.heads,
      form=self.form,
      norm="pre" if self.form == "published" else "none",
      dropout=self.dropout,
      dtype=dtype,
    )


class FlatSet(nn.Module):
  """Encodes networks of any architectures as `[B, D]`.

  Attributes:
    options: of the encoder.
    kind: deep_sets or set_transformer.
    global_scale: of all training weights.
    place_scales: of each of `scales.PLACES`.
  """

  options: FlatSetOptions
  kind: str
  global_scale: float = 1.0
  place_scales: tuple[float, ...] = ()

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    o = self.options
    weights = self._scaled(batch)
    shared = o.set_options(str(weights.dtype))
    if self.kind == "deep_sets":
      function = sets.DeepSets(shared, o.blocks, 2, o.pooling, name="deep_sets")
    else:
      function = SetTransformer(o, shared, name="set_transformer")
    codes = [
      sets.map_sets(
        function,
        weights[group.members][..., None],
        jnp.asarray(group.mask),
        deterministic,
        tile=o.tile if self.kind == "set_transformer" else 0,
      )
      for group in batch.sets["networks"]
    ]
    return jnp.concatenate(codes)[batch.order["networks"]]

  def _scaled(self, batch: joining.Joined):
    """Returns the weights `[T]`, divided by what was measured."""
    o, table = self.options, batch.tables["weights"]
    weights = jnp.asarray(batch.weights)
    if o.weight_scale == "none":
      return weights
    weights = weights * table["scale"]
    if o.weight_scale == "global" or not self.place_scales:
      return weights / self.global_scale
    places = jnp.asarray(self.place_scales, weights.dtype)
    return weights / places[table["place"]]


class SetTransformer(nn.Module):
  """Blocks over inducing points, then pooling by one seed."""

  options: FlatSetOptions
  shared: sets.SetOptions

  @nn.compact
  def __call__(self, x, mask, deterministic: bool = True):
    """Maps sets `[S, Q, 1]` to vectors `[S, D]`."""
    o = self.options
    phi = sets.SetBlocks(self.shared, "isab", o.blocks, o.inducing, name="phi")
    psi = sets.SetPool(self.shared, "pma", 1, name="psi")
    return psi(phi(x, mask, deterministic), mask, deterministic)


def describe(spec: NetworkSpec) -> joining.Tables:
  """Returns what a network of a spec brings into a batch."""
  return {
    "weights": {
      "scale": scales.fan_in_root(spec),
      "place": scales.place_of(spec),
    }
  }


def measure(
  options: FlatSetOptions, networks: Sequence[interface.Network]
) -> dict[str, Any]:
  """Measures the size of the training weights."""
  del options
  return scales.described(networks, fan_in=True)


def build_deep_sets(
  options: FlatSetOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  """Builds `deep_sets`."""
  return _build("deep_sets", options, measured)


def build_set_transformer(
  options: FlatSetOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  """Builds `set_transformer`."""
  return _build("set_transformer", options, measured)


def _build(
  kind: str, options: FlatSetOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  module = FlatSet(
    options,
    kind,
    measured["global_scale"],
    tuple(measured["place_scales"]),
    name="encoder",
  )
  return interface.Encoder(
    make_packer=lambda specs: joining.Packer(
      specs, describe, sets={"networks": [("weights", "network")]}
    ),
    module=module,
  )
