"""Trainings and their errors over time: who reaches one first."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import results
from sne_jax.learning.training import records


@dataclasses.dataclass(frozen=True, kw_only=True)
class Race:
  """One training and its error over time.

  Attributes:
    name: who trained, and for how long.
    seed: of the training.
    curve: seconds of training and validation MSE at every evaluation.
    validation_mse: at the end of the schedule.
    test_mse: at the end of the schedule.
    num_params: trained parameters.
    networks_per_second: training networks per second of training.
  """

  name: str
  seed: int
  curve: list[tuple[float, float]]
  validation_mse: float
  test_mse: float
  num_params: int
  networks_per_second: float

  def seconds_to(self, threshold: float) -> float:
    """Seconds of training at the first evaluation at most `threshold`.

    Infinite if there is none.
    """
    reached = (seconds for seconds, mse in self.curve if mse <= threshold)
    return next(reached, math.inf)


def read_curve(
  history: Sequence[records.Record],
) -> list[tuple[float, float]]:
  """Returns seconds of training and validation MSE at every evaluation."""
  seconds = {
    record["step"]: record["time/seconds"]
    for record in history
    if "time/seconds" in record
  }
  return [
    (seconds[record["step"]], record["val/loss"])
    for record in history
    if "val/loss" in record
  ]


def summarize(
  pairs: Sequence[tuple[Race, Sequence[Race]]], threshold: float
) -> dict[str, Any]:
  """Returns seconds to the threshold, seed by seed, and their medians.

  The peer has the fastest of its trainings in every seed. A ratio is SNE over
  peer: below 1, SNE is faster; 0, only SNE arrives; infinite, only the peer;
  nan, neither.
  """
  rows = []
  for ours, peers in pairs:
    mine = ours.seconds_to(threshold)
    best = min(peers, key=lambda race: race.seconds_to(threshold))
    other = best.seconds_to(threshold)
    neither = math.isinf(mine) and math.isinf(other)
    rows.append(
      {
        "seed": ours.seed,
        "sne_seconds": mine,
        "nfn_seconds": other,
        "nfn_schedule": best.name,
        "ratio": math.nan if neither else mine / other,
      }
    )
  ratios = [row["ratio"] for row in rows]
  # A median over seeds in which neither arrives would hide them.
  unknown = any(math.isnan(ratio) for ratio in ratios)
  return {
    "threshold": threshold,
    "seeds": rows,
    "median_sne_seconds": statistics.median(r["sne_seconds"] for r in rows),
    "median_nfn_seconds": statistics.median(r["nfn_seconds"] for r in rows),
    "median_ratio": math.nan if unknown else statistics.median(ratios),
  }


def text(pairs: Sequence[tuple[Race, Sequence[Race]]], summary) -> str:
  """Returns two tables: every training, then seconds to the threshold."""
  threshold = summary["threshold"]
  races = [
    dataclasses.asdict(race)
    | {"reached": race.seconds_to(threshold), "whole": race.curve[-1][0]}
    for ours, peers in pairs
    for race in (ours, *peers)
  ]
  medians = {
    "seed": "median",
    "sne_seconds": summary["median_sne_seconds"],
    "nfn_seconds": summary["median_nfn_seconds"],
    "ratio": summary["median_ratio"],
    "nfn_schedule": "",
  }
  lines = [
    results.table(
      races,
      {
        **{"training": ("name", ""), "seed": ("seed", "")},
        f"to {threshold:g}": ("reached", ".2f"),
        **{"whole s": ("whole", ".1f"), "val MSE": ("validation_mse", ".3f")},
        **{"test MSE": ("test_mse", ".3f"), "params": ("num_params", "")},
        "nets/s": ("networks_per_second", ".1f"),
      },
    ),
    "",
    f"seconds of training to validation MSE {threshold:g}"
    " (inf: not within its schedule)",
    results.table(
      [*summary["seeds"], medians],
      {
        **{"seed": ("seed", ""), "SNE": ("sne_seconds", ".2f")},
        **{"NFN-HNP": ("nfn_seconds", ".2f"), "SNE/NFN": ("ratio", ".3f")},
        "peer's schedule": ("nfn_schedule", ""),
      },
    ),
  ]
  for key, name in (("sne_seconds", "SNE"), ("nfn_seconds", "NFN-HNP")):
    failed = [r["seed"] for r in summary["seeds"] if math.isinf(r[key])]
    if failed:
      lines.append(
        f"{name} never reached {threshold:g} with seeds"
        f" {', '.join(map(str, failed))}"
      )
  return "\n".join(lines)
