"""Intervals of predictions, by split conformal prediction.

The absolute errors on members that were not trained on say how wide an interval
must be: the quantile of rank `ceil((N + 1) c)` of `N` errors covers a new
member with probability at least `c`, if it is exchangeable with these. It is no
promise for networks of another kind.

Networks that are unlike these have intervals of their own: the quantile of the
errors on networks that are as unlike (`localised`).

References: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World,
2005; Lei et al., Distribution-Free Predictive Inference for Regression, 2018,
arXiv:1604.04173; Guan, Localized Conformal Prediction, Biometrika 2023,
arXiv:2106.08460, whose kernel is here a number of neighbours.

Dimensions: `N` calibration members; `B` networks asked about.
"""

import math

import numpy as np
from jaxtyping import Float

NEIGHBOURS = 40
"""Strangers whose errors say how wide an interval is."""


def half_width(errors: Float[np.ndarray, "N"], coverage: float) -> float:
  """Returns half the width of an interval that covers with a probability.

  Args:
    errors: absolute errors on the calibration members.
    coverage: `c`, within (0, 1).

  Returns:
    Infinity where there are too few errors for that coverage: at least
    `c / (1 - c)` are needed.

  Raises:
    ValueError: no errors, one that is not finite, or `coverage` out of range.
  """
  if not 0.0 < coverage < 1.0:
    raise ValueError(f"coverage must lie within (0, 1), got {coverage}")
  if errors.size == 0 or not np.isfinite(errors).all():
    raise ValueError(
      f"calibration needs finite errors, got {errors.size}, of which"
      f" {int(np.isfinite(errors).sum())} are finite"
    )
  rank = math.ceil((errors.size + 1) * coverage)
  if rank > errors.size:
    return math.inf
  return float(np.sort(np.abs(errors))[rank - 1])


def localised(
  unlike: Float[np.ndarray, "B"],
  errors: Float[np.ndarray, "N"],
  strangers: tuple[Float[np.ndarray, "Q"], Float[np.ndarray, "Q"]],
  coverage: float,
) -> Float[np.ndarray, "B"]:
  """Returns half the width of the interval of each network.

  Up to 1 it is that of `half_width`. Beyond, it is that of the `NEIGHBOURS`
  strangers that are about as unlike, and never less than of one less unlike.

  Args:
    unlike: how unlike each network is; nan where that is not known.
    errors: on calibration members.
    strangers: how unlike each of others is, and the absolute error on it.
    coverage: `c`.

  Returns:
    Infinity beyond the most unlike stranger: of such nothing is known.
  """
  half = half_width(errors, coverage)
  order = np.argsort(strangers[0], kind="stable")
  known, found = (values[order] for values in strangers)
  widths = np.full(len(unlike), half)
  for row in np.flatnonzero(unlike > 1):
    if not len(known) or unlike[row] > known[-1]:
      widths[row] = np.inf
      continue
    place = int(np.searchsorted(known, unlike[row]))
    width = half
    for end in range(place, 0, -NEIGHBOURS):
      # Its own neighbours, then those that are less unlike.
      middle = end + NEIGHBOURS // 2 if end == place else end
      last = min(len(known), max(middle, NEIGHBOURS))
      near = found[max(0, last - NEIGHBOURS) : last]
      width = max(width, half_width(near, coverage))
    widths[row] = width
  return widths


def covered(
  truth: Float[np.ndarray, "N"],
  prediction: Float[np.ndarray, "N"],
  half: float,
) -> float:
  """Returns the share of members within `half` of their prediction."""
  return float(np.mean(np.abs(truth - prediction) <= half))
