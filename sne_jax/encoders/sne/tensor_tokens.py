"""Tokens of whole tensors, beside those of chunks, for SNE's network stage.

`statistics_tokens`: one for each tensor, of the seven statistics that
`stat_nn` and `stat_pool` have (`baselines/statistics.py`).

`gram_tokens`: one for each weight matrix `X [O, I]` (kernels count as `O` rows
of `I k_y k_x` columns), of what `X X' U` and `X' X V` say, with learned `U` and
`V`. A free `U` would name hidden neurons, and be of one size. Here, ours, row
`i` of `U` is a learned function of what leaves row `i` of `X` as it is when
rows or columns move: the moments of its entries; likewise `V`, of columns. The
products are `X (X' U)`, tile by tile of `X`, so no Gram matrix is formed, and
the cost is linear in the weights. Then come, for rows and for columns: their
moments, `U`, `X' U` and `X X' U` (each over its root mean square in the
matrix), through a learned map, as a mean and as an attention pool; and the
logarithms of these root mean squares, which tell of the singular values (`X' u`
is longer than `u` by one of them, or between two). `X` is divided by its own
root mean square, whose logarithm is given beside. One column of `U` and of `V`
is of ones, for sums of rows, and means of the rows of the Gram matrices.

Both are exactly invariant to permutations of hidden neurons, and to more: every
permutation of the rows or of the columns of one tensor. What neurons of
successive layers have to do with each other is for the tokens of chunks to say.
Neither depends on the size of a tensor other than through its numbers.

Dimensions: `T` weights of a batch, `K` tensors, `Q` matrices, `J` lines (rows
and columns of matrices), `N` tiles of matrices, `t` rows and as many columns of
a tile, `r` columns of `U`, `h` width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.encoders import segments
from sne_jax.encoders.baselines import statistics
from sne_jax.encoders.batches import joining
from sne_jax.encoders.sne import encodings
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.networks.spec import KINDS, WEIGHT_KINDS, NetworkSpec

RANK = 8
"""Columns `r` of `U` and `V`."""

TILE = 16
"""Rows `t`, and columns, of a tile: sums over its lines are matrix products."""

WIDTH = 32
"""Numbers that are made of a line before lines are pooled."""

HEADS = 4
"""Attention pools of the lines of a matrix, of `WIDTH / HEADS` numbers each."""

REFS = {
  ("tiles", "index"): "weights",
  ("tiles", "lines"): "lines",
  ("tiles", "matrix"): "matrices",
  ("lines", "matrix"): "matrices",
}
"""Columns of the tables that name rows of others."""


def members(options: SNEOptions) -> list[joining.Column]:
  """Returns of which tables the rows are tokens, in the order of the codes."""
  chosen = []
  if options.statistics_tokens:
    chosen.append(("tensors", "network"))
  if options.gram_tokens:
    chosen.append(("matrices", "network"))
  return chosen


def describe(
  options: SNEOptions, spec: NetworkSpec, level: np.ndarray
) -> dict[str, dict[str, Any]]:
  """Returns what a network brings into a batch; nothing without the tokens.

  Args:
    options: of SNE.
    spec: the network.
    level: of every tensor, with its share of the deepest, `[K, 2]`.
  """
  kind = np.array([KINDS.index(t.kind) for t in spec.tensors], np.int32)
  tables = {}
  if options.statistics_tokens:
    tables["tensors"] = {"kind": kind, "level": level}
  if options.gram_tokens:
    matrices = [
      place
      for place, t in enumerate(spec.tensors)
      if t.kind in WEIGHT_KINDS and len(t.shape) > 1
    ]
    tables |= _tiles(spec, matrices)
    tables["matrices"] = {"kind": kind[matrices], "level": level[matrices]}
  return tables


def _tiles(spec: NetworkSpec, matrices: list[int]):
  """Returns the tables of lines and tiles of the tensors at these places."""
  lines = {name: [np.zeros(0)] for name in ("matrix", "side", "size")}
  tiles = {
    "index": [np.zeros((0, TILE, TILE))],
    "mask": [np.zeros((0, TILE, TILE))],
    "lines": [np.zeros((0, 2 * TILE))],
    "matrix": [np.zeros(0)],
  }
  first = 0
  for number, place in enumerate(matrices):
    tensor = spec.tensors[place]
    counts = np.array([tensor.shape[0], tensor.size // tensor.shape[0]])
    lines["matrix"].append(np.full(counts.sum(), number))
    lines["side"].append(np.repeat([0, 1], counts))
    lines["size"].append(np.repeat(counts[::-1], counts))
    rows, columns = (
      np.arange(-(-count // TILE) * TILE).reshape(-1, TILE) for count in counts
    )
    # All pairs of blocks of rows and of columns: [blocks, blocks, t].
    row, column = (
      np.broadcast_to(x, (len(rows), len(columns), TILE)).reshape(-1, TILE)
      for x in (rows[:, None], columns[None, :])
    )
    real = [x < count for x, count in zip((row, column), counts, strict=True)]
    mask = real[0][:, :, None] & real[1][:, None, :]
    index = row[:, :, None] * counts[1] + column[:, None, :]
    tiles["index"].append(np.where(mask, spec.offsets[place] + index, 0))
    tiles["mask"].append(mask)
    # What is no line has weights of 0: any line may get these.
    both = [np.where(r, x, 0) for r, x in zip(real, (row, column), strict=True)]
    both[1] = both[1] + counts[0]
    tiles["lines"].append(first + np.concatenate(both, axis=1))
    tiles["matrix"].append(np.full(len(row), number))
    first += counts.sum()
  joined = lambda table: {
    name: np.concatenate(parts).astype(bool if name == "mask" else np.int32)
    for name, parts in table.items()
  }
  return {"lines": joined(lines), "tiles": joined(tiles)}


class TensorTokens(nn.Module):
  """The tokens that the options ask for.

  Attributes:
    options: of SNE.
  """

  options: SNEOptions

  @nn.compact
  def __call__(self, batch: joining.Joined, scaled, log_scale):
    """Returns codes `[K + Q, seeds, h]` in the order of `members`.

    Args:
      batch: with the tables of `describe`.
      scaled: weights `[T]`.
      log_scale: `[K]`, of what tensors were divided by, or None.
    """
    o, codes = self.options, []
    if o.statistics_tokens:
      features = statistic_features(batch, scaled, log_scale)
      token = Token(o, name="statistics")
      codes.append(token(features, batch.tables["tensors"]))
    if o.gram_tokens:
      features = GramFeatures(name="grams")(batch)
      codes.append(Token(o, name="gram")(features, batch.tables["matrices"]))
    seeds = 1 if o.layer_function == "none" else o.layer_seeds
    return jnp.repeat(jnp.concatenate(codes)[:, None, :], seeds, axis=1)


class Token(nn.Module):
  """Turns features of tensors, of a kind and at a level, into codes."""

  options: SNEOptions

  @nn.compact
  def __call__(self, features: Float[Array, "K F"], table: Any):
    """Returns codes `[K, h]`."""
    o = self.options
    dtype = jnp.dtype(o.compute_dtype)
    code = nn.Dense(o.width, dtype=dtype, name="features")(features)
    if o.type_encoding == "learned":
      code = code + nn.Embed(len(KINDS), o.width, name="type")(table["kind"])
    level = encodings.LevelEncoding(o.width, o.level_encoding, name="level")
    code = code + level(table["level"]).astype(code.dtype)
    hidden = nn.Dense(o.feed_forward * o.width, dtype=dtype, name="hidden")
    return code + nn.Dense(o.width, dtype=dtype, name="out")(
      nn.gelu(hidden(code))
    )


def statistic_features(
  batch: joining.Joined, scaled, log_scale
) -> Float[Array, "K 8"]:
  """Returns the seven statistics, compressed, and the log of the size."""
  values = statistics.of_batch(batch, scaled)
  if log_scale is None:
    log_scale = jnp.log(values[:, 0] ** 2 + abs(values[:, 1]) + 1e-6) / 2
  values = jnp.sign(values) * jnp.log1p(abs(values))
  return jnp.concatenate([values, log_scale[:, None]], axis=1)


class GramFeatures(nn.Module):
  """What the products of matrices with themselves say of them."""

  @nn.compact
  def __call__(self, batch: joining.Joined) -> Float[Array, "Q F"]:
    """Returns features of every matrix."""
    lines = batch.tables["lines"]
    matrix, number = lines["matrix"], len(batch.tables["matrices"]["kind"])
    group = 2 * matrix + lines["side"]
    product, moments, log_scale = _lines(batch)
    side = jax.nn.one_hot(lines["side"], 2, dtype=moments.dtype)
    first = jnp.concatenate([moments, side], axis=1)
    # U and V: learned of each line, and ones.
    u = nn.Dense(RANK - 1, name="u")(
      nn.gelu(nn.Dense(WIDTH, name="u_0")(first))
    )
    u = jnp.concatenate([jnp.ones_like(u[:, :1]), u], axis=1)
    parts, sizes = [first], []
    for power in range(3):
      square = segments.mean(u**2, group, 2 * number) + 1e-6
      sizes.append(jnp.log(square) / 2)
      parts.append(u / jnp.sqrt(square)[group])
      u = product(u) if power < 2 else u
    y = nn.Dense(WIDTH, name="line")(jnp.concatenate(parts, axis=1))
    y = nn.Dense(WIDTH, name="line_out")(nn.gelu(y))
    score = 4 * jnp.tanh(nn.Dense(HEADS, name="score")(y) / 4)
    share = jnp.repeat(jnp.exp(score), WIDTH // HEADS, axis=1)
    sums = segments.mean(
      jnp.concatenate([y, share * y, share], axis=1), group, 2 * number
    )
    mean, pooled, total = jnp.split(sums, 3, axis=1)
    pooled = pooled / jnp.maximum(total, 1e-6)
    features = jnp.concatenate([mean, pooled, *sizes], axis=1)
    features = features.reshape(number, 2 * features.shape[1])
    return jnp.concatenate([features, log_scale[:, None]], axis=1)


def _lines(batch: joining.Joined):
  """Returns how lines are multiplied, what each is, and the size of matrices.

  Returns:
    `product`, which takes `[J, r]` from rows to columns and back (each over the
    root of the number of entries), moments `[J, 4]`, and the logarithm `[Q]` of
    the root mean square of matrices.
  """
  tiles, lines = batch.tables["tiles"], batch.tables["lines"]
  count, number = len(lines["size"]), len(batch.tables["matrices"]["kind"])
  x = jnp.where(tiles["mask"], batch.weights[tiles["index"]], 0)  # [N, t, t]
  of_tile, of_line = tiles["matrix"], tiles["lines"].reshape(-1)
  entries = jnp.sum(tiles["mask"], axis=(1, 2)).astype(x.dtype)
  total, entries = (
    jax.ops.segment_sum(y, of_tile, number)
    for y in (jnp.sum(x**2, axis=(1, 2)), entries)
  )
  square = total / jnp.maximum(entries, 1) + 1e-12
  x = x / jnp.sqrt(square)[of_tile][:, None, None]
  size = jnp.maximum(lines["size"], 1).astype(x.dtype)[:, None]

  def summed(rows, columns):
    """Adds what rows and columns of tiles have, `[N, t, F]`, over lines."""
    both = jnp.concatenate([rows, columns], axis=1)
    both = both.reshape(len(of_line), both.shape[-1])
    return jax.ops.segment_sum(both, of_line, count)

  def product(u):
    u = u[tiles["lines"]]  # [N, 2 t, r]
    rows = jnp.einsum("nij,njr->nir", x, u[:, TILE:])
    columns = jnp.einsum("nij,nir->njr", x, u[:, :TILE])
    return summed(rows, columns) / jnp.sqrt(size)

  powers = jnp.stack([x, abs(x), x**2, x**4], axis=-1)
  powers = summed(powers.sum(axis=2), powers.sum(axis=1)) / size
  mean, absolute, second, fourth = jnp.split(powers, 4, axis=1)
  root = jnp.sqrt(second + 1e-6)
  spread = jnp.log(fourth + 1e-12) - 2 * jnp.log(second + 1e-6)
  moments = [mean / root, absolute / root, jnp.log(root), spread]
  return product, jnp.concatenate(moments, axis=1), jnp.log(square) / 2
