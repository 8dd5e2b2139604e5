"""The layout: for every slot of every chunk, which weight, and what it is.

Chunking is a gather: `values = where(mask, weights[index], 0)`. All rules end
in the same arrays, worked out once per (spec, options) by whole-array numpy.

Dimensions: `M` chunks, `C` weights per chunk, `L` pseudo-layers, `K` neurons,
`P` weights of the network.

References:
  Pad-and-chunk: Andreis et al., arXiv:2305.16625, equation 1. Which rules and
  indices there are is this library's choice.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, Shaped

from sne_jax.networks.chunking import cuts as cuts_lib
from sne_jax.networks.chunking import neuron as neuron_lib
from sne_jax.networks.chunking import neurons as neurons_lib
from sne_jax.networks.chunking.cuts import ROLES, Cut, Piece
from sne_jax.networks.chunking.options import ChunkOptions
from sne_jax.networks.spec import KINDS, NetworkSpec, TensorSpec


class ChunkLayout(NamedTuple):
  """Which weight lies where, and what it is. Read-only numpy arrays.

  Everything is 0 in padded slots.

  Attributes:
    index: place in the flat vector.
    mask: True where a slot holds a weight.
    role: id in `ROLES`: "weight" for all rules but the neuron rule, "bias" for
      appended biases.
    places: (out, in, y, x) indices within the tensor; (out, 0, 0, 0) for
      vectors.
    io: 1 + index of the input of the network that the weight reads (axis 1 of
      weights of level 0, if no group permutes it), and 1 + index of the output
      that it feeds (axis 0 of weights and biases of the last level, if no
      group permutes it); 0 where none.
    own: 1 + number of the neuron that the whole chunk belongs to: the output
      neuron of its weights, under `col` the input neuron; 0 where the chunk
      straddles neurons or has none. Numbers: see `neurons.py`.
    other: 1 + number of the neuron at the other end: the input neuron; for
      `col` and role "out" the output neuron. The input neuron is a row of the
      nearest earlier producer, see `neurons.py`. For vectors in a pseudo-layer
      of their own, and for tables, the neuron they belong to. 0 for inputs of
      the network and for biases and norms inside their neuron's chunk.
    chunk: number of the chunk within its pseudo-layer.
    layer: pseudo-layer of the chunk, non-decreasing.
    layer_kind: id in `spec.KINDS`, of the main tensor.
    layer_level: level of the main tensor.
    layer_branch: branch of the main tensor.
    layer_tensor: place of the main tensor in `spec.tensors`.
    tensor: place in `spec.tensors` of the tensor that each weight lies in.
    num_neurons: `K`, the largest number that `own` and `other` can hold.
    inverse: first slot of each weight, in the chunks end to end; -1 for
      weights that were dropped.
  """

  index: Int[np.ndarray, "M C"]  # pyright: ignore[reportIncompatibleMethodOverride]
  mask: Bool[np.ndarray, "M C"]
  role: Int[np.ndarray, "M C"]
  places: Int[np.ndarray, "M C 4"]
  io: Int[np.ndarray, "M C 2"]
  own: Int[np.ndarray, "M"]
  other: Int[np.ndarray, "M C"]
  chunk: Int[np.ndarray, "M"]
  layer: Int[np.ndarray, "M"]
  layer_kind: Int[np.ndarray, "L"]
  layer_level: Int[np.ndarray, "L"]
  layer_branch: Int[np.ndarray, "L"]
  layer_tensor: Int[np.ndarray, "L"]
  tensor: Int[np.ndarray, "M C"]
  num_neurons: int
  inverse: Int[np.ndarray, "P"]


@functools.lru_cache(maxsize=1024)
def layout(spec: NetworkSpec, options: ChunkOptions) -> ChunkLayout:
  """Lays a network out in chunks. Cached; the arrays are read-only.

  Pseudo-layers follow the order of their main tensors. A layout takes about
  45 bytes per slot, and the cache holds 1024; after many large networks,
  `layout.cache_clear()` frees them.

  Args:
    spec: the network.
    options: chunk size and rules.

  Raises:
    ValueError: the spec has running statistics under `norm_rule="fold"`, a
      bias with no row to be appended to, a vector that does not fit its
      weight, or more weights than int32 can number.
  """
  if spec.num_weights >= 2**31:
    raise ValueError(
      f"{spec.describe()}: places in the vector are int32; chunk parts of it"
    )
  numbers = neurons_lib.number(spec)
  cuts = _cuts(spec, numbers, options)
  size = options.chunk_size
  counts = [_num_chunks(cut, size) for cut in cuts]
  total = sum(counts)
  shapes = {
    name: (total, size) for name in ("index", "role", "other", "tensor")
  }
  shapes |= {"places": (total, size, 4), "io": (total, size, 2)}
  slots = {name: np.zeros(shape, np.int32) for name, shape in shapes.items()}
  mask = np.zeros((total, size), bool)
  own = np.zeros(total, np.int32)
  start = 0
  for cut, count in zip(cuts, counts, strict=True):
    block = slice(start, start + count)
    views = {name: array[block] for name, array in slots.items()}
    own[block] = _fill(spec, numbers, cut, views, mask[block])
    start += count
  mains = [spec.tensors[cut.tensor] for cut in cuts]
  made = ChunkLayout(
    **slots,
    mask=mask,
    own=own,
    chunk=_int32(np.concatenate([np.arange(n) for n in [0, *counts]])),
    layer=_int32(np.repeat(np.arange(len(cuts)), counts)),
    layer_kind=_int32([KINDS.index(cut.kind) for cut in cuts]),
    layer_level=_int32([tensor.level for tensor in mains]),
    layer_branch=_int32([tensor.branch for tensor in mains]),
    layer_tensor=_int32([cut.tensor for cut in cuts]),
    num_neurons=numbers.total,
    inverse=_first_slots(slots["index"], mask, spec.num_weights),
  )
  for array in made:
    if isinstance(array, np.ndarray):
      array.flags.writeable = False
  return made


@functools.lru_cache(maxsize=1024)
def num_chunks(spec: NetworkSpec, options: ChunkOptions) -> int:
  """Returns `M` without laying the network out; raises as `layout` does."""
  cuts = _cuts(spec, neurons_lib.number(spec), options)
  return sum(_num_chunks(cut, options.chunk_size) for cut in cuts)


def gather(
  layout: ChunkLayout, weights: Shaped[np.ndarray | jax.Array, "*B P"]
) -> Shaped[np.ndarray | jax.Array, "*B M C"]:
  """Fetches the weights of every chunk; padded slots are 0.

  Differentiable, and works on numpy and JAX arrays, whose kind it keeps.

  Args:
    layout: of the spec that the weights are of.
    weights: flat vectors.

  Raises:
    ValueError: the last axis of `weights` is not `P` long.
  """
  _check_length(layout, weights.shape[-1], "weights")
  xp = np if isinstance(weights, np.ndarray) else jnp
  mask = layout.mask.reshape((1,) * (weights.ndim - 1) + layout.mask.shape)
  return xp.where(mask, weights[..., layout.index], 0)


def unchunk(
  layout: ChunkLayout,
  values: Shaped[np.ndarray | jax.Array, "*B M C"],
  num_weights: int,
  fill: float | int | None = None,
) -> Shaped[np.ndarray | jax.Array, "*B P"]:
  """Puts chunks back into flat vectors: the inverse of `gather`.

  A weight that stands in several chunks is taken from the first.

  Args:
    layout: of the spec.
    values: chunks.
    num_weights: `P`.
    fill: value for weights that no chunk holds; None to refuse them.

  Raises:
    ValueError: `num_weights` or the shape of `values` is not the layout's, or
      weights are missing and there is no `fill`.
  """
  _check_length(layout, num_weights, "num_weights")
  if tuple(values.shape[-2:]) != layout.index.shape:
    raise ValueError(
      f"values must end in the layout's {layout.index.shape}, got an array of"
      f" shape {tuple(values.shape)}"
    )
  lost = layout.inverse < 0
  if fill is None and lost.any():
    raise ValueError(
      f"{lost.sum()} of {num_weights} weights are in no chunk (bias_rule="
      "'drop' leaves biases out); pass `fill` to set them to a value"
    )
  lead = values.shape[:-2]
  flat = values.reshape(*lead, layout.index.size)
  found = flat[..., np.maximum(layout.inverse, 0)]
  if fill is None:
    return found
  xp = np if isinstance(values, np.ndarray) else jnp
  return xp.where(lost.reshape((1,) * len(lead) + lost.shape), fill, found)


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
  by_neuron, append = options.by_neuron, options.bias_rule == "append"
  weight = neuron_lib.cut_neurons if by_neuron else cuts_lib.cut_weight
  cuts, rest = [], []
  for place, tensor in enumerate(spec.tensors):
    owned = numbers.owners[place] is not None
    if neurons_lib.is_weight(tensor):
      cuts.append(weight(spec, numbers, place, options))
    elif not owned or not (by_neuron or append and cuts_lib.is_bias(tensor)):
      rest.append(place)
  cuts += cuts_lib.cut_rest(spec, rest, options)
  return sorted(cuts, key=lambda cut: cut.tensor)


def _num_chunks(cut: Cut, size: int) -> int:
  segments = cut.pieces[0].places.shape[0]
  width = sum(piece.places.shape[1] for piece in cut.pieces)
  return segments * -(-width // size)


def _fill(
  spec: NetworkSpec,
  numbers: neurons_lib.Neurons,
  cut: Cut,
  views: dict[str, np.ndarray],
  mask: Bool[np.ndarray, "M C"],
) -> Int[np.ndarray, "M"]:
  """Writes one cut into its part of the arrays; returns `own` of its chunks."""
  segments = cut.pieces[0].places.shape[0]
  count, size = mask.shape
  shape = (segments, count // segments * size)
  views = {n: a.reshape(*shape, *a.shape[2:]) for n, a in views.items()}
  holder = np.zeros(shape, np.int32)
  start = 0
  for piece in cut.pieces:
    stop = start + piece.places.shape[1]
    part = {name: array[:, start:stop] for name, array in views.items()}
    _fill_piece(spec, numbers, piece, part, holder[:, start:stop])
    start = stop
  mask.reshape(shape)[:, :start] = True
  if cut.own is not None:
    return np.repeat(cut.own, count // segments)
  holder = holder.reshape(count, size)
  highest = holder.max(axis=1)
  lowest = np.where(mask, holder, numbers.total + 1).min(axis=1)
  return np.where(lowest == highest, highest, 0)


def _fill_piece(
  spec: NetworkSpec,
  numbers: neurons_lib.Neurons,
  piece: Piece,
  views: dict[str, np.ndarray],
  holder: Int[np.ndarray, "S n"],
) -> None:
  """Writes one piece, and the neurons that its weights belong to."""
  tensor = spec.tensors[piece.tensor]
  views["index"][...] = spec.offsets[piece.tensor] + piece.places
  views["role"][...] = ROLES.index(piece.role)
  views["tensor"][...] = piece.tensor
  axes = _split(tensor, piece.places)
  for axis, found in enumerate(axes):
    views["places"][..., axis] = found
  weight = neurons_lib.is_weight(tensor)
  if weight and tensor.level == 0 and not _grouped(tensor, 1):
    np.add(axes[1], 1, out=views["io"][..., 0])
  last = tensor.level == spec.num_levels - 1
  if (weight or cuts_lib.is_bias(tensor)) and last and not _grouped(tensor, 0):
    np.add(axes[0], 1, out=views["io"][..., 1])
  rows, reads = numbers.rows[piece.tensor], numbers.reads[piece.tensor]
  if rows is not None and reads is not None:
    ends = (holder, views["other"])
    near, far = ends if piece.ends == "row" else ends[::-1]
    near[...] = rows[axes[0]]
    far[...] = reads[axes[1]]
    return
  belongs = numbers.belongs[piece.tensor]
  if belongs is not None:
    axis, found = belongs
    holder[...] = found[axes[axis]]
    if piece.ends == "self":
      views["other"][...] = holder


def _split(tensor: TensorSpec, places) -> list[Int[np.ndarray, "S n"]]:
  """Splits row-major places into at most four indices, one per axis.

  Axes behind the third are taken as one.
  """
  shape = tensor.shape[:3]
  if len(tensor.shape) > 3:
    shape += (math.prod(tensor.shape[3:]),)
  axes = []
  for size in shape[:0:-1]:
    places, index = np.divmod(places, np.int32(size))
    axes.append(index)
  return [places, *reversed(axes)]


def _grouped(tensor: TensorSpec, axis: int) -> bool:
  return bool(neurons_lib.groups_of(tensor.axes[axis]))


def _first_slots(index, mask, num_weights: int) -> Int[np.ndarray, "P"]:
  """First slot of every weight, -1 for none."""
  first = np.full(num_weights, -1, np.int32)
  slots = np.flatnonzero(mask)[::-1]  # Of equal indices the last one stays.
  first[index.reshape(-1)[slots]] = slots
  return first


def _check_length(layout: ChunkLayout, size: int, name: str) -> None:
  if size != layout.inverse.size:
    raise ValueError(
      f"{name}: the layout is of a network of {layout.inverse.size} weights,"
      f" got {size}"
    )


def _int32(values) -> Int[np.ndarray, "size"]:
  return np.asarray(values, np.int32)
