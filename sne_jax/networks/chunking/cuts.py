"""The rules: which weights stand together, before they are cut to size.

A cut is one pseudo-layer: `S` segments of `n` weights each, which are padded
and cut one by one. It is made of pieces, side by side, each from one tensor.

Dimensions: `S` segments, `n` weights of a segment.
"""

import itertools
import math
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


Digits = tuple[tuple[int, int], ...]
"""A number in mixed base: (size, stride) of each digit, the slowest first."""


class Piece(NamedTuple):
  """The part of a cut that comes from one tensor.

  Where its weights lie is not written out, but counted when asked for: a place
  is the sum of digit times stride, over the digits of its segment's number and
  of its column.

  Attributes:
    tensor: place of the tensor in the spec.
    segments: digits of the number of a segment.
    columns: digits of the number of a weight within its segment.
    role: name in `ROLES`.
    ends: what the chunk belongs to, and what is at the other end: "row" (the
      weight's output neuron, its input neuron), "col" (the other way round),
      "self" (a vector: its neuron, the same), "bare" (its neuron, nothing).
    picks: where there are any, the segments have no digits, the columns three,
      and digit `j` of the middle ones stands for `picks[segment, j]`.
  """

  tensor: int
  segments: Digits
  columns: Digits
  role: str = "weight"
  ends: str = "self"
  picks: Int[np.ndarray, "S m"] | None = None

  @property
  def num_segments(self) -> int:
    """`S`."""
    if self.picks is not None:
      return len(self.picks)
    return math.prod(size for size, _ in self.segments)

  @property
  def width(self) -> int:
    """`n`."""
    return math.prod(size for size, _ in self.columns)

  def places(
    self, segments: range, columns: range
  ) -> tuple[Int[np.ndarray, "s _"], Int[np.ndarray, "_ c"]]:
    """Returns where in the tensor, row-major, a rectangle of weights lies.

    Args:
      segments: numbers of `s` segments.
      columns: numbers of `c` weights of each.

    Returns:
      Two int32 arrays that add up to the places `[s, c]`: what a segment says,
      `[s, 1]` or `[1, 1]`, and what a column says, `[1, c]` or `[s, c]`. No
      index of an axis of the tensor carries over in the sum.
    """
    column = np.arange(columns.start, columns.stop, dtype=np.int32)
    if self.picks is None:
      segment = np.arange(segments.start, segments.stop, dtype=np.int32)
      return (
        _value(self.segments, segment)[:, None],
        _value(self.columns, column)[None, :],
      )
    (_, outer), (count, stride), (inner, _) = self.columns
    column, last = np.divmod(column, np.int32(inner))
    first, middle = np.divmod(column, np.int32(count))
    fixed = (first * np.int32(outer) + last)[None, :]
    picked = self.picks[segments.start : segments.stop] * np.int32(stride)
    if count == 1:
      return picked, fixed
    return np.zeros((1, 1), np.int32), picked[:, middle] + fixed


def _value(digits: Digits, number: Int[np.ndarray, "n"]):
  """Returns the places that numbers stand for."""
  if not digits:
    return np.zeros_like(number)
  place = np.int32(0)
  for size, stride in digits[:0:-1]:
    number, digit = np.divmod(number, np.int32(size))
    place = place + digit * np.int32(stride)
  return place + number * np.int32(digits[0][1])


def whole(tensor: TensorSpec, rows: int = 1) -> tuple[Digits, Digits]:
  """Returns the digits of a tensor in order, in `rows` equal segments."""
  width = tensor.size // rows
  return ((rows, width),), ((width, 1),)


class Cut(NamedTuple):
  """A pseudo-layer.

  Attributes:
    tensor: place of the main tensor in the spec.
    kind: name in `spec.KINDS`.
    pieces: side by side; they have the same `S`.
    owner: the neuron of each segment `[S]`, 1-based; None to read it off the
      weights.
  """

  tensor: int
  kind: str
  pieces: tuple[Piece, ...]
  owner: Int[np.ndarray, "S"] | None = None

  @property
  def num_segments(self) -> int:
    """`S`."""
    return self.pieces[0].num_segments

  @property
  def width(self) -> int:
    """`n`, of all pieces together."""
    return sum(piece.width for piece in self.pieces)


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


def cut_weight(
  spec: NetworkSpec, numbers: Neurons, place: int, options: ChunkOptions
) -> Cut:
  """Cuts a weight tensor, with its biases if they are appended.

  Raises:
    ValueError: biases are to be appended, and the tensor is not cut by rows.
  """
  tensor = spec.tensors[place]
  conv = tensor.kind == "conv_weight"
  rule = options.rule(tensor.kind)
  per_head = options.attention_rule == "per_head" and tensor.kind in _ATTENTION
  blocks, out, inner, kernel = _grid(tensor, per_head)
  segments, columns = {
    "flat": ((blocks,), (out, inner, kernel)),
    "row": ((blocks, out), (inner, kernel)),
    "filter": ((blocks, out), (inner, kernel)),
    "kernel": ((blocks, out, inner), (kernel,)),
    "col": ((blocks, inner), (out, kernel)),
  }[rule]
  ends = "col" if rule == "col" else "row"
  pieces = [Piece(place, segments, columns, ends=ends)]
  if options.bias_rule == "append":
    for other, vector in enumerate(spec.tensors):
      if not is_bias(vector) or numbers.owners[other] != place:
        continue
      if rule not in ("row", "filter"):
        raise ValueError(
          f"bias_rule='append': {vector.name!r} has no row to come after,"
          f" as {tensor.name!r} is cut by the rule {rule!r}; set"
          + (" conv_rule='filter'" if conv else " linear_rule='row'")
        )
      each = whole(vector, vector.size)
      pieces.append(Piece(other, *each, role="bias", ends="bare"))
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
      Piece(place, *whole(spec.tensors[place], rows)) for place in layer
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


def _grid(tensor: TensorSpec, per_head: bool) -> Digits:
  """Returns size and stride of a weight's blocks, rows, columns and kernel.

  There is one block, or one for each head: the first of several factors of the
  rows of q, k and v and of the columns of o; an axis of one factor is one
  head.
  """
  out, inner = tensor.shape[:2]
  kernel = math.prod(tensor.shape[2:])
  rows, columns = (out, inner * kernel), (inner, kernel)
  blocks = (1, 0)
  if per_head:
    axis = 1 if tensor.kind == "attention_o" else 0
    factors = tensor.axes[axis]
    heads = factors[0].size if len(factors) > 1 else 1
    size, stride = columns if axis else rows
    blocks = (heads, size // heads * stride)
    each = (size // heads, stride)
    rows, columns = (rows, each) if axis else (each, columns)
  return blocks, rows, columns, (kernel, 1)
