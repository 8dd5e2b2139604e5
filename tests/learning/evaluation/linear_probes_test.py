"""Linear probes: the authors' numbers, and a case by hand."""

import pathlib

import numpy as np
import pytest

from sne_jax.learning.evaluation import linear_probes

FIXTURE = np.load(pathlib.Path(__file__).parents[2] / "fixtures/probe.npz")


@pytest.mark.parametrize("case", ["acc", "weak", "large"])
def test_probes_are_the_authors(case):
  z = {part: FIXTURE[f"in/z_{part}"] for part in ("train", "val", "test")}
  y = {part: FIXTURE[f"{case}/y_{part}"] for part in z}
  found = linear_probes.fit(z["train"], y["train"], (z["val"], y["val"]))
  assert found.penalty == pytest.approx(float(FIXTURE[f"{case}/chosen_lambda"]))
  scores = [
    linear_probes.r2(found.predict(z[part]), y[part])
    for part in ("train", "test", "val")
  ]
  np.testing.assert_allclose(
    scores, FIXTURE[f"{case}/r2_train_test_val"], rtol=1e-5, atol=1e-7
  )
  for part in z:
    known = ~np.isnan(y[part])
    np.testing.assert_allclose(
      found.predict(z[part])[known], FIXTURE[f"{case}/pred_{part}"], rtol=1e-5
    )
  np.testing.assert_allclose(
    found.coefficients, FIXTURE[f"{case}/coef"], rtol=1e-3, atol=1e-4
  )
  alone = linear_probes.fit(z["train"], y["train"])
  expected = float(FIXTURE[f"{case}/chosen_lambda_no_val"])
  assert alone.penalty == pytest.approx(expected)


@pytest.mark.parametrize(
  ("penalty", "coefficients", "intercept", "score"),
  [
    (1.0, [1.525, 0.675], 0.575, 0.929929),
    (1e-5, [2.0, 1.0], 0.0, 1.0),
    (1e3, None, None, -3.361165),
  ],
)
def test_a_probe_by_hand(penalty, coefficients, intercept, score):
  x, y = np.array([[0, 1], [1, 0], [1, 1], [2, 1.0]]), np.array([1, 2, 3, 5.0])
  found = linear_probes.fit(x, y, penalties=[penalty])
  assert found.score == pytest.approx(score, abs=1e-5)
  if coefficients:
    np.testing.assert_allclose(found.coefficients, coefficients, atol=1e-4)
    assert found.intercept == pytest.approx(intercept, abs=1e-4)


def test_constant_and_unknown_targets():
  x = np.random.default_rng(0).standard_normal((6, 2))
  constant = np.full(6, 2.0)
  assert linear_probes.r2(constant, constant) == 0
  assert linear_probes.r2(constant + 1, constant) == -np.inf
  assert np.isfinite(linear_probes.fit(x, constant).coefficients).all()
  target = np.array([1, np.nan, 2, 3, 4, np.nan])
  known = ~np.isnan(target)
  np.testing.assert_array_equal(
    linear_probes.fit(x, target).coefficients,
    linear_probes.fit(x[known], target[known]).coefficients,
  )
  with pytest.raises(ValueError, match="no validation target of 6 is known"):
    linear_probes.fit(x, target, (x, np.full(6, np.nan)))
  with pytest.raises(ValueError, match="no penalties"):
    linear_probes.fit(x, target, penalties=[])


def test_fewer_networks_than_entries_give_the_same_ridge():
  rng = np.random.default_rng(0)
  x, y = rng.standard_normal((9, 30)), rng.standard_normal(9)
  found = linear_probes.fit(x, y, penalties=(0.3,))
  ones = np.append(x, np.ones((9, 1)), axis=1)
  left = ones.T @ ones + 0.3 * np.eye(31)
  wanted = np.linalg.solve(left, ones.T @ y)
  np.testing.assert_allclose(found.coefficients, wanted[:-1], atol=1e-10)
  assert found.intercept == pytest.approx(wanted[-1], abs=1e-10)
