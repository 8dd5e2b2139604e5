"""Properties that are classes: text, such as the optimizer of a network.

A class is carried as its number: its place among the sorted values of the
training members.

Dimensions: `N` members of a part, `K` classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from sne_jax.learning.evaluation import metrics

LOSS = "classes"
"""What `--loss` says for these."""

METRICS = ("accuracy", "balanced_accuracy")
MONITORS = ("loss", "accuracy")
"""What is measured on the validation part while training."""


def names_of(values: np.ndarray) -> tuple[str, ...]:
  """Returns the classes of training members, sorted.

  Args:
    values: text `[N]`.

  Raises:
    ValueError: they are of one class only.
  """
  names = np.unique(values)
  if len(names) < 2:
    raise ValueError(
      f"all training members are of one class, {str(names[0])!r}; choose"
      " another target, or a zoo in which it varies"
    )
  return tuple(names.tolist())


def numbers(
  names: Sequence[str], values: np.ndarray, part: str = ""
) -> np.ndarray:
  """Returns the numbers of classes, floats `[N]`.

  Args:
    names: of the classes, sorted or not.
    values: text `[N]`.
    part: what errors call the members.

  Raises:
    ValueError: one is of a class that training has not.
  """
  place = {name: number for number, name in enumerate(names)}
  unseen = values[~np.isin(values, list(names))]
  if unseen.size:
    raise ValueError(
      f"{unseen.size} members{f' of the part {part!r}' if part else ''} are of"
      " classes that no training member has (first:"
      f" {str(unseen[0])!r}); training has {', '.join(names)}: choose another"
      " split or other zoos"
    )
  return np.array([place[str(value)] for value in values], np.float64)


def certain(places: np.ndarray, count: int) -> np.ndarray:
  """Returns numbers `[N, 1]` of classes as certain probabilities `[N, K]`."""
  return np.eye(count)[np.asarray(places, int)[:, 0]]


def monitored(numbers: np.ndarray, logits: np.ndarray) -> dict[str, float]:
  """Returns cross-entropy, in nats, and accuracy of logits `[N, K]`."""
  logits = np.asarray(logits, np.float64)
  true = logits[np.arange(len(logits)), np.asarray(numbers, int)]
  errors = special.logsumexp(logits, axis=-1) - true
  return {
    "loss": float(np.mean(errors)),
    "accuracy": metrics.accuracy(numbers, most_probable(logits)),
  }


def most_probable(scores: np.ndarray) -> np.ndarray:
  """Returns the numbers `[N]` of the largest of logits or probabilities.

  They are nan where these are not finite, so that metrics show it.
  """
  finite = np.isfinite(scores).all(axis=-1)
  return np.where(finite, np.argmax(scores, axis=-1), np.nan)


def mean_confusion(
  names: Sequence[str], numbers: np.ndarray, probabilities: Sequence[Any]
) -> dict[str, Any]:
  """Returns who was taken for whom, the mean over several predictions.

  Args:
    names: of the classes.
    numbers: true classes `[N]`.
    probabilities: `[N, K]` of every training seed.

  Returns:
    `classes`, their names; `counts [K, K]`: how many members of each (row) were
    given each (column), the mean over seeds. Predictions that are not finite
    are in none.
  """
  counts = np.zeros((len(names), len(names)))
  for predicted in probabilities:
    predictions = most_probable(np.asarray(predicted, float))
    known = np.isfinite(predictions)
    places = numbers[known].astype(int), predictions[known].astype(int)
    np.add.at(counts, places, 1.0)
  return {"classes": list(names), "counts": counts / len(probabilities)}
