"""Metrics of predicted properties, with intervals. On the host, in float64.

A metric takes the true property `y [N]` and its prediction `[N]` and returns
one float. It is nan, never an error, where it is undefined:

* fewer than 2 members, for the rank metrics and R^2 (all others need 1);
* a constant `y` or a constant prediction, for the rank metrics;
* a constant `y`, for R^2 (a constant prediction has an R^2, of at most 0);
* any value that is not finite, for every metric: a diverged prediction must
  show in the table, not drop out of it.

Of a property that is a class, `y` and its prediction are numbers of classes.

Ranks, correlations and resampling are SciPy's. What is computed here is
computed of all resamples at once, `[R, N]`: thousands of calls would take
longer than a training.

Dimensions: `N` members, `R` bootstrap resamples.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, Real
from scipy import stats

Metric = Callable[[np.ndarray, np.ndarray], float]

DENSE_LIMIT = 1024
"""Up to this many members, tau is bootstrapped by a matrix of all pairs."""

BLOCK = 2_000_000
"""Numbers that are resampled at a time; memory stays bounded."""


def kendall_tau(y: Real[np.ndarray, "N"], prediction) -> float:
  """Kendall's tau-b in [-1, 1]; 1 when both rank the members alike.

  With C concordant and D discordant pairs and T pairs tied in one only,
  `(C - D) / sqrt((C + D + T_y) (C + D + T_prediction))`.
  """
  return _value(_kendall_rows, y, prediction, least=2)


def spearman(y: Real[np.ndarray, "N"], prediction) -> float:
  """Spearman's rank correlation in [-1, 1]; ties get their mean rank."""
  return _value(_spearman_rows, y, prediction, least=2)


def r_squared(y: Real[np.ndarray, "N"], prediction) -> float:
  """`1 - sum (y - prediction)^2 / sum (y - mean y)^2`, at most 1.

  0 is the constant predictor that knows the mean of these members.
  """
  return _value(_r_squared_rows, y, prediction, least=2)


def mse(y: Real[np.ndarray, "N"], prediction) -> float:
  """Mean squared error, in the squared unit of the property."""
  return _value(_mse_rows, y, prediction)


def mae(y: Real[np.ndarray, "N"], prediction) -> float:
  """Mean absolute error, in the unit of the property."""
  return _value(_mae_rows, y, prediction)


def accuracy(y: Real[np.ndarray, "N"], prediction) -> float:
  """Share of the members whose class is predicted, in [0, 1]."""
  return _value(_accuracy_rows, y, prediction)


def balanced_accuracy(y: Real[np.ndarray, "N"], prediction) -> float:
  """Mean over the classes in `y` of the share that is predicted, in [0, 1].

  One class for all members gives `1 / K` with `K` classes, however frequent it
  is.
  """
  return _value(_balanced_rows, y, prediction)


METRICS: dict[str, Metric] = {
  "kendall_tau": kendall_tau,
  "spearman": spearman,
  "r_squared": r_squared,
  "mse": mse,
  "mae": mae,
  "accuracy": accuracy,
  "balanced_accuracy": balanced_accuracy,
}
"""The named metrics."""

HIGHER_IS_BETTER = {name: name not in ("mse", "mae") for name in METRICS}


def bootstrap_interval(
  metric: Metric,
  y: Real[np.ndarray, "N"],
  prediction: Real[np.ndarray, "N"],
  *,
  clusters: Integer[np.ndarray, "N"] | None = None,
  num_resamples: int = 1000,
  confidence: float = 0.95,
  seed: int = 0,
) -> tuple[float, float]:
  """Percentile bootstrap interval of a metric, over members.

  It tells how far the value would move with other test members of the same
  kind; it knows nothing of the spread between training seeds.

  Args:
    metric: `(y, prediction) -> float`; those of `METRICS` are vectorised.
    y: the true property.
    prediction: its prediction.
    clusters: numbers that members share which are not independent, such as
      snapshots of one network: whole clusters are drawn. None: each for itself.
    num_resamples: draws `R` of `N` members with replacement, at least 1.
    confidence: share of the draws that the interval holds, within (0, 1).
    seed: of the draws; the same seed gives the same interval.

  Returns:
    The two ends. Draws in which the metric is undefined (a draw may repeat
    one value only) are left out; both ends are nan if all are, or if the
    metric is undefined on the members themselves.

  Raises:
    ValueError: shapes differ, or an option is out of range.
  """
  y, prediction = _checked(y, prediction)
  if num_resamples < 1:
    raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
  if not 0.0 < confidence < 1.0:
    raise ValueError(f"confidence must lie within (0, 1), got {confidence}")
  if y.size == 0 or not np.isfinite(metric(y, prediction)):
    return float("nan"), float("nan")
  groups = _groups(clusters, y.size)
  if len(groups) == y.size:
    of_rows = _ROWS.get(metric, _one_by_one(metric))
    statistic = lambda rows, axis: of_rows(y[rows], prediction[rows])
    if metric is kendall_tau and y.size <= DENSE_LIMIT:
      statistic = _kendall_counted(y, prediction)
  else:
    members = lambda picks: np.concatenate([groups[pick] for pick in picks])
    statistic = lambda draws, axis: np.array(
      [metric(y[rows], prediction[rows]) for rows in map(members, draws)]
    )
  draws = _draws(statistic, len(groups), num_resamples, seed)
  draws = draws[np.isfinite(draws)]
  if draws.size == 0:
    return float("nan"), float("nan")
  tail = 50.0 * (1.0 - confidence)
  low, high = np.percentile(draws, [tail, 100.0 - tail])
  return float(low), float(high)


