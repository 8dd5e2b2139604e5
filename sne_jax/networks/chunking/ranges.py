"""The plan of a network's chunks, and the arrays of any range of them.

A plan knows the cuts and how many chunks each gives; nothing in it is as large
as the network but the numbers of its neurons. The chunks are numbered through,
cut after cut. The arrays of a range of them are worked out when asked for, in
rectangles of segments by columns, each from one tensor: what a row says and
what a column says is computed once for each, and the two are added.

Dimensions: `M` chunks of a range, `C` weights per chunk, `L` pseudo-layers,
`s` segments and `c` columns of a rectangle.
"""

import functools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sne_jax.networks.chunking import cuts as cuts_lib
from sne_jax.networks.chunking import neuron as neuron_lib
from sne_jax.networks.chunking import neurons as neurons_lib
from sne_jax.networks.chunking.cuts import ROLES, Cut, Piece
from sne_jax.networks.chunking.options import MOST_SLOTS, ChunkOptions
from sne_jax.networks.spec import KINDS, NetworkSpec, TensorSpec

SLOT_FIELDS = ("index", "role", "places", "io", "other", "tensor")
"""Arrays with a number for each slot, that a range can be asked for."""

_DEPTHS = {"places": (4,), "io": (2,)}


class Plan(NamedTuple):
  """How a network is cut into chunks, before any array is made.

  Attributes:
    spec: the network.
    chunk_size: `C`.
    neurons: their numbers.
    cuts: the pseudo-layers, in the order of their main tensors.
    starts: number of the first chunk of each cut, and of all chunks, `[L + 1]`.
    kind: id in `spec.KINDS` of each pseudo-layer, of its main tensor.
    level: level of the main tensor of each.
  """

  spec: NetworkSpec
  chunk_size: int
  neurons: neurons_lib.Neurons
  cuts: tuple[Cut, ...]
  starts: Int[np.ndarray, "edges"]
  kind: Int[np.ndarray, "L"]
  level: Int[np.ndarray, "L"]

  @property
  def num_chunks(self) -> int:
    """Chunks of the whole network."""
    return int(self.starts[-1])


class ChunkRange(NamedTuple):
  """Some chunks that follow one another; see `ChunkLayout` for the fields.

  What was not asked for is None. Everything is 0 in padded slots.
  """

  mask: Bool[np.ndarray, "M C"]
  owner: Int[np.ndarray, "M"]
  chunk: Int[np.ndarray, "M"]
  layer: Int[np.ndarray, "M"]
  index: Int[np.ndarray, "M C"] | None = None  # pyright: ignore[reportIncompatibleMethodOverride]
  role: Int[np.ndarray, "M C"] | None = None
  places: Int[np.ndarray, "M C 4"] | None = None
  io: Int[np.ndarray, "M C 2"] | None = None
  other: Int[np.ndarray, "M C"] | None = None
  tensor: Int[np.ndarray, "M C"] | None = None


class Rectangle(NamedTuple):
  """Weights of one piece: some segments by some columns.

  Attributes:
    piece: that they are of.
    chunks: which chunks of the range they are in.
    segments: numbers of the segments.
    start: first slot of the columns within the chunks of a segment.
    columns: numbers of the columns within the piece.
  """

  piece: Piece
  chunks: slice
  segments: range
  start: int
  columns: range

  def view(self, array: Shaped[np.ndarray, "M C ..."]) -> np.ndarray:
    """Returns the part `[s, c, ...]` of an array of the range, to write to."""
    part = array[self.chunks]
    part = part.reshape(len(self.segments), -1, *array.shape[2:])
    return part[:, self.start : self.start + len(self.columns)]


