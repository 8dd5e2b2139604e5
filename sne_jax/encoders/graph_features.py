"""Graphs of any networks in one batch, and their first features.

Dimensions: `T` weights of a batch, `N` nodes, `E` edges, `B` networks, `K`
values of an edge, `V` and `W` widths of nodes and edges, `q` frequencies.

Reference: Kofinas et al., Graph Neural Networks for Learning Equivariant
Representations of Neural Networks, ICLR 2024, arXiv:2403.12143, and the
authors' code, whose names the parameters have.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.encoders import graphs, interface, joining
from sne_jax.encoders import probes as probes_lib
from sne_jax.networks import scales
from sne_jax.networks.spec import NetworkSpec

REFS = {
  ("networks", "probe_start"): "weights",
  ("nodes", "network"): "networks",
  ("nodes", "value"): "weights",
  ("edges", "network"): "networks",
  ("edges", "source"): "nodes",
  ("edges", "target"): "nodes",
  ("edges", "index"): "weights",
  ("outputs", "node"): "nodes",
}


def packer(
  specs: Sequence[NetworkSpec],
  places: int,
  *,
  dense: bool,
  probes: int = 0,
  outputs: int = 0,
  activations: Sequence[str] = (),
) -> joining.Packer:
  """Returns the packer of graphs.

  Args:
    specs: the architectures at hand.
    places: values of an edge.
    dense: pad the nodes of every network to the most that a spec has, for
      arrays of all pairs.
    probes: above 0: with the columns that running them takes.
    outputs: above 0: of every network, as a code of the output nodes needs it.
    activations: names that are marked at hidden nodes.

  Raises:
    ValueError: of `probes.check`, or a network has another number of outputs.
  """
  probes_lib.check("probes", probes, specs)
  for spec in specs if outputs else ():
    found = int((graphs.graph_of(spec, places).role == graphs.OUTPUT).sum())
    if found != outputs:
      raise ValueError(
        f"readout is last, for networks of {outputs} outputs, but"
        f" {spec.describe()} has {found}; train with readout pool, which reads"
        " any"
      )
  plan = probes_lib.Plan(specs) if probes else None
  widest = 0
  if dense:
    widest = max(len(graphs.graph_of(s, places).value) for s in specs)
  return joining.Packer(
    specs,
    functools.partial(describe, places, plan, tuple(activations)),
    refs=REFS,
    shared={"dense": {"node": np.arange(widest)}} if dense else {},
    by_layout=plan is None and not activations,
  )


def describe(
  places: int,
  plan: probes_lib.Plan | None,
  activations: tuple[str, ...],
  spec: NetworkSpec,
) -> joining.Tables:
  """Returns what a network of a spec brings into a batch."""
  g = graphs.graph_of(spec, places)
  count, links = len(g.value), len(g.source)
  outputs = np.flatnonzero(g.role == graphs.OUTPUT).astype(np.int32)
  return {
    "weights": {
      "scale": scales.fan_in_root(spec),
      "place": scales.place_of(spec),
      "level": np.repeat(
        np.array([t.level for t in spec.tensors], np.int32),
        [t.size for t in spec.tensors],
      ),
    },
    "nodes": {
      "network": np.zeros(count, np.int32),
      "local": np.arange(count, dtype=np.int32),
      "value": g.value,
      "has_value": g.has_value,
      "role": g.role,
      "number": g.number,
      "degree": np.bincount(g.target, minlength=count).astype(np.float32),
    }
    | (plan.nodes(spec) if plan else {})
    | ({"activation": _marks(g, spec, activations)} if activations else {}),
    "edges": {
      "network": np.zeros(links, np.int32),
      "source": g.source,
      "target": g.target,
      "local_source": g.source.copy(),
      "local_target": g.target.copy(),
      "index": g.index,
      "mask": g.mask,
      "constant": g.constant,
      "kind": g.kind,
      "part": g.part,
    },
    "outputs": {"node": outputs},
    "networks": plan.network(spec) if plan else {},
  }


def _marks(
  g: graphs.Graph, spec: NetworkSpec, activations: tuple[str, ...]
) -> np.ndarray:
  """Returns the activation behind each hidden node, by number; -1: none known.

  Inputs and outputs have no mark, nor has an activation without a name here.
  """
  known = [
    activations.index(a) if a in activations else -1 for a in spec.activations
  ]
  marks = np.array(known or [-1], np.int32)
  level = np.minimum(g.number, len(marks) - 1)
  return np.where(g.role == graphs.HIDDEN, marks[level], -1).astype(np.int32)


def measure(
  networks: Sequence[interface.Network], probes: int = 0
) -> dict[str, Any]:
  """Measures training networks: sizes of weights, and of their graphs.

  Args:
    networks: the training networks.
    probes: how many they are to be run on.

  Returns:
    Scales of weights; `places` of an edge; rows of the position table for
    inputs, hidden levels and outputs; `outputs` if all have as many, else 0;
    `parts` of parallel edges; names of `activations`; and `delta`, the mean of
    log(degree + 1).

  Raises:
    ValueError: of `probes.check`.
  """
  specs = dict.fromkeys(spec for spec, _ in networks)
  probes_lib.check("probes", probes, tuple(specs))
  places = max(graphs.places_of(spec) for spec in specs)
  found = {spec: graphs.graph_of(spec, places) for spec in specs}
  logs, nodes = 0.0, 0
  for spec, _ in networks:
    g = found[spec]
    degree = np.bincount(g.target, minlength=len(g.value))
    logs, nodes = logs + np.log(degree + 1).sum(), nodes + len(degree)

  def most(role):
    return max(
      int(g.number[g.role == role].max(initial=0)) + 1 for g in found.values()
    )

  outputs = {int((g.role == graphs.OUTPUT).sum()) for g in found.values()}
  return scales.described(networks, fan_in=True) | {
    "places": places,
    "positions": [most(graphs.INPUT), most(graphs.HIDDEN), most(graphs.OUTPUT)],
    "outputs": outputs.pop() if len(outputs) == 1 else 0,
    "parts": 1 + max(int(g.part.max()) for g in found.values()),
    "activations": sorted({a for spec in specs for a in spec.activations}),
    "delta": float(logs / nodes),
  }


class Featuriser(nn.Module):
  """Embeds the values of nodes and edges.

  Attributes:
    node_width: `V`.
    edge_width: `W`.
    places: `K`.
    positions: rows of the position table: inputs (one each), hidden levels
      (one each), outputs (one each). What is beyond takes the last row.
    parts: rows of the table of parallel edges.
    fourier: frequencies of Gaussian Fourier features; 0: none.
    fourier_scale: their deviation.
    input_layers: layers of the embedding.
    reverse: an edge has its value, that of the reverse edge and the sum, and
      reverse edges are among the edges.
    kinds: tables for the kinds of edges and for parallel edges.
    global_scale: root mean square of training weights.
    place_scales: the same by place; empty: `global_scale`.
    probes: inputs that networks are run on, for features of nodes; 0: none.
    activations: rows of the table of activations of hidden nodes; 0: none.
    dense_apart: edges of one value of a dense layer have an embedding of their
      own, where others hold kernels.
  """

  node_width: int
  edge_width: int
  places: int = 1
  positions: tuple[int, ...] = (1, 1, 1)
  parts: int = 1
  fourier: int = 0
  fourier_scale: float = 1.0
  input_layers: int = 1
  reverse: bool = False
  kinds: bool = True
  global_scale: float = 1.0
  place_scales: tuple[float, ...] = ()
  probes: int = 0
  activations: int = 0
  dense_apart: bool = False

  @nn.compact
  def __call__(self, batch: joining.Joined):
    """Returns nodes `[N, V]`, edges `[E, W]` and what no edge has, `[W]`.

    With `reverse`, `E` counts each edge twice; see `links`.
    """
    nodes, edges = batch.tables["nodes"], batch.tables["edges"]
    weights = self._scaled(batch)
    values = jnp.where(nodes["has_value"], weights[nodes["value"]], 0)[:, None]
    x = self._embedded("bias", values, self.node_width)
    if self.probes:
      probed = probes_lib.ProbeFeatures(
        self.probes, self.node_width, *self.positions[:2], name="probed"
      )
      x = x + probed(batch)
    x = nn.Dense(self.node_width, name="proj_node_in")(x)
    x = x + self._positions(nodes)
    if self.activations:
      marks = nn.Embed(self.activations, self.node_width, name="activation")
      found = marks(jnp.maximum(nodes["activation"], 0))
      x = x + jnp.where(jnp.asarray(nodes["activation"])[:, None] < 0, 0, found)
    raw = jnp.where(edges["mask"], weights[edges["index"]], 0)
    raw = raw + jnp.asarray(edges["constant"], raw.dtype)
    if self.reverse:
      none = jnp.zeros_like(raw)
      raw = jnp.concatenate(
        [
          jnp.concatenate([raw, none, raw], axis=-1),
          jnp.concatenate([none, raw, raw], axis=-1),
        ]
      )
    raw = jnp.concatenate([raw, jnp.zeros_like(raw[:1])])  # No edge.
    e = self._embedded("weight", raw, self.edge_width)
    e = nn.Dense(self.edge_width, name="proj_edge_in")(e)
    if self.dense_apart and self.places > 1:
      single = raw.reshape(len(raw), -1, self.places).sum(-1)
      single = self._embedded("dense", single, self.edge_width)
      single = nn.Dense(self.edge_width, name="proj_dense_in")(single)
      e = jnp.where(self._is_single(batch)[:, None], single, e)
    if self.kinds:
      kind, part = links(batch, self.reverse, "kind", "part")
      kinds = nn.Embed(graphs.NUM_KINDS, self.edge_width, name="kind")
      parts = nn.Embed(self.parts, self.edge_width, name="part")
      marks = kinds(jnp.asarray(kind))
      marks = marks + parts(jnp.minimum(part, self.parts - 1))
      e = e.at[:-1].add(marks)
    return x, e[:-1], e[-1]

  def _is_single(self, batch: joining.Joined):
    """Which edges, and at last no edge, hold one value of a dense layer."""
    kind, mask = links(batch, self.reverse, "kind", "mask")
    dense = kind == graphs.KINDS.index("linear_weight")
    return jnp.append(dense & (mask.sum(-1) == 1), False)

  def _scaled(self, batch: joining.Joined):
    table, weights = batch.tables["weights"], jnp.asarray(batch.weights)
    places = self.place_scales or (self.global_scale,) * len(scales.PLACES)
    divisor = jnp.asarray(places, weights.dtype)[table["place"]]
    return weights * jnp.asarray(table["scale"], weights.dtype) / divisor

  def _embedded(self, name: str, values, width: int):
    if self.fourier:
      draw = np.random.default_rng(len(name)).standard_normal(
        (self.fourier, values.shape[-1])
      )
      values = fourier(values, self.fourier_scale * draw)
    values = nn.Dense(width, name=f"proj_{name}_0")(values)
    for layer in range(1, self.input_layers):
      values = nn.Dense(width, name=f"proj_{name}_{layer}")(nn.silu(values))
    return values

  def _positions(self, nodes):
    """Rows: inputs, then hidden levels, then outputs."""
    sizes = np.array(self.positions)
    table = self.param(
      "pos_embed", nn.initializers.normal(1.0), (sizes.sum(), self.node_width)
    )
    first = jnp.asarray(np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    last = jnp.asarray(sizes - 1)
    role = jnp.asarray(nodes["role"])
    return table[first[role] + jnp.minimum(nodes["number"], last[role])]


def fourier(values, table):
  """Gaussian Fourier features, cosines first, of a table `[q, K]`."""
  angle = 2 * jnp.pi * values @ jnp.asarray(table, values.dtype).T
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def links(batch: joining.Joined, reverse: bool, *names: str):
  """Returns columns of the edges, those of the reversed ones behind them.

  `source` and `target` change places in the reversed ones.
  """
  edges = batch.tables["edges"]
  other = {"source": "target", "target": "source"}
  other |= {f"local_{a}": f"local_{b}" for a, b in other.items()}
  if not reverse:
    return [jnp.asarray(edges[name]) for name in names]
  return [
    jnp.concatenate([edges[name], edges[other.get(name, name)]])
    for name in names
  ]


class Readout(nn.Module):
  """Nodes to codes `[B, D]`.

  Attributes:
    kind: pool (means over outputs and over all nodes, for any networks) or
      last (the output nodes end to end; all networks have as many).
    outputs: of every network, for `last`.
    width: of the code.
    layers: dense layers, ReLU behind each.
  """

  kind: str
  outputs: int
  width: int
  layers: int = 1

  @nn.compact
  def __call__(self, batch: joining.Joined, x):
    """Returns the codes."""
    nodes = batch.tables["nodes"]
    found = x[batch.tables["outputs"]["node"]]
    count = len(batch.tables["networks"]["real"])
    if self.kind == "last":
      code = found[: count * self.outputs].reshape(count, -1)
    else:
      owner = jnp.where(
        jnp.asarray(batch.tables["outputs"]["real"]),
        jnp.asarray(nodes["network"])[batch.tables["outputs"]["node"]],
        count,
      )
      code = jnp.concatenate(
        [
          segment_mean(found, owner, count),
          segment_mean(x, jnp.asarray(nodes["network"]), count),
        ],
        axis=-1,
      )
    for layer in range(self.layers):
      code = nn.relu(nn.Dense(self.width, name=f"layer_{layer}")(code))
    return code


class EditHead(nn.Module):
  """Nodes and edges to a change of every weight, `[T]`: weight editing.

  Equivariant: permuted networks get permuted changes. Multiply by what you
  like; the learned scales, one for weights and one for biases of each level,
  start small, as in the authors' code.

  Attributes:
    places: values of an edge.
    levels: that have scales; what is beyond takes the last.
    scale: first value of the scales.
  """

  places: int
  levels: int = 1
  scale: float = 0.01

  @nn.compact
  def __call__(self, batch: joining.Joined, x, e):
    """Returns the change, of the order of `batch.weights`."""
    nodes, edges = batch.tables["nodes"], batch.tables["edges"]
    e = e[: len(edges["source"])]
    hidden = nn.relu(nn.Dense(e.shape[-1], name="edge_0")(e))
    found = nn.Dense(self.places, name="edge_1")(hidden)
    found = jnp.where(edges["mask"], found, 0)
    hidden = nn.relu(nn.Dense(x.shape[-1], name="node_0")(x))
    values = nn.Dense(1, name="node_1")(hidden)[:, 0]
    values = jnp.where(nodes["has_value"], values, 0)
    level = jnp.minimum(batch.tables["weights"]["level"], self.levels - 1)
    start = nn.initializers.constant(self.scale)
    zero = jnp.zeros(len(level), found.dtype)
    change = zero.at[edges["index"]].add(found, mode="drop")
    change *= self.param("weight_scale", start, (self.levels,))[level]
    biases = zero.at[nodes["value"]].add(values, mode="drop")
    biases *= self.param("bias_scale", start, (self.levels,))[level]
    return change + biases


def segment_mean(x, owner, count: int):
  """Means of the rows of each segment; zeros where it has none."""
  total = jax.ops.segment_sum(x, owner, count)
  number = jax.ops.segment_sum(jnp.ones_like(x[:, :1]), owner, count)
  return total / jnp.maximum(number, 1)
