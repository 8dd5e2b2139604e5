"""References: right answers on planted data, and no look at the test part."""

import numpy as np
import pytest
from sklearn import linear_model

from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import metrics, references
from sne_jax.networks.spec import NetworkSpec, TensorSpec, plain_axis

QUICK = {"learning_rates": (0.1,), "max_leaf_nodes": (7,), "max_iter": 30}


def _parts(noise=0.1, seed=0, nonlinear=False):
  rng = np.random.default_rng(seed)
  weight = rng.normal(size=6)
  parts = {}
  for part, size in (("train", 120), ("val", 60), ("test", 50)):
    x = rng.normal(size=(size, 6)) * 10.0 ** np.arange(-3, 3) + 5
    y = ((x - 5) / 10.0 ** np.arange(-3, 3)) @ weight
    y = np.abs(y) if nonlinear else y + noise * rng.normal(size=size)
    parts[part] = (x, y)
  return parts


def _test_r_squared(reference, parts):
  return metrics.r_squared(parts["test"][1], reference.predictions["test"])


RUNS = {
  "constant": references.constant,
  "ridge": references.ridge,
  "boosting": lambda parts: references.boosting(parts, **QUICK),
}


@pytest.mark.parametrize("name", sorted(RUNS))
def test_predicts_every_part_and_is_deterministic(name):
  parts = _parts()
  first, again = RUNS[name](parts), RUNS[name](parts)
  assert first.chosen == again.chosen
  for part, (_, y) in parts.items():
    assert first.predictions[part].shape == y.shape
    np.testing.assert_array_equal(
      first.predictions[part], again.predictions[part]
    )


@pytest.mark.parametrize("name", sorted(RUNS))
def test_test_targets_and_other_members_are_never_seen(name):
  parts = _parts()
  changed = dict(parts)
  x, y = parts["test"]
  changed["test"] = (x[:10], np.full(10, 1e6) + y[:10])
  first, second = RUNS[name](parts), RUNS[name](changed)
  np.testing.assert_allclose(
    first.predictions["test"][:10], second.predictions["test"], rtol=1e-12
  )
  assert first.chosen == second.chosen


def test_constant_is_the_mean_of_the_training_part():
  parts = _parts()
  reference = references.constant(parts)
  mean = parts["train"][1].mean()
  assert reference.predictions["test"] == pytest.approx(mean)
  train = metrics.r_squared(parts["train"][1], reference.predictions["train"])
  assert train == pytest.approx(0.0, abs=1e-12)


def test_ridge_equals_scikit_learn():
  parts = _parts(noise=1.0)
  (x, y), (x_test, _) = parts["train"], parts["test"]
  mean, std = x.mean(0), x.std(0)
  model = linear_model.Ridge(alpha=0.3 * len(y)).fit((x - mean) / std, y)
  reference = references.ridge(parts, strengths=[0.3])
  np.testing.assert_allclose(
    reference.predictions["test"],
    model.predict((x_test - mean) / std),
    rtol=1e-9,
  )


def test_ridge_solves_the_linear_case_on_any_scale():
  parts = _parts(noise=0.01)
  assert _test_r_squared(references.ridge(parts), parts) > 0.999


def test_strength_is_chosen_on_validation():
  parts = _parts(noise=5.0)
  few = {part: (x[:8], y[:8]) for part, (x, y) in parts.items()}
  few["val"] = parts["val"]
  grid = (1e-6, 1e-2, 1.0, 1e2)
  chosen = references.ridge(few, strengths=grid).chosen
  errors = {}
  for strength in grid:
    one = references.ridge(few, strengths=[strength])
    errors[strength] = metrics.mse(few["val"][1], one.predictions["val"])
  assert chosen["strength"] == min(errors, key=errors.__getitem__)
  assert chosen["val_mse"] == pytest.approx(min(errors.values()))
  assert chosen["strength"] != grid[0]  # the training error would choose it


def test_boosting_sees_what_a_line_cannot():
  parts = _parts(nonlinear=True)
  boosted = RUNS["boosting"](parts)
  line = references.ridge(parts)
  assert _test_r_squared(boosted, parts) > _test_r_squared(line, parts) + 0.2
  assert 1 <= boosted.chosen["trees"] <= 30


def test_number_of_trees_is_that_of_the_least_validation_error():
  parts = _parts(noise=1.0)
  options = {"learning_rates": (0.2,), "max_leaf_nodes": (15,)}
  full = references.boosting(parts, **options, max_iter=60)
  trees = full.chosen["trees"]
  assert 1 < trees < 60
  stopped = references.boosting(parts, **options, max_iter=trees)
  for part in parts:
    np.testing.assert_array_equal(
      full.predictions[part], stopped.predictions[part]
    )
  error = metrics.mse(parts["val"][1], full.predictions["val"])
  assert error == full.chosen["val_mse"]


def test_constant_features_do_no_harm():
  parts = {
    part: (np.concatenate([x, np.full((len(y), 1), 1 / 3)], axis=1), y)
    for part, (x, y) in _parts().items()
  }
  parts["test"][0][:, -1] = 1.0  # varies only where it was never seen
  plain, padded = references.ridge(_parts()), references.ridge(parts)
  np.testing.assert_allclose(
    plain.predictions["test"], padded.predictions["test"], rtol=1e-9
  )


def _spec(out, extra=0):
  tensors = [
    TensorSpec(
      f"w{i}", "linear_weight", (out, 2), i, (plain_axis(out), plain_axis(2))
    )
    for i in range(1 + extra)
  ]
  return NetworkSpec("unknown", tuple(tensors))


def test_features_of_one_and_of_several_architectures():
  rng = np.random.default_rng(0)
  first, second = rng.normal(size=(3, 6)), rng.normal(size=(2, 8))
  one = references.features(_networks([_spec(3)], [0, 0, 0], first))
  assert one.shape == (3, 7)
  np.testing.assert_allclose(one[2, 0], first[2].mean())
  specs = [_spec(3), _spec(2, extra=1)]
  vectors = [first[0], second[0], first[1], second[1], first[2]]
  mixed = references.features(_networks(specs, [0, 1, 0, 1, 0], vectors))
  assert mixed.shape == (5, 70)
  np.testing.assert_allclose(mixed[4, 0], first[2].mean())
  np.testing.assert_allclose(mixed[3, 0], second[1].mean())


def _networks(specs, numbers, vectors):
  targets = np.zeros((len(numbers), 1))
  return Networks(tuple(specs), np.array(numbers), list(vectors), targets)


def test_faults_are_named():
  parts = _parts()
  with pytest.raises(ValueError, match="part 'val' is missing"):
    references.constant({"train": parts["train"]})
  parts["test"][0][7, 2] = np.inf
  with pytest.raises(ValueError, match="'test': 1 members .* row 7"):
    references.ridge(parts)
  with pytest.raises(ValueError, match="grid .* is empty"):
    references.ridge(_parts(), strengths=[])
