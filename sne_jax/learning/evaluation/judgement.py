"""Predictions, with all that is known of how far they may be off.

Dimensions: `B` networks, `T` targets.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax.learning.evaluation import novelty
from sne_jax.learning.evaluation.calibration import Calibration


class Judgement(NamedTuple):
  """What is said of networks.

  Attributes:
    predictions: `[B, T]`, as of `Predictor.predict`.
    low: lower ends of intervals `[B, T]`; nan where there are none.
    high: their upper ends.
    unlike: `[B]`: above 1, a network is unlike those of the training, and its
      interval wider; nan where that is not known.
    known: `[B]`: whether training had a network of that architecture.
    p_value: `[B]`: share of networks of the training's kind that are at least
      as unlike; nan where that is not known.
    promised: `[B]`: False where nothing is promised, since a network is more
      unlike than any that the training could speak for, or since validation
      networks are too few: intervals are infinite, or as wide as can be.
  """

  predictions: np.ndarray
  low: np.ndarray
  high: np.ndarray
  unlike: np.ndarray
  known: np.ndarray
  p_value: np.ndarray
  promised: np.ndarray


def columns(
  of: Judgement, names: Sequence[str], outputs: Sequence[str]
) -> dict[str, Any]:
  """Returns a judgement as columns `[B]`, a row for each network.

  These are `network`, each target or class with its `low` and `high`, and
  `unlike`, `known`, `p_value`, `promised`.

  Args:
    of: what was judged.
    names: of the networks `[B]`.
    outputs: names of the targets `[T]`, or of the classes.
  """
  table: dict[str, Any] = {"network": list(names)}
  for t, name in enumerate(outputs):
    table[name] = of.predictions[:, t]
    table[f"{name} low"] = of.low[:, t]
    table[f"{name} high"] = of.high[:, t]
  for name in ("unlike", "known", "p_value", "promised"):
    table[name] = getattr(of, name)
  return table


def judged(
  known: Calibration,
  networks: Sequence[Any],
  predictions: np.ndarray,
  codes: np.ndarray,
  *,
  targets: Sequence[str],
  coverage: float,
  is_share: bool,
) -> Judgement:
  """Judges predictions.

  Args:
    known: of the training.
    networks: `(spec, weights)` of each.
    predictions: of them, `[B, T]`.
    codes: of them.
    targets: names of what is predicted.
    coverage: of intervals, within (0, 1).
    is_share: whether targets lie within 0 and 1.
  """
  unlike, own_p, newcomer_p = known.measured(networks, codes)
  half = known.widths(targets, coverage, unlike, newcomer_p)
  low, high = predictions - half, predictions + half
  if is_share:
    low, high = np.maximum(low, 0), np.minimum(high, 1)
  seen = known.architectures
  familiar = [not seen or novelty.architecture(s) in seen for s, _ in networks]
  return Judgement(
    *(predictions, low, high, unlike, np.array(familiar), own_p),
    promised=np.asarray(~np.isinf(half).any(axis=1)),
  )
