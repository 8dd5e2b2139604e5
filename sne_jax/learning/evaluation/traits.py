"""What the weights of a network look like, as numbers of one length for all.

Of every tensor: how large its weights are, how they are distributed, how much
of them lies along one direction, and how unequal its neurons are. Tensors of
one kind and place (`networks.scales`) are averaged; a place that a network does
not have is nan. None of it changes when neurons are permuted.

Dimensions: `N` networks, `P` weights of one, `F` traits.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from sne_jax.encoders.sne import tensor_source
from sne_jax.networks import scales
from sne_jax.networks.spec import NetworkSpec

PERCENTS = (5, 25, 50, 75, 95)
TINY = 1e-8
"""Weights below this count as 0, whose logarithm would say nothing."""

OF_TENSOR = (
  *("size", "mean", "tails", "largest"),
  *(f"quantile {percent}" for percent in PERCENTS),
  *("first direction", "second direction", "rows", "columns"),
)
"""Traits of a tensor, in their order."""

LARGEST = 2**20
"""Tensors of more weights are not looked at, for the memory they take."""

WIDEST = 2048
"""Directions are found in matrices of no more rows or columns than this."""

COUNT = len(scales.PLACES) * len(OF_TENSOR)
"""`F`."""


def of_networks(
  networks: Iterable[tuple[NetworkSpec, Any]],
) -> Float[np.ndarray, "N F"]:
  """Returns the traits of networks.

  Args:
    networks: `(spec, weights [P])`, or tensors by name, which are read one
      after another.
  """
  rows = [_of_network(spec, weights) for spec, weights in networks]
  return np.array(rows).reshape(-1, COUNT)


def shuffled(
  spec: NetworkSpec, weights: Float[np.ndarray, "P"], rng: np.random.Generator
) -> Float[np.ndarray, "P"]:
  """Returns a network without its training: every tensor's entries shuffled.

  Each tensor keeps its values, and loses what they had to do with each other,
  much as if it had never been trained.
  """
  parts = [
    rng.permutation(np.ravel(tensor))
    for tensor in spec.unflatten(np.asarray(weights)).values()
  ]
  return np.concatenate(parts).astype(np.float32)


def _of_network(spec: NetworkSpec, weights: Any) -> np.ndarray:
  """Returns `[F]` of one network."""
  found = np.full((len(scales.PLACES), len(OF_TENSOR)), np.nan)
  places = scales.tensor_places(spec)
  small = np.array([t.size <= LARGEST for t in spec.tensors])
  each = np.full((len(places), len(OF_TENSOR)), np.nan)
  if isinstance(weights, Mapping):
    source = tensor_source.TensorSource(spec, weights)
    for place in np.flatnonzero(small).tolist():
      each[place] = _of_tensor(np.array(source[place], np.float64))
      source.give_back(place)
  else:
    tensors = list(spec.unflatten(np.asarray(weights)).values())
    for place in np.flatnonzero(small).tolist():
      each[place] = _of_tensor(np.array(tensors[place], np.float64))
  for place in np.unique(places[small]):
    found[place] = each[(places == place) & small].mean(axis=0)
  return found.reshape(-1)


def _of_tensor(tensor: np.ndarray) -> list[float]:
  """Returns `OF_TENSOR` of one tensor; the outputs are its first axis."""
  flat = tensor.ravel()
  size = max(float(np.sqrt(np.mean(flat**2))), TINY)
  shape = flat / size
  matrix = shape.reshape(len(tensor), -1) if tensor.ndim else shape[None]
  return [
    float(np.log(size)),
    float(shape.mean()),
    float(np.log(np.mean(shape**4) + TINY)),
    float(np.log(np.abs(shape).max() + TINY)),
    *np.percentile(shape, PERCENTS),
    *_directions(matrix),
    _unequal(matrix),
    _unequal(matrix.T),
  ]


def _directions(matrix: np.ndarray) -> tuple[float, float]:
  """Returns the shares of the two first directions, as logarithms."""
  narrow = matrix if len(matrix) <= matrix.shape[1] else matrix.T
  if len(narrow) < 2 or len(narrow) > WIDEST:
    return 0.0, 0.0
  values = np.linalg.eigvalsh(narrow @ narrow.T)[::-1]
  first, second = np.maximum(values[:2] / max(values.sum(), TINY), TINY)
  return float(np.log(first)), float(np.log(second))


def _unequal(rows: np.ndarray) -> float:
  """Returns how unequal the sizes of rows are: deviation over mean."""
  sizes = np.linalg.norm(rows, axis=1)
  return float(sizes.std() / max(float(sizes.mean()), TINY))
