"""How large weights are, by kind and place: what encoders divide by.

Weights of different kinds differ in size by orders of magnitude, and so do
those of the first, middle and last levels. A scale per kind and place is
defined for any architecture, and learned from the training networks only.

Dimensions: `P` weights of a network, `S` places.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sne_jax.networks.spec import KINDS, NetworkSpec

PLACES = tuple(
  f"{kind}, {where}" for kind in KINDS for where in ("first", "middle", "last")
)
"""A kind at the first level, at the last, or between."""


def tensor_places(spec: NetworkSpec) -> Int[np.ndarray, "tensors"]:
  """Returns, for each tensor, the number of its place in `PLACES`."""
  last = spec.num_levels - 1
  numbers = [
    3 * KINDS.index(t.kind) + (0 if t.level == 0 else 1 + (t.level == last))
    for t in spec.tensors
  ]
  return np.array(numbers, np.int32)


def place_of(spec: NetworkSpec) -> Int[np.ndarray, "P"]:
  """Returns, for each weight, the number of its place in `PLACES`."""
  return np.repeat(tensor_places(spec), [t.size for t in spec.tensors])


def fan_in_root(spec: NetworkSpec) -> Float[np.ndarray, "P"]:
  """Returns, for each weight, the square root of its tensor's fan-in."""
  roots = np.sqrt([t.fan_in for t in spec.tensors]).astype(np.float32)
  return np.repeat(roots, [t.size for t in spec.tensors])


def measure(
  networks: Iterable[tuple[NetworkSpec, np.ndarray]], *, fan_in: bool
) -> tuple[float, tuple[float, ...]]:
  """Measures the root mean square of training weights.

  Args:
    networks: `(spec, weights [P])` of the training networks, and no others.
    fan_in: weights are multiplied by the root of their fan-in first.

  Returns:
    That of all weights, and that of each of `PLACES`. A place that no training
    network has gets the scale of its kind, or, without any, that of all.
  """
  sums, counts = np.zeros(len(PLACES)), np.zeros(len(PLACES))
  for spec, weights in networks:
    values = np.asarray(weights, np.float64)
    if fan_in:
      values = values * fan_in_root(spec)
    place = place_of(spec)
    sums += np.bincount(place, values**2, len(PLACES))
    counts += np.bincount(place, minlength=len(PLACES))
  total = float(np.sqrt(sums.sum() / max(counts.sum(), 1))) or 1.0
  by_kind = sums.reshape(-1, 3).sum(1), counts.reshape(-1, 3).sum(1)
  kinds = np.repeat(_root(*by_kind, total), 3)
  return total, tuple(_root(sums, counts, kinds).tolist())


def described(
  networks: Iterable[tuple[NetworkSpec, np.ndarray]], *, fan_in: bool
) -> dict[str, Any]:
  """Returns what `measure` does as plain values, by name."""
  total, by_place = measure(networks, fan_in=fan_in)
  return {"global_scale": total, "place_scales": list(by_place)}


def _root(sums, counts, fallback):
  """Root mean square where something was counted, else the fallback."""
  roots = np.sqrt(sums / np.maximum(counts, 1))
  return np.where(roots > 0, roots, fallback)
