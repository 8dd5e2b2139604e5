"""ScaleGMN: messages that know which neurons may change sign or scale.

A hidden neuron with an odd activation may change its sign, one with a
positively homogeneous activation its scale, if its readers undo it (which ones,
says `augment`). Features of nodes and edges transform with them, so that codes
are exactly invariant. What is ours: a node that may change neither has plain
perceptrons, so that one encoder reads networks of any activations; marks of
kinds of tensors multiply edges; `backward=bounded`; codes of any architectures.

Dimensions: as in `graph_batches`; `F` width, `X` any rows.

Reference: Kalogeropoulos et al., Scale Equivariant Graph Metanetworks, NeurIPS
2024, arXiv:2406.10685, and the authors' code.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.encoders import interface, scaling, segments
from sne_jax.encoders.batches import joining
from sne_jax.encoders.graphs import graph, graph_batches
from sne_jax.encoders.graphs.graph_batches import Measured
from sne_jax.networks import augment
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec

PERMUTED, SIGN, SCALE = range(3)
"""What a node may change, besides its place."""

_ENDS = (graph.INPUT, graph.OUTPUT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleGMNOptions(Checked):
  """Options of scale_gmn.

  Attributes:
    width: of nodes, edges and the code.
    layers: rounds of messages.
    reverse: messages against the data too.
    backward: how. bounded, ours: exactly invariant. For reproduction alone:
      published, as the authors' code, which takes a forward edge for its
      reciprocal: exact under signs alone, and scales change the codes;
      reciprocal, as their paper: exact, but diverges on CNNs, some of whose
      weights are so near 0 that what is made of 1 / w overflows.
    sign_map: what signs do not change of a vector. symmetrised: a perceptron
      of it and of its negative, added; abs: sizes.
    aggregation: of messages to a node: sum, as published, or mean, for networks
      much wider than those of training.
    readout: pool: means over hidden nodes, inputs and outputs, for any
      networks; full: hidden nodes are added up, inputs and outputs
      concatenated, as published (all networks must have as many).
    dropout: share of units dropped in perceptrons.
  """

  width: int = option(64, least=1)
  layers: int = option(4, least=1)
  reverse: bool = False
  backward: str = option(
    "bounded", choices=("bounded", "published", "reciprocal")
  )
  sign_map: str = option("symmetrised", choices=("symmetrised", "abs"))
  aggregation: str = option("sum", choices=("sum", "mean"))
  readout: str = option("pool", choices=("pool", "full"))
  dropout: float = option(0.0, least=0, below=1)

  activations: ClassVar[bool] = True
  """What may change depends on them: the table must not take them away."""


class Perceptron(nn.Module):
  """Linear, norm, SiLU, dropout, linear: the authors' order."""

  hidden: int
  width: int
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, deterministic: bool = True):
    """Maps `[X, I]` to `[X, width]`."""
    x = nn.LayerNorm(epsilon=1e-5, name="norm")(
      nn.Dense(self.hidden, name="fc0")(x)
    )
    x = nn.Dropout(self.dropout)(nn.silu(x), deterministic)
    return nn.Dense(self.width, name="fc1")(x)


class Invariant(nn.Module):
  """What remains of rows that may change sign or scale, each by its kind."""

  hidden: int
  sign_map: str
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, kind, deterministic: bool = True):
    """Maps `[X, I]`, of kind `[X]`, to `[X, I]`."""
    if self.sign_map == "abs":
      unsigned = jnp.abs(x)
    else:
      rho = Perceptron(self.hidden, x.shape[-1], self.dropout, name="rho")
      unsigned = rho(x, deterministic) + rho(-x, deterministic)
    # Exact for rows of any size, and of zeros: no number is added to the norm,
    # and no square is too small or large.
    peak = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    direction = x / jnp.where(peak > 0, peak, 1)
    square = jnp.sum(direction**2, axis=-1, keepdims=True)
    direction = direction / jnp.sqrt(jnp.where(peak > 0, square, 1))
    kind = jnp.asarray(kind)[:, None]
    x = jnp.where(kind == SCALE, direction, x)
    return jnp.where(kind == SIGN, unsigned, x)


class Equivariant(nn.Module):
  """Rows that change as what they are made from: `(W x) * phi(Inv(x))`."""

  width: int
  hidden: int
  sign_map: str
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, kind, deterministic: bool = True):
    """Maps `[X, I]`, of kind `[X]`, to `[X, width]`."""
    inv = Invariant(self.hidden, self.sign_map, self.dropout, name="inv")
    phi = Perceptron(self.hidden, self.width, self.dropout, name="phi")
    linear = nn.Dense(self.width, use_bias=False, name="linear")(x)
    return linear * phi(inv(x, kind, deterministic), deterministic)


def _is_reciprocal(options: ScaleGMNOptions) -> bool:
  """Whether edges against the data are others than those along it."""
  return options.reverse and options.backward == "reciprocal"


