"""Files whose names leave skips open are read as networks of the training."""

import numpy as np
import pytest

from sne_jax import checkpoints
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import calibration
from sne_jax.networks import families

WIDTHS = (3, 4, 4, 2)


def written(folder, spec, seed=0):
  """A file of a network under other names, and its weights."""
  rng = np.random.default_rng(seed)
  weights = families.random_weights(spec, rng)
  tensors = spec.unflatten(weights)
  renamed = {
    k.replace("layer", "fc"): np.asarray(v) for k, v in tensors.items()
  }
  path = folder / f"{seed}.npz"
  np.savez(path, **renamed)
  return path, weights


def known(specs, *, anatomies=True):
  train = Networks.of([(s, np.zeros(s.num_weights)) for s in specs], [0.0] * 2)
  guess = [{"val": np.zeros((len(specs), 1))}]
  measured = calibration.measure(train, {"val": train}, [0], guess)
  if not anatomies:
    del measured["anatomies"]
  return calibration.of_measured(measured)


@pytest.fixture(scope="module")
def plain():
  return families.mlp(WIDTHS)


@pytest.mark.parametrize("anatomies", [True, False])
def test_training_says_that_there_are_no_skips(tmp_path, plain, anatomies):
  path, weights = written(tmp_path, plain)
  alone = checkpoints.load(path)
  assert len(alone.spec.groups) == 1 and len(plain.groups) == 2
  familiar = known([plain] * 2, anatomies=anatomies).is_familiar
  network = checkpoints.load(path, familiar=familiar)
  assert network.spec.anatomy == plain.anatomy
  assert any("training" in guess for guess in network.inferred.guesses)
  np.testing.assert_array_equal(network.weights(), weights)


def test_other_training_settles_nothing(tmp_path, plain):
  path, _ = written(tmp_path, plain)
  alone = checkpoints.load(path)
  for specs in (
    [families.mlp((3, 5, 4, 2))] * 2,  # Other shapes.
    [alone.spec] * 2,  # Trained on files that were read as this one is.
  ):
    found = checkpoints.load(path, familiar=known(specs).is_familiar)
    assert found.spec == alone.spec
    assert found.inferred.guesses == alone.inferred.guesses


def test_what_a_person_says_comes_first(tmp_path, plain):
  path, _ = written(tmp_path, plain)
  skips = {"skips": [["fc0", "fc1"]]}
  familiar = known([plain] * 2).is_familiar
  found = checkpoints.load(path, override=skips, familiar=familiar)
  assert len(found.spec.groups) == 1


def test_how_networks_are_run_is_known_where_all_are_run_alike():
  sine, relu = (families.inr(WIDTHS), families.mlp(WIDTHS))
  nobody_says = sine.anatomy
  assert known([sine] * 2).as_run(nobody_says) == sine
  assert known([relu] * 2).as_run(nobody_says) == relu
  assert known([sine, relu]).as_run(nobody_says) is nobody_says
  assert known([sine] * 2).as_run(relu) is relu  # It says it by itself.
  other = families.inr((3, 5, 4, 2)).anatomy
  assert known([sine] * 2).as_run(other) is other
