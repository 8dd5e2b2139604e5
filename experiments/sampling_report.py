"""What sampling and fine-tuning networks gave: results, figures, report."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from experiments import config, environment, figures, report
from experiments import options as options_lib
from sne_jax.learning import generation

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
  options, anchors = task.options, task.anchors
  curves = {
    name: {
      method: {
        part: summarised([s["curves"][name][method][part] for s in seeds])
        for part in ("validation", "test")
      }
      for method in task.methods
    }
    for name in task.tuners
  }
  scale = spread_of(anchors.weights[anchors.first][:50])
  first = next(iter(task.tuners))
  return {
    "title": options.run.title,
    "config": config.resolved(*options.groups()),
    "flagfile": config.to_flagfile(
      *options.groups(), prefixes=options_lib.PREFIXES
    ),
    "environment": environment.environment(),
    "network": anchors.spec.describe(),
    "anchors": {
      "count": len(anchors.weights),
      "networks": len(anchors.first),
      "training_networks": len(anchors.training),
      "validation_accuracy": quantiles(anchors.scores),
    },
    "images": {n: list(t.data.sizes) for n, t in task.tuners.items()},
    "settings": dataclasses.asdict(task.own.settings),
    "seeds": [s["seed"] for s in seeds],
    "chosen": {
      method: {
        "bandwidth": [
          float(s["sampled"][method]["bandwidth"][0]) for s in seeds
        ],
        "validation_accuracy": float(
          np.mean([s["sampled"][method]["scores"] for s in seeds])
        ),
        "distance": float(
          np.median(
            [
              generation.nearest(
                s["sampled"][method]["weights"], anchors.weights
              )
              for s in seeds
            ]
          )
          / scale
        ),
      }
      for method in task.methods
    },
    "curves": curves,
    "ahead": {
      name: {m: ahead(found, m) for m in found if m != "scratch"}
      for name, found in curves.items()
    },
    "own": first,
    "chance": 1.0 / task.own.data.num_classes,
  }


def spread_of(weights: np.ndarray) -> float:
  """Returns the median distance of a network to the nearest other; or 1."""
  if len(weights) < 2:
    return 1.0
  others = [np.delete(weights, n, axis=0) for n in range(len(weights))]
  pairs = zip(weights, others, strict=True)
  found = [generation.nearest(one[None], rest)[0] for one, rest in pairs]
  return float(np.median(found)) or 1.0


def summarised(accuracies: list[np.ndarray]) -> dict[str, Any]:
  """Returns mean and spread over networks and seeds, by epoch.

  Args:
    accuracies: `[R, epochs + 1]` of every seed.
  """
  every = np.concatenate(accuracies).astype(np.float64)
  mean, spread = (
    every.mean(axis=0),
    every.std(axis=0, ddof=min(1, len(every) - 1)),
  )
  return {
    "mean": mean,
    "spread": spread,
    "seeds": np.stack([a.mean(axis=0) for a in accuracies]),
    "best": every.max(axis=0),
    "count": len(every),
  }


def quantiles(values: np.ndarray) -> dict[str, float]:
  """Returns the least, the median and the largest."""
  low, middle, high = np.quantile(values, (0.0, 0.5, 1.0))
  return {"least": float(low), "median": float(middle), "most": float(high)}


def ahead(curves: dict[str, Any], method: str) -> int:
  """Returns for how many epochs a method is ahead of scratch, from the start.

  0: it does not begin ahead; 1: only before the first epoch.
  """
  mean = lambda name: np.asarray(curves[name]["test"]["mean"])
  behind = mean(method) <= mean("scratch")
  return int(np.argmax(behind)) if behind.any() else len(behind)


def write(
  workdir: pathlib.Path, options: options_lib.Options, results: dict[str, Any]
) -> None:
  """Writes figures, `report.md` and `results.json`."""
  (workdir / "figures").mkdir(parents=True, exist_ok=True)
  text = [f"# {options.run.title}", _description(options, results)]
  for name, curves in results["curves"].items():
    picture = workdir / "figures" / f"{name}.png"
    shown = list(curves)[:LINES]
    figures.lines(
      picture,
      {m: _band(curves[m]["test"]) for m in shown},
      xlabel="epochs of fine-tuning",
      ylabel="test accuracy",
      title=name,
    )
    own = " (of the zoo)" if name == results["own"] else ""
    text += [
      f"## {name}{own}",
      _table(curves, results["ahead"][name]),
      f"![{name}](<figures/{picture.name}>)",
      _verdict(results, name),
    ]
  text += [
    "## Where they begin",
    _chosen(results),
    "Chosen by validation images alone. The distance is that to the nearest"
    " anchor, over the median of that between anchors of different networks: 0"
    " is a copy.",
    "Repeat it with `--flagfile` and this file:",
    f"```\n{results['flagfile'].strip()}\n```",
  ]
  report.write_text(workdir / "report.md", "\n\n".join(text) + "\n")
  report.write_results(workdir, results)


def _band(row: dict[str, Any]) -> dict[float, dict[str, float]]:
  mean, spread = np.asarray(row["mean"]), np.asarray(row["spread"])
  return {
    float(epoch): {"mean": m, "low": m - s, "high": m + s}
    for epoch, (m, s) in enumerate(zip(mean, spread, strict=True))
  }


def _description(options, results) -> str:
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
    " seed(s). Test images chose nothing."
  )


def _table(curves: dict[str, Any], ahead_of: dict[str, int]) -> str:
  last = len(next(iter(curves.values()))["test"]["mean"]) - 1
  epochs = sorted({e for e in SHOWN if e <= last} | {last})
  header = ["test accuracy", *(f"epoch {e}" for e in epochs), "ahead until"]
  rows = []
  for method, found in curves.items():
    mean, spread = found["test"]["mean"], found["test"]["spread"]
    count = ahead_of.get(method)
    until = "" if count is None else "never" if not count else f"{count - 1}"
    until = "the end" if count == last + 1 else until
    cells = [f"{mean[e]:.3f} ({spread[e]:.3f})" for e in epochs]
    rows.append([method, *cells, until])
  return report.markdown_table(header, rows)


def _verdict(results: dict[str, Any], name: str) -> str:
  """Says plainly which samplers do not do what they are for."""
  curves, chance = results["curves"][name], results["chance"]
  lines = []
  for method in curves:
    if method in ("scratch", "prompt"):
      continue
    start = float(curves[method]["test"]["mean"][0])
    count = results["ahead"][name][method]
    against = (
      "never ahead of scratch"
      if not count
      else "ahead of scratch to the end"
      if count == len(curves[method]["test"]["mean"])
      else f"ahead of scratch until epoch {count - 1}"
    )
    lines.append(
      f"- {method}: starts at {start:.3f} (chance {chance:.2f}), {against}"
    )
  return "\n".join(lines)


def _chosen(results: dict[str, Any]) -> str:
  rows = []
  for method, row in results["chosen"].items():
    widths = [f"{b:g}" for b in row["bandwidth"] if np.isfinite(b)]
    rows.append(
      [
        method,
        f"{row['validation_accuracy']:.3f}",
        ", ".join(dict.fromkeys(widths)) or "-",
        f"{row['distance']:.2f}",
      ]
    )
  return report.markdown_table(
    ["method", "validation accuracy", "bandwidth (by seed)", "distance"], rows
  )
