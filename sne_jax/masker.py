"""Predicts which first weights to keep, with a trained model: `Masker`.

Dimensions: `B` networks of `P` weights, `L` tensors that can be pruned.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sne_jax.encoders import masker
from sne_jax.learning.per_weight import model, program
from sne_jax.learning.training import workdirs
from sne_jax.zoo.tickets import pruning

FILE = workdirs.MASKER_FILE


class MaskerError(ValueError):
  """A folder that holds no usable masker; the message says why."""


class Masker(model.Model):
  """A trained predictor of winning tickets: first weights in, masks out.

  Networks are given as to a `Predictor`: files of any format, state_dicts,
  `(spec, weights)`, or several of these. All have to be of the architecture
  of the training.

  Attributes:
    description: what `masker.json` holds.
    params: parameters of the model.
    results: what is reported of the training.
    spec: the architecture.
  """

  FILE = FILE
  NOUN, READS, FLAG = "masker", "reads", "--mask"
  ERROR = MaskerError

  @property
  def density(self) -> float:
    """Share of the weights that the masks of the training keep."""
    return self.description["density"]

  @classmethod
  def _built(cls, description: Mapping[str, Any]) -> program.Program:
    return program.Program(description, masker.build)

  def logits(self, networks: Any) -> Float[np.ndarray, "B P"]:
    """Returns the logit of every weight's being kept.

    Those of biases and norms, which are always kept, mean nothing.

    Args:
      networks: one or several, as the class says, or `Networks`.

    Raises:
      ValueError: there are none, or one is of another architecture, or is said
        to have other activations, or has weights that are not finite.
    """
    return self._program.run(self.params, self._read(networks)[1])

  def masks(
    self,
    networks: Any,
    kept: Int[np.ndarray, "*B L"] | Sequence[int] | None = None,
  ) -> Bool[np.ndarray, "B P"]:
    """Returns masks, True where a weight is kept: the largest logits.

    Args:
      networks: as for `logits`.
      kept: how many weights of each tensor, of all networks or of each; None:
        the density of the training, in every tensor.

    Raises:
      ValueError: as of `logits`, or `kept` is out of range.
    """
    places = pruning.places(self.spec)
    counts = pruning.counts(self.spec, self.density) if kept is None else kept
    counts, sizes = (
      np.asarray(counts),
      [p.stop - p.start for p in places.values()],
    )
    logits = self.logits(networks)
    fits = counts.shape in ((len(sizes),), (len(logits), len(sizes)))
    if not fits or (counts < 0).any() or (counts > sizes).any():
      raise ValueError(
        f"kept is {counts.tolist()!r:.60}; give a number of weights for each of"
        f" {', '.join(places)}, at most {', '.join(map(str, sizes))}"
      )
    return pruning.best(self.spec, logits, counts)
