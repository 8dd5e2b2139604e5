"""The relational transformer on the graph of a network.

All pairs of nodes attend to one another; edges enter queries, keys and values,
and are updated from both of their ends. Memory grows with nodes squared.

Dimensions: `B` networks of up to `N` nodes; `V` and `W` widths of nodes and
edges, `A` width of attention, `h` heads.

References:
  Kofinas et al., ICLR 2024, arXiv:2403.12143, and the authors' code; Diao and
  Loynd, Relational Attention, ICLR 2023, arXiv:2210.05062.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders.batches import joining
from sne_jax.encoders.graphs import featuriser
from sne_jax.encoders.graphs.graph_batches import Measured
from sne_jax.networks.checked import option

Linear = functools.partial(
  nn.Dense, kernel_init=nn.initializers.xavier_uniform()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphTransformerOptions(featuriser.GraphOptions):
  """Options of neural_graph_transformer.

  Attributes:
    edge_width: of edges.
    attention_width: of attention, all heads together; a multiple of heads.
    node_hidden: hidden width of the nodes' feed-forward.
    edge_hidden: hidden width of the edges' update.
    heads: attention heads.
    layers: transformer layers, at least 1.
    modulate: edges scale values, besides shifting them.
  """

  edge_width: int = option(16, least=1)
  attention_width: int = option(32, least=1)
  node_hidden: int = option(64, least=1)
  edge_hidden: int = option(32, least=1)
  heads: int = option(4, least=1)
  layers: int = option(3, least=1)
  modulate: bool = True

  def __post_init__(self):
    super().__post_init__()
    if self.attention_width % self.heads:
      raise ValueError(
        f"attention_width is {self.attention_width}; must be a multiple of"
        f" heads {self.heads}"
      )


class GraphAttention(nn.Module):
  """Relational attention: edges enter queries, keys and values.

  Scores are divided by the root of the total width, as in the authors' code.
  """

  width: int
  heads: int
  modulate: bool = True

  @nn.compact
  def __call__(self, x, e, real):
    """Returns `[B, N, V]` from nodes, edges `[B, N, N, W]`, `real [B, N]`."""
    per_head = self.width // self.heads
    split = lambda y, parts: jnp.split(
      y.reshape(*y.shape[:-1], self.heads, parts * per_head), parts, axis=-1
    )
    parts = 4 if self.modulate else 3
    dense = functools.partial(Linear, use_bias=False)
    q, k, v = split(dense(3 * self.width, name="qkv_node")(x), 3)
    edges = split(dense(parts * self.width, name="qkv_edge")(e), parts)
    query = q[:, :, None] + edges[0]  # [B, N, N, h, A/h]
    key = k[:, None] + edges[1]
    logits = (query * key).sum(-1) * self.width**-0.5
    mask = real[:, None, :, None]
    logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    share = jnp.where(mask, jax.nn.softmax(logits, axis=2), 0)
    values = v[:, None]
    if self.modulate:
      values = edges[3] * values
    values = values + edges[2]
    answers = (share[..., None] * values).sum(axis=2)
    return Linear(x.shape[-1], name="proj_out")(
      answers.reshape(*answers.shape[:2], self.width)
    )


class EdgeMLP(nn.Module):
  """From an edge, its reverse and its two nodes."""

  hidden: int

  @nn.compact
  def __call__(self, x, e):
    """Returns `[B, N, N, W]`."""
    both = jnp.concatenate([e, jnp.swapaxes(e, 1, 2)], axis=-1)
    y = Linear(self.hidden, name="lin0_e")(both)
    y = y + Linear(self.hidden, name="lin0_s")(x)[:, :, None]
    y = y + Linear(self.hidden, name="lin0_t")(x)[:, None]
    return Linear(e.shape[-1], name="lin1")(nn.gelu(y, approximate=False))


class EdgeUpdates(nn.Module):
  """The edges' half of a layer."""

  hidden: int

  @nn.compact
  def __call__(self, x, e):
    """Returns new edges."""
    e = e + EdgeMLP(self.hidden, name="edge_mlp0")(x, e)
    e = nn.LayerNorm(epsilon=1e-5, name="eln0")(e)
    y = Linear(self.hidden, use_bias=False, name="edge_mlp1_0")(e)
    y = Linear(e.shape[-1], name="edge_mlp1_2")(nn.gelu(y, approximate=False))
    return nn.LayerNorm(epsilon=1e-5, name="eln1")(e + y)


