"""First features of the graphs of networks, and what reads their last ones.

Dimensions: as in `graph_batches`; `V` and `W` widths of nodes and edges, `q`
frequencies.

Reference: Kofinas et al., Graph Neural Networks for Learning Equivariant
Representations of Neural Networks, ICLR 2024, arXiv:2403.12143, and the
authors' code, whose names the parameters have.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from sne_jax.encoders import interface, scaling, segments
from sne_jax.encoders.batches import joining
from sne_jax.encoders.graphs import graph, graph_batches
from sne_jax.encoders.graphs import probe_inputs as probes
from sne_jax.encoders.graphs.graph_batches import Measured
from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphOptions(Checked):
  """Options that encoders of graphs share.

  Attributes:
    width: of nodes and of the code.
    reverse: edges in both directions, each of which has the value of the other
      too; the authors' scripts of the GNN switch it on.
    fourier: frequencies of Gaussian Fourier features of values; 0: none.
    probes: learned inputs that every network is run on; what its neurons answer
      are features of their nodes. Networks of dense layers (mlp, inr) only.
      0: none.
    kinds: learned marks of kinds of tensors and parts of large kernels.
    activations: learned marks of the activations after hidden nodes, of those
      that training networks have (the authors' choice for CNNs).
    dense_apart: single values of dense layers have an embedding of their own
      beside that of kernels, instead of being kernels of one value.
    readout: pool (means over outputs and over all nodes) or last (the output
      nodes, concatenated, the authors' way; as many in all networks).
  """

  width: int = option(32, least=1)
  reverse: bool = False
  fourier: int = option(0, least=0)
  probes: int = option(0, least=0)
  kinds: bool = True
  activations: bool = False
  dense_apart: bool = False
  readout: str = option("pool", choices=("pool", "last"))


def row(
  module: Callable[..., nn.Module], *, dense: bool, **words: Any
) -> interface.Row:
  """Returns the row of an encoder of graphs.

  Args:
    module: from its options, `GraphOptions`, and `Measured` to its module.
    dense: see `graph_batches.packer`.
    **words: what else the row says.
  """

  def measure(options, networks):
    measured = graph_batches.measure(networks, options.probes)
    if options.readout == "last" and not measured["outputs"]:
      raise ValueError(
        "readout is last, but the training networks differ in their number of"
        " outputs; choose readout pool"
      )
    return measured

  def build(options, measured):
    m = Measured.of(measured)
    return interface.Encoder(
      make_packer=lambda specs: graph_batches.packer(
        specs,
        m.places,
        dense=dense,
        num_probes=options.probes,
        outputs=m.outputs if options.readout == "last" else 0,
        activations=m.activations if options.activations else (),
      ),
      module=module(options, m, name="encoder"),
    )

  return interface.Row(
    accepts="any",
    measure=measure,
    build=build,
    has_probes=lambda options: options.probes > 0,
    **words,
  )


class Featuriser(nn.Module):
  """Embeds the values of nodes and edges.

  Attributes:
    options: of the encoder; with `reverse`, an edge has its value, that of the
      reverse edge and the sum, and reverse edges are among the edges.
    edge_width: `W`; `V` is the width of the options.
    measured: sizes of the tables. What is beyond an end takes the last row.
    fourier_scale: deviation of the frequencies.
    input_layers: layers of the embedding of a value.
  """

  options: GraphOptions
  edge_width: int
  measured: Measured
  fourier_scale: float = 1.0
  input_layers: int = 1

  @nn.compact
  def __call__(self, batch: joining.Joined):
    """Returns nodes `[N, V]`, edges `[E, W]` and what no edge has, `[W]`.

    With `reverse`, `E` counts each edge twice; see `links`.
    """
    weights = scaling.scaled(batch, self.measured.place_scales)
    return self._nodes(batch, weights), *self._edges(batch, weights)

  def _nodes(self, batch: joining.Joined, weights):
    """Embeds values, places, and what else is known of nodes."""
    o, nodes, width = self.options, batch.tables["nodes"], self.options.width
    values = jnp.where(nodes["has_value"], weights[nodes["value"]], 0)[:, None]
    x = self._embedded("bias", values, width)
    if o.probes:
      inputs, levels, _ = self.measured.positions
      x = x + probes.ProbeFeatures(
        o.probes, width, inputs, levels, name="probed"
      )(batch)
    x = nn.Dense(width, name="proj_node_in")(x)
    x = x + self._positions(nodes)
    if o.activations and self.measured.activations:
      count = len(self.measured.activations)
      marks = nn.Embed(count, width, name="activation")
      mark = marks(jnp.maximum(nodes["activation"], 0))
      x = x + jnp.where(jnp.asarray(nodes["activation"])[:, None] < 0, 0, mark)
    return x

  def _edges(self, batch: joining.Joined, weights):
    """Embeds values and kinds of edges, and of no edge."""
    o, m, width = self.options, self.measured, self.edge_width
    edges = batch.tables["edges"]
    raw = jnp.where(edges["mask"], weights[edges["index"]], 0)
    raw = raw + jnp.asarray(edges["constant"], raw.dtype)
    if o.reverse:
      none = jnp.zeros_like(raw)
      raw = jnp.concatenate(
        [
          jnp.concatenate([raw, none, raw], axis=-1),
          jnp.concatenate([none, raw, raw], axis=-1),
        ]
      )
    raw = jnp.concatenate([raw, jnp.zeros_like(raw[:1])])  # No edge.
    e = nn.Dense(width, name="proj_edge_in")(
      self._embedded("weight", raw, width)
    )
    if o.dense_apart and m.places > 1:
      single = raw.reshape(len(raw), -1, m.places).sum(-1)
      single = self._embedded("dense", single, width)
      single = nn.Dense(width, name="proj_dense_in")(single)
      e = jnp.where(self._is_single(batch)[:, None], single, e)
    if o.kinds:
      kind, part = links(batch, o.reverse, "kind", "part")
      marks = nn.Embed(graph.NUM_KINDS, width, name="kind")(kind)
      parts = nn.Embed(m.parts, width, name="part")
      e = e.at[:-1].add(marks + parts(jnp.minimum(part, m.parts - 1)))
    return e[:-1], e[-1]

  def _is_single(self, batch: joining.Joined):
    """Which edges, and at last no edge, hold one value of a dense layer."""
    kind, mask = links(batch, self.options.reverse, "kind", "mask")
    dense = kind == graph.KINDS.index("linear_weight")
    return jnp.append(dense & (mask.sum(-1) == 1), False)

  def _embedded(self, name: str, values, width: int):
    if self.options.fourier:
      draw = np.random.default_rng(len(name)).standard_normal(
        (self.options.fourier, values.shape[-1])
      )
      values = fourier(values, self.fourier_scale * draw)
    values = nn.Dense(width, name=f"proj_{name}_0")(values)
    for layer in range(1, self.input_layers):
      values = nn.Dense(width, name=f"proj_{name}_{layer}")(nn.silu(values))
    return values

  def _positions(self, nodes):
    """Rows: inputs, then hidden levels, then outputs."""
    sizes = np.array(self.measured.positions)
    shape = (sizes.sum(), self.options.width)
    table = self.param("pos_embed", nn.initializers.normal(1.0), shape)
    first = jnp.asarray(np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    last = jnp.asarray(sizes - 1)
    role = jnp.asarray(nodes["role"])
    return table[first[role] + jnp.minimum(nodes["number"], last[role])]


def fourier(values, table):
  """Gaussian Fourier features, cosines first, of a table `[q, K]`."""
  angle = 2 * jnp.pi * values @ jnp.asarray(table, values.dtype).T
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def links(batch: joining.Joined, reverse: bool, *names: str):
  """Returns columns of the edges, then those of the reversed ones.

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
      last (the output nodes, concatenated; all networks have as many).
    outputs: of every network, for `last`.
    width: of the code.
    layers: dense layers, each followed by ReLU.
  """

  kind: str
  outputs: int
  width: int
  layers: int = 1

  @nn.compact
  def __call__(self, batch: joining.Joined, x):
    """Returns the codes."""
    network, table = jnp.asarray(batch.tables["nodes"]["network"]), batch.tables
    outputs = x[table["outputs"]["node"]]
    count = len(table["networks"]["real"])
    if self.kind == "last":
      code = outputs[: count * self.outputs].reshape(count, -1)
    else:
      owner = jnp.where(
        table["outputs"]["real"], network[table["outputs"]["node"]], count
      )
      means = (
        segments.mean(outputs, owner, count),
        segments.mean(x, network, count),
      )
      code = jnp.concatenate(means, axis=-1)
    for layer in range(self.layers):
      code = nn.relu(nn.Dense(self.width, name=f"layer_{layer}")(code))
    return code
