"""Message passing on the graph of a network: PNA with edges that modulate.

Dimensions: as in `graph_batches`; `F` width.

References:
  Kofinas et al., ICLR 2024, arXiv:2403.12143, and the authors' code; Corso et
  al., Principal Neighbourhood Aggregation, NeurIPS 2020, arXiv:2004.05718.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders import segments
from sne_jax.encoders.batches import joining
from sne_jax.encoders.graphs import featuriser
from sne_jax.encoders.graphs.graph_batches import Measured
from sne_jax.networks.checked import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuralGraphOptions(featuriser.GraphOptions):
  """Options of neural_graph.

  Attributes:
    width: of nodes, edges and the code.
    layers: rounds of message passing, at least 1.
    input_layers: layers that embed a value.
    norm: of nodes between rounds: layer (each node on its own), none, or batch
      (over all nodes and channels of the batch, as the authors' code does:
      codes then depend on batch mates).
    readout_layers: dense layers after the readout.
  """

  layers: int = option(4, least=1)
  reverse: bool = True
  input_layers: int = option(1, least=1)
  norm: str = option("layer", choices=("layer", "batch", "none"))
  readout_layers: int = option(1, least=0)


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
    least = segments.extreme(jax.ops.segment_min, message, target, count)
    most = segments.extreme(jax.ops.segment_max, message, target, count)
    pooled = jnp.concatenate([mean, least, most, spread], axis=-1)
    pooled = jnp.where(degree > 0, pooled, 0)
    pooled = [pooled, pooled * (jnp.log(degree + 1) / self.delta)]
    post = nn.Dense(self.width, name="post_nns_0_0")
    x = post(jnp.concatenate([x, *pooled], axis=-1))
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

  @nn.compact
  def __call__(self, x, e, source, target, real):
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
      x = nn.silu(x)
      update = EdgeUpdate(self.edge_width, name=f"edge_update_{number}")
      e = update(x, e, source, target)
    return x, e


class NeuralGraph(nn.Module):
  """Encodes networks of any architectures as `[B, D]`."""

  options: NeuralGraphOptions
  measured: Measured

  def setup(self):
    """Builds the parts."""
    o, m = self.options, self.measured
    self.featuriser = featuriser.Featuriser(o, o.width, m, 3.0, o.input_layers)
    self.body = PNA(o.width, o.width, o.layers, m.delta, o.norm)
    self.readout = featuriser.Readout(
      o.readout, m.outputs, o.width, o.readout_layers
    )

  def equivariant(self, batch: joining.Joined):
    """Returns nodes `[N, V]` and edges."""
    x, e, _ = self.featuriser(batch)
    source, target = featuriser.links(
      batch, self.options.reverse, "source", "target"
    )
    return self.body(x, e, source, target, batch.tables["nodes"]["real"])

  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    return self.readout(batch, self.equivariant(batch)[0])