class GraphLayer(nn.Module):
  """Attention, feed-forward, and the update of edges; each with its norm."""

  options: GraphTransformerOptions
  update_edges: bool = True

  @nn.compact
  def __call__(self, x, e, real):
    """Returns new nodes and edges."""
    o, width = self.options, x.shape[-1]
    answers = GraphAttention(
      o.attention_width, o.heads, o.modulate, name="self_attn"
    )(x, e, real)
    x = x + Linear(width, name="lin0")(answers)
    x = nn.LayerNorm(epsilon=1e-5, name="node_ln0")(x)
    y = Linear(o.node_hidden, use_bias=False, name="node_mlp_0")(x)
    y = Linear(width, name="node_mlp_2")(nn.gelu(y, approximate=False))
    x = nn.LayerNorm(epsilon=1e-5, name="node_ln1")(x + y)
    if self.update_edges:
      e = EdgeUpdates(o.edge_hidden, name="edge_updates")(x, e)
    return x, e


class GraphTransformer(nn.Module):
  """Encodes networks of any architectures as `[B, D]`."""

  options: GraphTransformerOptions
  measured: Measured

  def setup(self):
    """Builds the parts; the last layer's edges would be read by nothing."""
    o, m = self.options, self.measured
    self.featuriser = featuriser.Featuriser(o, o.edge_width, m)
    self.layers = [
      GraphLayer(o, number + 1 < o.layers) for number in range(o.layers)
    ]
    self.readout = featuriser.Readout(o.readout, m.outputs, o.width)

  def equivariant(self, batch: joining.Joined):
    """Returns nodes `[N, V]`."""
    place, pair, shape = self._places(batch)
    x, e, none = self.featuriser(batch)
    dense, real = _dense_nodes(x, place, shape)
    edges = _dense_edges(e, none, pair, shape)
    for layer in self.layers:
      dense, edges = layer(dense, edges, real)
    return dense.reshape(-1, dense.shape[-1])[place]

  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    return self.readout(batch, self.equivariant(batch))

  def _places(self, batch: joining.Joined):
    """Returns places of nodes and edges in dense arrays; padding is outside."""
    count = len(batch.tables["networks"]["real"])
    width = len(batch.tables["dense"]["node"])
    nodes = batch.tables["nodes"]
    place = jnp.asarray(nodes["network"]) * width + nodes["local"]
    place = jnp.where(nodes["real"], place, count * width)
    network, source, target, real = featuriser.links(
      batch,
      self.options.reverse,
      *("network", "local_source", "local_target", "real"),
    )
    pair = (network * width + source) * width + target
    pair = jnp.where(real, pair, count * width**2)
    return place, pair, (count, width)


def _dense_nodes(x, place, shape):
  """Returns nodes `[B, N, V]` and which are real."""
  count, width = shape
  dense = jnp.zeros((count * width, x.shape[-1]), x.dtype)
  dense = dense.at[place].set(x, mode="drop")
  real = jnp.zeros(count * width, bool).at[place].set(True, mode="drop")
  return dense.reshape(count, width, -1), real.reshape(count, width)


def _dense_edges(e, none, pair, shape):
  """Returns edges `[B, N, N, W]`; sums of parallel ones, `none` elsewhere."""
  count, width = shape
  total = jnp.zeros((count * width**2, e.shape[-1]), e.dtype)
  total = total.at[pair].add(e, mode="drop")
  number = jnp.zeros(count * width**2, bool).at[pair].set(True, mode="drop")
  dense = jnp.where(number[:, None], total, none[None])
  return dense.reshape(count, width, width, -1)
