"""How many weights are kept, and which: exact to one weight."""

import dataclasses

import numpy as np
import pytest

from sne_jax.networks import families, symmetry
from sne_jax.zoo.tickets import options, pruning

SPEC = families.mlp((5, 7, 3), "relu")  # 35 + 7 + 21 + 3 weights.
CNN = families.cnn((1, 6, 6), (3, 4), 3, num_classes=2)


@pytest.mark.parametrize("spec", [SPEC, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 0.77, 1.0])
def test_densities_are_exact_to_one_weight(spec, density):
  sizes = [t.size for t in spec.tensors if "bias" not in t.kind]
  counts = pruning.counts(spec, density)
  exact = np.array(sizes) * density
  assert (np.abs(counts - exact) <= 1).all()
  if exact.min() >= 1:
    assert counts.sum() == round(sum(sizes) * density)
  assert counts.min() >= 1
  rng = np.random.default_rng(0)
  masks = pruning.best(spec, rng.normal(size=(3, spec.num_weights)), counts)
  assert (pruning.kept(spec, masks) == counts).all()
  assert masks[:, ~pruning.prunable(spec)].all()


def test_a_density_that_is_a_difference_is_the_same():
  for part in (0.05, 0.1, 0.2, 0.3):
    one, two = (pruning.counts(CNN, d) for d in (part, 1 - (1 - part)))
    assert (one == two).all()


def test_the_largest_are_kept_of_each_tensor():
  scores = np.zeros((1, SPEC.num_weights))
  scores[0, :35] = 10 + np.arange(35)  # All above those of the last layer.
  scores[0, 42:63] = -np.arange(21)
  (mask,) = pruning.best(SPEC, scores, np.array([2, 3]))
  assert np.flatnonzero(mask[:35]).tolist() == [33, 34]
  assert np.flatnonzero(mask[42:63]).tolist() == [0, 1, 2]
  assert mask[35:42].all() and mask[63:].all()
  (every,) = pruning.best_overall(SPEC, scores, 5)
  assert np.flatnonzero(every[:35]).tolist() == [30, 31, 32, 33, 34]
  assert not every[42:63].any()
  own = pruning.best(SPEC, np.repeat(scores, 2, 0), np.array([[2, 3], [4, 1]]))
  assert pruning.kept(SPEC, own).tolist() == [[2, 3], [4, 1]]


def test_what_is_pruned_stays_pruned():
  """Also where a pruned weight would be large; and of equal sizes, no more."""
  rng = np.random.default_rng(0)
  trained = np.abs(rng.normal(size=(2, SPEC.num_weights))).round(1)
  masks = pruning.best(SPEC, -trained, pruning.counts(SPEC, 0.5))
  for scope in pruning.SCOPES:
    after = pruning.next_masks(SPEC, trained, masks, 0.25, scope)
    assert not (after & ~masks).any()
    assert (pruning.kept(SPEC, after).sum(axis=1) == 14).all()
  trained[0, 3] = np.nan
  trained[1, 4] = np.inf
  after = pruning.next_masks(SPEC, trained, masks, 0.25, "global")
  assert not after[0, 3] and not after[1, 4]


@pytest.mark.parametrize("head", ["pool", "flatten"])
def test_rates_are_of_places_that_neurons_cannot_leave(head):
  """Equal for networks that were permuted; per kernel place, and output."""
  spec = families.cnn((2, 5, 5), (3, 4), 2, num_classes=2, head=head)
  rng = np.random.default_rng(0)
  masks = rng.random((6, spec.num_weights)) < 0.4
  rates = pruning.rates(spec, masks)
  order = symmetry.draw_permutation(spec, rng)
  np.testing.assert_allclose(pruning.rates(spec, masks[:, order]), rates)
  conv, *_, dense = pruning.places(spec).values()
  first = masks[:, conv].reshape(6, 3, 2, 4).mean(axis=(0, 1))
  np.testing.assert_allclose(rates[conv].reshape(3, 8)[1], first.reshape(-1))
  last = masks[:, dense].reshape(6, 2, 4, -1).mean(axis=(0, 2))
  assert last.shape[1] == (1 if head == "pool" else 9)
  found = rates[dense].reshape(2, 4, -1)[:, 3]
  np.testing.assert_allclose(found, last)
  assert (rates[~pruning.prunable(spec)] == 1).all()


def test_rounds_prune_a_fifth_at_most():
  found = pruning.densities(0.95)
  assert len(found) == 14 and found[-1] == pytest.approx(0.05)
  steps = np.diff(np.log([1.0, *found]))
  assert np.ptp(steps) < 1e-12 and np.exp(steps[0]) > 0.8
  assert len(pruning.densities(0.36)) == 2  # Exactly two fifths of the rest.
  assert pruning.densities(0.75, rounds=2) == pytest.approx([0.5, 0.25])


@pytest.mark.parametrize(
  ("masks", "said"),
  [
    (np.ones((2, 65), bool), "masks are of 65 weights, and mlp of 66 weights"),
    (np.ones((2, 66)), "masks are float64 of shape"),
    (np.ones(66, bool), "give bool"),
  ],
)
def test_other_masks_are_refused(masks, said):
  with pytest.raises(ValueError, match=said):
    pruning.check(SPEC, masks)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"sparsity": 1.0}, "sparsity is 1.0; must be above 0 and below 1"),
    ({"sparsity": 0.0}, "sparsity is 0.0"),
    ({"prune_share": 1.5}, "prune_share is 1.5"),
    ({"scope": "tensor"}, "scope is 'tensor'; choose one of layer, global"),
    ({"initializer": "zeros"}, "initializer is 'zeros'; choose one of"),
    ({"architecture": "wild_park"}, "architecture is 'wild_park'; choose"),
    ({"validation_share": 0.5, "test_share": 0.5}, "must leave some networks"),
  ],
)
def test_options_out_of_range_are_refused(changes, said):
  with pytest.raises(ValueError, match=said):
    options.TicketOptions(**changes)


def test_a_network_without_weights_between_layers():
  bias = dataclasses.replace(SPEC.tensors[1], of=None)
  spec = dataclasses.replace(SPEC, tensors=(bias,), activations=())
  with pytest.raises(ValueError, match="no weights that can be pruned"):
    pruning.places(spec)
