"""Graph metanetworks: messages on the parameter graph, and codes of its edges.

Every weight is an edge with features, updated from those of its two ends; what
is predicted comes from edges. What is ours: weights are divided by their size
(`weight_scale`), so that wider networks look like those of training; and what
`parameter_graph` adds.

Dimensions: `T` weights of a batch, `N` nodes, `E` edges, `B` networks, `F`
width.

Reference: Lim et al., Graph Metanetworks for Processing Diverse Neural
Architectures, ICLR 2024, arXiv:2312.04501, and the authors' code, whose names
the parameters have.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.encoders import interface, scaling, segments
from sne_jax.encoders.batches import joining
from sne_jax.encoders.graphs import parameter_graph
from sne_jax.networks import scales
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec

_REFS = {
  ("nodes", "network"): "networks",
  ("edges", "network"): "networks",
  ("edges", "source"): "nodes",
  ("edges", "target"): "nodes",
  ("edges", "index"): "weights",
  ("edges", "tensor"): "tensors",
  ("tensors", "network"): "networks",
}
_FOURIER_SCALE = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class GMNOptions(Checked):
  """Options of gmn. The defaults are the authors', but for what is ours.

  Attributes:
    width: of nodes, edges and the code.
    layers: rounds of messages; the last updates edges alone.
    undirected: messages against the data too, along edges that are not marked
      as such; the weight of an edge is then read from both.
    fourier: Gaussian Fourier features of values, layers and places, instead of
      sines of learned frequencies.
    norms: a norm of first features, before they are mixed.
    aggregation: of messages to a node: mean, as published, for networks wider
      than those of training too, or sum.
    readout: edges: their mean; both: the means of edges and of nodes; tensors,
      ours: the mean of each tensor's mean, which does not change where wider
      layers have the most edges.
    attention: exact, ours, does not change under permutations of queries and
      keys, or values, within a head; published: queries, keys and values lead
      to the same neurons, no head is marked, and such permutations change the
      codes.
    weight_scale: place, ours: weights times the root of their fan-in, over the
      size that training networks have in that place; none: as they are, as
      published.
    dropout: share of units dropped in each round.
  """

  width: int = option(32, least=1)
  layers: int = option(4, least=1)
  undirected: bool = False
  fourier: bool = False
  norms: bool = False
  aggregation: str = option("mean", choices=("mean", "sum"))
  readout: str = option("edges", choices=("edges", "both", "tensors"))
  attention: str = option("exact", choices=("exact", "published"))
  weight_scale: str = option("place", choices=("place", "none"))
  dropout: float = option(0.0, least=0, below=1)


def _norm(name: str) -> nn.Module:
  return nn.LayerNorm(epsilon=1e-5, name=name)


class Waves(nn.Module):
  """Sines of numbers, of learned frequencies, or Fourier features."""

  width: int
  fourier: bool

  @nn.compact
  def __call__(self, numbers):
    """Maps `[X, I]` to `[X, width]`; to one less if `fourier` and odd."""
    if self.fourier:
      shape = (numbers.shape[-1], self.width // 2)
      draw = np.random.default_rng(shape[0]).standard_normal(shape)
      table = jnp.asarray(_FOURIER_SCALE * draw, numbers.dtype)
      angle = 2 * jnp.pi * numbers @ table
      return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    # As PyTorch draws them: sines of the first layer's 0 are not all 0.
    limit = numbers.shape[-1] ** -0.5
    uniform = lambda key, shape, dtype=jnp.float32: jax.random.uniform(
      key, shape, dtype, -limit, limit
    )
    dense = nn.Dense(
      self.width, kernel_init=uniform, bias_init=uniform, name="linear"
    )
    return jnp.sin(dense(numbers))


class First(nn.Module):
  """First features of nodes, or of edges."""

  options: GMNOptions
  kinds: int

  @nn.compact
  def __call__(self, numbers: Mapping[str, Any], kind):
    """Maps arrays `[X, I]` by name, and kinds `[X]`, to `[X, F]`."""
    o = self.options
    parts = [
      Waves(o.width, o.fourier, name=name)(array)
      for name, array in numbers.items()
    ]
    normal = nn.initializers.normal(1.0)
    embed = nn.Embed(self.kinds, o.width, embedding_init=normal, name="type")
    x = jnp.concatenate([*parts, embed(kind)], axis=-1)
    x = _norm("norm")(x) if o.norms else x
    x = nn.relu(nn.Dense(o.width, name="proj")(x))
    return nn.Dense(o.width, name="embed")(x)


class Joint(nn.Module):
  """A dense map of several rows side by side, each gathered after its map."""

  width: int

  @nn.compact
  def __call__(self, *parts):
    """Maps `(rows [Y, F], owner [X] or None)` to `[X, width]`."""
    sizes = [rows.shape[-1] for rows, _ in parts]
    lecun = nn.initializers.lecun_normal()
    kernel = self.param("kernel", lecun, (sum(sizes), self.width))
    bias = self.param("bias", nn.initializers.zeros, (self.width,))
    total, start = bias[None], 0
    for (rows, owner), size in zip(parts, sizes, strict=True):
      mapped = rows @ kernel[start : start + size]
      total = total + (mapped if owner is None else mapped[owner])
      start += size
    return total


class Block(nn.Module):
  """A round: edges from their ends, nodes from the edges that reach them."""

  options: GMNOptions
  is_last: bool

  @nn.compact
  def __call__(self, x, e, links, deterministic: bool):
    """Returns new nodes `[N, F]` and edges `[E, F]`.

    Args:
      x: nodes.
      e: edges.
      links: source and target `[E]`; beyond the last where there is none.
      deterministic: no dropout.
    """
    o, (source, target) = self.options, links
    joint = lambda name, *parts: nn.relu(Joint(o.width, name=name)(*parts))
    new_x = x if self.is_last else _norm("node_norm")(x)
    new_e = _norm("edge_norm")(e)
    new_e = joint("edge_model", (new_x, source), (new_x, target), (new_e, None))
    if not self.is_last:
      message = joint("message", (new_x, source), (new_e, None))
      mean = o.aggregation == "mean"
      pool = segments.mean if mean else jax.ops.segment_sum
      pooled = pool(message, target, len(x))
      new_x = joint("node_model", (new_x, None), (pooled, None))
      x = x + self._out(new_x, "node_mlp", deterministic)
    return x, e + self._out(new_e, "edge_mlp", deterministic)

  def _out(self, rows, name: str, deterministic: bool):
    o = self.options
    rows = nn.Dropout(o.dropout)(rows, deterministic)
    return nn.Dense(o.width, name=name)(nn.silu(rows))


class Body(nn.Module):
  """Nodes and edges of the networks of a batch, after all rounds."""

  options: GMNOptions
  place_scales: tuple[float, ...]

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Returns nodes `[N, F]` and edges `[E, F]`.

    Undirected, `E` counts each edge twice: then come the reversed ones.
    """
    o, nodes, edges = self.options, batch.tables["nodes"], batch.tables["edges"]
    weights = jnp.asarray(batch.weights)
    if o.weight_scale == "place":
      weights = scaling.scaled(batch, self.place_scales)
    value = jnp.where(edges["is_weight"], weights[edges["index"]], 1)
    column = lambda array: jnp.asarray(array, weights.dtype).reshape(
      len(array), -1
    )
    kinds = len(parameter_graph.NODE_KINDS), len(parameter_graph.EDGE_KINDS)
    x = First(o, kinds[0], name="nodes")(
      {name: column(nodes[name]) for name in ("layer", "order")}, nodes["kind"]
    )
    numbers = {"value": value[:, None]}
    numbers |= {name: column(edges[name]) for name in ("layer", "place")}
    e = First(o, kinds[1], name="edges")(numbers, edges["kind"])
    links = jnp.asarray(edges["source"]), jnp.asarray(edges["target"])
    if o.undirected:
      links = tuple(map(jnp.concatenate, (links, links[::-1])))
      e = jnp.concatenate([e, e])
    for number in range(o.layers):
      block = Block(o, number + 1 == o.layers, name=f"convs_{number}")
      x, e = block(x, e, links, deterministic)
    return x, e