def evaluate(
  y: Real[np.ndarray, "N"],
  prediction: Real[np.ndarray, "N"],
  which: Sequence[str] = ("kendall_tau", "r_squared", "mse"),
  *,
  clusters: Integer[np.ndarray, "N"] | None = None,
  num_resamples: int = 1000,
  confidence: float = 0.95,
  seed: int = 0,
) -> dict[str, dict[str, float]]:
  """Returns `{name: {"value", "low", "high"}}` for the named metrics.

  Args:
    y: the true property.
    prediction: its prediction.
    which: names in `METRICS`.
    clusters: see `bootstrap_interval`.
    num_resamples: see `bootstrap_interval`.
    confidence: see `bootstrap_interval`.
    seed: see `bootstrap_interval`.

  Raises:
    ValueError: an unknown name, or as `bootstrap_interval`.
  """
  table = {}
  for name in which:
    if name not in METRICS:
      raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    low, high = bootstrap_interval(
      METRICS[name],
      y,
      prediction,
      clusters=clusters,
      num_resamples=num_resamples,
      confidence=confidence,
      seed=seed,
    )
    value = METRICS[name](y, prediction)
    table[name] = {"value": value, "low": low, "high": high}
  return table


def mean_interval(
  values: Sequence[float | None], *, confidence: float = 0.95
) -> dict[str, float]:
  """Mean over training seeds, with Student's t interval and deviation.

  Args:
    values: one value per seed. A nan stays in: the mean is then nan. None, as
      JSON has it, is nan.
    confidence: of the interval, within (0, 1).

  Returns:
    `mean`, `low`, `high`, `std` (unbiased) and `count`. With one seed the
    interval and the deviation are nan: one run says nothing of spread.

  Raises:
    ValueError: no values, or `confidence` out of range.
  """
  array = np.asarray(values, np.float64).reshape(-1)
  if array.size == 0:
    raise ValueError("mean_interval needs at least one value, got none")
  if not 0.0 < confidence < 1.0:
    raise ValueError(f"confidence must lie within (0, 1), got {confidence}")
  mean, std, half = float(array.mean()), float("nan"), float("nan")
  if array.size > 1:
    std = float(array.std(ddof=1))
    quantile = stats.t.ppf(0.5 + confidence / 2, array.size - 1)
    half = float(quantile * std / np.sqrt(array.size))
  return {
    "mean": mean,
    "low": mean - half,
    "high": mean + half,
    "std": std,
    "count": array.size,
  }


def _checked(y, prediction) -> tuple[np.ndarray, np.ndarray]:
  """Returns both as float64 `[N]`."""
  y, prediction = np.asarray(y, float), np.asarray(prediction, float)
  if y.ndim != 1 or y.shape != prediction.shape:
    raise ValueError(
      "y and prediction must both be of one shape [N], got"
      f" {y.shape} and {prediction.shape}; pass one target at a time"
    )
  return y, prediction


def _value(rows_metric, y, prediction, least: int = 1) -> float:
  """Returns a metric of all members; nan where it is undefined."""
  y, prediction = _checked(y, prediction)
  finite = np.isfinite(y).all() and np.isfinite(prediction).all()
  if y.size < least or not finite:
    return float("nan")
  with np.errstate(divide="ignore", invalid="ignore"):
    return float(rows_metric(y[None], prediction[None])[0])


