"""The graph of a network: neurons as nodes, weights as edges along the data.

It depends on the spec alone. A layer gives nodes for its outputs; a weight is
an edge from the neuron that it reads to the one that it makes. An edge holds up
to `K` values, those of a kernel, centred; larger kernels, and the image places
after a flattening, become parallel edges with a number. A bias is the value
of its node. A norm is a diagonal layer: new nodes, an edge to each with its
scale, the shift as value (and for running statistics another such layer, of
variance and mean). A residual connection is edges of value 1. Class token and
position table are edges from nodes of their own, and so are embeddings: a
network that begins with one has no other inputs. The units of keys are joined
to those of queries, and these to the values of their head.

Dimensions: `N` nodes, `E` edges, `K` values of an edge, `P` weights.

References:
  Kofinas et al., Graph Neural Networks for Learning Equivariant
  Representations of Neural Networks, ICLR 2024, arXiv:2403.12143. What goes
  beyond dense and conv layers is our reading of it.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from sne_jax.encoders.graphs import neurons
from sne_jax.networks.spec import (
  KINDS,
  WEIGHT_KINDS,
  NetworkSpec,
  TensorSpec,
)

SKIP, JOIN = len(KINDS), len(KINDS) + 1
"""Kinds of edges that hold no weights: residual, and within attention."""
NUM_KINDS = len(KINDS) + 2
INPUT, HIDDEN, OUTPUT = range(3)


class Graph(NamedTuple):
  """The graph of a spec; indices into the flat vector are masked."""

  value: np.ndarray  # int32 [N], place of the node's bias
  has_value: np.ndarray  # bool [N]
  role: np.ndarray  # int32 [N]: INPUT, HIDDEN, OUTPUT
  number: np.ndarray  # int32 [N]: of an input or output; level if hidden
  group: np.ndarray  # int32 [N], its axis group among the spec's; -1: none
  source: np.ndarray  # int32 [E]
  target: np.ndarray  # int32 [E]
  index: np.ndarray  # int32 [E, K]
  mask: np.ndarray  # bool [E, K]
  constant: np.ndarray  # float32 [E, K], of edges without weights
  kind: np.ndarray  # int32 [E]
  part: np.ndarray  # int32 [E], number of a parallel edge


class _Builder(neurons.Ledger):
  """Collects nodes and edges."""

  def __init__(self, spec: NetworkSpec, places: int):
    super().__init__()
    self.spec, self.places = spec, places
    self.nodes: list[list[int]] = []  # [value, role, number, group]
    self.edges: list[tuple] = []  # (source, target, kind, part, index row)

  def add(self, count: int, role: int, first: int = 0, same: bool = False):
    """Adds nodes; numbered from `first`, or all `first` if `same`."""
    start = len(self.nodes)
    for place in range(count):
      self.nodes.append([-1, role, first if same else first + place, -1])
    return np.arange(start, start + count)

  def connect(self, source, target, kind: int, rows=None) -> None:
    """Adds edges; `rows [E, places]` of the flat vector, or value 1."""
    if rows is None:
      rows = np.full((len(source), 1), -2)
    for part, row in _parts(rows, self.places):
      block = np.stack([source, target], axis=1)
      self.edges.append((block, kind, part, row))

  def graph(self) -> Graph:
    """Returns what was collected."""
    nodes = np.array(self.nodes, np.int32)
    counts = [len(block) for block, *_ in self.edges]
    ends = np.concatenate([block for block, *_ in self.edges])
    index = np.concatenate([row for *_, row in self.edges]).astype(np.int32)
    repeat = lambda place: np.repeat(
      np.array([edge[place] for edge in self.edges], np.int32), counts
    )
    return Graph(
      value=np.maximum(nodes[:, 0], 0),
      has_value=nodes[:, 0] >= 0,
      role=nodes[:, 1],
      number=nodes[:, 2],
      group=nodes[:, 3],
      source=ends[:, 0].astype(np.int32),
      target=ends[:, 1].astype(np.int32),
      index=np.maximum(index, 0),
      mask=index >= 0,
      constant=(index == -2).astype(np.float32),
      kind=repeat(1),
      part=repeat(2),
    )


def places_of(spec: NetworkSpec) -> int:
  """Returns the largest kernel of a spec, in values."""
  return max(
    (math.prod(t.shape[2:]) for t in spec.tensors if t.kind == "conv_weight"),
    default=1,
  )


@functools.lru_cache(maxsize=256)
def graph_of(spec: NetworkSpec, places: int) -> Graph:
  """Returns the graph of a network.

  Args:
    spec: the network.
    places: `K`, values of an edge.
  """
  b = _Builder(spec, places)
  kinds = (*WEIGHT_KINDS, "embedding")
  first = next((t for t in spec.tensors if t.kind in kinds), None)
  if first is not None and first.kind != "embedding":
    b.fixed.append((-1, b.add(neurons.of(first, 1)[1], INPUT)))
  follow: dict[str, np.ndarray] = {}  # Nodes that follow a weight, by its name.
  for t, start in zip(spec.tensors, spec.offsets, strict=True):
    index = np.arange(start, start + t.size).reshape(t.shape)
    if t.kind in WEIGHT_KINDS:
      follow[t.name] = _weight(b, t, index)
    elif t.kind.startswith("norm_"):
      _norm(b, t, index, follow)
    elif t.of is not None:
      _bias(b, t, index, follow[t.of])
    else:
      _table(b, t, index)
  for source, target in spec.skips:
    _skip(b, source, target)
  _attention(b, follow)
  return b.graph()


def _weight(b: _Builder, t: TensorSpec, index: np.ndarray) -> np.ndarray:
  """Adds the nodes that a weight makes and its edges."""
  into, out = neurons.of(t, 1)[0], neurons.of(t, 0)
  is_output = not out[0]
  nodes = b.add(
    out[1],
    OUTPUT if is_output else HIDDEN,
    0 if is_output else t.level,
    same=not is_output,
  )
  if len(out[0]) == 1 and out[0][0].group is not None:
    number = list(b.spec.groups).index(out[0][0].group)
    for node in nodes:
      b.nodes[node][3] = number
  rows = neurons.rows(t, index)
  sources = b.sources(t.level, into, rows.shape[1])
  if sources is None:
    sources = b.add(rows.shape[1], INPUT)  # Nothing is known to make them.
  pairs = np.meshgrid(nodes, sources, indexing="ij")
  b.connect(
    pairs[1].ravel(),
    pairs[0].ravel(),
    KINDS.index(t.kind),
    rows.reshape(-1, rows.shape[-1]),
  )
  b.note_made(t, out[0], nodes)
  return nodes


def _bias(b: _Builder, t: TensorSpec, index, nodes: np.ndarray) -> None:
  """Gives nodes their values."""
  for node, place in zip(nodes, index.ravel(), strict=True):
    b.nodes[node][0] = int(place)


def _norm(b: _Builder, t: TensorSpec, index, follow) -> None:
  """Adds a diagonal layer for a scale or variance, values for the others."""
  key, count = neurons.of(t, 0)
  name = t.of if t.of is not None else f"norm {t.level}"
  nodes = follow.get(name)
  if nodes is None:
    nodes = b.sources(t.level, key, count)
  if nodes is None:
    nodes = b.add(count, INPUT)  # Nothing is known to make them.
  if t.kind in ("norm_shift", "norm_mean"):
    target = nodes
    if b.nodes[target[0]][0] >= 0:  # Taken: one more diagonal layer.
      target = _diagonal(b, t, target, None)
    _bias(b, t, index, target)
  else:
    target = _diagonal(b, t, nodes, index.reshape(-1, 1))
  follow[name] = target
  if t.of is not None and t.branch:
    b.branches[t.level, key] = target
  else:
    b.note(t.level, key, target)


def _diagonal(b: _Builder, t: TensorSpec, nodes, rows) -> np.ndarray:
  """Adds nodes, each joined to one of the given."""
  target = b.add(len(nodes), HIDDEN, t.level, same=True)
  b.connect(nodes, target, KINDS.index(t.kind), rows)
  return target


def _table(b: _Builder, t: TensorSpec, index: np.ndarray) -> None:
  """Adds edges from nodes of their own: class token, positions, vectors."""
  rows = index.reshape(-1, t.shape[-1])
  key, count = neurons.of(t, len(t.shape) - 1)
  nodes = b.at.get((t.level, key))
  if nodes is None or len(nodes) != count:
    nodes = b.sources(t.level, key, count)
  if nodes is None:
    nodes = b.add(count, HIDDEN, t.level, same=True)
    b.note(t.level, key, nodes)
  entries = b.add(len(rows), INPUT)
  pairs = np.meshgrid(entries, nodes, indexing="ij")
  b.connect(
    pairs[0].ravel(),
    pairs[1].ravel(),
    KINDS.index(t.kind),
    rows.reshape(-1, 1),
  )


def _skip(b: _Builder, source: int, target: int) -> None:
  """Adds edges of value 1 for a residual connection."""
  for (level, key), nodes in list(b.at.items()):
    if level != target:
      continue
    start = b.branches.get((source + 1, key), b.at.get((source, key)))
    if start is not None and len(start) == len(nodes):
      b.connect(start, nodes, SKIP)


def _attention(b: _Builder, follow: dict[str, np.ndarray]) -> None:
  """Joins keys to queries and queries to the values of their heads."""
  tensors = b.spec.tensors
  by_kind = lambda kind: [t for t in tensors if t.kind == f"attention_{kind}"]
  for q, k, v in zip(by_kind("q"), by_kind("k"), by_kind("v"), strict=True):
    b.connect(follow[k.name], follow[q.name], JOIN)
    heads = q.axes[0][0].size if len(q.axes[0]) > 1 else 1
    queries = follow[q.name].reshape(heads, -1)
    values = follow[v.name].reshape(heads, -1)
    source = np.repeat(queries, values.shape[1], axis=1)
    target = np.tile(values, (1, queries.shape[1]))
    b.connect(source.ravel(), target.ravel(), JOIN)


def _parts(rows: np.ndarray, places: int):
  """Cuts values of edges into parts of `places`, the only one centred.

  Yields:
    The number of each part and its rows; -1 where there is no value.
  """
  count = rows.shape[1]
  if count <= places:
    out = np.full((len(rows), places), -1)
    side, wide = math.isqrt(count), math.isqrt(places)
    if side**2 == count and wide**2 == places:
      grid = out.reshape(-1, wide, wide)
      start = (wide - side) // 2
      grid[:, start : start + side, start : start + side] = rows.reshape(
        -1, side, side
      )
    else:
      out[:, (places - count) // 2 :][:, :count] = rows
    yield 0, out
    return
  for part, start in enumerate(range(0, count, places)):
    piece = rows[:, start : start + places]
    out = np.full((len(rows), places), -1)
    out[:, : piece.shape[1]] = piece
    yield part, out
