"""Masks of weights: how many of each tensor are kept, and which.

Weights that map one axis to another can be pruned; biases and norms are always
kept. On the host; of equal scores the first weight is kept.

Dimensions: `N` networks of `P` weights, `L` tensors that can be pruned.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from sne_jax.networks import spec as spec_lib

SCOPES = ("layer", "global")
"""Whether the largest weights are kept of each tensor, or of all."""


def places(spec: spec_lib.NetworkSpec) -> dict[str, slice]:
  """Returns where the weights that can be pruned lie, by name of the tensor.

  Raises:
    ValueError: the network has none.
  """
  found = {
    t.name: slice(start, start + t.size)
    for t, start in zip(spec.tensors, spec.offsets, strict=True)
    if t.kind in spec_lib.WEIGHT_KINDS
  }
  if not found:
    raise ValueError(
      f"{spec.describe()} has no weights that can be pruned: none between"
      " layers; choose another architecture"
    )
  return found


def prunable(spec: spec_lib.NetworkSpec) -> Bool[np.ndarray, "P"]:
  """Returns which weights can be pruned."""
  found = np.zeros(spec.num_weights, bool)
  for place in places(spec).values():
    found[place] = True
  return found


def counts(spec: spec_lib.NetworkSpec, density: float) -> Int[np.ndarray, "L"]:
  """Returns how many weights of each tensor are kept at a density.

  Each is exact to one weight, and so is their sum, which is rounded: what is
  over goes to the tensors that would lose the most by rounding down. At least
  one weight is kept of each.
  """
  sizes = np.array([p.stop - p.start for p in places(spec).values()])
  exact = np.round(sizes * density, 6)  # 1 - 0.8 is a little below 0.2.
  kept = np.floor(exact).astype(np.int64)
  left = max(0, round(sizes.sum() * density) - int(kept.sum()))
  most = np.argsort(np.round(kept - exact, 6), kind="stable")
  kept[most[:left]] += 1
  return np.maximum(kept, 1)


def densities(
  sparsity: float, rounds: int = 0, share: float = 0.2
) -> list[float]:
  """Returns the densities of rounds, falling geometrically.

  Args:
    sparsity: share that is pruned in the end.
    rounds: how many; 0: so many that each prunes at most `share` of the rest.
    share: see `rounds`.
  """
  end = 1 - sparsity
  if not rounds:
    exact = math.log(end) / math.log(1 - share)
    rounds = math.ceil(exact - 1e-9)
  return [end ** (number / rounds) for number in range(1, rounds + 1)]


def best(
  spec: spec_lib.NetworkSpec,
  scores: Float[np.ndarray, "N P"],
  kept: Int[np.ndarray, "*N L"],
) -> Bool[np.ndarray, "N P"]:
  """Returns masks of the weights of the largest scores in each tensor.

  Args:
    spec: of the networks.
    scores: of the weights.
    kept: how many weights of each tensor, for all networks or for each.

  Raises:
    ValueError: scores of another architecture.
  """
  spec.check_length(scores)
  masks = np.ones(scores.shape, bool)
  every = np.broadcast_to(kept, (len(scores), len(places(spec))))
  for column, place in enumerate(places(spec).values()):
    rank = _ranks(scores[:, place])
    masks[:, place] = rank < every[:, column, None]
  return masks


def best_overall(
  spec: spec_lib.NetworkSpec, scores: Float[np.ndarray, "N P"], kept: int
) -> Bool[np.ndarray, "N P"]:
  """Returns masks of the weights of the largest scores in all tensors."""
  spec.check_length(scores)
  masks = np.ones(scores.shape, bool)
  some = prunable(spec)
  masks[:, some] = _ranks(scores[:, some]) < kept
  return masks


def next_masks(
  spec: spec_lib.NetworkSpec,
  trained: Float[np.ndarray, "N P"],
  masks: Bool[np.ndarray, "N P"],
  density: float,
  scope: str,
) -> Bool[np.ndarray, "N P"]:
  """Returns masks of a round: the largest of the weights that are left.

  Args:
    spec: of the networks.
    trained: weights at the end of a training.
    masks: of that training.
    density: that is left of the weights that can be pruned.
    scope: one of `SCOPES`.
  """
  # Weights that are not finite, of a training that diverged, go first.
  size = np.nan_to_num(np.abs(trained), nan=0.0, posinf=0.0)
  scores = np.where(masks, size, -1.0)
  if scope == "layer":
    return best(spec, scores, counts(spec, density))
  return best_overall(spec, scores, int(counts(spec, density).sum()))


def kept(
  spec: spec_lib.NetworkSpec, masks: Bool[np.ndarray, "N P"]
) -> Int[np.ndarray, "N L"]:
  """Returns how many weights of each tensor masks keep.

  Raises:
    ValueError: masks of another architecture.
  """
  check(spec, masks)
  return np.stack([masks[:, p].sum(axis=1) for p in places(spec).values()], 1)


def rates(
  spec: spec_lib.NetworkSpec, masks: Bool[np.ndarray, "N P"]
) -> Float[np.ndarray, "P"]:
  """Returns how often masks keep a weight of that place.

  Weights that permutations of neurons can exchange have one place: in the first
  layer it is the input that they read, in the last the output, between these
  the tensor.
  """
  check(spec, masks)
  mean, found = masks.mean(axis=0), np.ones(spec.num_weights)
  for name, place in places(spec).items():
    factors = [factor for axis in spec.tensor(name).axes for factor in axis]
    shape = [factor.size for factor in factors]
    moving = tuple(n for n, f in enumerate(factors) if f.group is not None)
    each = mean[place].reshape(shape).mean(axis=moving, keepdims=True)
    found[place] = np.broadcast_to(each, shape).reshape(-1)
  return found


def check(spec: spec_lib.NetworkSpec, masks: np.ndarray) -> None:
  """Refuses masks of another architecture, or that are none.

  Raises:
    ValueError: they are.
  """
  if masks.dtype != bool or masks.ndim != 2:
    raise ValueError(
      f"masks are {masks.dtype} of shape {masks.shape}; give bool [N, P], True"
      " where a weight is kept"
    )
  if masks.shape[1] != spec.num_weights:
    raise ValueError(
      f"masks are of {masks.shape[1]} weights, and {spec.describe()} has"
      f" {spec.num_weights}; give masks of this architecture"
    )


def _ranks(scores: np.ndarray) -> np.ndarray:
  """Returns the place of each score in its row, the largest first."""
  order = np.argsort(-scores, axis=1, kind="stable")
  ranks = np.empty_like(order)
  np.put_along_axis(ranks, order, np.arange(scores.shape[1])[None], axis=1)
  return ranks