def _groups(clusters, size: int) -> list[np.ndarray]:
  """Returns the members of every cluster; each for itself without clusters."""
  clusters = np.arange(size) if clusters is None else np.asarray(clusters)
  order = np.argsort(clusters, kind="stable")
  return np.split(order, _group_starts(clusters[order])[1:])


def _draws(statistic, size: int, num_resamples: int, seed: int) -> np.ndarray:
  """Returns a statistic of resampled places `[r, size]`, for every draw."""
  if size == 1:  # SciPy wants two; all draws are this one.
    return statistic(np.zeros((1, 1), int), axis=-1)
  with (
    np.errstate(divide="ignore", invalid="ignore"),
    warnings.catch_warnings(),
  ):
    warnings.simplefilter("ignore")  # Undefined draws are left out.
    return stats.bootstrap(
      (np.arange(size),),
      statistic,
      n_resamples=num_resamples,
      batch=max(1, BLOCK // size),
      method="percentile",
      vectorized=True,
      rng=np.random.default_rng(seed),
    ).bootstrap_distribution


def _one_by_one(metric: Metric):
  return lambda y, prediction: np.array(list(map(metric, y, prediction)))


def _mse_rows(y, prediction):
  return np.mean((y - prediction) ** 2, axis=1)


def _mae_rows(y, prediction):
  return np.mean(np.abs(y - prediction), axis=1)


def _accuracy_rows(y, prediction):
  return np.mean(y == prediction, axis=1)


def _r_squared_rows(y, prediction):
  total = np.sum((y - y.mean(axis=1, keepdims=True)) ** 2, axis=1)
  ratio = np.sum((y - prediction) ** 2, axis=1) / total
  return np.where(np.ptp(y, axis=1) == 0, np.nan, 1.0 - ratio)


def _balanced_rows(y, prediction):
  """Balanced accuracy `[R]` of rows, over the classes that each of them has."""
  shares = []
  for number in np.unique(y):
    members = y == number
    right = np.sum(members & (prediction == number), axis=1)
    size = np.sum(members, axis=1)
    shares.append(np.where(size, right / np.maximum(size, 1), np.nan))
  return np.nanmean(shares, axis=0)


def _spearman_rows(y, prediction):
  """Pearson's correlation of ranks; 0 / 0 where one of them is constant."""
  ranks = [stats.rankdata(x, axis=1) for x in (y, prediction)]
  one, other = (x - x.mean(axis=1, keepdims=True) for x in ranks)
  square = np.sum(one**2, axis=1) * np.sum(other**2, axis=1)
  return np.sum(one * other, axis=1) / np.sqrt(square)


def _kendall_rows(y, prediction):
  pairs = zip(y, prediction, strict=True)
  results: list[Any] = [stats.kendalltau(one, other) for one, other in pairs]
  return np.array([result.statistic for result in results])


def _kendall_counted(y, prediction):
  """Returns tau-b as a function of resampled places `[R, N]`.

  From counts `w` of the members, as `w' S w` with `S` the agreement of every
  pair: a hundred times as fast as sorting every resample.
  """
  agreement = np.sign(y[:, None] - y) * np.sign(
    prediction[:, None] - prediction
  )
  orders = [(x, np.argsort(x)) for x in (y, prediction)]

  def statistic(rows, axis):
    counts = [np.bincount(row, minlength=y.size) for row in rows]
    counts = np.stack(counts).astype(np.float32)  # Exact below 2^24.
    agree = (counts @ agreement.astype(np.float32)) * counts
    untied = [
      y.size**2 - _tied_pairs(counts[:, order], x[order]) for x, order in orders
    ]
    agree = np.sum(agree, axis=1, dtype=np.float64)
    return agree / np.sqrt(untied[0] * untied[1])

  return statistic


def _group_starts(ordered) -> np.ndarray:
  """Where each run of equal values begins."""
  return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))


def _tied_pairs(counts, ordered):
  """Ordered pairs of draws `[R]` that are equal; a draw and itself too."""
  sizes = np.add.reduceat(counts, _group_starts(ordered), axis=1)
  return np.sum(np.square(sizes, dtype=np.float64), axis=1)


_ROWS: dict[Metric, Callable[..., np.ndarray]] = {
  kendall_tau: _kendall_rows,
  spearman: _spearman_rows,
  r_squared: _r_squared_rows,
  mse: _mse_rows,
  mae: _mae_rows,
  accuracy: _accuracy_rows,
  balanced_accuracy: _balanced_rows,
}
