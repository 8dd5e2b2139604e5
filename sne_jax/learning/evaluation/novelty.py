"""How unlike the networks of the training a network is, by its code.

The distance of a code to the nearest of a set of reference codes is compared
with the distances that are usual: those of other networks of the same zoo.

Dimensions: `N` networks asked about, `M` of the reference, `K` others, `D`
width of a code.
"""

import hashlib

import numpy as np
from jaxtyping import Float
from scipy import spatial

from sne_jax.networks.spec import NetworkSpec

USUAL = 99.0
"""The percentile of usual distances that counts as 1."""


def architecture(spec: NetworkSpec) -> str:
  """Returns twelve digits that networks of equal tensors share, by any name."""
  parts = [(t.kind, t.shape, t.level) for t in spec.tensors]
  text = repr((parts, sorted(spec.skips)))
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def distances(
  codes: Float[np.ndarray, "N D"], reference: Float[np.ndarray, "M D"]
) -> Float[np.ndarray, "N"]:
  """Returns the distance of each code to the nearest of the reference.

  Coordinates are divided by their deviation over the reference; one that does
  not vary there counts as it is.
  """
  spread = reference.std(axis=0)
  spread = np.where(spread > 0, spread, 1.0)
  tree = spatial.KDTree(reference / spread)
  return np.asarray(tree.query(codes / spread)[0], np.float64)


def unlikeness(
  codes: Float[np.ndarray, "N D"],
  reference: Float[np.ndarray, "M D"],
  others: Float[np.ndarray, "K D"],
) -> Float[np.ndarray, "N"]:
  """Returns distances in units of the usual: above 1 is unlike what was seen.

  Args:
    codes: of the networks asked about.
    reference: of networks of the zoo.
    others: of further networks of it, not in the reference; their distances
      are the usual ones.

  Raises:
    ValueError: no reference, or no others.
  """
  if not len(reference) or not len(others):
    raise ValueError(
      f"need codes of the zoo, got {len(reference)} of reference and"
      f" {len(others)} others"
    )
  usual = np.percentile(distances(others, reference), USUAL)
  tiny = np.finfo(np.float64).tiny
  return distances(codes, reference) / max(float(usual), tiny)
