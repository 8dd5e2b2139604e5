"""Set functions: stacks of blocks, and pooling.

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

import flax.linen as nn
from jaxtyping import Array, Float

from sne_jax.encoders.sets import deepsets, layers
from sne_jax.encoders.sets.blocks import ISAB, MAB, PMA, SAB
from sne_jax.encoders.sets.deepsets import DeepSets, DeepSetsBlock
from sne_jax.encoders.sets.layers import Mask, Set, SetOptions, dense

__all__ = [
  "ISAB",
  "MAB",
  "PMA",
  "SAB",
  "DeepSets",
  "DeepSetsBlock",
  "SetBlocks",
  "SetOptions",
  "SetPool",
  "make_block",
]


class SetBlocks(nn.Module):
  """A stack of equivariant blocks.

  Attributes:
    options: of the blocks.
    kind: `sab`, `isab`, `deepsets`, or `none`: no block.
    num_blocks: how many follow one another; 0 is `none`.
    num_inducing: of each `isab`.
  """

  options: SetOptions
  kind: str = "sab"
  num_blocks: int = 2
  num_inducing: int = 16

  @nn.compact
  def __call__(
    self, x: Set, mask: Mask | None = None, deterministic: bool = True
  ) -> Float[Array, "... N W"]:
    """Returns the new elements, of width `W` by a linear map if need be."""
    o = self.options
    x = layers.clean("x", x, mask, o)
    for place in range(self.num_blocks if self.kind != "none" else 0):
      block = make_block(self.kind, o, self.num_inducing, f"block_{place}")
      x = block(x, mask, deterministic=deterministic)
    if x.shape[-1] != o.width:
      x = layers.zero(dense(o, "linear")(x), mask)
    return x


def make_block(
  kind: str, options: SetOptions, num_inducing: int, name: str | None = None
) -> nn.Module:
  """Returns one block of a stack of some kind."""
  return {
    "sab": lambda: SAB(options, name=name),
    "isab": lambda: ISAB(options, num_inducing, name=name),
    "deepsets": lambda: DeepSetsBlock(options, name=name),
  }[kind]()


class SetPool(nn.Module):
  """Set to vector.

  Attributes:
    options: of `pma`.
    kind: `pma` or `mean`.
    num_seeds: `K` of `pma`, whose `K` vectors are concatenated.
  """

  options: SetOptions
  kind: str = "pma"
  num_seeds: int = 1

  @nn.compact
  def __call__(
    self, x: Set, mask: Mask | None = None, deterministic: bool = True
  ) -> Float[Array, "... E"]:
    """Returns the vector, of width `K W` for `pma` and `D` for `mean`."""
    if self.kind == "mean":
      return deepsets.mean(x, mask)
    x = PMA(self.options, self.num_seeds, name="pma")(
      x, mask, deterministic=deterministic
    )
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
