"""Linear probes: what a linear map can read from codes.

A probe is ridge regression whose penalty is chosen on validation networks. The
intercept is penalised like every coefficient and nothing is standardised, as
in the published comparisons, so that numbers can be compared.

Dimensions: `N` networks, `D` width of a code.

References:
  Schuerholt et al., NeurIPS 2021, arXiv:2110.15288, and the authors' code.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

PENALTIES = (
  *(1e3, 3e2, 1e2, 3e1, 1e1, 3.0, 1.0, 0.3, 0.1, 3e-2, 1e-2),
  *(3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5),
)
"""Penalties to choose from, in order: of equal ones the first is taken."""


class Probe(NamedTuple):
  """A fitted probe.

  Attributes:
    coefficients: float64 [D].
    intercept: of the target's unit.
    penalty: the chosen one.
    score: R^2 that it was chosen by.
  """

  coefficients: np.ndarray
  intercept: float
  penalty: float
  score: float

  def predict(self, codes: Float[Any, "N D"]) -> Float[np.ndarray, "N"]:
    """Returns predictions in float64."""
    return np.asarray(codes, np.float64) @ self.coefficients + self.intercept


def fit(
  codes: Float[Any, "N D"],
  targets: Float[Any, "N"],
  validation: tuple[Float[Any, "M D"], Float[Any, "M"]] | None = None,
  penalties: Sequence[float] = PENALTIES,
) -> Probe:
  """Fits a probe for each penalty and returns the best.

  Networks whose target is nan are left out.

  Args:
    codes: of training networks.
    targets: theirs.
    validation: codes and targets by which the penalty is chosen; without,
      those of training, which favours the least penalty.
    penalties: to choose from, above 0.

  Raises:
    ValueError: no training or validation target is known.
  """
  from sklearn import linear_model  # noqa: PLC0415 (takes a second)

  x, y = _known("training", codes, targets)
  x_val, y_val = (
    (x, y) if validation is None else _known("validation", *validation)
  )
  ones = np.append(x, np.ones((len(x), 1)), axis=1)
  best = None
  for penalty in penalties:
    coefficients = linear_model.ridge_regression(
      ones, y, penalty, solver="cholesky"
    )
    probe = Probe(coefficients[:-1], coefficients[-1], penalty, 0.0)
    score = r2(probe.predict(x_val), y_val)
    if best is None or score > best.score:
      best = probe._replace(score=score)
  if best is None:
    raise ValueError("no penalties to choose from; give at least 1")
  return best


def r2(prediction: Float[Any, "N"], target: Float[Any, "N"]) -> float:
  """Returns 1 - mean squared error / variance of the known targets.

  A constant target has no variance to explain: 0 where it is predicted
  exactly, and minus infinity elsewhere.
  """
  known = ~np.isnan(np.asarray(target, np.float64))
  target = np.asarray(target, np.float64)[known]
  error = np.mean((np.asarray(prediction, np.float64)[known] - target) ** 2)
  variance = target.var()
  if variance == 0:
    return 0.0 if error == 0 else -np.inf
  return float(1 - error / variance)


def _known(name, codes, targets):
  """Returns the rows whose target is known, in float64."""
  x, y = np.asarray(codes, np.float64), np.asarray(targets, np.float64)
  known = ~np.isnan(y)
  if not known.any():
    raise ValueError(
      f"no {name} target of {len(y)} is known; a probe needs at least 1"
    )
  return x[known], y[known]
