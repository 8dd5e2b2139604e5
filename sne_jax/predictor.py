"""Predicts properties of networks with a trained model, of any number of seeds.

Dimensions: `B` networks, `P` weights of one, `S` seeds, `D` width of a code of
one, `T` targets, or instead `K` classes of the only target.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging as log

from sne_jax.encoders import table
from sne_jax.learning.data import inputs, measured
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import calibration, judgement, notes
from sne_jax.learning.training import program
from sne_jax.learning.training.workdirs import MODEL_FILE
from sne_jax.networks.spec import NetworkSpec
from sne_jax.sharing import card, folders, hub, names, runs
from sne_jax.sharing.runs import PredictorError
from sne_jax.zoo.store import frames


class Predictor:
  """A trained model: from networks to predictions, codes and gradients.

  Of several seeds the predictions are their mean (of classes, that of their
  probabilities), and codes are concatenated. Networks are packed once and
  programs compiled once, whatever the number of seeds.

  What is predicted may be given as the path of a file of any format, a
  state_dict as PyTorch has them, `(spec, weights)`, or several of these; one
  network counts as a list of one, so results always have the axis `B`. Instead
  of weights `[P]` there may be tensors by the spec's names, of any float type:
  arrays, memory-mapped files, or objects with `shape` and `read()`.

  Networks may be of architectures that were never seen in training. One that
  is deeper than all of those is encoded too, with a warning: sinusoidal levels
  are defined at any depth, but a model was never asked about them; learned
  levels have rows that were never trained, and one row for all levels beyond
  the table.

  A model of classes (`loss="classes"`) has names of them in `classes`, and
  predicts a probability for each, in that order. The most probable are
  `np.array(predictor.classes)[probabilities.argmax(axis=-1)]`.

  Args:
    description: what `model.json` holds: encoder, options, what the encoder has
      measured on the training networks, head, targets.
    params: parameters of the `PropertyModel`: a tree, or a sequence with that
      of each seed.
    known: errors and codes of the training, for intervals and novelty.
    results: what is reported of each seed, of `fit`.
    compiled: the program of this description, if there is one already.
    **kwargs: `batch_size`, `draws`, `stream_above`, `memory_limit`,
      `long_seconds` and `before_long` of `learning.training.program.Program`.

  Raises:
    MemoryLimitError: the encoder cannot hold a limit that is given.
  """

  def __init__(
    self,
    description: dict[str, Any],
    params: Any,
    *,
    known: calibration.Calibration | None = None,
    results: Sequence[dict[str, Any]] = (),
    compiled: program.Program | None = None,
    **kwargs: Any,
  ):
    several = isinstance(params, (list, tuple))
    self.description = description
    self.targets = tuple(description["targets"])
    self.params = jax.device_put(tuple(params) if several else (params,))
    if not self.params:
      raise ValueError("a predictor has at least one seed; got no parameters")
    self.known = known or calibration.Calibration()
    self.results = list(results)
    self._program = compiled or program.Program(description, **kwargs)
    self.classes = self._program.classes
    self._has_said_runs = False

  @classmethod
  def load(
    cls, workdir: str | Path, *, verify: bool = True, **kwargs
  ) -> "Predictor":
    """Loads a model: the best checkpoint of each seed.

    Args:
      workdir: the folder of a run (`fit(workdir=...)`, or `--workdir`), of one
        of its seeds, of `save`, or of `save_pretrained`.
      verify: whether to compare all files that are read with their digests;
        models of before have none.
      **kwargs: passed to `Predictor`.

    Raises:
      DamagedError: a file is not what was written.
      PredictorError: there is no finished model in that folder.
    """
    folder = Path(workdir)
    if folders.is_one(folder):
      return cls.from_pretrained(folder, verify=verify, **kwargs)
    return cls._built(*runs.read(folder, verify), **kwargs)

  @classmethod
  def from_pretrained(
    cls,
    name: str | Path,
    *,
    revision: str = "",
    verify: bool = True,
    **kwargs: Any,
  ) -> "Predictor":
    """Loads a model that somebody gives away; nothing in it is executed.

    Args:
      name: of a model that ships with the library (`sne-jax models`); or a
        folder of `save_pretrained`; or `owner/name` on the Hugging Face Hub.
      revision: of the Hub: a branch, tag or commit; empty: the main one.
      verify: whether to compare all files with their digests.
      **kwargs: passed to `Predictor`.

    Raises:
      DamagedError: a file is not what was written.
      PredictorError: there is no such model; the message suggests a name.
    """
    folder = names.find(name, revision)
    model = folders.read(folder, verify=verify)
    return cls._built(
      folder, model.description, model.params, model.known, **kwargs
    )

  @classmethod
  def _built(
    cls, folder: Path, description: dict[str, Any], params, known, **kwargs
  ) -> "Predictor":
    """Builds a model that was read.

    Raises:
      PredictorError: its encoder is not known, or its description no model.
    """
    if description.get("encoder", "sne") not in table.ENCODERS:
      raise PredictorError(
        f"{folder} is a model of the encoder {description['encoder']!r},"
        " which is not registered; name its file with --encoder_file, or in"
        " Python import the file that registers it before loading"
      )
    try:
      return cls(description, params, known=known, **kwargs)
    except program.MemoryLimitError:
      raise
    except (KeyError, TypeError, ValueError) as error:
      raise PredictorError(
        f"{folder / MODEL_FILE} describes no model that this version of"
        f" sne_jax can build: {error!r}"
      ) from error

  def save_pretrained(self, folder: str | Path, **facts: Any) -> Path:
    """Writes the model to give it away: safetensors, JSON and a model card.

    Args:
      folder: new, or empty.
      **facts: what its card says, see `sharing.card.Facts`: `name`, `summary`,
        `zoo`, `limits`, `licence`, ... Figures on tests are those of `fit`,
        unless `metrics` gives them.

    Returns:
      The folder.

    Raises:
      ValueError: it holds something already, or a fact is unknown.
    """
    given = {"metrics": card.metrics_of(self.results)} | facts
    return folders.write(
      folder, self.description, self.params, self.known, card.of(given)
    )

  def push_to_hub(
    self, name: str, *, private: bool = False, **facts: Any
  ) -> str:
    """Uploads what `save_pretrained` writes to the Hugging Face Hub.

    Args:
      name: of the repository, `owner/name`; made where missing.
      private: whether a new one is for its owner alone.
      **facts: see `save_pretrained`; the name is that of the repository.

    Returns:
      The address of the commit.

    Raises:
      PredictorError: the Hub cannot be reached, or refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
      made = self.save_pretrained(Path(folder) / "model", name=name, **facts)
      return hub.upload(made, name, private=private)

  def save(self, folder: str | Path) -> None:
    """Writes the model, for `load` and for the programs of `experiments/`.

    Args:
      folder: created where missing.

    Raises:
      ValueError: it holds a model already.
    """
    runs.save(folder, self.description, self.params, self.known)

  def predict(self, networks: Any) -> np.ndarray:
    """Predicts the properties of networks: `[B, T]`, in their own units.

    Of a model of classes: their probabilities `[B, K]`.

    Args:
      networks: one or several, as the class says, or `Networks`.

    Raises:
      ValueError: there are none, weights do not have their spec's length or
        tensors its shapes, or a large network needs more than `memory_limit`.
    """
    return self.predict_and_encode(networks)[0]

  def encode(self, networks: Any) -> np.ndarray:
    """Encodes networks as codes `[B, S * D]`."""
    return self.predict_and_encode(networks)[1]

  def predict_and_encode(self, networks: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `predict` and `encode` do, from one encoding."""
    logits, codes = self._run(networks)
    predictions = [self._program.scaled(one) for one in logits]
    return np.mean(predictions, axis=0), np.concatenate(codes, axis=-1)

  def logits(self, networks: Any) -> np.ndarray:
    """Returns what the heads give before scaling, their mean `[B, T or K]`.

    A head for collapsed networks gives `[B, 2 T]`: the second half is above 0
    where a network has collapsed.
    """
    return np.mean(self._run(networks)[0], axis=0)

  def interval(
    self, networks: Any, *, coverage: float = 0.9
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends `[B, T]` of intervals that hold the truth.

    They do for a share `coverage` of networks that are like those of the
    validation part, on which their width was measured, and are wider for
    others (`judge`). Where its networks are too few for that share, or one is
    unlike anything known, intervals are infinite.

    Raises:
      ValueError: nothing was measured, as of classes.
    """
    if not self.known.errors:
      why = "classes have probabilities" if self.classes else "train it by fit"
      raise ValueError(f"this model has no calibration for intervals: {why}")
    judgement = self.judge(networks, coverage=coverage)
    return judgement.low, judgement.high

  def unlike(self, networks: Any) -> np.ndarray:
    """Returns how unlike the networks of the training each is, `[B]`.

    By its weights and its code (`learning.evaluation.strangers`), of models of
    before by its code alone: above 1, one in twenty of ours is.

    Raises:
      ValueError: nothing is kept with this model to say so.
    """
    if not self.known.codes and self.known.made is None:
      raise ValueError("no codes are kept with this model; train it by fit")
    return self.judge(networks).unlike

  def judge(
    self, networks: Any, *, coverage: float = 0.9
  ) -> judgement.Judgement:
    """Predicts, and says how far each prediction may be off.

    Args:
      networks: as for `predict`.
      coverage: see `interval`.
    """
    return self.judge_and_encode(networks, coverage=coverage)[0]

  def judge_and_encode(
    self, networks: Any, *, coverage: float = 0.9
  ) -> tuple[judgement.Judgement, np.ndarray]:
    """Returns what `judge` and `encode` do, from one encoding."""
    pairs = self._given(networks)
    predictions, codes = self.predict_and_encode(pairs)
    judged = judgement.judged(
      *(self.known, self._program.read(pairs), predictions, codes),
      targets=self.classes or self.targets,
      coverage=coverage,
      is_share=self.description["loss"] == "bce",
    )
    return judged, codes

  def to_frame(
    self,
    networks: Any,
    *,
    coverage: float = 0.9,
    library: str = "pandas",
  ) -> Any:
    """Returns what `judge` does as a data frame; see `judgement.columns`.

    Args:
      networks: as for `predict`.
      coverage: see `interval`.
      library: pandas, polars, or arrow for a `pyarrow.Table`.

    Raises:
      ValueError: another library, or one that is not installed.
    """
    frames.check(library)
    pairs = self._given(networks)
    judged = self.judge(pairs, coverage=coverage)
    names = inputs.names_of(networks, len(pairs))
    outputs = self.classes or self.targets
    return frames.frame(judgement.columns(judged, names, outputs), library)

  def remarks(self, networks: Any) -> list[str]:
    """Returns what is to be said of how each network was read; "": nothing.

    A model that was trained with `responses` says which networks are read by
    their weights alone, and which are run as those of the training are, since
    their files do not say how.

    Raises:
      ValueError: a network that cannot be run, and a model that never learned
        to do without.
    """
    given = self._read(networks)
    asked = self._as_run(given)
    return notes.of_runs(given, asked, self._program.remarks(asked))

  def evaluate(self, networks: Networks) -> dict[str, dict[str, Any]]:
    """Measures predictions: by target, then by metric, with 95 % intervals.

    Args:
      networks: with the targets of this model.

    Raises:
      ValueError: they have no targets, or others.
    """
    named = measured.with_targets(networks, self.targets, self.classes)
    return calibration.evaluate(named, self.predict(networks))

  def function(self, spec: NetworkSpec) -> Callable:
    """Returns a differentiable `f(weights [P]) -> predictions [T]` or `[K]`.

    The gradient of a predicted property with respect to a network's weights is
    `jax.grad(lambda w: f(w)[0])(weights)`.
    """
    return self._program.function(self.params, spec)

  @property
  def can_stream(self) -> bool:
    """Whether a network can be encoded in bounded memory, from its tensors."""
    return self._program.can_stream

  def _given(self, networks: Any) -> list:
    """Returns `(spec, weights)` of whatever was given, as they are run."""
    return self._as_run(self._read(networks))

  def _as_run(self, pairs: list) -> list:
    """Returns networks as they are run; only a model that runs them asks."""
    if not self._program.runs_networks:
      return pairs
    asked = self.known.as_run(pairs)
    taken = sum(a is not b for (a, _), (b, _) in zip(pairs, asked, strict=True))
    if taken and not self._has_said_runs:
      self._has_said_runs = True
      log.warning(
        "%d of %d networks do not say how they are run, and are taken to be run"
        " as the training networks of their layers are; remarks() names them",
        *(taken, len(pairs)),
      )
    return asked

  def _read(self, networks: Any) -> list:
    """Returns `(spec, weights)` of whatever was given."""
    lazy = float(self._program.stream_above if self.can_stream else "inf")
    return inputs.networks_of(
      networks, lazy_above=lazy, familiar=self.known.is_familiar
    )

  def _run(self, networks: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits `[S, B, T]` and codes `[S, B, D]`."""
    return self._program.run_networks(self.params, self._given(networks))
