"""Metrics of predicted properties, with intervals. On the host, in float64.

A metric takes the true property `y [N]` and its prediction `[N]` and returns
one float. It is nan, never an error, where it is undefined:

* fewer than 2 members, for the rank metrics and R^2 (all others need 1);
* a constant `y` or a constant prediction, for the rank metrics;
* a constant `y`, for R^2 (a constant prediction has an R^2, of at most 0);
* any value that is not finite, for every metric: a diverged prediction must
  show in the table, not drop out of it.

Of a property that is a class, `y` and its prediction are numbers of classes.

Dimensions: `N` members, `R` bootstrap resamples.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, Real
from scipy import stats

Metric = Callable[[np.ndarray, np.ndarray], float]

DENSE_LIMIT = 1024
"""Up to this many members, tau is bootstrapped by a matrix of all pairs."""


def kendall_tau(y: Real[np.ndarray, "N"], prediction) -> float:
  """Kendall's tau-b in [-1, 1]; 1 when both rank the members alike.

  With C concordant and D discordant pairs and T pairs tied in one only,
  `(C - D) / sqrt((C + D + T_y) (C + D + T_prediction))`.
  """
  y, prediction = _checked(y, prediction)
  if not _rankable(y, prediction):
    return float("nan")
  tau: Any = stats.kendalltau(y, prediction)
  return float(tau.statistic)


def spearman(y: Real[np.ndarray, "N"], prediction) -> float:
  """Spearman's rank correlation in [-1, 1]; ties get their mean rank."""
  y, prediction = _checked(y, prediction)
  if not _rankable(y, prediction):
    return float("nan")
  rho: Any = stats.spearmanr(y, prediction)
  return float(rho.statistic)


def r_squared(y: Real[np.ndarray, "N"], prediction) -> float:
  """`1 - sum (y - prediction)^2 / sum (y - mean y)^2`, at most 1.

  0 is the constant predictor that knows the mean of these members.
  """
  y, prediction = _checked(y, prediction)
  if y.size < 2 or not _finite(y, prediction) or _constant(y):
    return float("nan")
  residual = np.sum((y - prediction) ** 2)
  return float(1.0 - residual / np.sum((y - y.mean()) ** 2))


def mse(y: Real[np.ndarray, "N"], prediction) -> float:
  """Mean squared error, in the squared unit of the property."""
  y, prediction = _checked(y, prediction)
  if y.size < 1 or not _finite(y, prediction):
    return float("nan")
  return float(np.mean((y - prediction) ** 2))


def mae(y: Real[np.ndarray, "N"], prediction) -> float:
  """Mean absolute error, in the unit of the property."""
  y, prediction = _checked(y, prediction)
  if y.size < 1 or not _finite(y, prediction):
    return float("nan")
  return float(np.mean(np.abs(y - prediction)))


def accuracy(y: Real[np.ndarray, "N"], prediction) -> float:
  """Share of the members whose class is predicted, in [0, 1]."""
  y, prediction = _checked(y, prediction)
  if y.size < 1 or not _finite(y, prediction):
    return float("nan")
  return float(np.mean(y == prediction))


def balanced_accuracy(y: Real[np.ndarray, "N"], prediction) -> float:
  """Mean over the classes in `y` of the share that is predicted, in [0, 1].

  One class for all members gives `1 / K` with `K` classes, however frequent it
  is.
  """
  y, prediction = _checked(y, prediction)
  if y.size < 1 or not _finite(y, prediction):
    return float("nan")
  return float(_balanced_rows(y[None], prediction[None])[0])


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
  rng = np.random.default_rng(seed)
  vectorised = _VECTORISED.get(metric, _one_by_one(metric))
  with np.errstate(divide="ignore", invalid="ignore"):
    if clusters is None or len(np.unique(clusters)) == len(clusters):
      draws = vectorised(y, prediction, rng, num_resamples)
    else:
      rows = _cluster_draws(rng, clusters, num_resamples)
      draws = np.array([metric(y[row], prediction[row]) for row in rows])
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
  values: Sequence[float], *, confidence: float = 0.95
) -> dict[str, float]:
  """Mean over training seeds, with Student's t interval and deviation.

  Args:
    values: one value per seed. A nan stays in: the mean is then nan.
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


def _constant(x) -> bool:
  return bool(np.all(x == x[0]))


def _finite(y, prediction) -> bool:
  return bool(np.isfinite(y).all() and np.isfinite(prediction).all())


def _rankable(y, prediction) -> bool:
  if y.size < 2 or not _finite(y, prediction):
    return False
  return not _constant(y) and not _constant(prediction)


def _draws(rng, size: int, num_resamples: int) -> Iterator[np.ndarray]:
  """Yields indices `[r, N]`, some resamples at a time; memory stays bounded."""
  rows = max(1, min(num_resamples, 2_000_000 // size))
  for start in range(0, num_resamples, rows):
    yield rng.integers(0, size, (min(rows, num_resamples - start), size))


def _cluster_draws(rng, clusters, num_resamples: int) -> Iterator[np.ndarray]:
  """Yields the members of as many clusters as there are, drawn anew."""
  order = np.argsort(clusters, kind="stable")
  members = np.split(order, _group_starts(np.asarray(clusters)[order])[1:])
  for _ in range(num_resamples):
    picks = rng.integers(0, len(members), len(members))
    yield np.concatenate([members[pick] for pick in picks])


def _one_by_one(metric: Metric):
  def values(y, prediction, rng, num_resamples):
    return np.array(
      [
        metric(y[row], prediction[row])
        for index in _draws(rng, y.size, num_resamples)
        for row in index
      ]
    )

  return values


def _by_rows(rows_metric):
  """Bootstraps a metric of `[r, N]` arrays; equal draws for every metric."""

  def values(y, prediction, rng, num_resamples):
    parts = [
      rows_metric(y[index], prediction[index])
      for index in _draws(rng, y.size, num_resamples)
    ]
    return np.concatenate(parts)

  return values


def _r_squared_rows(y, prediction):
  total = np.sum((y - y.mean(axis=1, keepdims=True)) ** 2, axis=1)
  total = np.where(np.ptp(y, axis=1) == 0, 0.0, total)
  ratio = np.sum((y - prediction) ** 2, axis=1) / total
  return np.where(total == 0, np.nan, 1.0 - ratio)


def _balanced_rows(y, prediction):
  """Balanced accuracy `[r]` of rows, over the classes that each of them has."""
  shares = []
  for number in np.unique(y):
    own = y == number
    found = np.sum(own & (prediction == number), axis=1)
    size = np.sum(own, axis=1)
    shares.append(np.where(size, found / np.maximum(size, 1), np.nan))
  return np.nanmean(shares, axis=0)


def _spearman_resamples(y, prediction, rng, num_resamples):
  """Spearman's correlation of resamples, from counts; nothing is sorted."""
  parts = []
  for counts in _counted_draws(rng, y.size, num_resamples):
    first, second = _mean_ranks(y, counts), _mean_ranks(prediction, counts)
    first_square = np.sum(counts * first**2, axis=1)
    second_square = np.sum(counts * second**2, axis=1)
    product = np.sum(counts * first * second, axis=1)
    parts.append(product / np.sqrt(first_square * second_square))
  return np.concatenate(parts)