@functools.lru_cache(maxsize=64)
def plan(spec: NetworkSpec, options: ChunkOptions) -> Plan:
  """Works out how a network is cut. Cached.

  Args:
    spec: the network.
    options: chunk size and rules; a size of 0 is derived from this spec.

  Raises:
    ValueError: the spec has running statistics under `norm_rule="fold"`, a
      bias with no row to be appended to, or a vector that does not fit its
      weight.
  """
  neurons = neurons_lib.number(spec)
  cuts = _cuts(spec, neurons, options)
  size = options.chunk_size or min(MOST_SLOTS, max(c.width for c in cuts))
  counts = [cut.num_segments * -(-cut.width // size) for cut in cuts]
  return Plan(
    spec=spec,
    chunk_size=size,
    neurons=neurons,
    cuts=tuple(cuts),
    starts=np.cumsum([0, *counts]),
    kind=np.array([KINDS.index(cut.kind) for cut in cuts], np.int32),
    level=np.array([spec.tensors[cut.tensor].level for cut in cuts], np.int32),
  )


def arrays(
  plan: Plan, start: int, stop: int, fields: Collection[str] = SLOT_FIELDS
) -> ChunkRange:
  """Returns the arrays of chunks `start` to `stop`, whichever cuts they are of.

  Args:
    plan: of the network.
    start: number of the first chunk.
    stop: number after the last.
    fields: those of `SLOT_FIELDS` that are wanted.
  """
  shape = (stop - start, plan.chunk_size)
  blocks = {
    name: np.zeros((*shape, *_DEPTHS.get(name, ())), np.int32)
    for name in fields
  }
  mask = np.zeros(shape, bool)
  owner, chunk, layer = np.zeros((3, stop - start), np.int32)
  for number, block in _parts(plan, start, stop):
    cut, first = plan.cuts[number], int(plan.starts[number])
    here = slice(block.start - start, block.stop - start)
    chunk[here] = np.arange(block.start - first, block.stop - first)
    layer[here] = number
    holder = np.zeros((len(block), plan.chunk_size), np.int32)
    views = {name: array[here] for name, array in blocks.items()}
    for part in _rectangles(plan, number, block.start, block.stop):
      part.view(mask[here])[...] = True
      _fill(plan, part, views, holder)
    owner[here] = _owners(plan, cut, chunk[here], mask[here], holder)
  return ChunkRange(mask, owner, chunk, layer, **blocks)


def gather(
  plan: Plan,
  start: int,
  stop: int,
  tensors: Any,
  factors: Sequence[float] | np.ndarray | None = None,
) -> Float[np.ndarray, "M C"]:
  """Fetches the weights of chunks `start` to `stop`; padded slots are 0.

  Args:
    plan: of the network.
    start: number of the first chunk.
    stop: number after the last.
    tensors: a sequence of numpy arrays of the shapes of the spec's tensors, in
      their order, of any float type; views and mapped files are read where
      they lie. Only those that the chunks touch are asked for.
    factors: what the weights of each tensor are multiplied by; None: 1.
  """
  values = np.zeros((stop - start, plan.chunk_size), np.float32)
  for number, block in _parts(plan, start, stop):
    here = values[block.start - start : block.stop - start]
    for part in _rectangles(plan, number, block.start, block.stop):
      place = part.piece.tensor
      weights = _take(tensors[place], part.piece, part.segments, part.columns)
      view = part.view(here)
      view[...] = weights
      if factors is not None:
        view *= np.float32(factors[place])
  return values


def io_axes(spec: NetworkSpec, tensor: TensorSpec) -> Iterator[tuple[int, int]]:
  """Yields where a tensor meets inputs (0) or outputs (1): side and axis.

  Nowhere inside the network, and not along an axis that a group permutes.
  """
  weight = neurons_lib.is_weight(tensor)
  if weight and tensor.level == 0 and not _grouped(tensor, 1):
    yield 0, 1
  last = tensor.level == spec.num_levels - 1
  if (weight or cuts_lib.is_bias(tensor)) and last and not _grouped(tensor, 0):
    yield 1, 0


def _take(tensor: np.ndarray, piece: Piece, segments: range, columns: range):
  """Fetches a rectangle of weights from a tensor, however it is strided."""
  rows, rest = piece.places(segments, columns)
  if tensor.flags.c_contiguous:
    return np.asarray(tensor).reshape(-1)[rows + rest]
  return np.asarray(tensor)[np.unravel_index(rows + rest, tensor.shape)]


def _parts(plan: Plan, start: int, stop: int) -> Iterator[tuple[int, range]]:
  """Splits a range of chunks by cuts: the cut, and the numbers of its chunks.

  Raises:
    ValueError: there are no such chunks.
  """
  if not 0 <= start <= stop <= plan.num_chunks:
    raise ValueError(
      f"chunks {start} to {stop} of a network of {plan.num_chunks}"
    )
  number = int(np.searchsorted(plan.starts, start, side="right")) - 1
  while start < stop:
    end = min(stop, int(plan.starts[number + 1]))
    if end > start:
      yield number, range(start, end)
    number, start = number + 1, end


def _rectangles(
  plan: Plan, number: int, start: int, stop: int
) -> Iterator[Rectangle]:
  """Splits chunks of one cut into rectangles of one piece each."""
  cut, size = plan.cuts[number], plan.chunk_size
  per_segment = -(-cut.width // size)
  first = start
  while start < stop:
    # Whole segments if the range begins with one, else the rest of this one.
    segment, chunk = divmod(start - int(plan.starts[number]), per_segment)
    whole = 0 if chunk else (stop - start) // per_segment
    count = whole * per_segment or min(per_segment - chunk, stop - start)
    segments = range(segment, segment + max(whole, 1))
    # The columns `left` to `right` of the cut, which pieces share.
    left = chunk * size
    right = cut.width if whole else min(cut.width, left + count * size)
    chunks = slice(start - first, start - first + count)
    begin = 0
    for piece in cut.pieces:
      end = begin + piece.width
      inside = range(max(left, begin), min(right, end))
      if inside:
        columns = range(inside.start - begin, inside.stop - begin)
        yield Rectangle(piece, chunks, segments, inside.start - left, columns)
      begin = end
    start += count


def _fill(
  plan: Plan,
  part: Rectangle,
  views: dict[str, np.ndarray],
  holder: Int[np.ndarray, "M C"],
) -> None:
  """Writes a rectangle, and the neurons that its weights belong to.

  Args:
    plan: of the network.
    part: the rectangle.
    views: the arrays that are wanted, of the chunks of the range.
    holder: the neurons, likewise.
  """
  spec, numbers, piece = plan.spec, plan.neurons, part.piece
  place = piece.tensor
  tensor = spec.tensors[place]
  rows, rest = piece.places(part.segments, part.columns)
  if "index" in views:
    view = part.view(views["index"])
    np.add(rows, rest, out=view)
    view += np.int32(spec.offsets[place])
  if "role" in views:
    part.view(views["role"])[...] = ROLES.index(piece.role)
  if "tensor" in views:
    part.view(views["tensor"])[...] = place
  # The index along each axis: what rows say plus what columns say.
  axes = [
    _sum(*pair)
    for pair in zip(_split(tensor, rows), _split(tensor, rest), strict=True)
  ]
  if "places" in views:
    for axis, neurons in enumerate(axes):
      part.view(views["places"])[..., axis] = neurons
  if "io" in views:
    for side, axis in io_axes(spec, tensor):
      part.view(views["io"])[..., side] = axes[axis] + np.int32(1)
  near, far = _neurons(numbers, piece, axes)
  if near is not None:
    part.view(holder)[...] = near
  if far is not None and "other" in views:
    part.view(views["other"])[...] = far


def _neurons(numbers: neurons_lib.Neurons, piece: Piece, axes):
  """Returns the neurons that weights belong to and lead to; None for none."""
  rows, reads = numbers.rows[piece.tensor], numbers.reads[piece.tensor]
  if rows is not None and reads is not None:
    ends = rows[axes[0]], reads[axes[1]]
    return ends if piece.ends == "row" else ends[::-1]
  belongs = numbers.belongs[piece.tensor]
  if belongs is None:
    return None, None
  axis, ids = belongs
  near = ids[axes[axis]]
  return near, near if piece.ends == "self" else None


def _owners(plan: Plan, cut: Cut, chunk, mask, holder) -> np.ndarray:
  """Returns the neuron that each chunk of a cut belongs to, 0 for none."""
  if cut.owner is not None:
    return cut.owner[chunk // -(-cut.width // plan.chunk_size)]
  # A chunk belongs to a neuron if all of its weights do.
  highest = holder.max(axis=1)
  lowest = np.where(mask, holder, plan.neurons.total + 1).min(axis=1)
  return np.where(lowest == highest, highest, 0)


def _split(tensor: TensorSpec, places) -> list[np.ndarray]:
  """Splits row-major places into at most four indices, one per axis.

  Axes after the third are taken as one.
  """
  shape = tensor.shape[:3]
  if len(tensor.shape) > 3:
    shape += (math.prod(tensor.shape[3:]),)
  axes = []
  for size in shape[:0:-1]:
    places, index = np.divmod(places, np.int32(size))
    axes.append(index)
  return [places, *reversed(axes)]


def _sum(row, column):
  """Adds two parts of an index; as small as can be, if one of them is 0."""
  if not row.any():
    return column
  return column + row if column.any() else row


def _grouped(tensor: TensorSpec, axis: int) -> bool:
  return bool(neurons_lib.groups_of(tensor.axes[axis]))


def _cuts(
  spec: NetworkSpec, numbers: neurons_lib.Neurons, options: ChunkOptions
) -> list[Cut]:
  """All pseudo-layers of a network, in the order of their main tensors."""
  if options.norm_rule == "fold":
    left = [t.name for t in spec.tensors if t.kind in ("norm_mean", "norm_var")]
    if left:
      raise ValueError(
        f"norm_rule='fold', but the spec has running statistics {left}; pass"
        " the spec and the weights through networks.folding.fold_norms first"
      )
  by_neuron = lambda tensor: options.rule(tensor.kind) == "neuron"
  append = options.bias_rule == "append"
  cuts, rest = [], []
  for place, tensor in enumerate(spec.tensors):
    owner = numbers.owners[place]
    if neurons_lib.is_weight(tensor):
      neuron = by_neuron(tensor)
      cut = neuron_lib.cut_neurons if neuron else cuts_lib.cut_weight
      cuts.append(cut(spec, numbers, place, options))
    elif owner is None or not (
      by_neuron(spec.tensors[owner]) or append and cuts_lib.is_bias(tensor)
    ):
      rest.append(place)
  cuts += cuts_lib.cut_rest(spec, rest, options)
  return sorted(cuts, key=lambda cut: cut.tensor)
