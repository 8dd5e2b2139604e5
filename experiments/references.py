"""Simple references on the same split: what an encoder has to beat.

All see the training part only; the validation part chooses hyper-parameters;
the test part is predicted and nothing else. The features are statistics of
the weights (`sne_jax.encoders.statistics`), which know nothing of how neurons
are wired: what an encoder gains over them is what it gains by looking.

Dimensions: `N` members of a part, `F` features.

References:
  Unterthiner et al., Predicting Neural Network Accuracy from Weights, 2020,
  arXiv:2002.11448.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl
from sklearn import ensemble

from sne_jax.encoders import statistics
from sne_jax.learning import metrics
from sne_jax.networks.spec import NetworkSpec

Parts = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Features `[N, F]` and target `[N]` by part; "train" and "val" are needed."""

RIDGE_STRENGTHS = tuple(10.0**power for power in range(-8, 5))


class Reference(NamedTuple):
  """Predictions `[N]` of a reference for every part, and what was chosen."""

  predictions: dict[str, np.ndarray]
  chosen: dict[str, Any]


def features(
  groups: Sequence[tuple[NetworkSpec, np.ndarray, np.ndarray]],
  *,
  pooled: bool = False,
) -> np.ndarray:
  """Returns statistics `[N, F]` of the members of a zoo.

  One architecture: those of every tensor. Several: pooled over tensors, which
  gives equally many for each.

  Args:
    groups: for each architecture its spec, the weights `[n, P]` of its
      members, and their rows `[n]` in the result.
    pooled: pool also where there is one: others are compared with these.

  Raises:
    ValueError: the rows of all groups are not 0 to `N - 1`, each once.
  """
  rows = np.concatenate([np.asarray(row) for _, _, row in groups])
  if not np.array_equal(np.sort(rows), np.arange(rows.size)):
    raise ValueError(
      "the groups must hold every row from 0 on once, got"
      f" {rows.size} rows up to {rows.max(initial=-1)}"
    )
  view = statistics.tensor_statistics
  if pooled or len({spec.layout for spec, _, _ in groups}) > 1:
    view = statistics.pooled_statistics
  parts = [view(spec, weights) for spec, weights, _ in groups]
  result = np.empty_like(np.concatenate(parts))
  result[rows] = np.concatenate(parts)
  return result


def constant(parts: Parts) -> Reference:
  """Predicts the mean of the training targets for every member."""
  check(parts)
  mean = float(np.mean(parts["train"][1]))
  predictions = {part: np.full(len(y), mean) for part, (_, y) in parts.items()}
  return Reference(predictions, {"mean": mean})


def ridge(
  parts: Parts,
  *,
  strengths: Iterable[float] = RIDGE_STRENGTHS,
  select: str = "mse",
) -> Reference:
  """Ridge regression on standardised features; the strength by validation.

  Minimises `sum (y - x w - b)^2 / N + strength |w|^2`, in closed form. The
  mean and the deviation of the features are those of the training part; a
  feature that does not vary there is left out.

  Args:
    parts: features and target of each part.
    strengths: grid, above 0.
    select: the metric, in `metrics.METRICS`, that validation goes by.

  Raises:
    ValueError: parts are missing or not finite, or an unknown metric.
  """
  check(parts)
  scaled = standardised(parts)
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

  return _best(candidates(), parts["val"][1], select)


def boosting(
  parts: Parts,
  *,
  learning_rates: Sequence[float] = (0.03, 0.1),
  max_leaf_nodes: Sequence[int] = (15, 31),
  max_iter: int = 400,
  seed: int = 0,
  select: str = "mse",
) -> Reference:
  """Gradient-boosted trees on the features: the stronger reference.

  Rate, size and number of trees are chosen on the validation part.

  Args:
    parts: features and target of each part.
    learning_rates: grid of shrinkages.
    max_leaf_nodes: grid of tree sizes.
    max_iter: trees that are grown at most, at least 1.
    seed: of the binning of features.
    select: see `ridge`.

  Raises:
    ValueError: see `ridge`.
  """
  check(parts)
  inputs = {part: np.asarray(x, np.float64) for part, (x, _) in parts.items()}

  def candidates():
    for rate, leaves in itertools.product(learning_rates, max_leaf_nodes):
      model = ensemble.HistGradientBoostingRegressor(
        learning_rate=rate,
        max_leaf_nodes=leaves,
        max_iter=max_iter,
        early_stopping=False,  # pyright: ignore[reportArgumentType]
        random_state=seed,
      )
      model.fit(inputs["train"], np.asarray(parts["train"][1], np.float64))
      staged = {p: model.staged_predict(x) for p, x in inputs.items()}
      for tree in range(1, max_iter + 1):
        options = {
          "learning_rate": rate,
          "max_leaf_nodes": leaves,
          "trees": tree,
        }
        yield options, {part: next(stage) for part, stage in staged.items()}

  # On tables this small, threads cost more than they bring.
  with threadpoolctl.threadpool_limits(1):
    return _best(candidates(), parts["val"][1], select)


def all_references(
  parts: Parts, *, seed: int = 0, select: str = "mse"
) -> dict[str, Reference]:
  """Returns the named references: "constant", "ridge", "boosting"."""
  return {
    "constant": constant(parts),
    "ridge": ridge(parts, select=select),
    "boosting": boosting(parts, seed=seed, select=select),
  }


def _best(candidates, y_val, select: str) -> Reference:
  """Returns the candidate that is best on validation; the first of equals."""
  if select not in metrics.METRICS:
    known = ", ".join(metrics.METRICS)
    raise ValueError(f"unknown metric select={select!r}; known: {known}")
  metric = metrics.METRICS[select]
  sign = 1.0 if metrics.HIGHER_IS_BETTER[select] else -1.0
  best, best_score = None, -np.inf
  for options, predictions in candidates:
    score = sign * metric(y_val, predictions["val"])
    if best is None or score > best_score:  # a nan never wins
      best = Reference(predictions, options)
      best_score = score if np.isfinite(score) else -np.inf
  if best is None:
    raise ValueError("the grid of hyper-parameters is empty; give one value")
  score = sign * best_score if np.isfinite(best_score) else float("nan")
  chosen = best.chosen | {f"val_{select}": score}
  return Reference(best.predictions, chosen)


def standardised(parts: Parts) -> dict[str, np.ndarray]:
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


def check(parts: Parts) -> None:
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
