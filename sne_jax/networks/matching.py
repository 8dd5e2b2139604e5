"""Weight matching: one network's hidden neurons in another's order.

Two networks of one spec may compute alike and have their neurons in different
orders. Matching looks for the permutation of one that brings it closest to the
other, which is what makes weights comparable: to average them, or to have a
whole zoo in the order of one reference.

The squared distance is least where the inner product of the two is largest. In
one axis group, with all others held, that product is a sum over pairs of a new
place and an old neuron, unless a tensor has the group on two axes: then it is
taken at the current order of the other axis. The best of all permutations of
the group is a linear assignment. Groups are visited in random order, again and
again, and a change is kept only if it brings the networks closer. A group and
those nested in it are solved together: how well one head fits another is how
well its units do, in their best order.

The result is a local optimum. Far from one, it depends on the order of visits.

Dimensions: `N` networks of `P` weights, `n` places of an axis.

References:
  Ainsworth et al., Git Re-Basin: Merging Models modulo Permutation Symmetries,
  ICLR 2023, arXiv:2209.04836 (weight matching). Nested groups and the check of
  every change are ours.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize

from sne_jax.networks import spec as spec_lib
from sne_jax.networks import symmetry

TOLERANCE = 1e-12
"""Share of the product of both norms that a change must gain."""


class _Side(NamedTuple):
  """An axis of a tensor that has a group: where its places are compared."""

  tensor: str
  place: int
  groups: tuple[str, ...]  # The group, then those nested in it.
  sizes: tuple[int, ...]  # Of all factors of the axis.
  kept: tuple[int, ...]  # Which of these are of `groups`.


class _Fit(NamedTuple):
  """How well places of the first fit neurons of the second, for one axis."""

  groups: tuple[str, ...]
  gain: np.ndarray  # [n1, n2, ..., n1, n2, ...]: places, then neurons.


def align(
  spec: spec_lib.NetworkSpec,
  reference: Float[np.ndarray, "P"],
  weights: Float[np.ndarray, "P"],
  rng: np.random.Generator,
  *,
  max_sweeps: int = 100,
) -> Int[np.ndarray, "P"]:
  """Matches a network's hidden neurons to those of a reference, on the host.

  Args:
    spec: of both networks.
    reference: whose order of neurons is wanted.
    weights: the network to be reordered.
    rng: advanced; it orders the visits.
    max_sweeps: visits of every group, at most; at least 1.

  Returns:
    `index`, as of `symmetry.draw_permutation`: `weights[index]` is the same
    function, and no farther from `reference` than `weights` are.

  Raises:
    ValueError: a vector does not have the spec's length, or is not finite;
      `max_sweeps` is below 1; two groups of an axis are nested in one group,
      but not in one another.
  """
  if max_sweeps < 1:
    raise ValueError(f"max_sweeps is {max_sweeps}; must be at least 1")
  first, second = np.array(reference, float), np.array(weights, float)
  for name, vector in (("reference", first), ("weights", second)):
    spec.unflatten(vector)  # Checks the length.
    if not np.isfinite(vector).all():
      raise ValueError(
        f"{name} of {spec.describe()} has values that are not finite; networks"
        " that diverged cannot be matched"
      )
  least = TOLERANCE * float(np.linalg.norm(first) * np.linalg.norm(second))
  sides = _sides(spec)
  order = list(sides)
  fixed = {root: _unfolded(spec, first, sides[root]) for root in order}
  index = symmetry.identity(spec)
  best = float(first @ second)
  for _ in range(max_sweeps):
    before = best
    for place in rng.permutation(len(order)):
      root = order[place]
      moving = _unfolded(spec, second, sides[root])
      fits = [
        _fit(side, one @ two.T)
        for side, one, two in zip(sides[root], fixed[root], moving, strict=True)
      ]
      gain, element = _assign(fits)
      if gain <= sum(_held(fit) for fit in fits) + least:
        continue
      step = symmetry.permutation_from(spec, element)
      moved = second[step]
      score = float(first @ moved)
      if score > best + least:  # A group on two axes of a tensor may not gain.
        index, second, best = index[step], moved, score
    if best == before:
      break
  return index


def align_all(
  spec: spec_lib.NetworkSpec,
  reference: Float[np.ndarray, "P"],
  weights: Float[np.ndarray, "N P"],
) -> Float[np.ndarray, "N P"]:
  """Returns networks with hidden neurons in the order of a reference's.

  What a network is matched to depends on the two alone.
  """
  rng = lambda: np.random.default_rng(0)
  return np.stack([w[align(spec, reference, w, rng())] for w in weights])


@functools.lru_cache(maxsize=256)
def _sides(spec: spec_lib.NetworkSpec) -> dict[str, tuple[_Side, ...]]:
  """Returns, for each group that is nested in none, the axes that have it.

  Raises:
    ValueError: two groups of an axis are nested in one, not in one another.
  """
  sides = {}
  for root in (g for g, (_, per) in spec.groups.items() if per is None):
    inside = [root]
    for group in inside:  # Grows: groups nested in these follow.
      inside += [g for g, (_, per) in spec.groups.items() if per == group]
    sides[root] = tuple(
      _side(t, place, inside)
      for t in spec.tensors
      for place, axis in enumerate(t.axes)
      if any(f.group == root for f in axis)
    )
  return sides


def _side(t: spec_lib.TensorSpec, place: int, inside: list[str]) -> _Side:
  axis = t.axes[place]
  kept = [number for number, f in enumerate(axis) if f.group in inside]
  for before, number in zip(kept, kept[1:], strict=False):
    if axis[number].per != axis[before].group:
      raise ValueError(
        f"axis {place} of {t.name} has groups {axis[before].group!r} and"
        f" {axis[number].group!r}, not nested in one another but both in"
        f" {axis[kept[0]].group!r}; such networks cannot be matched"
      )
  return _Side(
    t.name,
    place,
    tuple(axis[number].group or "" for number in kept),
    tuple(f.size for f in axis),
    tuple(kept),
  )


def _unfolded(
  spec: spec_lib.NetworkSpec, vector: np.ndarray, sides: Sequence[_Side]
) -> list[np.ndarray]:
  """Returns the tensors of some axes as matrices `[n, rest]`."""
  tensors = spec.unflatten(vector)
  return [
    np.moveaxis(tensors[s.tensor], s.place, 0).reshape(math.prod(s.sizes), -1)
    for s in sides
  ]


def _fit(side: _Side, gram: Float[np.ndarray, "n n"]) -> _Fit:
  """Sums an axis' products over factors that stay: the same place on both."""
  if len(side.kept) == len(side.sizes) == 1:
    return _Fit(side.groups, gram)
  count = len(side.sizes)
  old = [count + p if p in side.kept else p for p in range(count)]
  out = [*side.kept, *(count + p for p in side.kept)]
  gain = np.einsum(gram.reshape(side.sizes * 2), [*range(count), *old], out)
  return _Fit(side.groups, gain)


