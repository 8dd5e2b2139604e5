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
    num_weights: `P`.
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
  num_weights: int


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
  chunks = ChunkLayout(
    **ranges.arrays(plan, 0, plan.num_chunks)._asdict(),
    layer_kind=plan.kind.copy(),
    layer_level=plan.level.copy(),
    layer_tensor=np.array([cut.tensor for cut in plan.cuts], np.int32),
    num_neurons=plan.neurons.total,
    num_weights=spec.num_weights,
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
  if weights.shape[-1] != layout.num_weights:
    raise ValueError(
      f"weights: the layout is of a network of {layout.num_weights} weights,"
      f" got {weights.shape[-1]}"
    )
  xp = np if isinstance(weights, np.ndarray) else jnp
  mask = layout.mask.reshape((1,) * (weights.ndim - 1) + layout.mask.shape)
  return xp.where(mask, weights[..., layout.index], 0)
