"""Whether the permutations that a spec claims leave a network's output alone.

Dimensions: `P` weights of a network.
"""

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from sne_jax.networks import symmetry
from sne_jax.networks.inference.inferred import InferredNetwork

Forward = Callable[[dict[str, np.ndarray], Any], Any]
"""Runs the network: its tensors by the file's names, and inputs."""


@dataclasses.dataclass(frozen=True)
class PermutationCheck:
  """How far outputs move, as a share of their own size.

  Attributes:
    change: the largest, for permutations that the spec claims.
    control: the middle one, for false ones: one layer's neurons are moved and
      what reads them is not. None if no layer has neurons to move.
    log_order: natural logarithm of the number of permutations claimed.
  """

  change: float
  control: float | None
  log_order: float

  def passes(self, tolerance: float = 1e-4) -> bool:
    """Whether true permutations change nothing, and false ones do."""
    return self.change <= tolerance and (
      self.control is None or self.control > tolerance
    )


def permutation_check(
  network: InferredNetwork,
  weights: Float[np.ndarray, "P"],
  forward: Forward,
  inputs: Any,
  rng: np.random.Generator,
  draws: int = 3,
) -> PermutationCheck:
  """Runs a network with permuted weights.

  Args:
    network: as inferred.
    weights: its flat vector; random ones test more than trained ones, whose
      neurons may be dead.
    forward: runs it; what it returns can be made a numpy array.
    inputs: are handed on to `forward`.
    rng: advanced by the draws.
    draws: true and false permutations each, at least 1.

  Raises:
    ValueError: `draws` is below 1.
  """
  if draws < 1:
    raise ValueError(f"draws must be at least 1, got {draws}")
  run = lambda w: np.asarray(forward(network.scatter(w), inputs), np.float64)
  old = run(weights)
  size = float(np.abs(old).max()) or 1.0
  far = lambda index: float(np.abs(run(weights[index]) - old).max()) / size
  spec = network.spec
  change = max(far(symmetry.draw_permutation(spec, rng)) for _ in range(draws))
  try:
    control = statistics.median(
      far(symmetry.draw_uncoupled(spec, rng)) for _ in range(draws)
    )
  except ValueError:  # No layer has neurons to move.
    control = None
  return PermutationCheck(change, control, symmetry.log_order(spec))