class Layer(nn.Module):
  """One round: messages, nodes, and edges."""

  options: ScaleGMNOptions
  is_last: bool

  @nn.compact
  def __call__(self, x, e, links, kind, is_end, deterministic: bool):
    """Returns new nodes `[N, F]` and edges.

    Args:
      x: nodes.
      e: edges `[E, F]`, those along the data and those against it.
      links: source and target `[E]`; beyond the last where there is none.
      kind: of the nodes.
      is_end: bool [N], inputs and outputs: they change nothing.
      deterministic: no dropout.
    """
    o, width, (source, target) = self.options, self.options.width, links
    sizes = (width, width, o.sign_map, o.dropout)
    along, against = e
    product = nn.Dense(width, use_bias=False, name="value")(x)[source]
    product = product * nn.Dense(width, use_bias=False, name="edge")(along)
    message = Equivariant(*sizes, name="message")(
      product, kind[target], deterministic
    )
    plain = Perceptron(width, width, o.dropout, name="end_message")
    message = jnp.where(
      is_end[target][:, None], plain(product, deterministic), message
    )
    parts = [x, self._pooled(message, target, len(x))]
    if o.reverse:
      back = self._backward(x, against, links, kind, sizes, deterministic)
      parts.append(self._pooled(back, source, len(x)))
    joined = jnp.concatenate(parts, axis=-1)
    new = Equivariant(*sizes, name="update")(joined, kind, deterministic)
    plain = Perceptron(width, width, o.dropout, name="end_update")
    new = jnp.where(is_end[:, None], plain(joined, deterministic), new)
    if self.is_last:
      return new, e
    inv = Invariant(width, o.sign_map, o.dropout, name="edge_inv")
    known = inv(new, kind, deterministic)

    def updated(e, name: str, ends):
      both = jnp.concatenate([known[end] for end in ends], axis=-1)
      phi = Perceptron(width, width, o.dropout, name=f"{name}phi")
      linear = nn.Dense(width, use_bias=False, name=f"{name}linear")(e)
      return linear * phi(both, deterministic)

    along = updated(along, "edge_", (source, target))
    if not _is_reciprocal(o):
      return new, (along, along)
    return new, (along, updated(against, "back_edge_", (target, source)))

  def _pooled(self, messages, owner, count: int):
    if self.options.aggregation == "mean":
      return segments.mean(messages, owner, count)
    return jax.ops.segment_sum(messages, owner, count)

  def _backward(self, x, e, links, kind, sizes, deterministic):
    """Returns messages `[E, F]` to the sources of edges."""
    source, target = links
    width = self.options.width
    dense = lambda name: nn.Dense(width, use_bias=False, name=name)
    if self.options.backward != "bounded":
      product = dense("back_value")(x)[target] * dense("back_edge")(e)
      return Equivariant(*sizes, name="back_message")(
        product, kind[source], deterministic
      )
    # Both change as the target does, so what they are together is invariant;
    # the factor of the source makes the message change as the source does.
    sent = dense("back_value")(x)[source] * dense("back_edge")(e)
    both = jnp.concatenate([sent, dense("back_reader")(x)[target]], axis=-1)
    inv = Invariant(width, self.options.sign_map, name="back_inv")
    phi = Perceptron(width, width, self.options.dropout, name="back_phi")
    known = phi(inv(both, kind[target], deterministic), deterministic)
    return dense("back_source")(x)[source] * known


