"""Edits networks that are images with a trained model: `Editor`.

Dimensions: `B` networks of `P` weights.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from sne_jax import atomic
from sne_jax.learning.data import inputs
from sne_jax.learning.editing import program
from sne_jax.learning.training import records, train_state, workdirs
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo.inrs import image_zoo

FILE = workdirs.EDITOR_FILE


class EditorError(ValueError):
  """A folder that holds no usable editor; the message says why."""


class Editor:
  """A trained editor: networks in, the edited networks out.

  Networks are given as to a `Predictor`: files of any format, state_dicts,
  `(spec, weights)`, or several of these. All have to be of the architecture
  of the training. Weights alone are read: nothing is rendered to edit.

  Attributes:
    description: what `editor.json` holds.
    params: parameters of the model.
    results: what is reported of the training.
    spec: the architecture.
    edit_name: what the images of the training were made by, such as dilate.
  """

  def __init__(
    self,
    description: Mapping[str, Any],
    params: Any,
    results: Mapping[str, Any] | None = None,
    compiled: program.Program | None = None,
  ):
    """Builds the model.

    Raises:
      ValueError: the encoder of the description cannot edit.
    """
    self.description = dict(description)
    self.params = jax.device_put(params)
    self.results = dict(results or {})
    self._program = compiled or program.Program(description)
    self.spec = self._program.spec
    self.edit_name: str = description["edit"]

  @classmethod
  def load(cls, workdir: str | Path, *, verify: bool = True) -> "Editor":
    """Loads an editor: the best checkpoint of a seed.

    Args:
      workdir: the folder of a seed (`fit_editor(workdir=...)`), of `save`, or
        of a run with several seeds: the one of the least validation loss.
      verify: whether to compare all files that are read with their digests.

    Raises:
      DamagedError: a file is not what was written.
      EditorError: there is no finished editor in that folder.
    """
    folder = Path(workdir)
    seeds = [folder] if (folder / FILE).exists() else []
    seeds = seeds or sorted(
      path.parent for path in folder.glob(f"seed*/{FILE}")
    )
    if not seeds:
      raise EditorError(
        f"{folder} holds no {FILE}, nor do folders seed* in it; give the"
        " workdir of a run of --edit, or the folder of a saved editor"
      )
    done = [s for s in seeds if (s / workdirs.RESULT_FILE).exists()]
    if not done:
      raise EditorError(
        f"{seeds[0]} has not finished (it has no {workdirs.RESULT_FILE}); start"
        " its run again, and it resumes where it stopped"
      )
    for seed in done if verify else ():
      remedy = train_state.UNVERIFIED
      workdirs.verify_seed(seed, (FILE, workdirs.RESULT_FILE), remedy=remedy)
    results = [records.read_json(s / workdirs.RESULT_FILE) for s in done]
    losses = [result.get("val_loss", 0.0) for result in results]
    best = int(np.argmin(losses))
    try:
      params, _ = train_state.load_best(done[best], verify=verify)
      return cls(records.read_json(done[best] / FILE), params, results[best])
    except train_state.CheckpointError as error:
      raise EditorError(f"{done[best]}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
      raise EditorError(
        f"{done[best] / FILE} describes no editor that this version of sne_jax"
        f" can build: {error!r}"
      ) from error

  def save(self, folder: str | Path) -> None:
    """Writes the editor, for `load`.

    Args:
      folder: created where missing.

    Raises:
      ValueError: it holds an editor already.
    """
    folder = Path(folder)
    if (folder / FILE).exists() or any(folder.glob(f"seed*/{FILE}")):
      raise ValueError(
        f"{folder} holds an editor already; choose another folder"
      )
    folder.mkdir(parents=True, exist_ok=True)
    train_state.Checkpoints(folder).save_best(0, self.params, {})
    contents = {
      FILE: json.dumps(self.description, sort_keys=True),
      workdirs.RESULT_FILE: atomic.json_text(self.results, allow_nan=True),
    }
    workdirs.finish(folder, contents)

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
    pairs = inputs.networks_of(networks)
    for number, (spec, _) in enumerate(pairs):
      self._check(f"network {number}", spec)
    rows = np.stack([np.asarray(w, np.float32) for _, w in pairs])
    edited = self._program.edit(self.params, rows)
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
    pairs = inputs.networks_of(networks)
    for number, (spec, _) in enumerate(pairs):
      self._check(f"network {number}", spec)
    rows = np.stack([np.asarray(w, np.float32) for _, w in pairs])
    return image_zoo.rendered(self.spec, rows, height, width)

  def _check(self, label: str, spec: NetworkSpec) -> None:
    """Raises unless this is a network of the editor's architecture."""
    mine = self.spec
    if spec.anatomy != mine.anatomy:
      raise ValueError(
        f"{label}: this editor edits {mine.describe()}, and this is"
        f" {spec.describe()}; give it networks of its architecture, or train an"
        " editor on such"
      )
    if spec.activations and spec.activations != mine.activations:
      raise ValueError(
        f"{label} is no image that this editor knows: its activations are"
        f" {', '.join(spec.activations)}, and those of the training"
        f" {', '.join(mine.activations)}; give it networks like these"
      )
    if spec.options and spec.options != mine.options:
      said, wanted = (
        ", ".join(f"{k}={v}" for k, v in options)
        for options in (spec.options, mine.options)
      )
      raise ValueError(
        f"{label} is an image of another form ({said}) than those of the"
        f" training ({wanted}); give it networks like these"
      )
