"""The report of sampled and fine-tuned networks."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.cli import options as options_lib
from experiments.comparisons import comparison
from sne_jax.cli.reports import figures, report
from sne_jax.learning.generative import generation

SHOWN = (0, 1, 2, 3, 5, 10)
"""Epochs that a table shows; the last one too."""

LINES = 7
"""Methods of a figure, at most: the report's tables have all."""


def collect(task, seeds: list[dict[str, Any]]) -> dict[str, Any]:
  """Returns the results of a run, for `results.json` and the report.

  Args:
    task: `tasks.sampling.Task`.
    seeds: of each its number, where the methods began, and the accuracies.
  """
  anchors = task.anchors
  low, middle, high = map(float, np.quantile(anchors.scores, (0.0, 0.5, 1.0)))
  curves = {
    name: {
      method: {
        part: _summarised([s["curves"][name][method][part] for s in seeds])
        for part in ("validation", "test")
      }
      for method in task.methods
    }
    for name in task.tuners
  }
  return {
    **comparison.heading(task.options),
    "network": anchors.spec.describe(),
    "anchors": {
      "count": len(anchors.weights),
      "networks": len(anchors.first),
      "training_networks": len(anchors.training),
      "validation_accuracy": {"least": low, "median": middle, "most": high},
    },
    "images": {n: list(t.data.sizes) for n, t in task.tuners.items()},
    "settings": dataclasses.asdict(task.of_zoo.settings),
    "seeds": [s["seed"] for s in seeds],
    "chosen": _beginnings(task, seeds),
    "curves": curves,
    "ahead": {
      name: {m: _ahead(by_method, m) for m in by_method if m != "scratch"}
      for name, by_method in curves.items()
    },
    "own": next(iter(task.tuners)),
    "chance": 1.0 / task.of_zoo.data.num_classes,
  }


def _beginnings(task, seeds: list[dict[str, Any]]) -> dict[str, Any]:
  """Returns by method what was chosen, and how good and near networks began."""
  anchors = task.anchors
  scale = _spread_of(anchors.weights[anchors.first][:50])
  by_method = {}
  for method in task.methods:
    drawn = [s["sampled"][method] for s in seeds]
    distances = [
      generation.nearest(d["weights"], anchors.weights) for d in drawn
    ]
    by_method[method] = {
      "bandwidth": [float(d["bandwidth"][0]) for d in drawn],
      "validation_accuracy": float(np.mean([d["scores"] for d in drawn])),
      "distance": float(np.median(distances) / scale),
    }
  return by_method


def _spread_of(weights: np.ndarray) -> float:
  """Returns the median distance of a network to the nearest other; or 1."""
  if len(weights) < 2:
    return 1.0
  others = [np.delete(weights, n, axis=0) for n in range(len(weights))]
  pairs = zip(weights, others, strict=True)
  nearest = [generation.nearest(one[None], rest)[0] for one, rest in pairs]
  return float(np.median(nearest)) or 1.0


def _summarised(accuracies: list[np.ndarray]) -> dict[str, Any]:
  """Returns mean and spread over networks and seeds, by epoch.

  Args:
    accuracies: `[R, epochs + 1]` of every seed.
  """
  every = np.concatenate(accuracies).astype(np.float64)
  return {
    "mean": every.mean(axis=0),
    "spread": every.std(axis=0, ddof=min(1, len(every) - 1)),
    "seeds": np.stack([a.mean(axis=0) for a in accuracies]),
    "best": every.max(axis=0),
    "count": len(every),
  }


def _ahead(curves: Mapping[str, Any], method: str) -> int:
  """Returns for how many epochs a method is ahead of scratch, from the start.

  0: it does not begin ahead; 1: only before the first epoch.
  """
  mean = lambda name: np.asarray(curves[name]["test"]["mean"])
  is_worse = mean(method) <= mean("scratch")
  return int(np.argmax(is_worse)) if is_worse.any() else len(is_worse)


