"""Set Transformer blocks, and the choice of a set function by name.

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
from jaxtyping import Array, Bool, Float

from sne_jax.encoders import deepsets, set_attention, set_layers
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
  "map_sets",
  "pool",
  "set_blocks",
  "set_pool",
]

BLOCKS = ("sab", "isab", "deepsets", "none")
POOLS = ("pma", *deepsets.POOLINGS)


class MAB(nn.Module):
  """Multihead attention block: a set of queries attends to a set of keys."""

  options: SetOptions

  @nn.compact
  def __call__(
    self,
    queries: Float[Array, "... N D"],
    keys: Float[Array, "... M E"] | None = None,
    key_mask: Bool[Array, "... M"] | None = None,
    query_mask: Mask | None = None,
    deterministic: bool = True,
  ) -> Float[Array, "... N W"]:
    """Returns what the queries become.

    Args:
      queries: with the leading axes of `keys`, or, if all sets share them,
        none.
      keys: None where the queries attend to one another.
      key_mask: real keys; the others get exactly no attention. Not used where
        `keys` is None: there `query_mask` says which keys are real.
      query_mask: real queries; the others come out as zeros.
      deterministic: False to apply dropout (rng `dropout`).

    Raises:
      ValueError: a mask does not have the shape of its set.
    """
    o = self.options
    is_published = o.form == "published"
    queries = set_layers.clean("queries", queries, query_mask, o)
    if is_published and queries.shape[-1] != o.width:
      queries = Dense(o.width, o, name="query_input")(queries)
    if keys is not None:
      keys = set_layers.clean("keys", keys, key_mask, o)
      if is_published and keys.shape[-1] != o.width:
        keys = Dense(o.width, o, name="key_input")(keys)
    residual = queries
    if o.norm == "pre":
      queries = self._pre_norm("norm_query", queries)
      keys = None if keys is None else self._pre_norm("norm_key", keys)
    if keys is None:
      projected, attended = self._attend(queries, queries, query_mask)
    else:
      projected, attended = self._attend(queries, keys, key_mask)
    if is_published:
      attended = Dense(o.width, o, name="output")(attended)
    else:
      residual = projected
    drop = nn.Dropout(o.dropout, deterministic=deterministic)
    hidden = jnp.broadcast_to(residual, attended.shape) + drop(attended)
    if o.norm == "post":
      hidden = set_layers.layer_norm(o, "norm_0")(hidden)
    inner = hidden
    if o.norm == "pre":
      inner = set_layers.layer_norm(o, "norm_1")(inner)
    if is_published:
      inner = set_layers.feed_forward(o, inner)
    else:
      inner = nn.relu(Dense(o.width, o, name="feed_forward")(inner))
    hidden = hidden + drop(inner)
    if o.norm == "post":
      hidden = set_layers.layer_norm(o, "norm_1")(hidden)
    return set_layers.zero(hidden, query_mask)

  def _pre_norm(self, name, x):
    """Norms an input, unless its width says that it is raw."""
    if x.shape[-1] != self.options.width:
      return x
    return set_layers.layer_norm(self.options, name)(x)

  def _attend(self, queries, keys, mask):
    """Returns the projected queries, and what they attended to."""
    o = self.options
    kernel, bias = {}, {}
    for name, x in (("query", queries), ("key", keys), ("value", keys)):
      kernel[name] = self.param(
        f"{name}_kernel",
        nn.initializers.lecun_normal(),
        (x.shape[-1], o.width),
      )
      bias[name] = self.param(f"{name}_bias", nn.initializers.zeros, (o.width,))

    def project(x, *names):
      """One matrix product for all projections of an input."""
      kernels = jnp.concatenate([kernel[name] for name in names], axis=1)
      biases = jnp.concatenate([bias[name] for name in names])
      y = set_layers.affine(x, kernels, biases)
      return jnp.split(y, len(names), axis=-1)

    shared = {"heads": o.heads, "scale": o.score_scale}
    if set_attention.is_absorbed_cheaper(
      queries.shape[-2],
      keys.shape[-2],
      keys.shape[-1],
      o.heads,
      o.width // o.heads,
    ):
      (q,) = project(queries, "query")
      return q, set_attention.absorbed_attention(
        q,
        keys,
        kernel["key"].astype(keys.dtype),
        kernel["value"].astype(keys.dtype),
        bias["value"].astype(keys.dtype),
        mask,
        **shared,
      )
    if queries is keys:
      q, k, v = project(queries, "query", "key", "value")
    else:
      (q,), (k, v) = project(queries, "query"), project(keys, "key", "value")
    return q, set_attention.attention(q, k, v, mask, **shared)


class SAB(nn.Module):
  """Set attention block: the elements of a set attend to one another."""

  options: SetOptions

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... N D"],
    mask: Mask | None = None,
    deterministic: bool = True,
  ) -> Float[Array, "... N W"]:
    """Returns the new elements; permutation-equivariant, `O(N^2)`."""
    return MAB(self.options, name="mab")(
      x, query_mask=mask, deterministic=deterministic
    )


class ISAB(nn.Module):
  """Set attention by way of `K` trained inducing points, `O(N K)`."""

  options: SetOptions
  num_inducing: int = 16

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... N D"],
    mask: Mask | None = None,
    deterministic: bool = True,
  ) -> Float[Array, "... N W"]:
    """Returns the new elements; permutation-equivariant."""
    points = _points(self, "inducing", self.num_inducing, self.options)
    summary = MAB(self.options, name="mab_0")(
      points, x, mask, deterministic=deterministic
    )
    return MAB(self.options, name="mab_1")(
      x, summary, query_mask=mask, deterministic=deterministic
    )


class PMA(nn.Module):
  """Pooling by attention: `K` trained seeds attend to the set."""

  options: SetOptions
  num_seeds: int = 1

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... N D"],
    mask: Mask | None = None,
    deterministic: bool = True,
  ) -> Float[Array, "... K W"]:
    """Returns `K` vectors, permutation-invariant; zeros for an empty set."""
    o = self.options
    x = set_layers.clean("x", x, mask, o)
    if o.form == "published":
      if x.shape[-1] != o.width:
        x = Dense(o.width, o, name="input")(x)
      x = set_layers.feed_forward(o, x)
    seeds = _points(self, "seeds", self.num_seeds, o)
    pooled = MAB(o, name="mab")(seeds, x, mask, deterministic=deterministic)
    if mask is None:
      return pooled
    return set_layers.zero(pooled, mask.any(-1, keepdims=True))


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
      name = f"block_{place}"
      block = {
        "sab": lambda name: SAB(o, name=name),
        "isab": lambda name: ISAB(o, self.num_inducing, name=name),
        "deepsets": lambda name: DeepSetsBlock(o, self.pooling, name=name),
      }[self.name_of_block](name)
      x = block(x, mask, deterministic=deterministic)
    if x.shape[-1] != o.width:
      x = set_layers.zero(Dense(o.width, o, name="linear")(x), mask)
    return x


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


def _points(module, name, count, options):
  """Declares trained points `[count, W]`, Xavier-uniform as the authors do."""
  points = module.param(
    name, nn.initializers.xavier_uniform(), (count, options.width)
  )
  return points.astype(options.dtype)
