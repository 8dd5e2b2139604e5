"""What the trials have given: their results, ranked on validation alone."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.sweeping.plan import Plan, SweepOptions, Trial
from sne_jax.learning import metrics

RESULTS = "results.json"


class Outcome(NamedTuple):
  """What is known of a trial."""

  trial: Trial
  results: dict[str, Any] | None  # Of `results.json`; None before there is one.
  failed: str  # Why it is not finished; empty where it is.
  score: dict[str, float]  # Validation metric, its mean over seeds; may be {}.

  @property
  def value(self) -> float:
    """What the trial is ranked by; nan where it is undefined."""
    return self.score.get("mean", math.nan)


def read(trial: Trial, sweep: SweepOptions, failed: str = "") -> Outcome:
  """Reads what a trial has left.

  Args:
    trial: one of a plan.
    sweep: says which metric counts.
    failed: why it has no results, as far as is known.

  Raises:
    ValueError: its results cannot be read, or lack the metric.
  """
  path = trial.folder / RESULTS
  if not path.exists():
    return Outcome(trial, None, failed or "it has not run", {})
  try:
    results = json.loads(path.read_text())
    seeds = _seeds(trial, results)
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f"{path} cannot be read ({error}); remove it, and the trial runs again"
    ) from error
  missing = [seed for seed, entry in seeds.items() if "metrics" not in entry]
  if missing:
    entry = seeds[missing[0]]
    why = entry.get("failed", "it has not run")
    return Outcome(
      trial, results, failed or f"seed {missing[0]} failed: {why}", {}
    )
  known = part(trial, results, "val")
  if sweep.metric not in known:
    raise ValueError(
      f"metric is {sweep.metric!r}, but the trials report {', '.join(known)}"
    )
  return Outcome(trial, results, "", known[sweep.metric])


def part(
  trial: Trial, results: Mapping[str, Any], name: str
) -> dict[str, dict[str, float]]:
  """Returns every metric of a part (val, test): its mean over seeds."""
  rows = [e["metrics"].get(name, {}) for e in _seeds(trial, results).values()]
  return {
    metric: metrics.mean_interval([
      math.nan if row[metric]["value"] is None else row[metric]["value"]
      for row in rows
    ])
    for metric in rows[0]
  }  # fmt: skip


def ranked(plan: Plan, outcomes: Sequence[Outcome]) -> list[Outcome]:
  """Returns the finished trials, the best first; equals by their number.

  Undefined values (a constant prediction has no rank correlation) come last.
  """
  sign = -1.0 if plan.sweep.higher_is_better else 1.0

  def place(outcome: Outcome):
    value = outcome.value
    undefined = not math.isfinite(value)
    return undefined, 0.0 if undefined else sign * value, outcome.trial.number

  return sorted((o for o in outcomes if not o.failed), key=place)


def selected(order: Sequence[Outcome]) -> Outcome | None:
  """Returns the best of `ranked`; None where no value is defined."""
  if not order or not math.isfinite(order[0].value):
    return None
  return order[0]


def _seeds(trial: Trial, results) -> dict[int, dict[str, Any]]:
  """Returns the entry of every seed that the trial is asked for."""
  run = trial.options.run
  found = {entry["seed"]: entry for entry in results["seeds"]}
  asked = range(run.first_seed, run.first_seed + run.seeds)
  return {seed: found.get(seed, {}) for seed in asked}
