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
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, Shaped

from sne_jax.networks.chunking import ranges
from sne_jax.networks.chunking.options import ChunkOptions
from sne_jax.networks.spec import NetworkSpec


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
    owner: 1 + number of the neuron that the whole chunk belongs to: the output
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
    layer_tensor: place of the main tensor in `spec.tensors`.
    tensor: place in `spec.tensors` of the tensor that each weight lies in.
    num_neurons: `K`, the largest number that `owner` and `other` can hold.
    inverse: first slot of each weight, in the concatenated chunks; -1 for
      weights that were dropped.
  """

  index: Int[np.ndarray, "M C"]  # pyright: ignore[reportIncompatibleMethodOverride]
  mask: Bool[np.ndarray, "M C"]
  role: Int[np.ndarray, "M C"]
  places: Int[np.ndarray, "M C 4"]
  io: Int[np.ndarray, "M C 2"]
  owner: Int[np.ndarray, "M"]
  other: Int[np.ndarray, "M C"]
  chunk: Int[np.ndarray, "M"]
  layer: Int[np.ndarray, "M"]
  layer_kind: Int[np.ndarray, "L"]
  layer_level: Int[np.ndarray, "L"]
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
  plan = ranges.plan(spec, options)
  all_chunks = ranges.arrays(plan, 0, plan.num_chunks)._asdict()
  chunks = ChunkLayout(
    **all_chunks,
    layer_kind=plan.kind.copy(),
    layer_level=plan.level.copy(),
    layer_tensor=_int32([cut.tensor for cut in plan.cuts]),
    num_neurons=plan.neurons.total,
    inverse=_first_slots(
      all_chunks["index"], all_chunks["mask"], spec.num_weights
    ),
  )
  for array in chunks:
    if isinstance(array, np.ndarray):
      array.flags.writeable = False
  return chunks


def num_chunks(spec: NetworkSpec, options: ChunkOptions) -> int:
  """Returns `M` without laying the network out; raises as `layout` does."""
  return ranges.plan(spec, options).num_chunks


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
  weights = flat[..., np.maximum(layout.inverse, 0)]
  if fill is None:
    return weights
  xp = np if isinstance(values, np.ndarray) else jnp
  return xp.where(lost.reshape((1,) * len(lead) + lost.shape), fill, weights)


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