def write(
  workdir: pathlib.Path, options: options_lib.Options, results: dict[str, Any]
) -> None:
  """Writes figures, `report.md` and `results.json`."""
  blocks: list[str | report.Picture] = [_description(options, results)]
  for name, curves in results["curves"].items():
    of_zoo = " (of the zoo)" if name == results["own"] else ""
    blocks += [
      f"## {name}{of_zoo}",
      _table(curves, results["ahead"][name]),
      _picture(name, curves),
    ]
  columns = {
    "validation accuracy": lambda row: f"{row['validation_accuracy']:.3f}",
    "bandwidth (by seed)": lambda row: (
      ", ".join(
        dict.fromkeys(f"{b:g}" for b in row["bandwidth"] if np.isfinite(b))
      )
      or "-"
    ),
    "distance": lambda row: f"{row['distance']:.2f}",
  }
  blocks += [
    "## Where they begin",
    report.table("method", results["chosen"], columns),
    "Chosen by validation images alone. The distance is that to the nearest"
    " anchor, over the median of that between anchors of different networks: 0"
    " is a copy.",
  ]
  report.write_page(workdir, blocks, results)


def _picture(name: str, curves: Mapping[str, Any]) -> report.Picture:
  """The accuracy of the first methods by epoch, with its spread."""
  series = {}
  for method in list(curves)[:LINES]:
    rows = curves[method]["test"]
    bands = enumerate(zip(rows["mean"], rows["spread"], strict=True))
    series[method] = {
      float(epoch): {"mean": mean, "low": mean - spread, "high": mean + spread}
      for epoch, (mean, spread) in bands
    }
  return report.Picture(
    name,
    f"Test accuracy on {name}; bands: standard deviation over networks",
    lambda path: figures.lines(
      path,
      series,
      xlabel="epochs of fine-tuning",
      ylabel="test accuracy",
      title=name,
    ),
  )


def _description(options: options_lib.Options, results: dict[str, Any]) -> str:
  """Says what was compared, and what chose."""
  anchors, settings = results["anchors"], results["settings"]
  scores = anchors["validation_accuracy"]
  sizes = "; ".join(
    f"{name} {train} to train on, {val} to choose by, {test} to test on"
    for name, (train, val, test) in results["images"].items()
  )
  return (
    f"{results['network']}. Anchors: {anchors['count']} snapshots of"
    f" {anchors['networks']} of {anchors['training_networks']} training members"
    f" (accuracy on validation images {scores['least']:.3f} to"
    f" {scores['most']:.3f}, median {scores['median']:.3f}). Images: {sizes}."
    f" All networks take the same steps: {settings['optimizer']}, rate"
    f" {settings['learning_rate']:.3g}, weight decay"
    f" {settings['weight_decay']:.3g}, batches of {settings['batch_size']}."
    f" Accuracy is the mean (spread: deviation) over"
    f" {options.generation.networks} networks and {len(results['seeds'])}"
    f" seed(s); chance is {results['chance']:.2f}. A method is ahead of scratch"
    " until the epoch named, never (where it starts no better), or to the end."
    " Test images chose nothing."
  )


def _table(curves: Mapping[str, Any], ahead_of: Mapping[str, int]) -> str:
  """Test accuracy by method at the epochs that are shown."""
  last = len(next(iter(curves.values()))["test"]["mean"]) - 1
  epochs = sorted({e for e in SHOWN if e <= last} | {last})
  rows = []
  for method, parts in curves.items():
    mean, spread = parts["test"]["mean"], parts["test"]["spread"]
    count = ahead_of.get(method)
    until = "" if count is None else f"{count - 1}" if count else "never"
    rows.append(
      [
        method,
        *(f"{mean[e]:.3f} ({spread[e]:.3f})" for e in epochs),
        "the end" if count == last + 1 else until,
      ]
    )
  header = ["test accuracy", *(f"epoch {e}" for e in epochs), "ahead until"]
  return report.markdown_table(header, rows)
