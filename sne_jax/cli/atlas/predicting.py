"""What is predicted of networks, as columns, and the map of a test part.

Dimensions: `N` networks, `T` targets, `K` classes, `D` width of a code.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.cli.atlas import content
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import calibration, judgement
from sne_jax.learning.training import program

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
  judged: judgement.Judgement,
  truth: Mapping[str, np.ndarray],
) -> dict[str, content.Column]:
  """Returns what is predicted of networks, as columns.

  Args:
    targets: their names.
    classes: of the only target; empty: targets are numbers.
    judged: predictions `[N, T]`, or probabilities `[N, K]`, and what may be
      said of them.
    truth: what is known of the networks, by name; targets are compared.
  """
  columns, predictions = {}, judged.predictions
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
    return columns | _novelty(judged)
  ends = judged.low.T, judged.high.T
  for values, low, high, name in zip(
    predictions.T, *ends, targets, strict=True
  ):
    columns[f"predicted {name}"] = content.Column(
      values,
      low,
      high,
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
  return columns | _novelty(judged)


def _novelty(judged: judgement.Judgement) -> dict[str, content.Column]:
  """Returns how unlike those of the training networks are, where known."""
  if not np.isfinite(judged.unlike).any():
    return {}
  about = "above 1: unlike the networks of the training"
  return {content.NOVELTY: content.Column(judged.unlike, about=about)}


def tested(
  test: Networks,
  codes: np.ndarray,
  predictions: np.ndarray,
  *,
  known: calibration.Calibration,
  description: Mapping[str, Any],
  properties: Mapping[str, np.ndarray] | None = None,
) -> content.Atlas:
  """Returns the atlas of test networks, for a report.

  Args:
    test: the networks, classes as numbers.
    codes: theirs `[N, D]`.
    predictions: the mean over seeds, `[N, T]` or `[N, K]`.
    known: of the model.
    description: of the model, see `Predictor`.
    properties: what is known of them besides, `[N]` by name.
  """
  targets = test.targets.T
  if test.classes:
    targets = np.array(test.classes)[targets.astype(int)]
  truth = dict(zip(test.labels, targets, strict=True))
  judged = judgement.judged(
    *(known, program.as_read(description, test.pairs()), predictions, codes),
    targets=test.labels,
    coverage=COVERAGE,
    is_share=description["loss"] == "bce",
  )
  columns = predicted(test.labels, test.classes, judged, truth)
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
