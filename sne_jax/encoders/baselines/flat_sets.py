"""Set functions on the flat set of a network's weights: no structure at all.

Every weight is one element, a scaled scalar. What remains of a network is the
distribution of its weights: the baselines that the layers, kinds and positions
of SNE are measured against.

Dimensions: `B` networks, `S` sets of at most `Q` weights, `D` width.

References:
  Zaheer et al., Deep Sets, NeurIPS 2017, arXiv:1703.06114; Lee et al., Set
  Transformer, ICML 2019, arXiv:1810.00825.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from sne_jax.encoders import interface, scaling, tiling
from sne_jax.encoders.batches import joining
from sne_jax.encoders.sets import stacks
from sne_jax.networks import scales
from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlatSetOptions(Checked):
  """Options of deep_sets and set_transformer.

  Attributes:
    width: width of elements and of the code; a multiple of heads.
    heads: attention heads (set_transformer).
    blocks: layers per element before pooling (deep_sets), attention blocks
      over inducing points (set_transformer).
    inducing: inducing points of a block (set_transformer).
    tile: networks encoded at a time, each once more for the gradients, so that
      memory is that of a tile; 0: all at once. On a CPU, 2 is about twice as
      fast for networks of some thousand weights (set_transformer).
  """

  width: int = 64
  heads: int = 4
  blocks: int = option(2, least=0)
  inducing: int = option(16, least=1)
  tile: int = option(0, least=0)

  def __post_init__(self):
    super().__post_init__()
    _ = self.set_options()  # Checks width and heads.

  def set_options(self, dtype: str = "float32") -> stacks.SetOptions:
    """What the set functions share, for weights of a dtype."""
    return stacks.SetOptions(
      width=self.width,
      heads=self.heads,
      form="published",
      norm="pre",
      dtype=dtype,
    )


class FlatSet(nn.Module):
  """Encodes networks of any architectures as `[B, D]`.

  Attributes:
    options: of the encoder.
    kind: deep_sets or set_transformer.
    place_scales: of each of `scales.PLACES`.
  """

  options: FlatSetOptions
  kind: str
  place_scales: tuple[float, ...]

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    o = self.options
    weights = scaling.scaled(batch, self.place_scales)
    shared = o.set_options(str(weights.dtype))
    if self.kind == "deep_sets":
      function = stacks.DeepSets(shared, o.blocks, name="deep_sets")
    else:
      function = SetTransformer(o, shared, name="set_transformer")
    codes = [
      tiling.in_tiles(
        function,
        (weights[group.members][..., None], jnp.asarray(group.mask)),
        deterministic,
        o.tile if self.kind == "set_transformer" else 0,
      )
      for group in batch.sets["networks"]
    ]
    return jnp.concatenate(codes)[batch.order["networks"]]


class SetTransformer(nn.Module):
  """Blocks over inducing points, then pooling by one seed."""

  options: FlatSetOptions
  shared: stacks.SetOptions

  @nn.compact
  def __call__(self, x, mask, deterministic: bool = True):
    """Maps sets `[S, Q, 1]` to vectors `[S, D]`."""
    o = self.options
    phi = stacks.SetBlocks(
      self.shared, "isab", o.blocks, o.inducing, name="phi"
    )
    psi = stacks.SetPool(self.shared, "pma", 1, name="psi")
    return psi(phi(x, mask, deterministic), mask, deterministic)


def row(kind: str, **words) -> interface.Row:
  """Returns the row of `deep_sets` or `set_transformer`."""

  def build(options, measured):
    places = tuple(measured["place_scales"])
    return interface.Encoder(
      make_packer=lambda specs: joining.Packer(
        specs,
        lambda spec: {"weights": scaling.columns(spec)},
        sets={"networks": [("weights", "network")]},
      ),
      module=FlatSet(options, kind, places, name="encoder"),
    )

  return interface.Row(
    accepts="any",
    options=FlatSetOptions,
    prefix="set_",
    measure=lambda options, networks: scales.described(networks, fan_in=True),
    build=build,
    **words,
  )