class GMN(nn.Module):
  """Encodes networks of the architectures that graphs describe, `[B, D]`."""

  options: GMNOptions
  place_scales: tuple[float, ...]

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    o, tables = self.options, batch.tables
    count = len(tables["networks"]["real"])
    dense = lambda name: nn.Dense(o.width, name=name)
    x, e = Body(o, self.place_scales, name="body")(batch, deterministic)
    e = dense("final")(_norm("final_norm")(e))
    e = nn.relu(dense("pre_pool_e")(e))
    column = "tensor" if o.readout == "tensors" else "network"
    owner = jnp.asarray(tables["edges"][column])
    owner = jnp.concatenate([owner] * (1 + o.undirected))
    if o.readout == "tensors":
      e = segments.mean(e, owner, len(tables["tensors"]["real"]))
      owner = jnp.asarray(tables["tensors"]["network"])
    code = segments.mean(e, owner, count)
    if o.readout != "both":
      return nn.relu(dense("post_pool")(code))
    x = nn.relu(dense("pre_pool_x")(x))
    x = segments.mean(x, jnp.asarray(tables["nodes"]["network"]), count)
    code = _norm("post_norm_0")(jnp.concatenate([x, code], axis=-1))
    return _norm("post_norm_1")(nn.relu(dense("post_pool")(code)))


