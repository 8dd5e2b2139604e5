"""Standardised weights: one shift and one scale per layer of rows.

Measured on training networks of one spec, and on no others; the values go with
a trained model. As all weights of a layer share them, standardising commutes
with every permutation of neurons.

Dimensions: `P` weights of a network, `N` training networks, `L` layers of rows
(`tokens.rows`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from sne_jax.networks import tokens
from sne_jax.networks.spec import NetworkSpec

MODES = ("pooled", "within", "minmax", "none")
"""What is measured of a layer.

- pooled: mean and deviation of all its entries in all networks.
- within: the same mean, and the root of the mean variance within a network
  (the authors of SANE's): how networks differ in their means is not counted.
- minmax: the smallest entry becomes -1, the largest 1.
- none: nothing is changed.
"""

SMALLEST = 1e-4
"""Scales below this are replaced by it: what never varies stays finite."""


def measure(
  spec: NetworkSpec,
  weights: Float[Array | np.ndarray, "N P"],
  mode: str = "pooled",
  *,
  batch_norms: bool = True,
) -> dict[str, Any]:
  """Measures the layers of training networks.

  Args:
    spec: of the networks.
    weights: the training networks, and no others.
    mode: one of `MODES`.
    batch_norms: see `tokens.rows`; layers left out are not changed.

  Returns:
    Plain values: `mode`, `batch_norms`, and for each layer its name, shift and
    scale (and its deviation in mode pooled, which is its scale).

  Raises:
    ValueError: unknown mode, or no networks.
  """
  if mode not in MODES:
    raise ValueError(f"unknown mode {mode!r}; known are {', '.join(MODES)}")
  if len(weights) < 1:
    raise ValueError("no training networks to measure; give at least 1")
  values = np.asarray(weights, np.float64)
  shifts, scales, names = [], [], []
  for layer in tokens.rows(spec, batch_norms):
    entries = values[:, layer.index.reshape(-1)]
    shift, scale = _measured(entries, mode)
    shifts.append(float(shift))
    scales.append(float(max(scale, SMALLEST)))
    names.append(layer.name)
  return {
    "mode": mode,
    "batch_norms": batch_norms,
    "layers": names,
    "shift": shifts,
    "scale": scales,
  }


def standardise(
  spec: NetworkSpec,
  measured: Mapping[str, Any],
  weights: Float[Array | np.ndarray, "... P"],
) -> Float[Array | np.ndarray, "... P"]:
  """Returns `(weights - shift) / scale`, of each weight's layer.

  Raises:
    ValueError: what was measured is of other layers than the spec's.
  """
  shift, scale = per_weight(spec, measured, weights.ndim, weights.dtype)
  return (weights - shift) / scale


def restore(
  spec: NetworkSpec,
  measured: Mapping[str, Any],
  weights: Float[Array | np.ndarray, "... P"],
) -> Float[Array | np.ndarray, "... P"]:
  """Inverse of `standardise`, up to rounding."""
  shift, scale = per_weight(spec, measured, weights.ndim, weights.dtype)
  return weights * scale + shift


def per_weight(
  spec: NetworkSpec, measured: Mapping[str, Any], ndim: int = 1, dtype=None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the shift and the scale of every weight, `[1, ..., 1, P]`.

  Raises:
    ValueError: what was measured is of other layers than the spec's.
  """
  names = [layer.name for layer in tokens.rows(spec, measured["batch_norms"])]
  if names != list(measured["layers"]):
    raise ValueError(
      f"the statistics are of layers {', '.join(measured['layers'])}, but"
      f" {spec.describe()} has layers {', '.join(names)}; measure training"
      " networks of this architecture"
    )
  layer = tokens.layer_of(spec, measured["batch_norms"])
  shift = np.append(measured["shift"], 0.0)[layer]  # -1 is the last: none.
  scale = np.append(measured["scale"], 1.0)[layer]
  lead = (1,) * (ndim - 1) + (-1,)
  return (
    shift.astype(dtype or np.float32).reshape(lead),
    scale.astype(dtype or np.float32).reshape(lead),
  )


def _measured(entries: np.ndarray, mode: str) -> tuple[float, float]:
  """Returns shift and scale of the entries `[N, R * W]` of a layer."""
  if mode == "minmax":
    low, high = entries.min(), entries.max()
    return (low + high) / 2, (high - low) / 2
  if mode == "none":
    return 0.0, 1.0
  if mode == "pooled":
    spread = entries.std(ddof=1) if entries.size > 1 else 0.0
    return entries.mean(), spread
  spread = entries.var(axis=1, ddof=1).mean() if entries.shape[1] > 1 else 0.0
  return entries.mean(), spread**0.5
