"""What is predicted of networks, as columns, and the map of a test part.

Dimensions: `N` networks, `T` targets, `K` classes, `D` width of a code.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sne_jax.cli.atlas import content
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import calibration

COVERAGE = 0.9
"""Share of networks whose interval holds the truth."""

LOG = "log10 "
"""What the names of targets begin with that are logarithms."""

MOST = 2000
"""Networks in the map of a report, at most."""

MOST_WEIGHTS = 100_000_000
"""Weights that are looked at for the map of a report, at most."""


def predicted(
  targets: Sequence[str],
  classes: Sequence[str],
  predictions: np.ndarray,
  truth: Mapping[str, np.ndarray],
  *,
  known: calibration.Calibration,
  is_share: bool = False,
) -> dict[str, content.Column]:
  """Returns what is predicted of networks, as columns.

  Args:
    targets: their names.
    classes: of the only target; empty: targets are numbers.
    predictions: `[N, T]`, or probabilities `[N, K]`.
    truth: what is known of the networks, by name; targets are compared.
    known: says how wide intervals are.
    is_share: whether targets are in [0, 1], and intervals then too.
  """
  columns = {}
  if classes:
    (name,) = targets
    guess = np.array(classes)[predictions.argmax(axis=1)]
    columns[f"predicted {name}"] = content.Column(guess)
    columns["probability of it"] = content.Column(
      predictions.max(axis=1), about="of the class that is predicted"
    )
    if name in truth:
      is_right = guess == np.asarray(truth[name]).astype(str)
      columns["rightly predicted"] = content.Column(is_right)
    return columns
  half = known.half_widths(targets, COVERAGE)
  low, high = (0.0, 1.0) if is_share else (-np.inf, np.inf)
  for values, wide, name in zip(predictions.T, half, targets, strict=True):
    columns[f"predicted {name}"] = content.Column(
      values,
      np.clip(values - wide, low, high),
      np.clip(values + wide, low, high),
      about=f"with an interval that holds {COVERAGE:.0%}",
    )
    true = truth.get(name, truth.get(name.removeprefix(LOG)))
    if true is not None and true.dtype.kind in "fiub":
      true = true.astype(float)
      if name.startswith(LOG) and name not in truth:
        true = np.log10(np.where(true > 0, true, np.nan))
      columns[f"error of {name}"] = content.Column(
        values - true, about="predicted less true"
      )
  return columns


def novelty(
  known: calibration.Calibration, codes: np.ndarray
) -> dict[str, content.Column]:
  """Returns how unlike those of the training networks are, where it is known.

  Args:
    known: of the model.
    codes: of the networks `[N, D]`.
  """
  unlike = known.unlikeness(codes)
  if not np.isfinite(unlike).any():
    return {}
  about = "above 1: unlike the networks of the training"
  return {content.NOVELTY: content.Column(unlike, about=about)}


def tested(
  test: Networks,
  codes: np.ndarray,
  predictions: np.ndarray,
  *,
  known: calibration.Calibration,
  properties: Mapping[str, np.ndarray] | None = None,
  is_share: bool = False,
) -> content.Atlas:
  """Returns the atlas of test networks, for a report.

  Args:
    test: the networks, classes as numbers.
    codes: theirs `[N, D]`.
    predictions: the mean over seeds, `[N, T]` or `[N, K]`.
    known: of the model.
    properties: what is known of them besides, `[N]` by name.
    is_share: see `predicted`.
  """
  targets = test.targets.T
  if test.classes:
    targets = np.array(test.classes)[targets.astype(int)]
  truth = dict(zip(test.labels, targets, strict=True))
  columns = predicted(
    *(test.labels, test.classes, predictions, truth),
    known=known,
    is_share=is_share,
  )
  columns |= novelty(known, codes)
  others = {n: v for n, v in (properties or {}).items() if n not in truth}
  columns |= {n: content.Column(v) for n, v in (truth | others).items()}
  largest = max(test.specs[n].num_weights for n in set(test.numbers.tolist()))
  most = int(np.clip(MOST_WEIGHTS // largest, 1, MOST))
  chosen = np.arange(len(test))
  said = ()
  if len(chosen) > most:
    drawn = np.random.default_rng(0).permutation(chosen)[:most]
    chosen = np.sort(drawn)
    said = (f"A draw of {most:,} of {len(test):,} networks.",)
  names = test.names or [f"network {n}" for n in range(len(test))]
  return content.Atlas(
    *("Map of the test networks", codes[chosen], "codes of the encoder"),
    *([names[n] for n in chosen.tolist()], test.specs, test.numbers[chosen]),
    [test.vectors[n] for n in chosen.tolist()],
    {n: content.taken(column, chosen) for n, column in columns.items()},
    said,
  )
