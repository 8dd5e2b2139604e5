"""Simple references on the same split: what an encoder has to beat.

All see the training part only; the validation part chooses hyper-parameters;
the test part is predicted and nothing else. The features are statistics of
the weights (`sne_jax.encoders.baselines.statistics`), which know nothing of
how neurons are wired: what an encoder gains over them is what it gains by
looking.

Targets are numbers, or with `classes` the numbers of classes, 0 to `K - 1`,
each of which training has; then accuracy chooses, and among equals
cross-entropy.

Dimensions: `N` members of a part, `F` features, `K` classes.

References:
  Unterthiner et al., Predicting Neural Network Accuracy from Weights, 2020,
  arXiv:2002.11448.
"""

import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl
from sklearn import ensemble, exceptions, linear_model

from sne_jax.encoders.baselines import statistics
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import metrics

Parts = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Features `[N, F]` and target `[N]` by part; "train" and "val" are needed."""

RIDGE_STRENGTHS = tuple(10.0**power for power in range(-8, 5))
LOGISTIC_STRENGTHS = tuple(10.0**power for power in range(1, -9, -1))


class Reference(NamedTuple):
  """Predictions `[N]` of a reference for every part, and what was chosen."""

  predictions: dict[str, np.ndarray]
  chosen: dict[str, Any]


def fit(
  parts: Mapping[str, Networks], *, seed: int = 0
) -> dict[str, dict[str, Reference]]:
  """Fits all references to networks: by target, then by name.

  Args:
    parts: networks by part, "train" and "val" among them; classes as numbers.
    seed: of the trees.

  Raises:
    ValueError: parts are missing or not finite.
  """
  layouts = {spec.layout for n in parts.values() for spec in n.specs}
  inputs = {
    part: features(networks, pooled=len(layouts) > 1)
    for part, networks in parts.items()
  }
  train = next(iter(parts.values()))
  return {
    name: all_references(
      {part: (inputs[part], parts[part].targets[:, t]) for part in parts},
      classes=bool(train.classes),
      seed=seed,
    )
    for t, name in enumerate(train.labels)
  }


def features(networks: Networks, *, pooled: bool = False) -> np.ndarray:
  """Returns statistics `[N, F]` of networks.

  One architecture: those of every tensor. Several: pooled over tensors, which
  gives equally many for each.

  Args:
    networks: of one or several architectures.
    pooled: pool also where there is one: others are compared with these.
  """
  view = statistics.tensor_statistics
  used = np.unique(networks.numbers)
  if pooled or len({networks.specs[n].layout for n in used}) > 1:
    view = statistics.pooled_statistics
  rows, parts = [], []
  for number in used:
    rows.append(np.flatnonzero(networks.numbers == number))
    weights = np.stack([networks.vectors[row] for row in rows[-1]])
    parts.append(view(networks.specs[number], weights))
  order = np.argsort(np.concatenate(rows), kind="stable")
  return np.concatenate(parts)[order]


def constant(parts: Parts, *, classes: bool = False) -> Reference:
  """Predicts the mean of training, or its first most frequent class."""
  _check(parts)
  y = parts["train"][1]
  value = float(np.argmax(np.bincount(y.astype(int))) if classes else y.mean())
  predictions = {part: np.full(len(y), value) for part, (_, y) in parts.items()}
  return Reference(predictions, {"class" if classes else "mean": value})


def ridge(
  parts: Parts,
  *,
  strengths: Iterable[float] = RIDGE_STRENGTHS,
) -> Reference:
  """Ridge regression on standardised features; the strength by validation.

  Minimises `sum (y - x w - b)^2 / N + strength |w|^2`, in closed form. The
  mean and the deviation of the features are those of the training part; a
  feature that does not vary there is left out.

  Args:
    parts: features and target of each part.
    strengths: grid, above 0.

  Raises:
    ValueError: parts are missing or not finite.
  """
  _check(parts)
  scaled = _standardised(parts)
  y_train = np.asarray(parts["train"][1], np.float64)
  offset = y_train.mean()
  left, singular, right = np.linalg.svd(scaled["train"], full_matrices=False)
  target = left.T @ (y_train - offset)

  def candidates():
    for strength in strengths:
      penalty = strength * y_train.size
      weight = right.T @ (singular / (singular**2 + penalty) * target)
      yield (
        {"strength": strength},
        {part: x @ weight + offset for part, x in scaled.items()},
      )

  return _best(candidates(), _score(parts))


def logistic(
  parts: Parts,
  *,
  strengths: Iterable[float] = LOGISTIC_STRENGTHS,
  max_iter: int = 1000,
) -> Reference:
  """Multinomial logistic regression; the strength by validation.

  On standardised features; minimises the mean cross-entropy of training plus
  `strength / 2 |w|^2`.

  Args:
    parts: features and numbers of classes of each part.
    strengths: grid, above 0; each begins where the last has ended.
    max_iter: steps of each. One that has not converged by then is judged as it
      is.

  Raises:
    ValueError: parts are missing or not finite.
  """
  _check(parts)
  inputs = _standardised(parts)
  y_train = parts["train"][1]
  model = linear_model.LogisticRegression(max_iter=max_iter, warm_start=True)

  def candidates():
    for strength in strengths:
      model.set_params(C=1.0 / (strength * len(y_train)))
      with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        model.fit(inputs["train"], y_train)
      yield (
        {"strength": strength},
        {part: model.predict_proba(x) for part, x in inputs.items()},
      )

  with threadpoolctl.threadpool_limits(1):
    return _best(candidates(), _class_score(parts), classes=True)


def boosting(
  parts: Parts,
  *,
  classes: bool = False,
  learning_rates: Sequence[float] = (0.03, 0.1),
  max_leaf_nodes: Sequence[int] = (15, 31),
  max_iter: int = 400,
  seed: int = 0,
) -> Reference:
  """Gradient-boosted trees on the features: the stronger reference.

  Rate, size and number of trees are chosen on the validation part.

  Args:
    parts: features and target of each part.
    classes: whether targets are numbers of classes.
    learning_rates: grid of shrinkages.
    max_leaf_nodes: grid of tree sizes.
    max_iter: rounds at most, at least 1: a tree, or one for each class.
    seed: of the binning of features.

  Raises:
    ValueError: see `ridge`.
  """
  _check(parts)
  inputs = {part: np.asarray(x, np.float64) for part, (x, _) in parts.items()}
  kind: Any = ensemble.HistGradientBoostingRegressor
  if classes:
    kind = ensemble.HistGradientBoostingClassifier

  def candidates():
    for rate, leaves in itertools.product(learning_rates, max_leaf_nodes):
      options = {"learning_rate": rate, "max_leaf_nodes": leaves}
      model = kind(
        **options,
        max_iter=max_iter,
        early_stopping=False,
        random_state=seed,
      )
      model.fit(inputs["train"], np.asarray(parts["train"][1], np.float64))
      stage = model.staged_predict_proba if classes else model.staged_predict
      staged = {part: stage(x) for part, x in inputs.items()}
      for tree in range(1, max_iter + 1):
        predictions = {part: next(stages) for part, stages in staged.items()}
        yield options | {"trees": tree}, predictions

  score = _class_score(parts) if classes else _score(parts)
  # On tables this small, threads cost more than they bring.
  with threadpoolctl.threadpool_limits(1):
    return _best(candidates(), score, classes=classes)


def all_references(
  parts: Parts, *, classes: bool = False, seed: int = 0
) -> dict[str, Reference]:
  """Returns "constant", "ridge" (for classes "logistic") and "boosting"."""
  name, linear = ("logistic", logistic) if classes else ("ridge", ridge)
  return {
    "constant": constant(parts, classes=classes),
    name: linear(parts),
    "boosting": boosting(parts, classes=classes, seed=seed),
  }


Score = Callable[[np.ndarray], tuple[tuple[float, ...], dict[str, float]]]
"""What is to be highest, and what is reported, of validation predictions."""


def _score(parts: Parts) -> Score:
  """Scores predictions `[N]` by the squared error; nan never wins."""

  def score(predicted):
    error = metrics.mse(parts["val"][1], predicted)
    return (-error if np.isfinite(error) else -np.inf,), {"val_mse": error}

  return score


def _class_score(parts: Parts) -> Score:
  """Scores probabilities `[N, K]` by accuracy, then by cross-entropy."""
  y_val = parts["val"][1]
  true = np.arange(len(y_val)), y_val.astype(int)

  def score(probabilities):
    right = float(np.mean(np.argmax(probabilities, axis=-1) == y_val))
    likely = float(np.mean(np.log(np.maximum(probabilities[true], 1e-12))))
    return (right, likely), {"val_accuracy": right, "val_loss": -likely}

  return score


def _best(candidates, score: Score, *, classes: bool = False) -> Reference:
  """Returns the candidate that is best on validation; the first of equals."""
  best, best_key = None, ()
  for options, predictions in candidates:
    key, scores = score(predictions["val"])
    if best is None or key > best_key:
      best_key = key
      if classes:
        predictions = {
          part: np.argmax(p, axis=-1).astype(np.float64)
          for part, p in predictions.items()
        }
      best = Reference(predictions, options | scores)
  if best is None:
    raise ValueError("the grid of hyper-parameters is empty; give one value")
  return best


def _standardised(parts: Parts) -> dict[str, np.ndarray]:
  """Returns features of mean 0 and deviation 1 on the training part.

  Those that do not vary there are left out.
  """
  x_train = np.asarray(parts["train"][0], np.float64)
  mean, std = x_train.mean(axis=0), x_train.std(axis=0)
  # A constant column has a deviation of rounding errors, not of exactly 0.
  varies = std > 1e-12 * (1.0 + np.abs(mean))
  return {
    part: ((np.asarray(x, np.float64) - mean) / np.where(varies, std, 1.0))[
      :, varies
    ]
    for part, (x, _) in parts.items()
  }


def _check(parts: Parts) -> None:
  """Raises `ValueError` for parts that are missing or not finite."""
  for part in ("train", "val"):
    if part not in parts:
      raise ValueError(f"part {part!r} is missing; got {', '.join(parts)}")
  for part, (x, y) in parts.items():
    if np.ndim(x) != 2 or np.shape(y) != np.shape(x)[:1] or not len(y):
      raise ValueError(
        f"part {part!r}: features {np.shape(x)} and target {np.shape(y)} must"
        " be [N, F] and [N] with N at least 1"
      )
    bad = ~(np.isfinite(x).all(axis=1) & np.isfinite(y))
    if bad.any():
      raise ValueError(
        f"part {part!r}: {bad.sum()} members are not finite, the first in row"
        f" {int(np.argmax(bad))}; drop diverged networks from the zoo"
      )
