"""Estimators of scikit-learn: networks in, properties or classes out.

X is a list of networks as `Predictor.predict` takes them (paths of files, state
dicts, `(spec, weights)`), or `Networks`; never a matrix. Everything else is as
in scikit-learn: `cross_val_score`, pipelines, `clone`, pickles.

Dimensions: `N` networks, `T` targets, `K` classes, `D` width of a code.
"""

import pathlib
import tempfile
from typing import Any

import numpy as np
from sklearn import base, model_selection
from sklearn.utils import validation

from sne_jax import fitting, predictor
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.data.pipeline import DataOptions
from sne_jax.learning.training.loop import TrainOptions
from sne_jax.learning.training.optimizers import OptimizerOptions

_STATE = "predictor_"


class _Estimator(base.BaseEstimator):
  """What regressor and classifier share.

  Attributes after `fit`:
    `predictor_`: the `Predictor`; intervals and novelty are asked of it.
  """

  # Any values: scikit-learn has them refused by `fit`, not here.
  def __init__(
    self,
    encoder: Any = "sne",
    *,
    options: Any = None,
    num_steps: Any = 1000,
    batch_size: Any = 32,
    learning_rate: Any = 1e-3,
    validation_share: Any = 0.2,
    seeds: Any = 1,
    random_state: Any = 0,
    fit_options: Any = None,
  ):
    self.encoder = encoder
    self.options = options
    self.num_steps = num_steps
    self.batch_size = batch_size
    self.learning_rate = learning_rate
    self.validation_share = validation_share
    self.seeds = seeds
    self.random_state = random_state
    self.fit_options = fit_options

  def _fit(self, networks: Any, targets: np.ndarray, loss: str, strata=None):
    """Trains on a part, and chooses the step on the rest."""
    given = Networks.of(networks)
    if len(given) != len(targets):
      raise ValueError(
        f"X holds {len(given)} networks and y {len(targets)} values; give one"
        " for each"
      )
    parts = model_selection.train_test_split(
      np.arange(len(given)),
      test_size=self.validation_share,
      random_state=self.random_state,
      stratify=strata,
    )
    pairs = list(given.pairs())
    train, val = (
      Networks.of([pairs[n] for n in rows], targets[rows]) for rows in parts
    )
    every = max(1, self.num_steps // 10)
    how = {
      "encoder": self.encoder,
      "options": self.options,
      "loss": loss,
      "data": DataOptions(batch_size=self.batch_size),
      "optimizer": OptimizerOptions(learning_rate=self.learning_rate),
      "training": TrainOptions(
        num_steps=self.num_steps, eval_every=every, log_every=every
      ),
      "seeds": range(self.random_state, self.random_state + self.seeds),
    }
    self.predictor_ = fitting.fit(
      train, val, **(how | (self.fit_options or {}))
    )
    return self

  def transform(self, X: Any) -> np.ndarray:
    """Returns codes `[N, D]`, for a step of a pipeline."""
    validation.check_is_fitted(self, _STATE)
    return self.predictor_.encode(X)

  def __sklearn_tags__(self):
    """Says that X is no matrix."""
    tags = super().__sklearn_tags__()
    tags.input_tags.two_d_array = False
    tags.no_validation = True
    return tags

  def __getstate__(self) -> dict[str, Any]:
    inherited: Any = super().__getstate__()
    state: dict[str, Any] = dict(inherited)
    if "programs" in (state.get("fit_options") or {}):  # Compiled; no data.
      state["fit_options"] = state["fit_options"] | {"programs": None}
    if _STATE in state:
      with tempfile.TemporaryDirectory() as folder:
        made = state[_STATE].save_pretrained(pathlib.Path(folder) / "model")
        state[_STATE] = {p.name: p.read_bytes() for p in made.iterdir()}
    return state

  def __setstate__(self, state: dict[str, Any]) -> None:
    state = dict(state)
    if _STATE in state:
      with tempfile.TemporaryDirectory() as folder:
        for name, content in state[_STATE].items():
          (pathlib.Path(folder) / name).write_bytes(content)
        state[_STATE] = predictor.Predictor.from_pretrained(
          pathlib.Path(folder)
        )
    super().__setstate__(state)


class SNERegressor(base.RegressorMixin, _Estimator):
  """Predicts numbers from networks: `fit` of this library, for scikit-learn.

  Args:
    encoder: its name, of `encoders/table.py`.
    options: its options, such as `SNEOptions`; None: the defaults.
    num_steps: of the training.
    batch_size: networks in a step.
    learning_rate: of the optimizer.
    validation_share: share of the networks that choose the step, and calibrate
      intervals; they are not trained on.
    seeds: number of trainings, whose mean predicts.
    random_state: of the first seed, and of the split.
    fit_options: further options of `sne_jax.fit`, by name; they go before those
      above.
  """

  def fit(self, X: Any, y: Any) -> "SNERegressor":
    """Trains.

    Args:
      X: networks.
      y: numbers `[N]` or `[N, T]`.

    Raises:
      ValueError: X holds no networks, or y is not of them.
    """
    targets = np.asarray(y, np.float64)
    self._is_flat = targets.ndim == 1
    return self._fit(X, targets, "mse")

  def predict(self, X: Any) -> np.ndarray:
    """Predicts `[N]`, or `[N, T]` where y had columns."""
    validation.check_is_fitted(self, _STATE)
    found = self.predictor_.predict(X)
    return found[:, 0] if self._is_flat else found


class SNEClassifier(base.ClassifierMixin, _Estimator):
  """Predicts classes of networks; for its arguments see `SNERegressor`.

  Attributes after `fit`:
    `predictor_`: the `Predictor`.
    `classes_`: the labels, sorted, `[K]`.
  """

  def fit(self, X: Any, y: Any) -> "SNEClassifier":
    """Trains.

    Args:
      X: networks.
      y: labels `[N]`, of any type that can be sorted.

    Raises:
      ValueError: X holds no networks, y is not of them, or there is one class,
        or a class of one network.
    """
    classes, places = np.unique(np.asarray(y), return_inverse=True)
    counts = np.bincount(places)
    if len(classes) < 2 or counts.min() < 2:
      raise ValueError(
        f"y has {dict(zip(classes.tolist(), counts.tolist(), strict=True))};"
        " give at least two classes, and two networks of each"
      )
    self.classes_ = classes
    names = np.array([_name(place) for place in places.tolist()])
    return self._fit(X, names, "classes", strata=places)

  def predict_proba(self, X: Any) -> np.ndarray:
    """Predicts the probability of each class, `[N, K]`."""
    validation.check_is_fitted(self, _STATE)
    found = self.predictor_.predict(X)
    places = [int(name) for name in self.predictor_.classes]
    proba = np.zeros((len(found), len(self.classes_)), found.dtype)
    proba[:, places] = found
    return proba

  def predict(self, X: Any) -> np.ndarray:
    """Predicts the most probable class, `[N]`."""
    proba = self.predict_proba(X)
    return self.classes_[proba.argmax(axis=-1)]


def _name(place: int) -> str:
  """Returns the name of a class that keeps the order of classes."""
  return f"{place:06d}"