def _kendall_resamples(y, prediction, rng, num_resamples):
  """Tau-b of resamples.

  Few members: from counts `w`, as `w' S w` with `S` the agreement of every
  pair. Many: sorted one by one, which then is cheaper.
  """
  order = np.lexsort((prediction, y))
  if y.size > DENSE_LIMIT:
    place = np.argsort(order)
    y, prediction = y[order], prediction[order]
    rows = (
      np.sort(row)  # sorts faster when it is sorted by y already
      for index in _draws(rng, y.size, num_resamples)
      for row in place[index]
    )
    return np.array([kendall_tau(y[row], prediction[row]) for row in rows])
  agreement = np.sign(y[:, None] - y) * np.sign(
    prediction[:, None] - prediction
  )
  parts = []
  for counts in _counted_draws(rng, y.size, num_resamples):
    agree = (counts @ agreement.astype(np.float32)) * counts
    untied = [
      y.size**2 - _tied_pairs(counts[:, place], x[place])
      for x, place in ((y, order), (prediction, np.argsort(prediction)))
    ]
    agree = np.sum(agree, axis=1, dtype=np.float64)
    parts.append(agree / np.sqrt(untied[0] * untied[1]))
  return np.concatenate(parts)


def _counted_draws(rng, size: int, num_resamples: int) -> Iterator[np.ndarray]:
  """Yields `[r, N]`: how often each member occurs in each resample."""
  for index in _draws(rng, size, num_resamples):
    rows = [np.bincount(row, minlength=size) for row in index]
    yield np.stack(rows).astype(np.float32)  # integers: exact below 2^24


def _group_starts(ordered) -> np.ndarray:
  """Where each run of equal values begins."""
  return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))


def _tied_pairs(counts, ordered):
  """Ordered pairs of draws `[r]` that are equal; a draw and itself too."""
  sizes = np.add.reduceat(counts, _group_starts(ordered), axis=1)
  return np.sum(np.square(sizes, dtype=np.float64), axis=1)


def _mean_ranks(x, counts):
  """Centred ranks `[r, N]` of members in resamples; ties get the mean."""
  order = np.argsort(x, kind="stable")
  starts = _group_starts(x[order])
  sizes = np.add.reduceat(counts[:, order], starts, axis=1, dtype=np.float64)
  ranks = np.cumsum(sizes, axis=1) - (sizes + x.size) / 2
  group = np.empty(x.size, np.int64)
  group[order] = np.repeat(
    np.arange(starts.size), np.diff(np.append(starts, x.size))
  )
  return ranks[:, group]


_VECTORISED: dict[Metric, Callable[..., np.ndarray]] = {
  kendall_tau: _kendall_resamples,
  spearman: _spearman_resamples,
  r_squared: _by_rows(_r_squared_rows),
  mse: _by_rows(lambda y, p: np.mean((y - p) ** 2, axis=1)),
  mae: _by_rows(lambda y, p: np.mean(np.abs(y - p), axis=1)),
  accuracy: _by_rows(lambda y, p: np.mean(y == p, axis=1)),
  balanced_accuracy: _by_rows(_balanced_rows),
}
