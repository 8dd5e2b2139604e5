"""Metrics against scipy, hand examples, and a bootstrap done by loops."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from sne_jax.learning.evaluation import metrics

NAMES = sorted(metrics.METRICS)


def _example(size, seed=0, ties=False):
  rng = np.random.default_rng(seed)
  y = rng.normal(size=size)
  prediction = y + rng.normal(size=size)
  if ties:
    y, prediction = np.round(y), np.round(prediction)
  return y, prediction


def test_kendall_by_hand():
  # Pairs: (1,2) concordant, (1,3) concordant, (2,3) tied in y only.
  tau = metrics.kendall_tau(np.array([1, 2, 2]), np.array([1.0, 2.0, 3.0]))
  assert tau == pytest.approx(2 / math.sqrt(2 * 3))


def test_errors_and_r_squared_by_hand():
  y, prediction = np.array([0.0, 2.0, 4.0]), np.array([1.0, 2.0, 2.0])
  assert metrics.mse(y, prediction) == pytest.approx(5 / 3)
  assert metrics.mae(y, prediction) == pytest.approx(1.0)
  assert metrics.r_squared(y, prediction) == pytest.approx(1 - 5 / 8)
  assert metrics.r_squared(y, np.full(3, 2.0)) == 0.0


def test_accuracies_by_hand():
  y, prediction = np.array([0.0, 0, 0, 0, 1, 2]), np.array([0.0, 0, 0, 1, 1, 0])
  assert metrics.accuracy(y, prediction) == pytest.approx(4 / 6)
  assert metrics.balanced_accuracy(y, prediction) == pytest.approx(
    (3 / 4 + 1 + 0) / 3
  )
  # The most frequent class for all: 1 / K.
  assert metrics.balanced_accuracy(y, np.zeros(6)) == pytest.approx(1 / 3)
  # A class that nobody has is in no mean.
  assert metrics.balanced_accuracy(y[:5], np.full(5, 3.0)) == 0
  assert metrics.balanced_accuracy(y[:5], y[:5]) == 1


def test_balanced_accuracy_agrees_with_scikit_learn():
  rng = np.random.default_rng(0)
  y = rng.choice(4, 200, p=(0.6, 0.2, 0.15, 0.05)).astype(float)
  prediction = np.where(rng.random(200) < 0.5, y, rng.integers(0, 4, 200))
  assert metrics.balanced_accuracy(y, prediction) == pytest.approx(
    sklearn_metrics.balanced_accuracy_score(y, prediction), abs=1e-12
  )


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2))
def test_kendall_is_tau_b_with_ties(pairs):
  y, prediction = np.array(pairs, float).T
  agree = tied_y = tied_p = 0
  for i in range(len(y)):
    for j in range(i):
      a, b = np.sign(y[i] - y[j]), np.sign(prediction[i] - prediction[j])
      agree += a * b
      tied_y += a == 0 and b != 0
      tied_p += b == 0 and a != 0
  both = sum(
    y[i] != y[j] and prediction[i] != prediction[j]
    for i in range(len(y))
    for j in range(i)
  )
  scale = math.sqrt((both + tied_y) * (both + tied_p))
  tau = metrics.kendall_tau(y, prediction)
  if scale == 0 or np.ptp(y) == 0 or np.ptp(prediction) == 0:
    assert math.isnan(tau)
  else:
    assert tau == pytest.approx(agree / scale, abs=1e-12)


def test_ranks_agree_with_scipy():
  y, prediction = _example(50, ties=True)
  tau = stats.kendalltau(y, prediction).statistic
  rho = stats.spearmanr(y, prediction).statistic
  assert metrics.kendall_tau(y, prediction) == pytest.approx(tau, abs=1e-12)
  assert metrics.spearman(y, prediction) == pytest.approx(rho, abs=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
def test_undefined_is_nan(name):
  metric = metrics.METRICS[name]
  varied, constant = np.array([1.0, 2.0, 3.0]), np.ones(3)
  is_rank = name in ("kendall_tau", "spearman")
  assert math.isnan(metric(varied, constant)) == is_rank
  assert math.isnan(metric(constant, varied)) == (
    is_rank or name == "r_squared"
  )
  assert math.isnan(metric(np.zeros(0), np.zeros(0)))
  one = math.isnan(metric(np.ones(1), np.zeros(1)))
  assert one == (is_rank or name == "r_squared")
  assert math.isnan(metric(varied, np.array([1.0, np.nan, 2.0])))
  assert math.isnan(metric(varied, np.array([1.0, np.inf, 2.0])))


def test_shapes_are_checked():
  with pytest.raises(ValueError, match=r"\(3,\) and \(3, 1\)"):
    metrics.mse(np.zeros(3), np.zeros((3, 1)))


@pytest.mark.parametrize("dense_limit", [0, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_bootstrap_equals_plain_loops(name, dense_limit, monkeypatch):
  monkeypatch.setattr(metrics, "DENSE_LIMIT", dense_limit)
  metric = metrics.METRICS[name]
  y, prediction = _example(40, ties=True)
  fast = metrics.bootstrap_interval(
    metric, y, prediction, num_resamples=60, seed=3
  )
  plain = metrics.bootstrap_interval(
    lambda a, b: metric(a, b), y, prediction, num_resamples=60, seed=3
  )
  assert fast == pytest.approx(plain, abs=1e-10)


@pytest.mark.parametrize("clusters", [None, np.arange(40) // 3])
def test_bootstrap_draws_are_those_of_one_generator(clusters, monkeypatch):
  y, prediction = _example(40, ties=True)
  groups = [
    np.flatnonzero(clusters == c) if clusters is not None else np.array([c])
    for c in (range(40) if clusters is None else np.unique(clusters))
  ]
  rng, values = np.random.default_rng(5), []
  for _ in range(50):
    rows = np.concatenate(
      [groups[g] for g in rng.integers(0, len(groups), len(groups))]
    )
    values.append(np.mean((y - prediction)[rows] ** 2))
  interval = functools.partial(
    metrics.bootstrap_interval,
    metrics.mse,
    y,
    prediction,
    clusters=clusters,
    num_resamples=50,
    seed=5,
  )
  expected = tuple(np.percentile(values, [2.5, 97.5]))
  assert interval() == pytest.approx(expected, rel=1e-14)
  monkeypatch.setattr(metrics, "BLOCK", 150)  # A few resamples at a time.
  assert interval() == pytest.approx(expected, rel=1e-14)


def test_bootstrap_interval_of_a_mean_is_the_known_one():
  y = np.zeros(400)
  prediction = np.sqrt(np.random.default_rng(1).exponential(size=400))
  low, high = metrics.bootstrap_interval(
    metrics.mse, y, prediction, num_resamples=4000
  )
  error = prediction**2
  half = 1.96 * error.std() / 20
  assert low == pytest.approx(error.mean() - half, abs=0.02)
  assert high == pytest.approx(error.mean() + half, abs=0.02)
  narrow = metrics.bootstrap_interval(
    metrics.mse, y, prediction, confidence=0.5
  )
  assert low < narrow[0] < narrow[1] < high


def test_bootstrap_is_a_function_of_the_seed():
  y, prediction = _example(30)
  first, again, other = (
    metrics.bootstrap_interval(metrics.mse, y, prediction, seed=seed)
    for seed in (0, 0, 1)
  )
  assert first == again != other


@pytest.mark.filterwarnings("error")
def test_bootstrap_leaves_out_undefined_draws():
  # Most draws of two members repeat one of them: no ranks there.
  y = np.array([0.0, 1.0])
  assert metrics.bootstrap_interval(metrics.kendall_tau, y, y) == (1.0, 1.0)
  assert metrics.bootstrap_interval(metrics.r_squared, y, y) == (1.0, 1.0)
  none = metrics.bootstrap_interval(metrics.kendall_tau, y, np.ones(2))
  assert np.isnan(none).all()


@pytest.mark.parametrize(
  "options", [{"num_resamples": 0}, {"confidence": 1.0}, {"confidence": 95.0}]
)
def test_bootstrap_options_are_checked(options):
  with pytest.raises(ValueError, match=next(iter(options))):
    metrics.bootstrap_interval(metrics.mse, np.zeros(3), np.zeros(3), **options)


def test_evaluate():
  y, prediction = _example(30)
  table = metrics.evaluate(y, prediction, ("mse", "kendall_tau"))
  assert list(table) == ["mse", "kendall_tau"]
  for name, row in table.items():
    assert row["value"] == metrics.METRICS[name](y, prediction)
    assert row["low"] < row["value"] < row["high"]
  with pytest.raises(ValueError, match="'tau'; known: kendall_tau"):
    metrics.evaluate(y, prediction, ("tau",))


def test_every_metric_says_which_end_is_better():
  y = np.array([0.0, 1.0, 2.0, 2.0])
  wrong = np.array([2.0, 1.5, 0.0, 0.0])
  for name, metric in metrics.METRICS.items():
    better = metric(y, y) > metric(y, wrong)
    assert metrics.HIGHER_IS_BETTER[name] == better, name


def test_mean_interval_is_student_t():
  # Deviation 1; t quantile of 2 degrees of freedom is 4.3027.
  row = metrics.mean_interval([1.0, 2.0, 3.0])
  half = 4.302653 / math.sqrt(3)
  assert row["mean"] == 2.0
  assert row["std"] == pytest.approx(1.0)
  assert row["count"] == 3
  assert (row["low"], row["high"]) == pytest.approx((2 - half, 2 + half))


def test_mean_interval_of_one_and_of_a_failed_seed():
  one = metrics.mean_interval([0.5])
  assert one["mean"] == 0.5
  assert math.isnan(one["low"])
  assert math.isnan(one["std"])
  assert math.isnan(metrics.mean_interval([0.5, float("nan")])["mean"])
  with pytest.raises(ValueError, match="at least one"):
    metrics.mean_interval([])


def test_whole_clusters_are_drawn():
  rng = np.random.default_rng(0)
  base, error = rng.normal(size=60), 0.5 * rng.normal(size=60)
  y, prediction, clusters = (
    np.repeat(x, 5) for x in (base, base + error, np.arange(60))
  )

  def width(**options):
    low, high = metrics.bootstrap_interval(
      metrics.mse, y, prediction, seed=1, **options
    )
    return high - low

  # Five copies of each member say no more than one of each.
  low, high = metrics.bootstrap_interval(
    metrics.mse, base, base + error, seed=1
  )
  assert width(clusters=clusters) == pytest.approx(high - low, rel=0.1)
  assert width() < 0.6 * (high - low)
  shuffled = rng.permutation(len(y))
  y, prediction, clusters = (
    y[shuffled],
    prediction[shuffled],
    clusters[shuffled],
  )
  assert width(clusters=clusters) == pytest.approx(high - low, rel=0.1)
  assert width(clusters=np.arange(len(y))) == width()
