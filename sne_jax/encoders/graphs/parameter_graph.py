"""The parameter graph of a network: every weight is one edge.

It depends on the spec alone. Neurons and channels are nodes. A dense weight is
an edge from the neuron that it reads to the one that it makes; a kernel is as
many parallel edges as it has places, each with its place, and so are weights
after a flattening. A bias is an edge from a node of its layer's biases. A norm
is two nodes, of its gains and of its shifts, each with an edge to every neuron
that it follows, and makes no new neurons. A residual connection is edges of
value 1; a shortcut has channels of its own.

What the authors' builder has no module for is ours: a class token, positions
and embeddings are tables, as their planes of a field are (an edge from a node
for each entry); and in attention, values lead to neurons of their own, which
edges of value 1 join to the queries and keys of the same head. The authors'
graph leads all three to the same neurons (`attention="published"`), and then
permutations of queries and keys alone change it. Running statistics of norms
are no part of it, as published.

Dimensions: `N` nodes, `E` edges.

Reference: Lim et al., Graph Metanetworks for Processing Diverse Neural
Architectures, ICLR 2024, arXiv:2312.04501, and the authors' code, whose
numbers of types are kept.
"""

import bisect
import functools
import math
from typing import Any, NamedTuple

import numpy as np

from sne_jax.encoders import interface
from sne_jax.encoders.graphs import neurons
from sne_jax.networks.spec import WEIGHT_KINDS, Axis, NetworkSpec, TensorSpec

NODE_KINDS = (
  *("neuron", "bias", "channel", "channel_bias", "batch_gain", "batch_shift"),
  *("layer_gain", "layer_shift", "group_gain", "group_shift"),
  *("instance_gain", "instance_shift", "attention_neuron", "attention_bias"),
  *("set_neuron", "set_bias", "table"),
)
EDGE_KINDS = (
  *("weight", "bias", "conv_weight", "conv_bias", "residual"),
  *("batch_gain", "batch_shift", "layer_gain", "layer_shift", "group_gain"),
  *("group_shift", "instance_gain", "instance_shift", "table"),
)
"""What nodes and edges are; the place in the tuple is the number of a type."""

NAME = "gmn"
"""Which encoder says that it cannot read a network."""

_TABLES = ("embedding", "class_token", "position")
_STATISTICS = ("norm_mean", "norm_var")
_MOST_PLACES = 3  # Coordinates of an edge.


class ParameterGraph(NamedTuple):
  """The graph of a spec. Edges that hold weights are in the order of these."""

  layer: np.ndarray  # int32 [N], number of the layer that it is an output of
  order: np.ndarray  # int32 [N], of an input or output; -1: hidden
  kind: np.ndarray  # int32 [N], among NODE_KINDS
  source: np.ndarray  # int32 [E]
  target: np.ndarray  # int32 [E]
  index: np.ndarray  # int32 [E], place in the flat vector; 0 if it has none
  is_weight: np.ndarray  # bool [E]; others are edges of value 1
  edge_layer: np.ndarray  # int32 [E]
  edge_kind: np.ndarray  # int32 [E], among EDGE_KINDS
  place: np.ndarray  # int16 [E, 3], in a kernel, an image; -1: it has none


class _Builder(neurons.Ledger):
  """Collects nodes and edges."""

  def __init__(self, spec: NetworkSpec):
    super().__init__()
    self.spec = spec
    self.nodes: list[list[int]] = []  # [layer, order, kind]
    self.edges: list[tuple[np.ndarray, ...]] = []
    self.outputs: list[np.ndarray] = []  # Of no group, of some layer.
    made = {t.level for t in spec.tensors if t.kind in WEIGHT_KINDS}
    self.levels = sorted(made)

  def layer(self, level: int) -> int:
    """Returns how many layers of weights come before a level."""
    return bisect.bisect_left(self.levels, level)

  def add(self, count: int, layer: int, kind: str, ordered: bool = False):
    """Adds nodes and returns their numbers."""
    start, number = len(self.nodes), NODE_KINDS.index(kind)
    for place in range(count):
      self.nodes.append([layer, place if ordered else -1, number])
    return np.arange(start, start + count)

  def connect(
    self,
    source,
    target,
    layer: int,
    kind: str,
    index: Any = -1,
    place: Any = -1,
  ):
    """Adds edges; `index` -1: they hold no weights."""
    columns = [source, target, layer, EDGE_KINDS.index(kind), index]
    columns = np.broadcast_arrays(*columns)
    shape = (len(columns[0]), _MOST_PLACES)
    self.edges.append((*columns, np.broadcast_to(place, shape)))

  def read(self, t: TensorSpec, key: Axis, count: int) -> np.ndarray:
    """Returns the nodes that a tensor acts on.

    Raises:
      ValueError: no layer gives as many neurons.
    """
    nodes = self.sources(t.level, key, count)
    if nodes is not None and not key:
      first = max(at for at, n in self.fixed if n is nodes)
      between = [at for at, k in self.at if k and first < at < t.level]
      nodes = None if between else nodes
    if nodes is None:
      reason = (
        f"{t.name} reads {count} neurons that no layer before it gives as they"
        " are; parameter graphs have no convolutions of groups, and no layers"
        " that read several others side by side"
      )
      raise interface.unsupported(NAME, self.spec, reason)
    return nodes

  def graph(self) -> ParameterGraph:
    """Returns what was collected."""
    source, target, layer, kind, index, place = (
      np.concatenate(column) for column in zip(*self.edges, strict=True)
    )
    nodes = np.array(self.nodes, np.int32)
    for block in self.outputs:
      if not np.isin(block, source).any():  # Nothing reads them.
        nodes[block, 1] = np.arange(len(block))
    return ParameterGraph(
      *nodes.T,
      source=source.astype(np.int32),
      target=target.astype(np.int32),
      index=np.maximum(index, 0).astype(np.int32),
      is_weight=index >= 0,
      edge_layer=layer.astype(np.int32),
      edge_kind=kind.astype(np.int32),
      place=place.astype(np.int16),
    )


