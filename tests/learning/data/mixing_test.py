"""MixUp: between two members of one layout, weights and targets alike."""

import numpy as np
import pytest

from sne_jax.learning.data import mixing
from sne_jax.networks import families, symmetry

WIDE = families.inr((2, 16, 16, 1))
TANH = families.mlp((2, 4, 1), "tanh")
RELU = families.mlp((2, 4, 1), "relu")
LONE = families.mlp((2, 5, 1))


def mixer(specs, numbers, kind, vectors=None):
  """Members of random weights; the targets are their own number, twice."""
  rng = np.random.default_rng(0)
  numbers = np.array(numbers)
  if vectors is None:
    vectors = [families.random_weights(specs[n], rng) for n in numbers]
  targets = np.stack([np.arange(len(numbers)), -np.arange(len(numbers))], 1)
  return mixing.Mixer(specs, numbers, vectors, targets, kind), vectors


def test_weights_and_targets_have_one_share():
  mix, vectors = mixer((WIDE,), [0, 0, 0], "plain")
  rng = np.random.default_rng(0)
  shares, partners = [], []
  for _ in range(200):
    weights, target = mix(1, rng)
    assert weights.dtype == np.float32
    partner = 2 if target[0] > 1 else 0
    share = 1 - abs(target[0] - 1)
    np.testing.assert_allclose(target, [target[0], -target[0]])
    np.testing.assert_allclose(
      weights, share * vectors[1] + (1 - share) * vectors[partner], atol=1e-5
    )
    shares.append(share)
    partners.append(partner)
  assert np.mean(partners) == pytest.approx(1, abs=0.2)
  # Uniform in [0, 1].
  quarters = np.histogram(shares, 4, (0, 1))[0]
  assert quarters.min() > 30


def test_without_mixing_nothing_is_drawn():
  mix, vectors = mixer((WIDE,), [0, 0], "none")
  rng = np.random.default_rng(0)
  weights, target = mix(1, rng)
  np.testing.assert_array_equal(weights, vectors[1])
  np.testing.assert_array_equal(target, [1, -1])
  assert rng.random() == np.random.default_rng(0).random()


def test_partners_have_the_same_layout():
  """Activations may differ; a member that is alone stays as it is."""
  specs = (TANH, RELU, LONE)
  mix, vectors = mixer(specs, [0, 2, 1, 0], "plain")
  rng = np.random.default_rng(0)
  weights, target = mix(1, rng)
  np.testing.assert_array_equal(weights, vectors[1])
  np.testing.assert_array_equal(target, [1, -1])
  partners = set()
  for _ in range(20):
    weights, target = mix(0, rng)
    for other in (2, 3):
      share = 1 - target[0] / other
      between = share * vectors[0] + (1 - share) * vectors[other]
      if np.allclose(weights, between, atol=1e-5):
        partners.add(other)
        break
    else:
      raise AssertionError("mixed with another layout")
  assert partners == {2, 3}


def copies():
  """One network in many orders."""
  rng = np.random.default_rng(0)
  first = families.random_weights(WIDE, rng)
  return [first] + [
    first[symmetry.draw_permutation(WIDE, rng)] for _ in range(3)
  ]


def test_aligned_copies_of_a_network_mix_to_itself():
  vectors = copies()
  rng = np.random.default_rng(1)
  mix, _ = mixer((WIDE,), [0] * 4, "aligned", vectors)
  for member in range(4):
    weights, target = mix(member, rng)
    np.testing.assert_allclose(weights, vectors[member], atol=1e-6)
    assert target[0] != member
  # The control: unaligned, they do not.
  for kind in ("plain", "permuted"):
    mix, _ = mixer((WIDE,), [0] * 4, kind, vectors)
    assert np.abs(mix(0, rng)[0] - vectors[0]).max() > 0.1


def test_permuted_members_are_mixed_in_other_orders():
  same = copies()[:1] * 2
  rng = np.random.default_rng(1)
  plain, _ = mixer((WIDE,), [0, 0], "plain", same)
  np.testing.assert_allclose(plain(0, rng)[0], same[0], atol=1e-6)
  permuted, _ = mixer((WIDE,), [0, 0], "permuted", same)
  found = [permuted(0, rng)[0] for _ in range(2)]
  assert np.abs(found[0] - same[0]).max() > 0.1
  assert np.abs(found[0] - found[1]).max() > 0.1
