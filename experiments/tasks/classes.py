"""Properties that are classes: text, such as the optimizer of a network.

A class is carried as its number: its place among the sorted values of the
training members. Only here do numbers and names meet.

Dimensions: `N` members of a part, `K` classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from sne_jax.learning import metrics

LOSS = "classes"
"""What `--loss` says for these."""

METRICS = ("accuracy", "balanced_accuracy")
MONITORS = ("loss", "accuracy")
"""What is measured on the validation part while training."""


def numbered(
  parts: Mapping[str, np.ndarray],
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
  """Returns the classes, and their numbers as floats `[N]` by part.

  Args:
    parts: text `[N]` by part; the classes are the sorted values of `train`.

  Raises:
    ValueError: training has one class only, or another part has one that
      training has not.
  """
  names = np.unique(parts["train"])
  if len(names) < 2:
    raise ValueError(
      f"all training members are of one class, {str(names[0])!r}; choose"
      " another target, or a zoo in which it varies"
    )
  numbers = {}
  for part, values in parts.items():
    unseen = values[~np.isin(values, names)]
    if unseen.size:
      raise ValueError(
        f"{unseen.size} members of the part {part!r} are of classes that no"
        f" training member has (first: {str(unseen[0])!r}); training has"
        f" {', '.join(names)}: choose another split or other zoos"
      )
    numbers[part] = np.searchsorted(names, values).astype(np.float64)
  return tuple(names.tolist()), numbers


def certain(numbers: np.ndarray, count: int) -> np.ndarray:
  """Returns numbers `[N, 1]` as probabilities `[N, K]`, all at one class."""
  return np.eye(count)[np.asarray(numbers, int)[:, 0]]


def monitored(numbers: np.ndarray, logits: np.ndarray) -> dict[str, float]:
  """Returns cross-entropy, in nats, and accuracy of logits `[N, K]`."""
  logits = np.asarray(logits, np.float64)
  own = logits[np.arange(len(logits)), np.asarray(numbers, int)]
  errors = special.logsumexp(logits, axis=-1) - own
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


def measured(
  numbers: np.ndarray, probabilities: np.ndarray, clusters: np.ndarray
) -> dict[str, dict[str, float]]:
  """Returns `METRICS` of probabilities `[N, K]`, with intervals."""
  found = most_probable(probabilities)
  return metrics.evaluate(numbers, found, METRICS, clusters=clusters)


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
    found = most_probable(np.asarray(predicted, float))
    known = np.isfinite(found)
    places = numbers[known].astype(int), found[known].astype(int)
    np.add.at(counts, places, 1.0)
  return {"classes": list(names), "counts": counts / len(probabilities)}
