"""Whether a network is a stranger to the training, and how much of one.

Three views are looked at together: what its weights look like (`traits`), how
far its code is from those of the training, and whether its tensors look as if
they had been trained at all, or like tensors whose entries were shuffled. Each
is put in units of what is usual of the validation networks, which were not
trained on; the worst of the three counts.

Two p-values are given. That of one of us: the share of validation networks that
are at least as unlike. And that of a newcomer: the share of networks that are
at least as unlike the networks of all makers but their own, wherever training
has several makers. Who is no newcomer by that is nobody whom the training could
speak for.

Dimensions: `N` networks, `M` of the training, `K` for calibration, `F` traits
that are used, `D` width of a code, `G` groups, `V` views.

References:
  Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution
  Samples and Adversarial Attacks, NeurIPS 2018, arXiv:1807.03888: distances
  from the nearest group, in a covariance that groups share. Bates et al.,
  Testing for Outliers with Conformal p-values, 2023, arXiv:2104.08279.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn import covariance

from sne_jax.learning.evaluation import conformal, novelty

ALPHA = 0.05
"""Share of networks like those of the training that are called unlike."""

VIEWS = ("weights", "training", "code")

_LEAST_SPREAD = 0.05  # Of a trait that hardly varies: all are of order 1.
_LEAST_GROUP = 8  # Networks of a group that has a centre of its own.
_LEAST_USUAL = 15  # Validation networks that say what is usual of a group.
_LOW = 0.05  # How unlike networks are of which nothing is unusual, at most.
_FARTHEST = 50.0  # Deviations beyond which a trait is not told apart.


class Sample(NamedTuple):
  """Networks as they are looked at.

  Attributes:
    traits: of their weights, nan where they lack a place.
    codes: of their encodings, of all seeds.
    groups: which look alike, as numbers: of one architecture and maker.
    makers: who made each, as numbers; all 0 where that is not known.
  """

  traits: Float[np.ndarray, "N traits"]
  codes: Float[np.ndarray, "N D"]
  groups: np.ndarray
  makers: np.ndarray

  def where(self, chosen: np.ndarray) -> "Sample":
    """Returns those that are chosen."""
    return Sample(*(values[chosen] for values in self))


class Looks(NamedTuple):
  """What weights of the training look like; arrays.

  Attributes:
    columns: which traits are used.
    mean: of them.
    spread: their deviation.
    centres: of groups, standardised.
    precision: within groups.
    direction: from networks to those with shuffled entries; standardised.
    reference: codes of the training.
  """

  columns: np.ndarray
  mean: np.ndarray
  spread: np.ndarray
  centres: np.ndarray
  precision: np.ndarray
  direction: np.ndarray
  reference: np.ndarray


class Known(NamedTuple):
  """What is kept with a model, to judge networks.

  Attributes:
    looks: of the training.
    middle: of the views of validation networks, by the group that they are
      nearest to, `[G, V]`.
    usual: from there to what one in twenty of them exceeds, `[G, V]`.
    own: how unlike validation networks are, `[K]`.
    newcomers: how unlike the networks of makers are that were left out, `[K]`;
      empty where training has one maker.
  """

  looks: Looks
  middle: np.ndarray
  usual: np.ndarray
  own: np.ndarray
  newcomers: np.ndarray

  def unlike(self, given: Sample) -> Float[np.ndarray, "N"]:
    """Returns how unlike networks are: above 1, one in twenty of ours is."""
    seen, group = views(self.looks, given)
    away = (seen - self.middle[group]) / self.usual[group]
    worst = np.nanmax(away, axis=1)
    # Above 0, and still in their order, where all is as usual.
    low = _LOW * np.exp(np.minimum(worst, _LOW) - _LOW)
    return np.where(worst > _LOW, worst, low)

  def own_p(self, unlike: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Returns the p-value of being one of the training's kind."""
    return p_values(unlike, self.own)

  def newcomer_p(
    self, unlike: Float[np.ndarray, "N"]
  ) -> Float[np.ndarray, "N"]:
    """Returns the p-value of being of a maker that was left out.

    Without several makers it is that of `own_p`.
    """
    return p_values(unlike, self.newcomers if len(self.newcomers) else self.own)

  def arrays(self) -> dict[str, np.ndarray]:
    """Returns all as arrays by name, for `of_arrays`."""
    rest = {k: v for k, v in self._asdict().items() if k != "looks"}
    return {f"looks {k}": v for k, v in self.looks._asdict().items()} | rest


def of_arrays(arrays: Mapping[str, np.ndarray]) -> Known:
  """Returns what `Known.arrays` gave.

  Raises:
    KeyError: something is missing.
  """
  looks = Looks(*(arrays[f"looks {name}"] for name in Looks._fields))
  return Known(looks, *(arrays[name] for name in Known._fields[1:]))


