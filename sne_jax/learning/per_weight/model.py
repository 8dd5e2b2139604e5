"""A trained model of weights in, values out: loaded, saved, and applied.

Dimensions: `B` networks of `P` weights.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import jax
import numpy as np
from jaxtyping import Float

from sne_jax import atomic
from sne_jax.learning.data import inputs
from sne_jax.learning.per_weight import program
from sne_jax.learning.training import records, train_state, workdirs
from sne_jax.networks.spec import NetworkSpec

Some = TypeVar("Some", bound="Model")


class Model:
  """What `Editor` and `Masker` have in common.

  Attributes:
    description: what its file holds.
    params: parameters of the model.
    results: what is reported of the training.
    spec: the architecture.
  """

  FILE: ClassVar[str]
  NOUN: ClassVar[str]
  READS: ClassVar[str]  # What it does with networks.
  FLAG: ClassVar[str]  # Of run.py.
  ERROR: ClassVar[type[ValueError]] = ValueError

  def __init__(
    self,
    description: Mapping[str, Any],
    params: Any,
    results: Mapping[str, Any] | None = None,
    compiled: Any = None,
  ):
    """Builds the model.

    Raises:
      ValueError: the encoder of the description gives no value for weights.
    """
    self.description = dict(description)
    self.params = jax.device_put(params)
    self.results = dict(results or {})
    self._program = compiled or self._built(description)
    self.spec: NetworkSpec = self._program.spec

  @classmethod
  def _built(cls, description: Mapping[str, Any]) -> program.Program:
    """Returns the program of a description."""
    raise NotImplementedError

  @classmethod
  def load(
    cls: type[Some], workdir: str | Path, *, verify: bool = True
  ) -> Some:
    """Loads a model: the best checkpoint of a seed.

    Args:
      workdir: the folder of a seed (`workdir=` of its training), of `save`, or
        of a run with several seeds: the one of the least validation loss.
      verify: whether to compare all files that are read with their digests.

    Raises:
      DamagedError: a file is not what was written.
      ValueError: there is no finished model in that folder.
    """
    folder, noun = Path(workdir), cls.NOUN
    seeds = [folder] if (folder / cls.FILE).exists() else []
    seeds = seeds or sorted(
      path.parent for path in folder.glob(f"seed*/{cls.FILE}")
    )
    if not seeds:
      raise cls.ERROR(
        f"{folder} holds no {cls.FILE}, nor do folders seed* in it; give the"
        f" workdir of a run of {cls.FLAG}, or the folder of a saved {noun}"
      )
    done = [s for s in seeds if (s / workdirs.RESULT_FILE).exists()]
    if not done:
      raise cls.ERROR(
        f"{seeds[0]} has not finished (it has no {workdirs.RESULT_FILE}); start"
        " its run again, and it resumes where it stopped"
      )
    for seed in done if verify else ():
      remedy = train_state.UNVERIFIED
      names = (cls.FILE, workdirs.RESULT_FILE)
      workdirs.verify_seed(seed, names, remedy=remedy)
    results = [records.read_json(s / workdirs.RESULT_FILE) for s in done]
    losses = [result.get("val_loss", 0.0) for result in results]
    best = int(np.argmin(losses))
    try:
      params, _ = train_state.load_best(done[best], verify=verify)
      return cls(
        records.read_json(done[best] / cls.FILE), params, results[best]
      )
    except train_state.CheckpointError as error:
      raise cls.ERROR(f"{done[best]}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
      raise cls.ERROR(
        f"{done[best] / cls.FILE} describes no {noun} that this version of"
        f" sne_jax can build: {error!r}"
      ) from error

  def save(self, folder: str | Path) -> None:
    """Writes the model, for `load`.

    Args:
      folder: created where missing.

    Raises:
      ValueError: it holds one already.
    """
    folder = Path(folder)
    if (folder / self.FILE).exists() or any(folder.glob(f"seed*/{self.FILE}")):
      raise ValueError(
        f"{folder} holds an {self.NOUN} already; choose another folder"
        if self.NOUN[0] in "aeiou"
        else f"{folder} holds a {self.NOUN} already; choose another folder"
      )
    folder.mkdir(parents=True, exist_ok=True)
    train_state.Checkpoints(folder).save_best(0, self.params, {})
    contents = {
      self.FILE: json.dumps(self.description, sort_keys=True),
      workdirs.RESULT_FILE: atomic.json_text(self.results, allow_nan=True),
    }
    workdirs.finish(folder, contents)

  def _read(
    self, networks: Any
  ) -> tuple[list[tuple[NetworkSpec, Any]], Float[np.ndarray, "B P"]]:
    """Returns networks, and their weights, where they are of the right kind.

    Raises:
      ValueError: there are none, or one is of another architecture, is run in
        another way, or has weights that are not finite.
    """
    pairs = inputs.networks_of(networks)
    for number, (spec, _) in enumerate(pairs):
      self._check(f"network {number}", spec)
    return pairs, np.stack([np.asarray(w, np.float32) for _, w in pairs])

  def _check(self, label: str, spec: NetworkSpec) -> None:
    """Raises unless this is a network of the model's architecture."""
    mine = self.spec
    if spec.anatomy != mine.anatomy:
      raise ValueError(
        f"{label}: this {self.NOUN} {self.READS} {mine.describe()}, and this is"
        f" {spec.describe()}; give it networks of its architecture, or train"
        f" {'an' if self.NOUN[0] in 'aeiou' else 'a'} {self.NOUN} on such"
      )
    if spec.activations and spec.activations != mine.activations:
      raise ValueError(
        f"{label} is no network that this {self.NOUN} knows: its activations"
        f" are {', '.join(spec.activations)}, and those of the training"
        f" {', '.join(mine.activations)}; give it networks like these"
      )
