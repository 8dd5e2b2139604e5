"""MixUp of networks: weights and targets between those of two members.

A member is mixed with a partner of the same shapes, at a share `r` uniform in
[0, 1]: weights `r a + (1 - r) b`, targets likewise (of classes: their
probabilities). The kinds differ in what is done about the order of hidden
neurons, which the two do not share:

  plain: nothing;
  permuted: the neurons of the one are shuffled first, so that no order of
    theirs can matter;
  aligned: those of the other are matched to its own (`networks.matching`), so
    that neurons are mixed with the most similar ones.

Dimensions: `N` members, `P` weights of one, `T` targets.

Reference: Shamsian et al., Improved Generalization of Weight Space Networks
via Augmentations, ICML 2024, arXiv:2402.04081.
"""

from collections.abc import Sequence

import numpy as np

from sne_jax.networks import matching, symmetry
from sne_jax.networks.spec import NetworkSpec

KINDS = ("none", "plain", "permuted", "aligned")


class Mixer:
  """Draws members of a zoo, mixed with others.

  Args:
    specs: the architectures.
    numbers: `[N]`, the spec of each member.
    vectors: N vectors `[P]`.
    targets: `[N, T]`, numbers between which one may mix.
    kind: one of `KINDS`; none gives every member as it is.
  """

  def __init__(
    self,
    specs: Sequence[NetworkSpec],
    numbers: np.ndarray,
    vectors: Sequence[np.ndarray],
    targets: np.ndarray,
    kind: str,
  ):
    self._specs = specs
    self._numbers = numbers
    self._vectors = vectors
    self._targets = targets
    self._kind = kind
    layouts = list(dict.fromkeys(spec.layout for spec in specs))
    layout = np.array([layouts.index(spec.layout) for spec in specs])[numbers]
    self._alike = [np.flatnonzero(layout == n) for n in range(len(layouts))]
    self._layout = layout

  def __call__(
    self, member: int, rng: np.random.Generator
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns weights `[P]` and targets `[T]`.

    A member that is the only one of its layout (`NetworkSpec.layout`) comes as
    it is.

    Args:
      member: number of the member.
      rng: advanced by the draw of partner, share and order.
    """
    weights, target = self._vectors[member], self._targets[member]
    alike = self._alike[self._layout[member]]
    if self._kind == "none" or len(alike) < 2:
      return weights, target
    place = int(rng.integers(len(alike) - 1))
    partner = alike[place + (alike[place] >= member)]
    share = rng.random()
    other = self._vectors[partner]
    spec = self._specs[self._numbers[member]]
    if self._kind == "permuted":
      weights = weights[symmetry.draw_permutation(spec, rng)]
    elif self._kind == "aligned":
      other = other[matching.align(spec, weights, other, rng)]
    weights = share * weights + (1 - share) * other
    mixed = share * target + (1 - share) * self._targets[partner]
    return np.asarray(weights, np.float32), mixed
