"""A value for every weight, from the edges and nodes of a network's graph.

A weight is a value of an edge, or of a node if it is a bias. After the messages
its value comes from the edge and the nodes at both ends, or from the node.

Dimensions: as in `graph_batches`; `V` and `W` widths of nodes and edges.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from sne_jax.encoders.batches import joining
from sne_jax.encoders.graphs import featuriser, message_passing
from sne_jax.encoders.graphs.graph_batches import Measured


class PerWeight(nn.Module):
  """Maps a batch of networks to `[T, 1]`.

  Attributes:
    encoder: its nodes and edges are taken, and its readout is not.
    places: values of an edge.
  """

  encoder: message_passing.NeuralGraph
  places: int

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Returns a value for every weight, `[T, 1]`."""
    o = self.encoder.options
    x, e = self.encoder.equivariant(batch)
    update = message_passing.EdgeUpdate(o.width, name="edge_update")
    e = nn.silu(update(x, e, *featuriser.links(batch, o.reverse, *_ENDS)))
    if o.reverse:  # Both directions of an edge are one weight's.
      e = jnp.concatenate(jnp.split(e, 2), axis=-1)
    of_edges = nn.Dense(self.places, name="edge")(e)  # [E, K]
    hidden = nn.silu(nn.Dense(o.width, name="node_hidden")(x))
    of_nodes = nn.Dense(1, name="node")(hidden)[:, 0]
    nodes, edges = batch.tables["nodes"], batch.tables["edges"]
    total = len(batch.weights)
    # What is no weight goes to a place of its own, beyond the last.
    at_edges = jnp.where(edges["mask"], edges["index"], total)
    at_nodes = jnp.where(nodes["has_value"], nodes["value"], total)
    values = jnp.zeros((total + 1,), of_edges.dtype)
    values = values.at[at_edges].add(of_edges).at[at_nodes].add(of_nodes)
    return values[:total, None]


_ENDS = ("source", "target")


def build(
  options: message_passing.NeuralGraphOptions, measured: Mapping[str, Any]
) -> nn.Module:
  """Returns the module of a value for every weight; see `interface.Row`."""
  m = Measured.of(measured)
  encoder = message_passing.NeuralGraph(options, m, name="encoder")
  return PerWeight(encoder, m.places)
