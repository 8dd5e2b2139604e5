"""A packer of networks whose phases are folded first (`networks.phases`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.encoders import interface
from sne_jax.networks import phases
from sne_jax.networks.spec import NetworkSpec


class Folded:
  """Packs as another packer does, of what is left when phases are folded.

  Args:
    packer: the other.
    specs: that it was made for.
    known: of `phases.measure`, for networks that do not say how they are run.
  """

  def __init__(
    self,
    packer: interface.Packer,
    specs: Sequence[NetworkSpec],
    known: Mapping[str, float],
  ):
    self._packer = packer
    self._read = [phases.understood(spec, known) for spec in specs]
    self.template, self.templates = packer.template, packer.templates
    self.reserve = packer.reserve

  def pack(self, numbers: Any, weights: Any, sizes: Any = None) -> Any:
    """Returns a batch, as `Packer` says."""
    return self._packer.pack(numbers, self._folded(numbers, weights), sizes)

  def flat(self, numbers: Any, weights: Any, total: int) -> np.ndarray:
    """Returns the weights of a batch, as `Packer` says."""
    return self._packer.flat(numbers, self._folded(numbers, weights), total)

  def _folded(self, numbers, weights) -> list[np.ndarray]:
    return [
      phases.fold(self._read[number], np.asarray(vector, np.float32))
      for number, vector in zip(numbers, weights, strict=True)
    ]
