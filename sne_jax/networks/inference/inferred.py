"""What inference gives: a spec, the way to its tensors, and what is doubtful.

Dimensions: `P` weights of a network.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from sne_jax.networks.inference import sources as sources_lib
from sne_jax.networks.inference.sources import Source
from sne_jax.networks.spec import NetworkSpec

HOW = ("traced", "named", "guessed")
"""How groups may be known, the surest first."""


class AmbiguousError(ValueError):
  """Names and shapes do not settle what a network is; says what would.

  Attributes:
    remedy: what a person can do, where the message does not say it already.
  """

  remedy: str = "settle it with an override"

  def __init__(self, problem: str, remedy: str = ""):
    """Takes what is not settled, and a remedy of its own if it has one."""
    super().__init__(f"{problem}; {remedy}" if remedy else problem)
    self.problem = problem
    if remedy:
      self.remedy = remedy


@dataclasses.dataclass(frozen=True)
class InferredNetwork:
  """A network as it was found in a file or a model.

  Attributes:
    spec: the network.
    sources: where each of its tensors lies, in their order.
    left_out: tensors of the file that are no weights, and why.
    tied: names of the file that share another's numbers, and that name.
    guesses: what was taken from conventions, with the override that settles
      it; and where no permutation is claimed, and why.
    how: how its groups are known: "traced" from a graph or code; "named" by a
      convention whose names and shapes all match; "guessed" as a plain chain
      of layers.
    reasons: why groups are as they are, where there was a doubt, by group.
    uncompute: for tensors that the file keeps as others (weight norm, ...):
      what gives those by name from an array, None where nothing does.
  """

  spec: NetworkSpec
  sources: tuple[Source, ...]
  left_out: Mapping[str, str]
  tied: Mapping[str, str]
  guesses: tuple[str, ...]
  how: str = "guessed"
  reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)
  uncompute: Mapping[str, Any] = dataclasses.field(
    default_factory=dict, repr=False, compare=False
  )

  def __post_init__(self):
    """Checks `how`."""
    if self.how not in HOW:
      raise ValueError(f"how must be one of {', '.join(HOW)}, got {self.how!r}")

  @property
  def known(self) -> dict[str, str]:
    """How every group of the spec is known."""
    return dict.fromkeys(self.spec.groups, self.how)

  def gather(self, tensors: Mapping[str, Any]) -> Float[np.ndarray, "P"]:
    """Reads the flat vector, float32; see `sources.gather`."""
    return sources_lib.gather(self.spec, self.sources, tensors)

  def scatter(
    self,
    weights: Float[np.ndarray, "P"],
    like: Mapping[str, Any] | None = None,
  ) -> dict[str, np.ndarray]:
    """Inverse of `gather`: the arrays of the file, by name.

    Args:
      weights: the flat vector.
      like: the tensors of the file. With them dtypes are kept, and what is
        left out of the spec comes back as it was; without, float32 weights
        alone are returned. Tied names are filled in both cases.

    Raises:
      ValueError: as of `sources.scatter`; or `like` has numbers that are
        scaled, and would be rounded anew.
    """
    tensors = sources_lib.scatter(self.spec, self.sources, weights, like)
    for name, other in self.tied.items():
      tensors[name] = tensors[other]
    if like is not None:
      for name in self.left_out:
        tensors[name] = sources_lib.read(like, name)
      tensors = {name: tensors[name] for name in like}
    stored: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
      make = self.uncompute.get(name)
      if make is None and like is not None and name in self.uncompute:
        raise ValueError(
          f"tensor {name!r} is rounded and scaled in the file, and would be"
          " rounded anew; leave `like` out to have it in float32"
        )
      stored |= make(tensor) if make else {name: tensor}
    return stored