class PerWeight(nn.Module):
  """Maps a batch of networks to a value of every weight, `[T, 1]`.

  Running statistics of norms are no edges; theirs is 0.
  """

  options: GMNOptions
  place_scales: tuple[float, ...]

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Returns a value for every weight, `[T, 1]`."""
    o, edges = self.options, batch.tables["edges"]
    body = Body(o, self.place_scales, name="encoder")
    _, e = body(batch, deterministic)
    value = nn.Dense(1, name="final")(_norm("final_norm")(e))
    if o.undirected:
      value = jnp.stack(jnp.split(value, 2)).mean(axis=0)
    total = len(batch.weights)
    # What is no weight goes to a place of its own, beyond the last.
    place = jnp.where(edges["is_weight"], edges["index"], total)
    values = jnp.zeros((total + 1, 1), value.dtype)
    return values.at[place].add(value)[:total]


def describe(attention: str, spec: NetworkSpec) -> joining.Tables:
  """Returns what a network of a spec brings into a batch."""
  g = parameter_graph.graph_of(spec, attention)
  tensor = np.searchsorted(spec.offsets, g.index, side="right")
  # Edges without weights are one more tensor; those without edges are none.
  kept, tensor = np.unique(
    np.where(g.is_weight, tensor, 0), return_inverse=True
  )
  return {
    "weights": scaling.columns(spec),
    "tensors": {"network": np.zeros(len(kept), np.int32)},
    "nodes": {
      "network": np.zeros(len(g.layer), np.int32),
      "layer": g.layer,
      "order": g.order,
      "kind": g.kind,
    },
    "edges": {
      "network": np.zeros(len(g.source), np.int32),
      "source": g.source,
      "target": g.target,
      "index": g.index,
      "tensor": tensor.astype(np.int32),
      "is_weight": g.is_weight,
      "layer": g.edge_layer,
      "kind": g.edge_kind,
      "place": g.place,
    },
  }


def _measure(
  options: GMNOptions, networks: Sequence[interface.Network]
) -> dict[str, Any]:
  """Measures sizes of weights.

  Raises:
    ValueError: a network has a layer that parameter graphs do not describe.
  """
  for spec in dict.fromkeys(spec for spec, _ in networks):
    parameter_graph.graph_of(spec, options.attention)
  return scales.described(networks, fan_in=True)


def _module(kind, options: GMNOptions, measured: Mapping[str, Any], name=None):
  return kind(options, tuple(measured["place_scales"]), name=name)


def _build(
  options: GMNOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  """Builds the encoder."""
  return interface.Encoder(
    make_packer=lambda specs: joining.Packer(
      specs, functools.partial(describe, options.attention), refs=_REFS
    ),
    module=_module(GMN, options, measured, name="encoder"),
  )


ROW = interface.Row(
  accepts="any",
  needs="layers that parameter graphs describe: no convolutions of groups",
  symmetry="exact, hidden neurons",
  options=GMNOptions,
  prefix="gmn_",
  measure=_measure,
  build=_build,
  per_weight=functools.partial(_module, PerWeight),
)
