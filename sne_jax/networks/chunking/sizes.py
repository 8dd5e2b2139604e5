"""How large chunks must be, and whether cutting keeps the symmetry.

Reordering hidden neurons carries chunks over to chunks, and then an encoder of
sets cannot tell, unless a piece whose parts are reordered is cut to size. A
derived chunk size holds the largest piece, up to a bound.

Dimensions: `M` chunks of `C` weights.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from sne_jax.networks import symmetry
from sne_jax.networks.chunking import arrays, ranges
from sne_jax.networks.chunking.options import MOST_SLOTS, ChunkOptions
from sne_jax.networks.spec import NetworkSpec

_DRAWS = 3
"""Permutations that are tried; one of a few neurons may be the identity."""


def resolved(
  options: ChunkOptions, specs: Iterable[NetworkSpec]
) -> ChunkOptions:
  """Returns the options with a chunk size, derived where it is 0.

  A neuron of at most `MOST_SLOTS` weights is never cut by a size that was
  derived from networks that have it, so its code does not depend on which
  other networks there are.

  Args:
    options: the rules.
    specs: the networks at hand, at least one; while training, those that are
      trained on.
  """
  if options.chunk_size:
    return options
  plans = [ranges.plan(spec.layout, options) for spec in dict.fromkeys(specs)]
  largest = max(cut.width for plan in plans for cut in plan.cuts)
  return dataclasses.replace(options, chunk_size=min(MOST_SLOTS, largest))


def keeps_symmetry(spec: NetworkSpec, options: ChunkOptions) -> bool:
  """Whether permutations of hidden neurons carry chunks over to chunks.

  Then SNE is exactly invariant on such networks, if nothing else numbers the
  neurons. Tried on drawn permutations, so it holds for any rule.

  Args:
    spec: the network.
    options: chunk size and rules.
  """
  layout = arrays.layout(spec.layout, options)
  rng = np.random.default_rng(0)
  index = np.where(layout.mask, layout.index, spec.num_weights)
  before = _sets(index)
  for _ in range(_DRAWS):
    moved = np.append(symmetry.draw_permutation(spec, rng), spec.num_weights)
    if not _sets(moved[index]) <= before:
      return False
  return True


def _sets(index: np.ndarray) -> set[bytes]:
  """Returns the set of weights of every chunk, each as a key."""
  return {row.tobytes() for row in np.sort(index.astype(np.int64), axis=1)}
