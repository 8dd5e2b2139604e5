"""Cuts any network into chunks of equal size, as a gather from its vector.

`layout(spec, options)` says, on the host and once per spec, which weight lies
in which slot of which chunk and what it is; `gather(layout, weights)` fetches
the numbers. The parts: `options` (which rule cuts what), `cuts` and `neuron`
(the rules), `neurons` (numbers of the hidden neurons), `ranges` (any part of
the chunks, for networks too large to lay out at once), `arrays` (the layout),
`sizes` (a chunk size from networks, and what it does to the symmetry).
"""

from sne_jax.networks.chunking.arrays import (
  ChunkLayout,
  gather,
  layout,
  num_chunks,
)
from sne_jax.networks.chunking.cuts import ROLES
from sne_jax.networks.chunking.options import MOST_SLOTS, ChunkOptions
from sne_jax.networks.chunking.sizes import keeps_symmetry, resolved

__all__ = [
  "MOST_SLOTS",
  "ROLES",
  "ChunkLayout",
  "ChunkOptions",
  "gather",
  "keeps_symmetry",
  "layout",
  "num_chunks",
  "resolved",
]
