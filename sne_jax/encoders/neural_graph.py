"""Message passing on the graph of a network: PNA with edges that modulate.

Dimensions: as in `graph_features`; `F` width.

References:
  Kofinas et al., ICLR 2024, arXiv:2403.12143, and the authors' code; Corso et
  al., Principal Neighbourhood Aggregation, NeurIPS 2020, arXiv:2004.05718.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders import graph_features, interface, joining
from sne_jax.networks.checked import Checked, option

NORMS = ("layer", "batch", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuralGraphOptions(Checked):
  """Options of neural_graph.

  Attributes:
    width: of nodes, edges and the code.
    layers: rounds of message passing, at least 1.
    reverse: edges in both directions; the authors' scripts switch it on.
    fourier: frequencies of Gaussian Fourier features of values; 0: none.
    fourier_scale: their deviation.
    input_layers: layers that embed a value.
    probes: learned inputs that every network is run on; what its neurons answer
      are features of their nodes. Networks of dense layers (mlp, inr) only.
      0: none.
    kinds: learned marks of kinds of tensors and parts of large kernels.
    activations: learned marks of the activations behind hidden nodes, of those
      that training networks have (the authors' choice for CNNs).
    dense_apart: single values of dense layers have an embedding of their own
      beside that of kernels, instead of being kernels of one value.
    norm: of nodes between rounds: layer (each node on its own), none, or batch
      (over all nodes and channels of the batch, as the authors' code does:
      codes then depend on batch mates).
    readout: pool (means over outputs and over all nodes) or last (the output
      nodes end to end, the authors' way; as many in all networks).
    readout_layers: dense layers behind it.
    dropout: share of units dropped between rounds while training.
  """

  width: int = option(32, least=1)
  layers: int = option(4, least=1)
  reverse: bool = True
  fourier: int = option(0, least=0)
  fourier_scale: float = 3.0
  input_layers: int = option(1, least=1)
  probes: int = option(0, least=0)
  kinds: bool = True
  activations: bool = False
  dense_apart: bool = False
  norm: str = option("layer", choices=NORMS)
  readout: str = option("pool", choices=("pool", "last"))
  readout_layers: int = option(1, least=0)
  dropout: float = option(0.0, least=0, below=1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 3))
def segment_extreme(function, rows, owner, count: int):
  """Returns `function(rows, owner, count)`, the least or most of segments.

  Its derivative is shared equally among equal extremes, as JAX does it, but
  takes one sum over segments, where JAX's own takes about twice the time.
  """
  return function(rows, owner, count)


@segment_extreme.defjvp
def _segment_extreme_jvp(function, count, primals, tangents):
  rows, owner = primals
  extreme = segment_extreme(function, rows, owner, count)
  is_extreme = rows == extreme[owner]
  ties = jax.ops.segment_sum(is_extreme.astype(rows.dtype), owner, count)
  tangent = jnp.where(is_extreme, tangents[0], 0)
  tangent = jax.ops.segment_sum(tangent, owner, count)
  return extreme, tangent / jnp.maximum(ties, 1)


class PNAConv(nn.Module):
  """One round of messages; no nonlinearity, no residual.

  Attributes:
    width: `F`.
    delta: mean of log(degree + 1) over the nodes of training networks.
  """

  width: int
  delta: float

  @nn.compact
  def __call__(self, x, e, source, target):
    """Returns new nodes `[N, F]`.

    Args:
      x: nodes.
      e: edges.
      source: int [E], node that an edge leaves.
      target: int [E], node that it reaches; N where there is no edge.
    """
    count = len(x)
    scale, shift = jnp.split(
      nn.Dense(2 * self.width, name="edge_encoder")(e), 2, axis=-1
    )
    pre = Split(self.width, name="pre_nns_0_0")
    at_target, at_source = pre(x, x)  # One product per node, not per edge.
    message = scale * (at_target[target] + at_source[source]) + shift
    degree = jax.ops.segment_sum(jnp.ones_like(e[:, :1]), target, count)
    share = 1 / jnp.maximum(degree, 1)
    mean = jax.ops.segment_sum(message, target, count) * share
    square = jax.ops.segment_sum(message**2, target, count) * share
    spread = jnp.maximum(square - mean**2, 1e-5)
    spread = jnp.where(spread > 1e-5, jnp.sqrt(spread), 0)
    least = segment_extreme(jax.ops.segment_min, message, target, count)
    most = segment_extreme(jax.ops.segment_max, message, target, count)
    found = jnp.concatenate([mean, least, most, spread], axis=-1)
    found = jnp.where(degree > 0, found, 0)
    found = jnp.concatenate(
      [found, found * (jnp.log(degree + 1) / self.delta)], axis=-1
    )
    post = nn.Dense(self.width, name="post_nns_0_0")
    x = post(jnp.concatenate([x, found], axis=-1))
    return nn.Dense(self.width, name="lin")(x)


class Split(nn.Module):
  """A dense map of two inputs side by side, as two sums."""

  width: int

  @nn.compact
  def __call__(self, first, second):
    """Returns the parts of `[first; second] W + b`, the bias in the first."""
    size = first.shape[-1]
    kernel = self.param(
      "kernel",
      nn.initializers.lecun_normal(),
      (size + second.shape[-1], self.width),
    )
    bias = self.param("bias", nn.initializers.zeros, (self.width,))
    return first @ kernel[:size] + bias[None], second @ kernel[size:]


class EdgeUpdate(nn.Module):
  """New edges from an edge and its two nodes."""

  width: int

  @nn.compact
  def __call__(self, x, e, source, target):
    """Returns new edges `[E, width]`."""
    hidden = nn.Dense(self.width, name="lin_e")(e)
    hidden = hidden + nn.Dense(self.width, name="lin_s")(x)[source]
    hidden = hidden + nn.Dense(self.width, name="lin_t")(x)[target]
    return nn.Dense(self.width, name="lin1")(nn.silu(hidden))


class WholeNorm(nn.Module):
  """Norm over all real nodes and channels of a batch; for reproduction."""

  @nn.compact
  def __call__(self, x, real):
    """Returns the normed nodes."""
    scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
    real = jnp.asarray(real)[:, None]
    mean = jnp.mean(x, where=real)
    deviation = jnp.sqrt(jnp.mean((x - mean) ** 2, where=real))
    return (x - mean) / (deviation + 1e-5) * scale[None] + bias[None]


class PNA(nn.Module):
  """Rounds of messages, with norms and edge updates between them."""

  width: int
  edge_width: int
  layers: int
  delta: float
  norm: str = "layer"
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, e, source, target, real, deterministic: bool = True):
    """Returns new nodes and edges; edges are not updated after the last."""
    for number in range(self.layers):
      conv = PNAConv(self.width, self.delta, name=f"convs_{number}")
      x = conv(x, e, source, target)
      if number + 1 == self.layers:
        break
      if self.norm == "batch":
        x = WholeNorm(name=f"norms_{number}")(x, real)
      elif self.norm == "layer":
        x = nn.LayerNorm(epsilon=1e-5, name=f"norms_{number}")(x)
      x = nn.Dropout(self.dropout)(nn.silu(x), deterministic)
      update = EdgeUpdate(self.edge_width, name=f"edge_update_{number}")
      e = update(x, e, source, target)
    return x, e


class NeuralGraph(nn.Module):
  """Encodes networks of any architectures as `[B, D]`."""

  options: NeuralGraphOptions
  measured: tuple[tuple[str, Any], ...]

  def setup(self):
    """Builds the parts."""
    o, m = self.options, dict(self.measured)
    self.featuriser = graph_features.Featuriser(
      o.width,
      o.width,
      m["places"],
      m["positions"],
      m["parts"],
      o.fourier,
      o.fourier_scale,
      o.input_layers,
      o.reverse,
      o.kinds,
      m["global_scale"],
      m["place_scales"],
      o.probes,
      len(m["activations"]) if o.activations else 0,
      o.dense_apart,
    )
    self.body = PNA(o.width, o.width, o.layers, m["delta"], o.norm, o.dropout)
    self.readout = graph_features.Readout(
      o.readout, m["outputs"], o.width, o.readout_layers
    )

  def equivariant(self, batch: joining.Joined, deterministic: bool = True):
    """Returns nodes and edges; for `graph_features.EditHead`, for example."""
    x, e, _ = self.featuriser(batch)
    source, target = graph_features.links(
      batch, self.options.reverse, "source", "target"
    )
    real = batch.tables["nodes"]["real"]
    return self.body(x, e, source, target, real, deterministic)

  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    return self.readout(batch, self.equivariant(batch, deterministic)[0])


def measure(
  options: NeuralGraphOptions, networks: Sequence[interface.Network]
) -> dict[str, Any]:
  """See `graph_features.measure`.

  Raises:
    ValueError: `readout` is last, but networks differ in outputs.
  """
  found = graph_features.measure(networks, options.probes)
  check_readout(options.readout, found)
  return found


def check_readout(readout: str, measured: Mapping[str, Any]) -> None:
  """Raises `ValueError` where the output nodes cannot be laid end to end."""
  if readout == "last" and not measured["outputs"]:
    raise ValueError(
      "readout is last, but the training networks differ in their number of"
      " outputs; choose readout pool"
    )


def hashable(measured: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
  """Returns what graph encoders measure as a field of a module."""
  names = ("global_scale", "place_scales", "places", "positions", "parts")
  # Runs of before there were marks of activations have measured none.
  found = {"activations": ()} | dict(measured)
  return tuple(
    (n, tuple(v) if isinstance(v := found[n], list) else v)
    for n in (*names, "outputs", "delta", "activations")
  )


def build(
  options: NeuralGraphOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  """Builds the encoder."""
  return interface.Encoder(
    make_packer=lambda specs: graph_features.packer(
      specs,
      measured["places"],
      dense=False,
      probes=options.probes,
      outputs=measured["outputs"] if options.readout == "last" else 0,
      activations=measured["activations"] if options.activations else (),
    ),
    module=NeuralGraph(options, hashable(measured), name="encoder"),
  )
