"""Packed batches: networks of any specs as one set of flat arrays.

The weights of all networks of a batch lie end to end in one vector. Chunks are
gathered from it by index; layers are sets of chunks and networks are sets of
layers, again by index, grouped by size into a few padded rectangles. Every
count is rounded up to a short list of sizes (see `buckets`), so the number of
compilations is bounded. Nothing computed from a packed batch may depend on its
padding, nor on which networks share it.

Dimensions: `T` weights of the whole batch, `M` chunks of `C` elements, `L`
layers, `B` networks, `K` neurons, `S` sets of at most `Q` members, `X` places.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax.encoders import buckets, rectangles
from sne_jax.encoders.rectangles import Readers, Sets
from sne_jax.networks import chunking, scales
from sne_jax.networks.spec import NetworkSpec


class Packed(NamedTuple):
  """A batch of networks as arrays. Row 0 of the neurons stands for "none"."""

  weights: Any  # float32 [T], 0 behind the last network
  scale: Any  # float32 [T], square root of the fan-in of each weight's tensor
  tensor_of: Any  # int32 [T], number of each weight's tensor in the batch
  place_of: Any  # int32 [T], as in `scales.PLACES`
  index: Any  # int32 [M, C], places in `weights`
  mask: Any  # bool [M, C], True where there is a weight
  role: Any  # int32 [M, C], as in `chunking.ROLES`
  places: Any  # int32 [M, C, 4], place of each element in its tensor
  io: Any  # int32 [M, C, 2], 1 + number of the true input and output
  other: Any  # int32 [M, C], neuron at the other end
  other_readers: Readers  # of `other`
  io_readers: tuple[Readers, ...]  # of the two columns of `io`
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
  skip_level: Any  # float32 [skips, 2, 2], of source and target of each
  networks: tuple[Sets, ...]  # sets of layers and then skips, by size
  # The same sets if layers are left out: of chunks and then skips.
  chunk_networks: tuple[Sets, ...]
  order: Any  # int32 [B], row of each network among all rows of `networks`

  @property
  def room(self) -> int:
    """Length of `weights`, padding included."""
    return self.scale.shape[-1]


class _Part(NamedTuple):
  """What a network of one spec brings into every batch."""

  layout: chunking.ChunkLayout
  scale: np.ndarray  # float32 [P]
  tensor_of: np.ndarray  # int32 [P]
  place_of: np.ndarray  # int32 [P]
  levels: np.ndarray  # float32 [L, 2]
  skips: np.ndarray  # float32 [skips, 2, 2]
  counts: buckets.Counts


class Packer:
  """Packs networks of the given specs; keeps their chunk layouts.

  Args:
    specs: the architectures; a network is named by its number among them.
    options: how tensors are cut into chunks; a chunk size of 0 is derived from
      all of the specs.
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
    self.options = chunking.resolved(options, self.specs)
    self._parts = tuple(_part(s, self.options, skips) for s in self.specs)
    self._exact = exact
    largest = max(
      max(p.layout.places.max(), p.layout.io.max()) for p in self._parts
    )
    self._num_positions = buckets.round_up(1 + int(largest))
    self._template = functools.lru_cache(maxsize=8)(self._build)

  def pack(
    self,
    numbers: Sequence[int] | np.ndarray,
    weights: Sequence[Any],
    sizes: buckets.Sizes | None = None,
  ) -> Packed:
    """Returns networks `weights[b]` of spec `numbers[b]` as one batch.

    Args:
      numbers: the spec of each network.
      weights: the vector of each.
      sizes: see `template`.

    Raises:
      ValueError: a vector does not have its spec's length.
    """
    template = self.template(numbers, sizes)
    flat = self.flat(numbers, weights, template.room)
    return template._replace(weights=flat)

  def flat(
    self,
    numbers: Sequence[int] | np.ndarray,
    weights: Sequence[Any],
    total: int,
  ) -> np.ndarray:
    """Lays the vectors of networks end to end, padded to `total` weights.

    Raises:
      ValueError: a vector does not have its spec's length.
    """
    for number, vector in zip(numbers, weights, strict=True):
      if np.shape(vector) != (self.specs[number].num_weights,):
        raise ValueError(
          f"{self.specs[number].describe()}: got weights of shape"
          f" {tuple(np.shape(vector))}"
        )
    flat = np.zeros(total, np.float32)
    np.concatenate(weights, out=flat[: sum(len(w) for w in weights)])
    return flat

  def template(
    self,
    numbers: Sequence[int] | np.ndarray,
    sizes: buckets.Sizes | None = None,
  ) -> Packed:
    """Returns the packed batch of these specs without weights, cached.

    Args:
      numbers: the spec of each network.
      sizes: room that the batch is given at least; what needs more gets more.
    """
    return self.templates([numbers], sizes)[0]

  def templates(
    self,
    batches: Sequence[Sequence[int] | np.ndarray],
    sizes: buckets.Sizes | None = None,
  ) -> list[Packed]:
    """Returns packed batches that all have the same shapes, without weights.

    They can be stacked, one for each device.

    Args:
      batches: the specs of the networks of each batch; equally many in each.
      sizes: room that every batch is given at least.

    Raises:
      ValueError: the batches do not hold equally many networks, or none.
    """
    batches = [tuple(int(n) for n in numbers) for numbers in batches]
    shared = self.sizes(batches, exact=self._exact and sizes is None)
    if sizes is not None:
      shared = buckets.common([sizes, shared])
    return [self._template(numbers, shared) for numbers in batches]

  def sizes(
    self, batches: Sequence[Sequence[int]], *, exact: bool = False
  ) -> buckets.Sizes:
    """Returns sizes that each of the batches fits in.

    Args:
      batches: the specs of the networks of each batch; equally many in each.
      exact: do not round up where all networks are of one spec.

    Raises:
      ValueError: the batches do not hold equally many networks, or none.
    """
    if not batches or not batches[0] or len(set(map(len, batches))) > 1:
      raise ValueError(
        "batches of one shape must hold equally many networks, at least 1; got"
        f" {[len(numbers) for numbers in batches]}"
      )
    exact = exact and len(set().union(*batches)) == 1
    return buckets.common(
      [
        buckets.needed([self._parts[n].counts for n in numbers], exact=exact)
        for numbers in batches
      ]
    )

  def reserve(
    self, numbers: np.ndarray, batch_size: int, *, copies: int = 1
  ) -> buckets.Sizes | None:
    """Returns room for nearly all random batches of a zoo.

    Args:
      numbers: int [N], the spec of every member.
      batch_size: members of a batch.
      copies: how often each member is packed.

    Returns:
      What `template` takes as `sizes`; None where all members are of one spec,
      whose batches have one shape anyway.
    """
    if self._exact and len(np.unique(numbers)) == 1:
      return None
    shares = np.bincount(numbers, minlength=len(self.specs)) / len(numbers)
    counts = [part.counts for part in self._parts]
    return buckets.expected(counts, shares, batch_size, copies)

  def _build(self, numbers: tuple[int, ...], sizes: buckets.Sizes) -> Packed:
    parts = [self._parts[n] for n in numbers]
    layouts = [p.layout for p in parts]
    counts = [p.counts for p in parts]
    first_chunk = rectangles.edges([c.chunks for c in counts])
    first_skip = rectangles.edges([c.skips for c in counts])
    first_layer = rectangles.edges([len(c.layers) for c in counts])

    def joined(pieces, total: int, first=None):
      """Lays arrays end to end, plus their first number; padded by zeros."""
      if first is not None:
        pieces = [p + s for p, s in zip(pieces, first[:-1], strict=True)]
      out = np.zeros((total, *pieces[0].shape[1:]), pieces[0].dtype)
      np.concatenate(pieces, out=out[: sum(map(len, pieces))])
      return out

    def chunks(name: str):
      return joined([getattr(p, name) for p in layouts], sizes.chunks)

    def neurons(name: str):
      first = rectangles.edges([p.num_neurons for p in layouts])
      pieces = [getattr(p, name) for p in layouts]
      return joined(
        [
          np.where(p > 0, p + s, 0).astype(np.int32)
          for p, s in zip(pieces, first[:-1], strict=True)
        ],
        sizes.chunks,
      )

    layer_sizes = np.concatenate([c.layers for c in counts])
    group, row = rectangles.place(layer_sizes, sizes.layers)
    layers = rectangles.fill(
      group, layer_sizes, np.arange(first_chunk[-1]), sizes.layers
    )
    num_layers = sum(height for _, height in sizes.layers)
    layer_kind = np.zeros(num_layers, np.int32)
    layer_kind[row] = np.concatenate([p.layer_kind for p in layouts])
    layer_level = np.zeros((num_layers, 2), np.float32)
    layer_level[row] = np.concatenate([p.levels for p in parts])

    def members(rows, first, behind: int):
      """Rows of each network in a table, and those of its skips behind it."""
      return np.concatenate(
        [
          np.concatenate(
            [
              rows[first[b] : first[b + 1]],
              behind + np.arange(first_skip[b], first_skip[b + 1]),
            ]
          )
          for b in range(len(numbers))
        ]
      )

    set_sizes = np.array([c.members for c in counts])
    group, order = rectangles.place(set_sizes, sizes.networks)
    networks = rectangles.fill(
      group, set_sizes, members(row, first_layer, num_layers), sizes.networks
    )
    chunk_networks = rectangles.fill(
      group,
      np.array([c.chunks + c.skips for c in counts]),
      members(np.arange(first_chunk[-1]), first_chunk, sizes.chunks),
      [(width, height) for _, height, width in sizes.networks],
    )
    io, other = chunks("io"), neurons("other")
    num_neurons = 1 + sizes.neurons
    by_row = self._exact and len(self.specs) == 1
    readers = rectangles.readers if by_row else rectangles.no_readers
    return Packed(
      weights=None,
      scale=joined([p.scale for p in parts], sizes.weights),
      tensor_of=joined(
        [p.tensor_of for p in parts],
        sizes.weights,
        rectangles.edges([c.tensors for c in counts]),
      ),
      place_of=joined([p.place_of for p in parts], sizes.weights),
      index=joined(
        [p.index for p in layouts],
        sizes.chunks,
        rectangles.edges([c.weights for c in counts]),
      ),
      mask=chunks("mask"),
      role=chunks("role"),
      places=chunks("places"),
      io=io,
      other=other,
      other_readers=readers(other, num_neurons),
      io_readers=tuple(
        readers(io[..., side], self._num_positions) for side in (0, 1)
      ),
      own=neurons("own"),
      chunk=chunks("chunk"),
      chunk_kind=joined([p.layer_kind[p.layer] for p in layouts], sizes.chunks),
      chunk_level=joined(
        [p.levels[p.layout.layer] for p in parts], sizes.chunks
      ),
      positions=np.arange(self._num_positions, dtype=np.float32),
      neurons=np.zeros(num_neurons, np.float32),
      tensors=np.zeros(sizes.tensors, np.float32),
      layers=layers,
      layer_kind=layer_kind,
      layer_level=layer_level,
      skip_level=joined([p.skips for p in parts], sizes.skips),
      networks=networks,
      chunk_networks=chunk_networks,
      order=order.astype(np.int32),
    )