@functools.lru_cache(maxsize=256)
def graph_of(spec: NetworkSpec, attention: str = "exact") -> ParameterGraph:
  """Returns the parameter graph of a network.

  Args:
    spec: the network.
    attention: exact, ours, whose automorphisms are the permutations of the
      network; or published.

  Raises:
    ValueError: a layer of it has no place in parameter graphs.
  """
  _check(spec)
  b = _Builder(spec)
  first = next(t for t in spec.tensors if _is_first(t))
  if first.kind != "embedding":
    kind = "channel" if first.kind == "conv_weight" else "neuron"
    count = neurons.of(first, 1)[1]
    b.note(-1, (), b.add(count, 0, kind, ordered=True))
  made: dict[str, np.ndarray] = {}  # Neurons that a weight makes, by its name.
  for t, start in zip(spec.tensors, spec.offsets, strict=True):
    index = np.arange(start, start + t.size).reshape(t.shape)
    if t.kind in WEIGHT_KINDS:
      made[t.name] = _weight(b, t, index, made, attention)
    elif t.kind in _TABLES:
      _table(b, t, index)
    elif t.kind.startswith("norm_"):
      _norm(b, t, index, made)
    else:
      _bias(b, t, index, made)
  for source, target in spec.skips:
    _skip(b, source, target)
  if attention == "exact":
    _heads(b, made)
  return b.graph()


def _is_first(t: TensorSpec) -> bool:
  return t.kind in WEIGHT_KINDS or t.kind == "embedding"


def _check(spec: NetworkSpec) -> None:
  """Raises `ValueError` for a tensor that is no edges of a known layer."""
  if not any(map(_is_first, spec.tensors)):
    reason = "it has no layer of weights"
    raise interface.unsupported(NAME, spec, reason)
  for t in spec.tensors:
    if t.kind == "other" or (t.kind.endswith("_bias") and t.of is None):
      reason = (
        f"{t.name} is of no layer that a parameter graph describes (dense,"
        " convolution, norm, attention, embedding, class token, positions)"
      )
      raise interface.unsupported(NAME, spec, reason)


def _weight(b: _Builder, t: TensorSpec, index, made, attention: str):
  """Adds the edges of a weight, and the neurons that it makes."""
  key, count = neurons.of(t, 0)
  nodes = _shared(b, t, key, made, attention)
  sources = b.read(t, *neurons.of(t, 1))
  if nodes is None:
    kind = "neuron"
    if t.kind != "linear_weight":
      kind = "channel" if t.kind == "conv_weight" else "attention_neuron"
    nodes = b.add(count, b.layer(t.level) + 1, kind)
    if not key:
      b.outputs.append(nodes)
  rows = neurons.rows(t, index)  # [out, in, places]
  ends = np.meshgrid(nodes, sources, np.arange(rows.shape[2]), indexing="ij")
  order = np.argsort(rows, axis=None)
  target, source, place = (end.ravel()[order] for end in ends)
  b.connect(
    source,
    target,
    b.layer(t.level),
    "conv_weight" if t.kind == "conv_weight" else "weight",
    rows.ravel()[order],
    _places(t, attention)[place],
  )
  b.note_made(t, key, nodes)
  return nodes


def _shared(b: _Builder, t: TensorSpec, key: Axis, made, attention: str):
  """Returns the neurons of queries, where keys or values lead to them too.

  Raises:
    ValueError: published attention, of values that are not as many.
  """
  if t.kind not in ("attention_k", "attention_v"):
    return None
  if attention == "exact":
    return b.at.get((t.level, key)) if key else None
  queries = [
    made[q.name]
    for q in b.spec.tensors
    if q.kind == "attention_q" and q.level == t.level and q.name in made
  ]
  if not queries or len(queries[-1]) != t.shape[0]:
    reason = (
      f"{t.name} has {t.shape[0]} rows, not one for each query; choose"
      " attention exact"
    )
    raise interface.unsupported(NAME, b.spec, reason)
  return queries[-1]


