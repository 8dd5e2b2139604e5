"""References for classes: right on planted data, blind to the test part."""

import numpy as np
import pytest
from sklearn import linear_model

from sne_jax.learning.evaluation import metrics, references

QUICK = {"learning_rates": (0.2,), "max_leaf_nodes": (7,), "max_iter": 20}


def _parts(noise=0.1, seed=0, ring=False):
  rng = np.random.default_rng(seed)
  weight = rng.normal(size=(4, 3))
  parts = {}
  for part, size in (("train", 150), ("val", 60), ("test", 80)):
    x = rng.normal(size=(size, 4))
    scores = x @ weight + noise * rng.normal(size=(size, 3))
    y = np.argmax(scores, axis=1)
    if ring:
      y = np.digitize(np.abs(x[:, 0]), [0.4, 1.0])
    parts[part] = (x * [1e-3, 1, 1e3, 1] + 5, y.astype(float))
  return parts


RUNS = {
  "constant": lambda parts: references.constant(parts, classes=True),
  "logistic": references.logistic,
  "boosting": lambda parts: references.boosting(parts, classes=True, **QUICK),
}


def _accuracy(reference, parts, part="test"):
  return metrics.accuracy(parts[part][1], reference.predictions[part])


@pytest.mark.parametrize("name", sorted(RUNS))
def test_test_classes_and_other_members_are_never_seen(name):
  parts = _parts(noise=1.0)
  changed = dict(parts)
  x, y = parts["test"]
  changed["test"] = (x[:10], 2 - y[:10])
  first, second = RUNS[name](parts), RUNS[name](changed)
  np.testing.assert_array_equal(
    first.predictions["test"][:10], second.predictions["test"]
  )
  assert first.chosen == second.chosen
  for part, (_, y) in parts.items():
    assert first.predictions[part].shape == y.shape
    assert set(first.predictions[part]) <= {0.0, 1.0, 2.0}


def test_constant_is_the_most_frequent_class_of_training():
  parts = _parts()
  y = np.array([0.0] * 40 + [2.0] * 60 + [1.0] * 50)
  parts["train"] = (parts["train"][0], y)
  reference = references.constant(parts, classes=True)
  assert (reference.predictions["test"] == 2).all()


def test_logistic_is_that_of_scikit_learn():
  parts = _parts(noise=1.0)
  (x, y), (x_test, _) = parts["train"], parts["test"]
  mean, std = x.mean(0), x.std(0)
  # Mean loss plus 0.1 / 2 |w|^2, times the members over 0.1.
  model = linear_model.LogisticRegression(C=1 / (0.1 * len(y)), max_iter=1000)
  model.fit((x - mean) / std, y)
  reference = references.logistic(parts, strengths=[0.1])
  expected = model.predict((x_test - mean) / std)
  np.testing.assert_array_equal(reference.predictions["test"], expected)


def test_logistic_solves_the_linear_case_on_any_scale():
  parts = _parts()
  assert _accuracy(references.logistic(parts), parts) > 0.9
  assert _accuracy(references.constant(parts, classes=True), parts) < 0.6


def test_strength_is_chosen_by_accuracy_then_by_cross_entropy():
  parts = _parts(noise=2.0)
  few = {part: (x[:12], y[:12]) for part, (x, y) in parts.items()}
  few["val"] = parts["val"]
  grid = (10.0, 1.0, 1e-1, 1e-2, 1e-6)
  chosen = references.logistic(few, strengths=grid).chosen
  alone = [
    references.logistic(few, strengths=[s], max_iter=5000).chosen for s in grid
  ]
  best = max(alone, key=lambda c: (c["val_accuracy"], -c["val_loss"]))
  assert chosen["strength"] == best["strength"]
  assert chosen["val_accuracy"] == best["val_accuracy"]
  assert chosen["strength"] != grid[-1]  # the training error would choose it


def test_boosting_sees_what_planes_cannot():
  parts = _parts(ring=True)
  boosted = RUNS["boosting"](parts)
  planes = references.logistic(parts)
  assert _accuracy(boosted, parts) > _accuracy(planes, parts) + 0.2
  assert 1 <= boosted.chosen["trees"] <= 20


def test_number_of_trees_is_that_of_the_best_validation():
  parts = _parts(noise=1.0)
  full = RUNS["boosting"](parts)
  trees = full.chosen["trees"]
  stopped = references.boosting(
    parts, classes=True, **QUICK | {"max_iter": trees}
  )
  for part in parts:
    np.testing.assert_array_equal(
      full.predictions[part], stopped.predictions[part]
    )
  assert _accuracy(full, parts, "val") == full.chosen["val_accuracy"]


def test_faults_are_named():
  with pytest.raises(ValueError, match="part 'val' is missing"):
    references.constant({"train": _parts()["train"]})
  with pytest.raises(ValueError, match="grid .* is empty"):
    references.logistic(_parts(), strengths=[])
