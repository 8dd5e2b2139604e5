"""Intervals of predictions, by split conformal prediction.

The absolute errors on members that were not trained on say how wide an interval
must be: the quantile of rank `ceil((N + 1) c)` of `N` errors covers a new
member with probability at least `c`, if it is exchangeable with these. It is no
promise for networks of another kind.

Reference: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World,
2005; Lei et al., Distribution-Free Predictive Inference for Regression, 2018,
arXiv:1604.04173.

Dimensions: `N` calibration members.
"""

import math

import numpy as np
from jaxtyping import Float


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


def covered(
  truth: Float[np.ndarray, "N"],
  prediction: Float[np.ndarray, "N"],
  half: float,
) -> float:
  """Returns the share of members within `half` of their prediction."""
  return float(np.mean(np.abs(truth - prediction) <= half))
