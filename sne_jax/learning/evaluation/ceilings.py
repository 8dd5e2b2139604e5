"""How high Kendall's tau can be where labels are measured on a few images.

The label of a network is its accuracy on `T` test images, the same for all.
Networks that are nearly as good as each other change places with the images
that happen to be drawn, and networks that are right on equally many are tied.

**What is estimated.** `tau_ceiling`: the tau-b, against these labels, of a
predictor that knows the accuracy of every network on the whole distribution of
images; its expectation over draws of the `T` images. `tie_ceiling`: the
greatest tau-b that any predictor without ties can have on these labels.

**How.** The accuracies are not known, and the labels in their place would be
too optimistic: labels are spread wider than accuracies, by their own noise, so
resampled images keep their order too well. Two halves of the images, drawn at
random, give labels with independent noise. With `g` the share of concordant
less discordant pairs of networks between halves, `sin(pi g / 2) = 1 / (1 + 2
a)` holds for normal accuracies with noise (Greiner), where `a` is the variance
of the noise of the labels in units of that of the accuracies; between
accuracies and labels it is `2 / pi * arcsin(1 / sqrt(1 + a))`. That is Spearman
and Brown's correction for rank correlations. The square root stands because a
half has noise, and the truth has none. Near `g = 1` it says that half as many
pairs are discordant as between halves, which needs no normal distribution.

Ties count by themselves: a tied pair is neither concordant nor discordant, and
leaves the norm of the labels. Only networks that have collapsed to the same
class are tied in truth.

**How good it is** (`ceilings_test.py`, networks whose accuracies are known):
within 0.01 for wide, skewed and narrow distributions from 500 images on, 0.03
from 100. It is too high where many networks that have not collapsed differ by
much less than their labels tell: by 0.1 where half of all are equal to 0.3
percent, where resampled images are as wrong.

Dimensions: `N` networks, `T` images.

References:
  Greiner, Zeitschrift für Mathematik und Physik 57, 1909; Kruskal, Ordinal
  measures of association, JASA 53, 1958.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Integer, Real

from sne_jax.learning.evaluation import metrics

SPLITS = 32
"""Random halves of the images that are averaged over."""


def tie_ceiling(y: Real[np.ndarray, "N"]) -> float:
  """Returns the greatest tau-b of a predictor without ties.

  It is `sqrt(U / P)` with `P` pairs of which `U` have different labels; nan
  with fewer than 2 networks.
  """
  pairs = len(y) * (len(y) - 1) / 2
  return float(np.sqrt(_untied(y) / pairs)) if pairs else float("nan")


def collapsed(
  right: Bool[np.ndarray, "N T"], classes: Integer[np.ndarray, "T"]
) -> Int[np.ndarray, "N"]:
  """Returns the class that a network gives to every image; -1: it does not.

  Args:
    right: which images each network classifies rightly.
    classes: true ones of the images.
  """
  found = np.full(len(right), -1)
  for number in np.unique(classes):
    found[(right == (classes == number)).all(axis=1)] = number
  return found


def tau_ceiling(
  right: Sequence[Bool[np.ndarray, "_ _"]],
  same: Sequence[Int[np.ndarray, "_"]],
  *,
  splits: int = SPLITS,
  seed: int = 0,
) -> float:
  """Estimates the tau-b of perfect knowledge of the true accuracies.

  Args:
    right: by zoo, which of its images each network classifies rightly.
    same: by zoo, numbers that networks share whose true accuracies are equal
      (`collapsed`); -1: equal to no other.
    splits: random halves to average over.
    seed: of these.

  Returns:
    A value in [0, 1]; nan where no two networks differ, or a zoo has fewer than
    2 images.
  """
  if any(bits.shape[1] < 2 for bits in right):
    return float("nan")
  labels = np.concatenate([bits.mean(axis=1) for bits in right])
  pairs = len(labels) * (len(labels) - 1) / 2 - sum(
    size * (size - 1) / 2
    for numbers in same
    for size in np.bincount(numbers[numbers >= 0])
  )
  untied = _untied(labels)
  if not untied or not pairs:
    return float("nan")
  rng = np.random.default_rng(seed)
  agreement = np.mean([_agreement(*_halves(right, rng)) for _ in range(splits)])
  share = np.clip(agreement / pairs, 0.0, 1.0)
  if not share:
    return 0.0
  noise = (1 / np.sin(np.pi * share / 2) - 1) / 2
  true_share = 2 / np.pi * np.arcsin(1 / np.sqrt(1 + noise))
  # Pairs that differ in truth, and have equal labels, are not concordant.
  return float(min(true_share, untied / pairs) * np.sqrt(pairs / untied))


def _halves(right, rng) -> tuple[np.ndarray, np.ndarray]:
  """Returns the accuracies `[N]` on two random halves of each zoo's images."""
  one, other = [], []
  for bits in right:
    order = rng.permutation(bits.shape[1])
    half = len(order) // 2
    one.append(bits[:, order[:half]].mean(axis=1))
    other.append(bits[:, order[half : 2 * half]].mean(axis=1))
  return np.concatenate(one), np.concatenate(other)


def _agreement(one, other) -> float:
  """Returns concordant less discordant pairs."""
  tau = metrics.kendall_tau(one, other)
  norm = np.sqrt(_untied(one) * _untied(other))
  return float(tau * norm) if norm else 0.0


def _untied(y) -> float:
  """Returns how many pairs have different values."""
  sizes = np.unique(np.asarray(y), return_counts=True)[1]
  return float((len(y) ** 2 - np.sum(sizes.astype(float) ** 2)) / 2)
