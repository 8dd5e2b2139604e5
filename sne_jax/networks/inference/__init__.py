"""From the tensors of a file, or a trace, to a spec.

`infer` goes by names and shapes; `Tape` records a network whose code is known.
"""

from sne_jax.networks.inference.check import (
  PermutationCheck,
  permutation_check,
)
from sne_jax.networks.inference.inferred import AmbiguousError, InferredNetwork
from sne_jax.networks.inference.inferring import infer, infer_file
from sne_jax.networks.inference.override import Override
from sne_jax.networks.inference.sources import Source
from sne_jax.networks.tracing.player import Graph, Mismatch, Player

__all__ = [
  "AmbiguousError",
  "Graph",
  "InferredNetwork",
  "Mismatch",
  "Override",
  "PermutationCheck",
  "Player",
  "Source",
  "infer",
  "infer_file",
  "permutation_check",
]
