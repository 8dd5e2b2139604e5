"""Phases of sine neurons fold, and nothing else changes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks import families, phases

SPEC = families.inr((1, 8, 7, 1))
POINTS = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]


@pytest.fixture(scope="module")
def weights():
  # Biases of about ten half turns.
  return np.random.default_rng(0).normal(size=SPEC.num_weights) * 0.4


def test_folded_phases_are_the_same_function(weights):
  found = phases.fold(SPEC, weights)
  run = lambda w: np.asarray(families.forward(SPEC, jnp.asarray(w), POINTS))
  np.testing.assert_allclose(run(found), run(weights), atol=1e-3)
  for name in ("layer0.bias", "layer1.bias"):
    before, after = (SPEC.unflatten(w)[name] for w in (weights, found))
    assert np.abs(before).max() * 30 > math.pi
    assert np.abs(after).max() * 30 <= math.pi / 2 + 1e-5
  # The control: the same turns, and no reader that changes its sign.
  tensors = SPEC.unflatten(np.array(found))
  before = SPEC.unflatten(np.asarray(weights, np.float32))
  wrong = SPEC.flatten(
    {n: t if "bias" in n else before[n] for n, t in tensors.items()}, np
  )
  assert np.abs(run(wrong) - run(weights)).max() > 0.1


def test_networks_that_differ_by_half_turns_fold_to_one(weights):
  tensors = SPEC.unflatten(np.array(weights))
  tensors["layer0.bias"] = tensors["layer0.bias"] + 3 * math.pi / 30
  tensors["layer1.weight"] = -tensors["layer1.weight"]
  other = SPEC.flatten(tensors, np)
  np.testing.assert_allclose(
    phases.fold(SPEC, other), phases.fold(SPEC, weights), atol=1e-5
  )


def test_jax_folds_alike_and_differentiates(weights):
  vector = jnp.asarray(weights, jnp.float32)
  np.testing.assert_allclose(
    phases.fold(SPEC, vector, jnp),
    phases.fold(SPEC, np.asarray(vector)),
    atol=1e-6,
  )
  slopes = jax.grad(lambda w: phases.fold(SPEC, w, jnp).sum())(vector)
  np.testing.assert_allclose(np.abs(slopes), 1.0)


def test_files_are_understood_as_the_training_says(weights):
  bare = dataclasses.replace(SPEC, activations=(), options=(), family="unknown")
  assert (phases.fold(bare, weights) == weights).all()
  known = phases.measure([SPEC, families.mlp((1, 3, 1), "relu")])
  assert list(known.values()) == [30.0]
  read = phases.understood(bare, known)
  np.testing.assert_array_equal(
    phases.fold(read, weights), phases.fold(SPEC, weights)
  )
  # One that says what it is, and one that nobody has seen, stay.
  relu = dataclasses.replace(bare, activations=("relu", "relu", "none"))
  assert phases.understood(relu, known) is relu
  other = dataclasses.replace(
    families.inr((1, 5, 1)), activations=(), options=(), family="unknown"
  )
  assert phases.understood(other, known) is other
