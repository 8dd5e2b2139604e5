"""The neuron rule: one set of chunks per neuron, with all that touches it.

A neuron's chunks hold its incoming weights (role in), its biases (bias), the
norm vectors that follow it (norm), and its outgoing weights (out): the columns,
at that neuron, of the weight tensors that read its group at the nearest later
level. So a weight between two hidden neurons stands in the chunks of both.

In a residual stream many tensors read one group; only the nearest readers
count, so that the cost stays linear in the depth. Outputs of the network have
no outgoing part, and neither have the rows of q and k, whose group no weight
reads. After a flattened image the outgoing weights of a channel are those of
all its places.

The rule is a choice of this library, not of the SNE paper.

Dimensions: `S` neurons of a tensor.
"""

import math

import numpy as np

from sne_jax.networks.chunking import cuts as cuts_lib
from sne_jax.networks.chunking import neurons as neurons_lib
from sne_jax.networks.chunking.cuts import Cut, Piece
from sne_jax.networks.chunking.neurons import Neurons
from sne_jax.networks.chunking.options import ChunkOptions
from sne_jax.networks.spec import NetworkSpec


def cut_neurons(
  spec: NetworkSpec, numbers: Neurons, place: int, options: ChunkOptions
) -> Cut:
  """Returns the pseudo-layer of the neurons of one weight tensor.

  Args:
    spec: the network.
    numbers: of its neurons.
    place: place of the weight tensor.
    options: names the kind of the pseudo-layer.
  """
  tensor = spec.tensors[place]
  rows = cuts_lib.whole(tensor, tensor.shape[0])
  biases, norms = [], []
  for other, vector in enumerate(spec.tensors):
    if numbers.owners[other] != place:
      continue
    norm = cuts_lib.is_norm(vector)
    each = cuts_lib.whole(vector, vector.size)
    role = "norm" if norm else "bias"
    piece = Piece(other, *each, role=role, ends="bare")
    (norms if norm else biases).append(piece)
  incoming = Piece(place, *rows, role="in", ends="row")
  outgoing = [
    _columns(spec, place, reader) for reader in nearest_readers(spec, place)
  ]
  pieces = (incoming, *biases, *norms, *outgoing)
  return Cut(
    place, cuts_lib.kind_of(tensor, options), pieces, numbers.rows[place]
  )


def nearest_readers(spec: NetworkSpec, place: int) -> list[int]:
  """Places of the weight tensors that read a tensor's neurons first.

  They are all of one level, the lowest above the tensor's at which a weight
  tensor reads exactly the groups of its rows. Empty if there is none.
  """
  tensor = spec.tensors[place]
  groups = neurons_lib.groups_of(tensor.axes[0])
  readers = [
    other
    for other, t in enumerate(spec.tensors)
    if groups
    and neurons_lib.is_weight(t)
    and t.level > tensor.level
    and neurons_lib.groups_of(t.axes[1]) == groups
  ]
  nearest = min((spec.tensors[r].level for r in readers), default=None)
  return [r for r in readers if spec.tensors[r].level == nearest]


def _columns(spec: NetworkSpec, place: int, reader: int) -> Piece:
  """The weights of `reader` at each neuron of `place`, row-major in each."""
  tensor, by = spec.tensors[place], spec.tensors[reader]
  picks = neurons_lib.matching(tensor.axes[0], by.axes[1]).astype(np.int32)
  out, inner = by.shape[:2]
  kernel = math.prod(by.shape[2:])
  columns = (out, inner * kernel), (picks.shape[1], kernel), (kernel, 1)
  return Piece(reader, (), columns, role="out", ends="col", picks=picks)