def _held(fit: _Fit) -> float:
  """Returns what the present order gains."""
  size = math.isqrt(fit.gain.size)
  return float(fit.gain.reshape(size, size).trace())


def _assign(fits: Sequence[_Fit]) -> tuple[float, dict[str, np.ndarray]]:
  """Assigns old neurons to the places of a group, and within each if nested.

  Args:
    fits: the axes that have the group, which is the first of each.

  Returns:
    What is gained, and the index arrays of the group and of those nested in it.
  """
  group = fits[0].groups[0]
  size = fits[0].gain.shape[0]
  gain = np.zeros((size, size))
  deeper: dict[str, list[_Fit]] = {}
  for fit in fits:
    if len(fit.groups) == 1:
      gain += fit.gain
      continue
    pairs = np.moveaxis(fit.gain, len(fit.groups), 1)
    deeper.setdefault(fit.groups[1], []).append(_Fit(fit.groups[1:], pairs))
  inner = {pair: {} for pair in np.ndindex(size, size)} if deeper else {}
  for pair, solved in inner.items():
    for parts in deeper.values():
      value, assignment = _assign([_Fit(p.groups, p.gain[pair]) for p in parts])
      gain[pair] += value
      solved.update(assignment)
  rows, columns = optimize.linear_sum_assignment(gain, maximize=True)
  result = {group: columns.astype(np.int32)}
  for place, old in zip(rows, columns, strict=True):
    for child, order in inner.get((place, old), {}).items():
      empty = np.zeros((size, *order.shape), np.int32)
      result.setdefault(child, empty)[old] = order
  return float(gain[rows, columns].sum()), result