def _part(
  spec: NetworkSpec, options: chunking.ChunkOptions, skips: bool
) -> _Part:
  """Works out what a network of a spec brings into every batch."""
  layout = chunking.layout(spec, options)
  tensor_sizes = [t.size for t in spec.tensors]
  ends = skip_ends(spec) if skips else np.zeros((0, 2, 2), np.float32)
  counts = buckets.Counts(
    weights=spec.num_weights,
    tensors=len(spec.tensors),
    neurons=layout.num_neurons,
    chunks=len(layout.index),
    skips=len(ends),
    layers=tuple(
      np.bincount(layout.layer, minlength=len(layout.layer_kind)).tolist()
    ),
  )
  return _Part(
    layout=layout,
    scale=np.repeat(
      np.sqrt([t.fan_in for t in spec.tensors]).astype(np.float32),
      tensor_sizes,
    ),
    tensor_of=np.repeat(
      np.arange(len(spec.tensors), dtype=np.int32), tensor_sizes
    ),
    place_of=scales.place_of(spec),
    levels=with_relative(layout.layer_level, spec),
    skips=ends,
    counts=counts,
  )


def skip_ends(spec: NetworkSpec) -> np.ndarray:
  """Returns the levels of both ends of skips, `[skips, 2, 2]`."""
  return with_relative(np.array(spec.skips, np.float32).reshape(-1, 2), spec)


def with_relative(levels: np.ndarray, spec: NetworkSpec) -> np.ndarray:
  """Returns levels `[...]` with their share of the deepest, `[..., 2]`."""
  deepest = max(spec.num_levels - 1, 1)
  return np.stack([levels, levels / deepest], axis=-1).astype(np.float32)
