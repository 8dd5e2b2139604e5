"""Set functions by name: stacks of blocks, pooling, and their mapping.

Every module sees one set `[N, D]` and maps over leading axes `[..., N, D]` by
itself; `nn.vmap` and `jax.vmap` work too, but written out axes give faster
matrix products on a CPU. A mask `[..., N]` says which elements are real; what
lies in the other places never matters, and they come out as zeros.

Dimensions: `...` leading axes, `N` elements (queries), `M` keys, `D` and `E`
widths of inputs, `W` width of the output, `K` seeds or inducing points.

References:
  Lee et al., Set Transformer, ICML 2019, arXiv:1810.00825, and the authors'
  code, whose attention block differs from the paper's (`SetOptions.form`).
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sne_jax.encoders import deepsets, set_layers
from sne_jax.encoders.attention_blocks import ISAB, MAB, PMA, SAB
from sne_jax.encoders.deepsets import DeepSets, DeepSetsBlock, LinearChunk, pool
from sne_jax.encoders.set_layers import Dense, Mask, SetOptions

__all__ = [
  "BLOCKS",
  "ISAB",
  "MAB",
  "PMA",
  "POOLS",
  "SAB",
  "DeepSets",
  "DeepSetsBlock",
  "LinearChunk",
  "SetBlocks",
  "SetOptions",
  "SetPool",
  "make_block",
  "map_sets",
  "pool",
  "set_blocks",
  "set_pool",
]

BLOCKS = ("sab", "isab", "deepsets", "none")
POOLS = ("pma", *deepsets.POOLINGS)


class SetBlocks(nn.Module):
  """A stack of equivariant blocks; see `set_blocks`."""

  options: SetOptions
  name_of_block: str = "sab"
  num_blocks: int = 2
  num_inducing: int = 16
  pooling: str = "mean"

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... N D"],
    mask: Mask | None = None,
    deterministic: bool = True,
  ) -> Float[Array, "... N W"]:
    """Returns the new elements, always of width `W`."""
    o = self.options
    x = set_layers.clean("x", x, mask, o)
    for place in range(self.num_blocks if self.name_of_block != "none" else 0):
      block = make_block(
        self.name_of_block, o, self.num_inducing, self.pooling, f"block_{place}"
      )
      x = block(x, mask, deterministic=deterministic)
    if x.shape[-1] != o.width:
      x = set_layers.zero(Dense(o.width, o, name="linear")(x), mask)
    return x


def make_block(
  kind: str,
  options: SetOptions,
  num_inducing: int = 16,
  pooling: str = "mean",
  name: str | None = None,
) -> nn.Module:
  """Returns one block of a stack, of one of the `BLOCKS` but `none`."""
  return {
    "sab": lambda: SAB(options, name=name),
    "isab": lambda: ISAB(options, num_inducing, name=name),
    "deepsets": lambda: DeepSetsBlock(options, pooling, name=name),
  }[kind]()


class SetPool(nn.Module):
  """Set to vector; see `set_pool`."""

  options: SetOptions
  name_of_pool: str = "pma"
  num_seeds: int = 1

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... N D"],
    mask: Mask | None = None,
    deterministic: bool = True,
  ) -> Float[Array, "... E"]:
    """Returns the vector, of width `K W` for `pma` and `D` for the others."""
    if self.name_of_pool != "pma":
      return pool(x, mask, self.name_of_pool)
    x = PMA(self.options, self.num_seeds, name="pma")(
      x, mask, deterministic=deterministic
    )
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def set_blocks(
  name: str,
  options: SetOptions,
  *,
  num_blocks: int = 2,
  num_inducing: int = 16,
  pooling: str = "mean",
) -> SetBlocks:
  """Returns a module `(x, mask, deterministic) -> [..., N, W]`.

  Args:
    name: `sab`, `isab`, `deepsets`, or `none` (no block; a linear map where
      the width of the input is not `W`).
    options: of the blocks.
    num_blocks: how many follow one another; 0 is `none`.
    num_inducing: of each `isab`.
    pooling: of each `deepsets`: `mean`, `sum`, `max`.

  Raises:
    ValueError: an argument is not one of these.
  """
  set_layers.check_choice("name", name, BLOCKS)
  set_layers.check_choice("pooling", pooling, deepsets.POOLINGS)
  if num_blocks < 0 or num_inducing < 1:
    raise ValueError(
      "num_blocks must be at least 0 and num_inducing at least 1, got"
      f" {num_blocks} and {num_inducing}"
    )
  return SetBlocks(options, name, num_blocks, num_inducing, pooling)


def set_pool(name: str, options: SetOptions, *, num_seeds: int = 1) -> SetPool:
  """Returns a module `(x, mask, deterministic) -> [..., E]`.

  Args:
    name: `pma`, `mean`, `max` or `sum`.
    options: of `pma`.
    num_seeds: `K` of `pma`, whose `K` vectors are laid end to end.

  Raises:
    ValueError: an argument is not one of these.
  """
  set_layers.check_choice("name", name, POOLS)
  if num_seeds < 1:
    raise ValueError(f"num_seeds must be at least 1, got {num_seeds}")
  return SetPool(options, name, num_seeds)


def map_sets(
  module: nn.Module,
  x: Float[Array, "... N D"],
  mask: Mask | None = None,
  deterministic: bool = True,
  *,
  tile: int = 0,
) -> Array:
  """Applies a set function to many sets, a few at a time.

  On a CPU, intermediate arrays that fit its caches make a step about twice as
  fast, although each tile is computed again for the gradients: take a tile of
  32 to 64 sets of about 32 elements, and as many devices as there are cores,
  since one tile keeps one core busy. On a GPU or TPU take 0. Either way the
  result is the same, and so is the layout of the parameters.

  Shapes: `S` sets in all leading axes, computed as `ceil(S / tile)` tiles.

  Args:
    module: a module of this file, or a composition of some with the same call
      `(x, mask, deterministic=...)`; inside a compact method, a submodule.
    x: the sets.
    mask: real elements; None if all are.
    deterministic: False to apply dropout (rng `dropout`, split by tile).
    tile: sets per tile; 0 for all at once. Static.

  Returns:
    What `module(x, mask, deterministic=deterministic)` returns. The memory of
    the backward pass is that of one tile.

  Raises:
    ValueError: `tile` is negative.
  """
  if tile < 0:
    raise ValueError(f"tile must be at least 0 (0: no tiles), got {tile}")
  lead, count = x.shape[:-2], math.prod(x.shape[:-2])
  if tile == 0 or count <= tile:
    return module(x, mask, deterministic=deterministic)

  def cut(array):
    array = array.reshape(count, *array.shape[len(lead) :])
    pad = ((0, -count % tile),) + ((0, 0),) * (array.ndim - 1)
    return jnp.pad(array, pad).reshape(-1, tile, *array.shape[1:])

  def apply(module, x, mask):
    return module(x, mask, deterministic=deterministic)

  def body(module, carry, tiles):
    return carry, nn.remat(apply, prevent_cse=False)(module, *tiles)

  scan = nn.scan(
    body,
    variable_broadcast="params",
    split_rngs={"params": False, "dropout": True},
  )
  _, y = scan(module, (), (cut(x), None if mask is None else cut(mask)))
  y = y.reshape(-1, *y.shape[2:])[:count]
  return y.reshape(*lead, *y.shape[1:])
