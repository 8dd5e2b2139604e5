"""The rules: which weights stand together, before they are cut to size.

A cut is one pseudo-layer: `S` segments of `n` weights each, which are padded
and cut one by one. It is made of pieces, side by side, each from one tensor.

Dimensions: `S` segments, `n` weights of a segment.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from sne_jax.networks.chunking.neurons import Neurons
from sne_jax.networks.chunking.options import ChunkOptions
from sne_jax.networks.spec import NetworkSpec, TensorSpec

ROLES = ("weight", "in", "bias", "norm", "out")
"""What a weight is to its chunk. The place in this tuple is the role's id."""

_ATTENTION = ("attention_q", "attention_k", "attention_v", "attention_o")
_BIASES = ("linear_bias", "conv_bias", "attention_bias")
_TABLES = ("embedding", "class_token", "position")


class Piece(NamedTuple):
  """The part of a cut that comes from one tensor.

  Attributes:
    tensor: place of the tensor in the spec.
    places: where in the tensor, row-major: `[S, n]`, int32.
    role: name in `ROLES`.
    ends: what the chunk belongs to, and what is at the other end: "row" (the
      weight's output neuron, its input neuron), "col" (the other way round),
      "self" (a vector: its neuron, the same), "bare" (its neuron, nothing).
  """

  tensor: int
  places: Int[np.ndarray, "S n"]
  role: str = "weight"
  ends: str = "self"


class Cut(NamedTuple):
  """A pseudo-layer.

  Attributes:
    tensor: place of the main tensor in the spec.
    kind: name in `spec.KINDS`.
    pieces: side by side; they have the same `S`.
    own: the neuron of each segment `[S]`, 1-based; None to read it off the
      weights.
  """

  tensor: int
  kind: str
  pieces: tuple[Piece, ...]
  own: Int[np.ndarray, "S"] | None = None


def is_bias(tensor: TensorSpec) -> bool:
  """Whether the tensor is a bias of any layer."""
  return tensor.kind in _BIASES


def is_norm(tensor: TensorSpec) -> bool:
  """Whether the tensor is a vector of a norm layer."""
  return tensor.kind.startswith("norm_")


def kind_of(tensor: TensorSpec, options: ChunkOptions) -> str:
  """The kind of the pseudo-layer that a tensor heads."""
  one_type = options.attention_rule == "one_type"
  return (
    "attention_q" if one_type and tensor.kind in _ATTENTION else tensor.kind
  )


def all_places(tensor: TensorSpec) -> Int[np.ndarray, "size"]:
  """Every place of a tensor, row-major."""
  return np.arange(tensor.size, dtype=np.int32)


def cut_weight(
  spec: NetworkSpec, numbers: Neurons, place: int, options: ChunkOptions
) -> Cut:
  """Cuts a weight tensor, with its biases if they are appended.

  Raises:
    ValueError: biases are to be appended, and the tensor is not cut by rows.
  """
  tensor = spec.tensors[place]
  out, inner = tensor.shape[:2]
  conv = tensor.kind == "conv_weight"
  rule = options.conv_rule if conv else options.linear_rule
  grid = all_places(tensor).reshape(1, out, inner, -1)  # [blocks, out, in, k]
  if options.attention_rule == "per_head" and tensor.kind in _ATTENTION:
    grid = _split_heads(tensor, grid)
  segments = {
    "flat": lambda: grid.reshape(grid.shape[0], -1),
    "row": lambda: grid.reshape(grid.shape[0] * grid.shape[1], -1),
    "filter": lambda: grid.reshape(out, -1),
    "kernel": lambda: grid.reshape(out * inner, -1),
    "col": lambda: grid.swapaxes(1, 2).reshape(
      grid.shape[0] * grid.shape[2], -1
    ),
  }[rule]()
  pieces = [Piece(place, segments, ends="col" if rule == "col" else "row")]
  if options.bias_rule == "append":
    for other, vector in enumerate(spec.tensors):
      if not is_bias(vector) or numbers.owners[other] != place:
        continue
      if rule not in ("row", "filter"):
        raise ValueError(
          f"bias_rule='append': {vector.name!r} has no row to stand behind,"
          f" as {tensor.name!r} is cut by the rule {rule!r}; set"
          + (" conv_rule='filter'" if conv else " linear_rule='row'")
        )
      pieces.append(Piece(other, all_places(vector)[:, None], "bias", "bare"))
  return Cut(place, kind_of(tensor, options), tuple(pieces))


def cut_rest(
  spec: NetworkSpec, places: list[int], options: ChunkOptions
) -> list[Cut]:
  """Cuts tensors that are no weights, each by the rule of its kind.

  Args:
    spec: the network.
    places: places of the tensors, ascending.
    options: the rules.

  Returns:
    The cuts, in the order of `places`; dropped tensors have none.
  """
  cuts = []
  concat = options.norm_rule == "concat"
  for _, run in itertools.groupby(
    _norm_layers(spec, places), key=lambda pair: pair[0] if concat else pair
  ):
    layer = [place for _, place in run]
    tensor = spec.tensors[layer[0]]
    if is_bias(tensor) and options.bias_rule == "drop":
      continue
    by_row = tensor.kind in _TABLES and options.embedding_rule == "row"
    rows = tensor.shape[0] if by_row and len(tensor.shape) > 1 else 1
    pieces = tuple(
      Piece(place, all_places(spec.tensors[place]).reshape(rows, -1))
      for place in layer
    )
    cuts.append(Cut(layer[0], tensor.kind, pieces))
  return cuts


def _norm_layers(spec: NetworkSpec, places: list[int]):
  """Pairs every place with a number that vectors of one norm layer share.

  A norm layer is a run of norm vectors with the same level, branch, axes and
  owner, of which no two are of one kind.
  """
  pairs, last, kinds = [], None, set()
  for count, place in enumerate(places):
    t = spec.tensors[place]
    key = (t.level, t.branch, t.axes, t.of) if is_norm(t) else None
    if key is None or key != last or t.kind in kinds:
      layer, kinds = count, set()
    else:
      layer = pairs[-1][0]
    kinds.add(t.kind)
    last = key
    pairs.append((layer, place))
  return pairs


def _split_heads(tensor: TensorSpec, grid):
  """Splits `[1, out, in, 1]` into the blocks of the heads, axis 0.

  The heads are the first of several factors of the rows of q, k and v and of
  the columns of o; an axis of one factor is one head.
  """
  axis = 1 if tensor.kind == "attention_o" else 0
  factors = tensor.axes[axis]
  heads = factors[0].size if len(factors) > 1 else 1
  _, out, inner, _ = grid.shape
  if axis == 0:
    return grid.reshape(heads, out // heads, inner, 1)
  return grid.reshape(out, heads, inner // heads, 1).swapaxes(0, 1)