class ScaleGMN(nn.Module):
  """Encodes networks of any architectures as `[B, D]`."""

  options: ScaleGMNOptions
  measured: Measured
  ends: tuple[int, ...] = ()  # Inputs and outputs of every network, if equal.

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    o, nodes = self.options, batch.tables["nodes"]
    x, e = self._first(batch)
    edges = batch.tables["edges"]
    links = jnp.asarray(edges["source"]), jnp.asarray(edges["target"])
    kind = jnp.asarray(nodes["symmetry"])
    is_end = jnp.asarray(nodes["role"]) != graph.HIDDEN
    for number in range(o.layers):
      layer = Layer(o, number + 1 == o.layers, name=f"layer_{number}")
      x, e = layer(x, e, links, kind, is_end, deterministic)
    inv = Invariant(o.width, o.sign_map, o.dropout, name="inv")
    known = jnp.where(is_end[:, None], x, inv(x, kind, deterministic))
    code = self._pooled(batch, x, known)
    return Perceptron(o.width, o.width, o.dropout, name="readout")(
      code, deterministic
    )

  def _first(self, batch: joining.Joined):
    """Returns the first nodes and edges: biases and weights, and marks.

    Edges are those along the data and those against it.
    """
    m, width = self.measured, self.options.width
    nodes, edges = batch.tables["nodes"], batch.tables["edges"]
    weights = scaling.scaled(batch, m.place_scales)
    value = jnp.where(nodes["has_value"], weights[nodes["value"]], 0)
    role = jnp.asarray(nodes["role"])
    value = jnp.where(role == graph.INPUT, 1, value)[:, None]
    x = nn.Dense(width, use_bias=False, name="bias")(value)
    sizes = np.array(m.positions)
    first = jnp.asarray(np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    last = jnp.asarray(sizes - 1)
    place = first[role] + jnp.minimum(nodes["number"], last[role])
    places = nn.Embed(int(sizes.sum()), width, name="place")(place)
    # A hidden node may only be multiplied; and one without bias begins at 0.
    x = jnp.where((role == graph.HIDDEN)[:, None], x * places, x + places)
    raw = jnp.where(edges["mask"], weights[edges["index"]], 0)
    raw = raw + jnp.asarray(edges["constant"], raw.dtype)
    kinds = nn.Embed(graph.NUM_KINDS, width, name="kind")(edges["kind"])
    part = jnp.minimum(edges["part"], m.parts - 1)
    marks = 1 + kinds + nn.Embed(m.parts, width, name="part")(part)
    dense = lambda name: nn.Dense(width, use_bias=False, name=name)
    along = dense("weight")(raw) * marks
    if not _is_reciprocal(self.options):
      return x, (along, along)
    inverse = jnp.where(raw == 0, 0, 1 / jnp.where(raw == 0, 1, raw))
    return x, (along, dense("back_weight")(inverse) * marks)

  def _pooled(self, batch: joining.Joined, x, known):
    nodes, count = batch.tables["nodes"], len(batch.tables["networks"]["real"])
    role = jnp.asarray(nodes["role"])
    owner = lambda which: jnp.where(role == which, nodes["network"], count)
    if self.options.readout == "full":
      ends = []
      for which, size in zip(_ENDS, self.ends, strict=True):
        # Real nodes of a role are in the order of networks, all have as many.
        order = jnp.argsort(jnp.where(role == which, 0, 1), stable=True)
        ends.append(x[order[: count * size]].reshape(count, -1))
      hidden = jax.ops.segment_sum(known, owner(graph.HIDDEN), count)
      return jnp.concatenate([hidden, *ends], axis=-1)
    return jnp.concatenate(
      [
        segments.mean(known, owner(which), count)
        for which in (graph.HIDDEN, graph.INPUT, graph.OUTPUT)
      ],
      axis=-1,
    )


def packer(specs: Sequence[NetworkSpec], places: int) -> joining.Packer:
  """Returns the packer of graphs whose nodes say what they may change.

  Args:
    specs: the architectures at hand.
    places: values of an edge.
  """
  return joining.Packer(
    specs,
    functools.partial(describe, places),
    refs=graph_batches.REFS,
    seen_as=lambda spec: spec,
  )


def describe(places: int, spec: NetworkSpec) -> joining.Tables:
  """Returns what a network of a spec brings into a batch."""
  tables = graph_batches.describe(places, None, (), spec)
  kind = symmetries(spec, graph.graph_of(spec, places))
  nodes = {**tables["nodes"], "symmetry": kind}
  return {**tables, "nodes": nodes}


def symmetries(spec: NetworkSpec, g: graph.Graph) -> np.ndarray:
  """Returns what each node may change, `[N]`: PERMUTED, SIGN or SCALE."""
  kinds = [
    SIGN
    if group in augment.sign_groups(spec)
    else SCALE
    if group in augment.scale_groups(spec)
    else PERMUTED
    for group in spec.groups
  ]
  return np.array([*kinds, PERMUTED], np.int32)[g.group]


def _measure(
  options: ScaleGMNOptions, networks: Sequence[interface.Network]
) -> dict[str, Any]:
  """Measures sizes of weights and of graphs."""
  measured = graph_batches.measure(networks)
  found = set()
  for spec in dict.fromkeys(spec for spec, _ in networks):
    role = graph.graph_of(spec, measured["places"]).role
    found.add(tuple(int((role == which).sum()) for which in _ENDS))
  if options.readout == "full" and len(found) > 1:
    raise ValueError(
      "readout is full, but the training networks differ in their number of"
      " inputs or outputs; choose readout pool"
    )
  return measured | {"ends": list(found.pop()) if len(found) == 1 else []}


def _build(
  options: ScaleGMNOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  """Builds the encoder."""
  m, ends = Measured.of(measured), tuple(measured["ends"])

  def make_packer(specs):
    for spec in specs if options.readout == "full" else ():
      role = graph.graph_of(spec, m.places).role
      if tuple(int((role == which).sum()) for which in _ENDS) != ends:
        raise ValueError(
          f"readout is full, for networks of {ends[0]} inputs and {ends[1]}"
          f" outputs, and {spec.describe()} has others; train with readout"
          " pool, which reads any"
        )
    return packer(specs, m.places)

  return interface.Encoder(
    make_packer=make_packer,
    module=ScaleGMN(options, m, ends, name="encoder"),
  )


ROW = interface.Row(
  accepts="any",
  symmetry="exact, hidden neurons: permutations, and signs or scales by"
  " activation",
  options=ScaleGMNOptions,
  prefix="scale_gmn_",
  measure=_measure,
  build=_build,
)