def fit(
  train: Sample,
  shuffled: Float[np.ndarray, "M traits"],
  val: Sample,
) -> Known:
  """Learns what is usual.

  Args:
    train: the training networks.
    shuffled: traits of the same, the entries of their tensors shuffled.
    val: networks that were not trained on.

  Raises:
    ValueError: there are none.
  """
  if not len(train.traits) or not len(val.traits):
    raise ValueError(
      f"need networks of the training and others, got {len(train.traits)} and"
      f" {len(val.traits)}"
    )
  known = _calibrated(train, shuffled, val)
  left_out = [
    _calibrated(
      *(train.where(others), shuffled[others]),
      val.where(val.makers != maker) if any(val.makers != maker) else val,
    ).unlike(val.where(val.makers == maker))
    for maker in np.unique(val.makers)
    for others in [train.makers != maker]
    if 0 < others.sum() < len(others)
  ]
  newcomers = np.concatenate(left_out) if left_out else np.zeros(0)
  return known._replace(newcomers=newcomers)


def _calibrated(train: Sample, shuffled: np.ndarray, val: Sample) -> Known:
  """Returns what is usual, as one training knows it."""
  looks = look(train, shuffled)
  seen, group = views(looks, val)
  rows = []
  for number in range(len(looks.centres)):
    here = seen[group == number]
    here = seen if len(here) < _LEAST_USUAL else here
    middle = np.median(here, axis=0)
    most = np.quantile(here, 1 - ALPHA, axis=0) - middle
    rows.append((middle, np.maximum(most, 1e-6)))
  middle, usual = (np.stack(part) for part in zip(*rows, strict=True))
  known = Known(looks, middle, usual, np.zeros(0), np.zeros(0))
  own = known.unlike(val)
  # In units of what one in twenty exceeds, by the rank of a p-value.
  width = conformal.half_width(own, 1 - ALPHA)
  width = width if np.isfinite(width) else float(own.max())
  known = known._replace(usual=usual * max(width, _LOW))
  return known._replace(own=known.unlike(val))


def look(train: Sample, shuffled: Float[np.ndarray, "M traits"]) -> Looks:
  """Learns what networks look like, and how shuffled ones differ."""
  columns = np.flatnonzero(np.isfinite(train.traits).any(axis=0))
  used = train.traits[:, columns]
  mean = np.nanmean(used, axis=0)
  spread = np.maximum(np.nanstd(used, axis=0), _LEAST_SPREAD)
  none = np.zeros(0)
  looks = Looks(columns, mean, spread, none, none, none, train.codes)
  real, false = _standard(looks, train.traits), _standard(looks, shuffled)
  names, counts = np.unique(train.groups, return_counts=True)
  whole = names[counts >= _LEAST_GROUP]
  place = [
    int(np.flatnonzero(whole == group)[0]) if group in whole else len(whole)
    for group in train.groups
  ]
  place = np.unique(place, return_inverse=True)[1].reshape(-1)
  centres = np.stack(
    [real[place == number].mean(axis=0) for number in range(place.max() + 1)]
  )
  within = real - centres[place]
  apart = false - false.mean(axis=0)
  both = _precision(np.concatenate([within, apart]))
  direction = both @ (false.mean(axis=0) - real.mean(axis=0))
  return looks._replace(
    centres=centres, precision=_precision(within), direction=direction
  )


def views(
  looks: Looks, given: Sample
) -> tuple[Float[np.ndarray, "N V"], Int[np.ndarray, "N"]]:
  """Returns `VIEWS` of networks, and the group that each is nearest to.

  A view is larger for what is more unlike.
  """
  standard = _standard(looks, given.traits)
  away = standard[:, None] - looks.centres  # [N, G, F]
  squares = np.einsum("ngf,fh,ngh->ng", away, looks.precision, away)
  weights = np.sqrt(np.maximum(squares.min(axis=1), 0) / standard.shape[1])
  # Nothing of it was looked at: known by the code alone.
  blind = np.isnan(given.traits).all(axis=1)
  weights, trained = (
    np.where(blind, np.nan, values)
    for values in (weights, standard @ looks.direction)
  )
  codes = novelty.distances(given.codes.astype(np.float64), looks.reference)
  return np.stack([weights, trained, codes], axis=1), squares.argmin(axis=1)


def p_values(
  unlike: Float[np.ndarray, "N"], usual: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "N"]:
  """Returns the share, itself included, that is at least as unlike."""
  ordered = np.sort(usual)
  above = len(ordered) - np.searchsorted(ordered, unlike, side="left")
  return (1 + above) / (len(ordered) + 1)


def _standard(looks: Looks, traits: np.ndarray) -> np.ndarray:
  """Returns traits in deviations; what is missing is as usual."""
  scaled = (traits[:, looks.columns] - looks.mean) / looks.spread
  return np.clip(np.nan_to_num(scaled, nan=0.0), -_FARTHEST, _FARTHEST)


def _precision(rows: np.ndarray) -> np.ndarray:
  """Returns the inverse covariance, shrunk as Ledoit and Wolf do."""
  found, _ = covariance.ledoit_wolf(rows, assume_centered=True)
  floor = 1e-3 * np.eye(len(found))  # Traits that do not vary at all.
  return np.linalg.inv(found + floor)
