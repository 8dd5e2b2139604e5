"""The encoder of SANE on batches of the table, trained by labels.

Networks of any architectures are cut into windows of one length, which all
batches share; a network's code is the mean of its latent tokens. Positions
number tokens, layers and rows, so permuted networks have different codes.

Dimensions: `B` networks, `N` tokens of `C` entries, `W` windows of `L` tokens.

References:
  Schuerholt et al., ICML 2024, arXiv:2406.09997.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.encoders import interface, scaling
from sne_jax.encoders.batches import joining
from sne_jax.encoders.tokens import sane
from sne_jax.networks import scales, tokens, windows
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class SANECoderOptions(Checked):
  """Options of sane.

  Attributes:
    width: of a latent token, and so of the code.
    hidden: width of the transformer; even, and a multiple of heads.
    blocks: transformer blocks.
    heads: attention heads.
    token_size: entries of a token; 0: the largest row of the training
      networks, so that each neuron is one token.
    window: tokens of content that a window has.
    halo: tokens of context on either side of them.
    spare: further entries of the position tables, as a share of what training
      networks need; for larger networks to predict for.
  """

  width: int = 64
  hidden: int = 64
  blocks: int = 2
  heads: int = 4
  token_size: int = option(0, least=0)
  window: int = option(128, least=1)
  halo: int = option(64, least=0)
  spare: float = option(0.0, least=0)

  def __post_init__(self):
    super().__post_init__()
    self.sane(token_size=1)  # Checks the others.

  def sane(self, **changes: int) -> sane.SANEOptions:
    """Returns the options of the model itself."""
    shared = {"width", "hidden", "blocks", "heads"}
    return sane.SANEOptions(
      **{n: v for n, v in vars(self).items() if n in shared} | changes
    )


class Coder(nn.Module):
  """Encodes networks of any architectures as `[B, D]`.

  Attributes:
    options: of the model.
    place_scales: of each of `scales.PLACES`, of training networks.
  """

  options: sane.SANEOptions
  place_scales: tuple[float, ...]

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    table, cut = batch.tables["tokens"], batch.tables["windows"]
    weights = scaling.scaled(batch, self.place_scales)
    x = jnp.where(table["mask"], weights[table["index"]], 0)  # [N, C]
    z = sane.SANE(self.options, name="body").encode(
      x[cut["tokens"]],
      jnp.asarray(table["positions"])[cut["tokens"]],
      jnp.asarray(cut["present"]),
    )
    content = jnp.asarray(cut["content"])
    sums = jnp.sum(z, axis=1, where=content[..., None])
    network, count = cut["network"], len(batch.tables["networks"]["real"])
    sums = jax.ops.segment_sum(sums, network, count)
    number = content.sum(axis=1, keepdims=True).astype(sums.dtype)
    return sums / jax.ops.segment_sum(number, network, count)


def describe(
  spec: NetworkSpec, options: sane.SANEOptions, halo: int, length: int
) -> joining.Tables:
  """Returns what a network of a spec brings into a batch.

  Raises:
    ValueError: it needs larger position tables.
  """
  layout = tokens.layout(spec, options.token_size)
  options.check(layout)
  tiling = windows.tile(len(layout), max(length - 2 * halo, 1), halo)
  count, length_of_window = tiling.index.shape
  room = ((0, 0), (0, length - length_of_window))
  return {
    "weights": scaling.columns(spec),
    "tokens": {
      "index": layout.index,
      "mask": layout.mask,
      "positions": layout.positions,
    },
    "windows": {
      "tokens": np.pad(tiling.index, room),
      "present": np.pad(np.ones((count, length_of_window), bool), room),
      "content": np.pad(tiling.content, room),
      "network": np.zeros(count, np.int32),
    },
  }


def measure(
  options: SANECoderOptions, networks: Sequence[interface.Network]
) -> dict[str, Any]:
  """Measures the size of training weights, tokens and position tables."""
  specs = tuple(dict.fromkeys(spec for spec, _ in networks))
  size = options.token_size or max(map(tokens.largest_row, specs))
  layouts = [tokens.layout(spec, size) for spec in specs]
  tables = np.max([layout.tables for layout in layouts], axis=0)
  tables = np.ceil(tables * (1 + options.spare)).astype(int)
  return scales.described(networks, fan_in=True) | {
    "token_size": size,
    "tables": tables.tolist(),
    "most_tokens": max(map(len, layouts)),
  }


def build(
  options: SANECoderOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  """Builds the encoder."""
  names = ("table_tokens", "table_layers", "table_rows")
  inner = options.sane(
    token_size=measured["token_size"],
    **dict(zip(names, measured["tables"], strict=True)),
  )
  length, halo = options.window + 2 * options.halo, options.halo
  if measured["most_tokens"] < length:  # One window, no longer than needed.
    length, halo = measured["most_tokens"], 0
  return interface.Encoder(
    make_packer=lambda specs: joining.Packer(
      specs,
      lambda spec: describe(spec, inner, halo, length),
      refs={
        ("tokens", "index"): "weights",
        ("windows", "tokens"): "tokens",
        ("windows", "network"): "networks",
      },
    ),
    module=Coder(inner, tuple(measured["place_scales"]), name="encoder"),
  )
