"""Packed batches: networks of any specs as one set of flat arrays.

The weights of all networks of a batch lie end to end in one vector. Chunks are
gathered from it by index; layers are sets of chunks and networks are sets of
layers, again by index, grouped by size into a few padded rectangles. Every
count is rounded up to a short list of sizes, so the number of compilations is
bounded. Nothing computed from a packed batch may depend on its padding, nor on
which networks share it.

Dimensions: `T` weights of the whole batch, `M` chunks of `C` elements, `L`
layers, `B` networks, `K` neurons, `S` sets of at most `Q` members.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax.networks import chunking
from sne_jax.networks.spec import NetworkSpec


class Sets(NamedTuple):
  """`S` sets of at most `Q` members each, as rows of some table."""

  members: Any  # int32 [S, Q], rows of the table; 0 where masked
  mask: Any  # bool [S, Q]


class Packed(NamedTuple):
  """A batch of networks as arrays. Row 0 of the neurons stands for "none"."""

  weights: Any  # float32 [T], 0 behind the last network
  scale: Any  # float32 [T], square root of the fan-in of each weight's tensor
  tensor_of: Any  # int32 [T], number of each weight's tensor in the batch
  index: Any  # int32 [M, C], places in `weights`
  mask: Any  # bool [M, C], True where there is a weight
  role: Any  # int32 [M, C], as in `chunking.ROLES`
  places: Any  # int32 [M, C, 4], place of each element in its tensor
  io: Any  # int32 [M, C, 2], 1 + number of the true input and output
  other: Any  # int32 [M, C], neuron at the other end
  own: Any  # int32 [M], neuron that the chunk belongs to
  chunk: Any  # int32 [M], number of the chunk within its layer
  chunk_kind: Any  # int32 [M], kind of the chunk's layer
  chunk_level: Any  # float32 [M, 2], level, and level / deepest level
  positions: Any  # float32 [X], 0, 1, 2, ...: all places and inputs, outputs
  neurons: Any  # float32 [K], zeros: only its length matters
  tensors: Any  # float32 [number of tensors], zeros: likewise
  layers: tuple[Sets, ...]  # sets of chunks, by size
  layer_kind: Any  # int32 [L], in the order of `layers`
  layer_level: Any  # float32 [L, 2]
  skip_level: Any  # float32 [skips, 2], source and target level of each
  networks: tuple[Sets, ...]  # sets of layers and then skips, by size
  chunk_networks: tuple[Sets, ...]  # sets of chunks, if layers are left out
  order: Any  # int32 [B], row of each network among all rows of `networks`


def round_up(count: int) -> int:
  """Returns the next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: the bucket sizes."""
  size = 1
  while size < count:
    size = size * 4 // 3 if size & (size - 1) else max(size * 3 // 2, size + 1)
  return size


class Packer:
  """Packs networks of the given specs; keeps their chunk layouts.

  Args:
    specs: the architectures; a network is named by its number among them.
    options: how tensors are cut into chunks.
    skips: give every residual connection a token of its own.
    exact: leave the counts of a batch of one spec as they are (one shape, no
      padding). Mixed batches are always rounded up.
  """

  def __init__(
    self,
    specs: Sequence[NetworkSpec],
    options: chunking.ChunkOptions,
    *,
    skips: bool = True,
    exact: bool = True,
  ):
    self.specs = tuple(specs)
    self.options = options
    self.layouts = tuple(chunking.layout(s, options) for s in self.specs)
    self._exact = exact
    self._skips = skips
    self._template = functools.lru_cache(maxsize=8)(self._build)

  def pack(
    self, numbers: Sequence[int], weights: Sequence[np.ndarray]
  ) -> Packed:
    """Returns networks `weights[b]` of spec `numbers[b]` as one batch.

    Raises:
      ValueError: a vector does not have its spec's length.
    """
    numbers = tuple(int(n) for n in numbers)
    for number, vector in zip(numbers, weights, strict=True):
      if vector.shape != (self.specs[number].num_weights,):
        raise ValueError(
          f"{self.specs[number].describe()}: got weights of shape"
          f" {tuple(vector.shape)}"
        )
    template = self.template(numbers)
    flat = np.zeros(template.scale.shape, np.float32)
    np.concatenate(weights, out=flat[: sum(len(w) for w in weights)])
    return template._replace(weights=flat)

  def template(self, numbers: tuple[int, ...]) -> Packed:
    """Returns the packed batch of these specs without weights, cached."""
    return self._template(numbers)

  def _build(self, numbers: tuple[int, ...]) -> Packed:
    exact = self._exact and len(set(numbers)) == 1
    size = (lambda n: max(n, 1)) if exact else round_up
    parts = [self.layouts[n] for n in numbers]
    specs = [self.specs[n] for n in numbers]
    first_weight = _starts([s.num_weights for s in specs])
    first_tensor = _starts([len(s.tensors) for s in specs])
    first_neuron = _starts([p.num_neurons for p in parts])
    counts = [len(p.index) for p in parts]
    first_chunk = _starts(counts)
    num_chunks = size(first_chunk[-1])
    width = self.options.chunk_size

    def stack(shape, dtype, pieces, total=num_chunks):
      out = np.zeros((total, *shape), dtype)
      if pieces:
        joined = np.concatenate(pieces)
        out[: len(joined)] = joined
      return out

    def shift(array, by):
      return np.where(array > 0, array + by, 0)

    level_pairs = [_level_pairs(s, p) for s, p in zip(specs, parts, strict=True)]
    sizes, kinds, levels, owners = [], [], [], []
    for b, (part, pairs) in enumerate(zip(parts, level_pairs, strict=True)):
      sizes.append(np.bincount(part.layer, minlength=len(part.layer_kind)))
      kinds.append(part.layer_kind)
      levels.append(pairs)
      owners.append(np.full(len(part.layer_kind), b))
    layers, row_of_layer, num_rows = _group(np.concatenate(sizes), size)
    layer_kind = np.zeros(num_rows, np.int32)
    layer_kind[row_of_layer] = np.concatenate(kinds)
    layer_level = np.zeros((num_rows, 2), np.float32)
    layer_level[row_of_layer] = np.concatenate(levels)
    skips = [
      np.array(s.skips if self._skips else (), np.float32).reshape(-1, 2)
      for s in specs
    ]
    first_skip = _starts([len(s) for s in skips])
    num_skips = size(first_skip[-1]) if first_skip[-1] else 0
    members = []
    first_layer = _starts([len(k) for k in kinds])
    for b in range(len(numbers)):
      own_layers = row_of_layer[first_layer[b] : first_layer[b + 1]]
      own_skips = num_rows + np.arange(first_skip[b], first_skip[b + 1])
      members.append(np.concatenate([own_layers, own_skips]))
    networks, order, _ = _group(
      np.array([len(m) for m in members]), size, np.concatenate(members)
    )
    chunk_networks, _, _ = _group(np.array(counts), size, by=networks, order=order)
    tensor_ids = [
      np.repeat(np.arange(len(s.tensors)), [t.size for t in s.tensors])
      for s in specs
    ]
    scales = [
      np.repeat(
        np.sqrt([t.fan_in for t in s.tensors]), [t.size for t in s.tensors]
      )
      for s in specs
    ]
    total = size(first_weight[-1])
    element = (width,)
    return Packed(
      weights=None,
      scale=stack((), np.float32, scales, total),
      tensor_of=stack(
        (),
        np.int32,
        [t + s for t, s in zip(tensor_ids, first_tensor[:-1], strict=True)],
        total,
      ),
      index=stack(
        element,
        np.int32,
        [p.index + s for p, s in zip(parts, first_weight[:-1], strict=True)],
      ),
      mask=stack(element, bool, [p.mask for p in parts]),
      role=stack(element, np.int32, [p.role for p in parts]),
      places=stack((width, 4), np.int32, [p.places for p in parts]),
      io=stack((width, 2), np.int32, [p.io for p in parts]),
      other=stack(
        element,
        np.int32,
        [shift(p.other, s) for p, s in zip(parts, first_neuron[:-1], strict=True)],
      ),
      own=stack(
        (),
        np.int32,
        [shift(p.own, s) for p, s in zip(parts, first_neuron[:-1], strict=True)],
      ),
      chunk=stack((), np.int32, [p.chunk for p in parts]),
      chunk_kind=stack((), np.int32, [p.layer_kind[p.layer] for p in parts]),
      chunk_level=stack(
        (2,),
        np.float32,
        [v[p.layer] for v, p in zip(level_pairs, parts, strict=True)],
      ),
      positions=np.arange(
        round_up(1 + max(max(p.places.max(), p.io.max()) for p in parts)),
        dtype=np.float32,
      ),
      neurons=np.zeros(1 + size(first_neuron[-1]), np.float32),
      tensors=np.zeros(size(first_tensor[-1]), np.float32),
      layers=layers,
      layer_kind=layer_kind,
      layer_level=layer_level,
      skip_level=stack((2,), np.float32, skips, num_skips),
      networks=networks,
      chunk_networks=chunk_networks,
      order=order.astype(np.int32),
    )


def _starts(counts: Sequence[int]) -> np.ndarray:
  """Returns where each of several consecutive pieces begins, and the end."""
  return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _level_pairs(spec: NetworkSpec, part) -> np.ndarray:
  """Returns level and relative level of every layer, `[L, 2]`."""
  deepest = max(spec.num_levels - 1, 1)
  return np.stack([part.layer_level, part.layer_level / deepest], axis=-1)


def _group(sizes, size, rows=None, *, by=None, order=None):
  """Groups consecutive runs of `rows` into rectangles of like size.

  Args:
    sizes: int [n], members of each set, in order.
    size: rounds a count up.
    rows: the members, run after run; by default 0, 1, 2, ...
    by, order: another grouping of the same sets to follow, whose rows then
      have the same places.

  Returns:
    The rectangles; for each set, its row among all rows; the number of rows.
  """
  starts = _starts(sizes)
  rows = np.arange(starts[-1]) if rows is None else rows
  groups, row_of_set, first_row = [], np.zeros(len(sizes), np.int64), 0
  if by is None:
    classes = np.array([size(int(s)) for s in sizes])
    blocks = [np.flatnonzero(classes == c) for c in np.unique(classes)]
    heights = [size(len(block)) for block in blocks]
  else:
    edges = _starts([len(g.members) for g in by])
    blocks = [
      np.flatnonzero((order >= a) & (order < b))
      for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    heights = [len(g.members) for g in by]
  for block, height in zip(blocks, heights, strict=True):
    width = size(int(max(sizes[block])))
    members = np.zeros((height, width), np.int32)
    mask = np.zeros((height, width), bool)
    places = np.arange(width)[None, :]
    real = places < sizes[block][:, None]
    found = np.minimum(starts[block][:, None] + places, max(len(rows) - 1, 0))
    members[: len(block)] = np.where(real, rows[found], 0)
    mask[: len(block)] = real
    groups.append(Sets(members, mask))
    row_of_set[block] = first_row + np.arange(len(block))
    first_row += height
  return tuple(groups), row_of_set, first_row
