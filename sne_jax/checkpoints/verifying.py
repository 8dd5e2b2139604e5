"""Whether what is claimed of a file's network is so, by its own graph.

Dimensions: `P` weights of a network.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

from sne_jax.checkpoints.network import FileNetwork
from sne_jax.networks import inference
from sne_jax.networks.spec import NetworkSpec

CODE = (
  "trace its code (sne_jax.networks.tracing) and try what is found with"
  " sne_jax.networks.inference.permutation_check"
)

_NOISE = 0.3

_FAR = 1e-4

_SHARES = (1.0, 0.1, 0.01)
"""Sizes of inputs that are tried while even false permutations do nothing."""


class NotVerifiedError(ValueError):
  """There is nothing to try a claim with; says why, in one line."""


@runtime_checkable
class Runnable(Protocol):
  """A graph of a file that can be run."""

  def forward(self, tensors: Mapping[str, np.ndarray], inputs: Any) -> Any:
    """Returns the outputs; tensors are by the file's names."""
    ...

  def example_input(self, rng: np.random.Generator) -> Any:
    """Returns random inputs."""
    ...


def verify(
  network: FileNetwork, rng: np.random.Generator, draws: int = 3
) -> inference.PermutationCheck:
  """Runs the graph of a file with permuted weights.

  The weights are the file's with some noise, so that weights that are all
  alike (biases of 0, scales of 1) tell neurons apart. Where even false
  permutations change nothing, as where inputs of size 1 saturate the network,
  smaller inputs are tried.

  Args:
    network: from a file.
    rng: advanced by the draws.
    draws: permutations that are claimed, and false ones, each.

  Raises:
    CheckpointError: the weights cannot be read, or are not finite.
    NotVerifiedError: no graph is at hand, or it cannot be run.
  """
  graph = network.tensors.graph
  if not isinstance(graph, Runnable):
    raise NotVerifiedError(f"the file holds no graph that can be run; {CODE}")
  if not network.spec.groups:
    raise NotVerifiedError("no permutation is claimed")
  weights = _disturbed(network.spec, network.weights(), rng)
  try:
    inputs, check = graph.example_input(rng), None
    for share in _SHARES:
      with np.errstate(all="ignore"):
        check = inference.permutation_check(
          network.inferred,
          weights,
          graph.forward,
          jax.tree.map(lambda x, share=share: _scaled(x, share), inputs),
          rng,
          draws,
        )
      if check.passes() or check.change > _FAR:
        break
  except Exception as error:  # Whatever runs it raises what it likes.
    text = " ".join(str(error).split())[:200] or type(error).__name__
    raise NotVerifiedError(f"its graph cannot be run: {text}") from error
  if check is None or not np.isfinite(check.change):
    raise NotVerifiedError("its outputs are not finite")
  return check


def _scaled(array: Any, share: float) -> Any:
  """Returns real numbers times `share`; others as they are."""
  if getattr(array, "dtype", np.dtype("int8")).kind != "f":
    return array
  return (array * share).astype(array.dtype)


def _disturbed(
  spec: NetworkSpec, weights: Float[np.ndarray, "P"], rng: np.random.Generator
) -> Float[np.ndarray, "P"]:
  """Returns weights with noise of their tensor's own size; variances > 0."""
  moved = weights.copy()
  for tensor, part in zip(
    spec.tensors, spec.unflatten(moved).values(), strict=True
  ):
    noise = _NOISE * rng.standard_normal(part.shape, np.float32)
    if tensor.kind == "norm_var":
      part *= np.exp(noise)
      continue
    size = float(part.std()) or float(np.abs(part).max()) or 1.0
    part += size * noise
  return moved
