"""References for classes on the same split: what an encoder has to beat.

As `references`, for targets that are numbers of classes, 0 to `K - 1`, each of
which training has: features are the same statistics, all see the training part
only, and the validation part chooses hyper-parameters, by accuracy, and among
equals by cross-entropy.

Dimensions: `N` members of a part, `F` features, `K` classes.
"""

import itertools
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import threadpoolctl
from sklearn import ensemble, exceptions, linear_model

from experiments import references
from experiments.references import Parts, Reference

STRENGTHS = tuple(10.0**power for power in range(1, -9, -1))


def constant(parts: Parts) -> Reference:
  """Predicts the most frequent class of training; the first of equals."""
  references.check(parts)
  most = float(np.argmax(np.bincount(parts["train"][1].astype(int))))
  predictions = {part: np.full(len(y), most) for part, (_, y) in parts.items()}
  return Reference(predictions, {"class": most})


def logistic(
  parts: Parts,
  *,
  strengths: Iterable[float] = STRENGTHS,
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
  references.check(parts)
  inputs = references.standardised(parts)
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
    return _best(candidates(), parts["val"][1])


def boosting(
  parts: Parts,
  *,
  learning_rates: Sequence[float] = (0.03, 0.1),
  max_leaf_nodes: Sequence[int] = (15, 31),
  max_iter: int = 400,
  seed: int = 0,
) -> Reference:
  """Gradient-boosted trees on the features: the stronger reference.

  Rate, size and number of trees are chosen on the validation part.

  Args:
    parts: features and numbers of classes of each part.
    learning_rates: grid of shrinkages.
    max_leaf_nodes: grid of tree sizes.
    max_iter: rounds of one tree for each class, at most, at least 1.
    seed: of the binning of features.

  Raises:
    ValueError: parts are missing or not finite.
  """
  references.check(parts)
  inputs = {part: np.asarray(x, np.float64) for part, (x, _) in parts.items()}

  def candidates():
    for rate, leaves in itertools.product(learning_rates, max_leaf_nodes):
      model = ensemble.HistGradientBoostingClassifier(
        learning_rate=rate,
        max_leaf_nodes=leaves,
        max_iter=max_iter,
        early_stopping=False,  # pyright: ignore[reportArgumentType]
        random_state=seed,
      )
      model.fit(inputs["train"], parts["train"][1])
      staged = {p: model.staged_predict_proba(x) for p, x in inputs.items()}
      for tree in range(1, max_iter + 1):
        options = {
          "learning_rate": rate,
          "max_leaf_nodes": leaves,
          "trees": tree,
        }
        yield options, {part: next(stage) for part, stage in staged.items()}

  # On tables this small, threads cost more than they bring.
  with threadpoolctl.threadpool_limits(1):
    return _best(candidates(), parts["val"][1])


def all_references(parts: Parts, *, seed: int = 0) -> dict[str, Reference]:
  """Returns the named references: "constant", "logistic", "boosting"."""
  return {
    "constant": constant(parts),
    "logistic": logistic(parts),
    "boosting": boosting(parts, seed=seed),
  }


def _best(candidates, y_val: np.ndarray) -> Reference:
  """Returns the candidate that is best on validation; the first of equals.

  Args:
    candidates: options and, by part, probabilities `[N, K]`.
    y_val: true classes `[N]`.

  Raises:
    ValueError: there are none.
  """
  best, best_score = None, (-np.inf, -np.inf)
  own = np.arange(len(y_val)), y_val.astype(int)
  for options, found in candidates:
    right = float(np.mean(np.argmax(found["val"], axis=-1) == y_val))
    likely = float(np.mean(np.log(np.maximum(found["val"][own], 1e-12))))
    if best is None or (right, likely) > best_score:
      best_score = (right, likely)
      chosen = options | {"val_accuracy": right, "val_loss": -likely}
      predictions = {
        part: np.argmax(p, axis=-1).astype(np.float64)
        for part, p in found.items()
      }
      best = Reference(predictions, chosen)
  if best is None:
    raise ValueError("the grid of hyper-parameters is empty; give one value")
  return best