def _places(t: TensorSpec, attention: str) -> np.ndarray:
  """Returns the coordinates `[places, 3]` of the places of a weight.

  Of a kernel, and of the image after a flattening: one of a square is known
  by its row and column. Queries, keys and values are told apart by them too,
  as the authors do not.
  """
  key = neurons.key_of(t.axes[1])
  image = [f.size for f in t.axes[1] if f.group is None] if key else []
  if len(image) == 1 and math.isqrt(image[0]) ** 2 == image[0]:
    image = [math.isqrt(image[0])] * 2
  sizes = [size for size in image if size > 1] + list(t.shape[2:])
  if t.kind in ("attention_q", "attention_k", "attention_v"):
    which = "qkv".index(t.kind[-1]) if attention == "exact" else -1
    return np.array([[which, -1, -1]])
  while len(sizes) > _MOST_PLACES:
    sizes[:2] = [sizes[0] * sizes[1]]
  grid = np.indices(sizes).reshape(len(sizes), math.prod(sizes)).T
  rest = np.full((len(grid), _MOST_PLACES - len(sizes)), -1)
  return np.concatenate([grid, rest], axis=1)


def _bias(b: _Builder, t: TensorSpec, index, made) -> None:
  """Adds the node of a layer's biases and an edge to each of its neurons."""
  nodes = made[t.of]
  conv = t.kind == "conv_bias"
  layer = b.layer(t.level)
  start = b.add(1, layer + 1, "channel_bias" if conv else "bias")
  kind = "conv_bias" if conv else "bias"
  b.connect(start, nodes, layer, kind, index.ravel())


def _norm(b: _Builder, t: TensorSpec, index, made) -> None:
  """Adds the node of a norm's gains or shifts, and an edge to each neuron."""
  key, count = neurons.of(t, 0)
  nodes = made.get(t.of) if t.of is not None else None
  if nodes is None:
    nodes = b.read(t, key, count)
    b.at.setdefault((t.level, key), nodes)
  if t.kind in _STATISTICS:
    return
  runs = t.of is not None or any(
    o.kind in _STATISTICS and (o.level, o.axes) == (t.level, t.axes)
    for o in b.spec.tensors
  )
  kind = "gain" if t.kind == "norm_scale" else "shift"
  kind = f"{'batch' if runs else 'layer'}_{kind}"
  layer = bisect.bisect_right(b.levels, t.level)
  start = b.add(1, layer, kind)
  b.connect(start, nodes, layer, kind, index.ravel())


def _table(b: _Builder, t: TensorSpec, index) -> None:
  """Adds a node for each entry of a table, and edges to what it is added to."""
  rows = index.reshape(-1, t.shape[-1])
  key, count = neurons.of(t, len(t.shape) - 1)
  layer = b.layer(t.level)
  nodes = b.at.get((t.level, key))
  if nodes is None or len(nodes) != count:
    nodes = b.sources(t.level, key, count)
  if nodes is None:
    nodes = b.add(count, layer, "table")
    b.note(t.level, key, nodes)
  entries = b.add(len(rows), layer, "table", ordered=len(t.shape) > 1)
  ends = np.meshgrid(entries, nodes, indexing="ij")
  b.connect(ends[0].ravel(), ends[1].ravel(), layer, "table", rows.ravel())


def _skip(b: _Builder, source: int, target: int) -> None:
  """Adds edges of value 1 for a residual connection.

  Of layers of different widths, the channels that both have are added.

  Raises:
    ValueError: the two layers have no neurons in common.
  """
  is_there = False
  for (level, key), nodes in list(b.at.items()):
    if level != target:
      continue
    start = b.branches.get((source + 1, key), b.at.get((source, key)))
    if start is None or (key and len(start) != len(nodes)):
      continue
    both = min(len(start), len(nodes))
    layer = b.nodes[start[0]][0]
    b.connect(start[:both], nodes[:both], layer, "residual")
    is_there = True
  if not is_there:
    reason = (
      f"its residual connection from level {source} to level {target} adds"
      " neurons that are not the same"
    )
    raise interface.unsupported(NAME, b.spec, reason)


def _heads(b: _Builder, made: dict[str, np.ndarray]) -> None:
  """Joins queries and keys to the values of their heads."""
  parts = [
    [t for t in b.spec.tensors if t.kind == f"attention_{kind}"]
    for kind in "qkv"
  ]
  for q, k, v in zip(*parts, strict=True):
    of_heads = q.axes[0][:1]
    # Heads that are not known to be the same: all are joined to all.
    known = of_heads == k.axes[0][:1] == v.axes[0][:1]
    heads = of_heads[0].size if known and len(q.axes[0]) > 1 else 1
    values = made[v.name].reshape(heads, -1)
    asked = [made[q.name], made[k.name]]
    if asked[0] is asked[1]:
      asked = asked[:1]
    for nodes in asked:
      rows = nodes.reshape(heads, -1)
      source = np.repeat(rows, values.shape[1], axis=1)
      target = np.tile(values, (1, rows.shape[1]))
      place = np.array([[0, -1, -1]])  # Told from residual connections.
      b.connect(
        source.ravel(),
        target.ravel(),
        b.layer(q.level),
        "residual",
        place=place,
      )
