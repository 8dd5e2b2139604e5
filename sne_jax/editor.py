"""Edits networks that are images with a trained model: `Editor`.

Dimensions: `B` networks of `P` weights.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from sne_jax.learning.editing import program
from sne_jax.learning.per_weight import model
from sne_jax.learning.training import workdirs
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo.inrs import image_zoo

FILE = workdirs.EDITOR_FILE


class EditorError(ValueError):
  """A folder that holds no usable editor; the message says why."""


class Editor(model.Model):
  """A trained editor: networks in, the edited networks out.

  Networks are given as to a `Predictor`: files of any format, state_dicts,
  `(spec, weights)`, or several of these. All have to be of the architecture
  of the training. Weights alone are read: nothing is rendered to edit.

  Attributes:
    description: what `editor.json` holds.
    params: parameters of the model.
    results: what is reported of the training.
    spec: the architecture.
  """

  FILE = FILE
  NOUN, READS, FLAG = "editor", "edits", "--edit"
  ERROR = EditorError

  @property
  def edit_name(self) -> str:
    """What the images of the training were made by, such as dilate."""
    return self.description["edit"]

  @classmethod
  def _built(cls, description: Mapping[str, Any]) -> program.Program:
    return program.Program(description)

  def edit(
    self, networks: Any
  ) -> list[tuple[NetworkSpec, Float[np.ndarray, "P"]]]:
    """Returns the edited networks, each with its own spec.

    Args:
      networks: one or several, as the class says, or `Networks`.

    Raises:
      ValueError: there are none, or one is of another architecture, or is said
        to have other activations, or has weights that are not finite.
    """
    pairs, rows = self._read(networks)
    edited = self._program.run(self.params, rows)
    return [(spec, row) for (spec, _), row in zip(pairs, edited, strict=True)]

  def rendered(
    self, networks: Any, height: int, width: int = 0
  ) -> Float[np.ndarray, "B C H W"]:
    """Returns what networks show, black at 0 and white at 1.

    Args:
      networks: as for `edit`.
      height: of the images; any, for a network has no size of its own.
      width: of the images; 0: as their height.

    Raises:
      ValueError: as of `edit`.
    """
    _, rows = self._read(networks)
    return image_zoo.rendered(self.spec, rows, height, width)

  def _check(self, label: str, spec: NetworkSpec) -> None:
    """Raises unless this is an image of the editor's architecture and form."""
    super()._check(label, spec)
    if spec.options and spec.options != self.spec.options:
      said, wanted = (
        ", ".join(f"{k}={v}" for k, v in options)
        for options in (spec.options, self.spec.options)
      )
      raise ValueError(
        f"{label} is an image of another form ({said}) than those of the"
        f" training ({wanted}); give it networks like these"
      )
