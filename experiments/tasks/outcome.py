"""Puts together what the seeds of a run gave: results, figures, report."""

import pathlib
import time
from typing import Any

import numpy as np
from absl import logging as log

from experiments.cli import options as options_lib
from experiments.comparisons import comparison
from experiments.reports import figures, maps, report, run_report
from experiments.tasks import image_reference, members
from experiments.tasks.members import part_of
from sne_jax.learning.evaluation import (
  calibration,
  classes,
  metrics,
  references,
)
from sne_jax.learning.evaluation.calibration import CODES_FILE, METRICS
from sne_jax.learning.training import records as logging

# Training sees standardised targets; validation is measured in their own units.
LOSSES = (
  ("train/loss", "training loss (standardised targets)"),
  ("val/loss", "validation loss (units of the target)"),
)
CLASS_LOSSES = (
  ("train/loss", "training loss [nats]"),
  ("val/loss", "validation loss [nats]"),
)
TRUE_MOVES = ("true permutation",)


def collect(
  options: options_lib.Options,
  data: members.Data,
  seeds: list[dict[str, Any]],
  seconds: dict[str, float],
) -> dict[str, Any]:
  """Returns the results of a run, for `results.json` and the report."""
  targets = members.target_labels(options.run)
  prefix = lambda name, text: text if len(targets) == 1 else f"{name} {text}"
  good = finished(seeds)
  rows = [
    {
      "seed": entry["seed"],
      "metrics": {
        part: {
          prefix(name, metric): value
          for name, found in by_target.items()
          for metric, value in found.items()
        }
        for part, by_target in entry["metrics"].items()
      },
    }
    | {
      key: entry[key]
      for key in ("best_step", "train_seconds", "networks_per_second")
    }
    for entry in good
  ]
  rows += [entry for entry in seeds if "failed" in entry]
  always = np.ones(1, bool)
  flagged = {
    (name, what): int(np.sum(~zoo.members.get(column, always)))
    for name, zoo in zip(data.names, data.zoos, strict=True)
    for what, column in (("not valid", "valid"), ("not converged", "converged"))
  }
  results = {
    **comparison.heading(options),
    "target": ", ".join(targets),
    "seconds": seconds
    | {f"training seed {e['seed']}": e["train_seconds"] for e in good},
    "sizes": data.sizes(),
    "zoos": {
      name: {key: _values(zoo, key) for key in ("dataset", "architecture")}
      for name, zoo in zip(data.names, data.zoos, strict=True)
    },
    "num_params": good[0]["num_params"] if good else None,
    "networks_per_second": _mean(e["networks_per_second"] for e in good),
    "select": options.train.monitor,
    "seeds": rows,
    "references": _references(options, data) if options.run.references else {},
    "invariance": {
      f"{move}, {what}": _mean(e["invariance"][move][what] for e in good)
      for move in _moves(good)
      for what in ("error", "ratio")
    },
    "notes": [
      f"{count} members of {name} are flagged as {what}."
      for (name, what), count in flagged.items()
    ]
    + (good[0].get("notes", []) if good else []),
  }
  if good and data.classes:
    results["confusion"] = classes.mean_confusion(
      data.classes,
      data.parts["test"].targets[:, 0],
      [e["predictions"]["test"] for e in good],
    )
  if good:
    seconds = _mean(e.get("seconds_per_network", np.nan) for e in good)
    cost = {"model": options.run.encoder, "seconds_per_network": seconds}
    results["costs"] = [cost]
  if good and options.run.image_counts:
    rows, costs = _on_images(options, data)
    results["references"] |= rows
    results["costs"] += costs
  return results | {"summary": summary(results)}


def summary(results: dict[str, Any], part: str = "test") -> dict[str, Any]:
  """Returns the mean over seeds, with interval, of every metric of a part."""
  rows = [entry["metrics"][part] for entry in finished(results["seeds"])]
  return {
    name: metrics.mean_interval([row[name]["value"] for row in rows])
    for name in (rows[0] if rows else ())
  }


def finished(seeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns the seeds that have not failed."""
  return [entry for entry in seeds if "failed" not in entry]


def write(
  workdir: pathlib.Path,
  options: options_lib.Options,
  data: members.Data,
  seeds: list[dict[str, Any]],
  results: dict[str, Any],
) -> None:
  """Writes results, figures and report of a run."""
  folder = workdir / "figures"
  folder.mkdir(parents=True, exist_ok=True)
  drawn = {}
  test = data.parts["test"]
  good = finished(seeds)
  if good and data.classes:
    name = options.run.targets
    caption = (
      f"Predicted {name} of the test networks by true {name}: how many, mean"
      " over seeds, and the share of the true class"
    )
    drawn[caption] = figures.confusion(
      folder / f"confusion_{name}.png", **results["confusion"], name=name
    )
  labels = members.target_labels(options.run)
  for t, name in enumerate(labels if good and not data.classes else ()):
    truth, stem = test.targets[:, t], name.replace(" ", "_")
    found = {
      f"seed {e['seed']}": np.asarray(e["predictions"]["test"])[:, t]
      for e in good
    }
    drawn[f"Predicted against true {name} of the test networks"] = (
      figures.predicted_against_true(
        folder / f"predicted_{stem}.png", truth, found, name=name
      )
    )
    label = next(iter(found))
    drawn[f"Absolute error against {name}, {label}"] = (
      figures.error_against_property(
        folder / f"error_{stem}.png", truth, found[label], name=name
      )
    )
  found = curves(workdir, seeds, CLASS_LOSSES if data.classes else LOSSES)
  if found:
    drawn["Learning curves"] = figures.learning_curves(
      folder / "learning_curves.png", found
    )
  ratios = {
    move: _mean(e["invariance"][move]["ratio"] for e in good)
    for move in _moves(good)
  }
  if ratios:
    caption = (
      "Change of the prediction under true symmetries (strong: should be small)"
      " and false ones (pale: should be large)"
    )
    drawn[caption] = figures.bars_with_intervals(
      folder / "invariance.png",
      ratios,
      xlabel="squared change of the output / its variance over members",
      highlight=TRUE_MOVES,
      x_log=True,
    )
  if options.run.maps and good:
    target = members.target_labels(options.run)[0]
    pictures, results["maps"] = _maps(workdir, data, good, target)
    drawn |= pictures
  if (workdir / calibration.FILE).exists() and not data.classes:
    found = logging.read_json(workdir / calibration.FILE)
    results["coverage"] = {
      name: target["coverage"] for name, target in found["targets"].items()
    }
  report.write_results(workdir, results)
  run_report.write(workdir, results, drawn)


def _values(zoo, name: str) -> list[str]:
  """Returns the values of a property of text; none where a zoo lacks it."""
  if name not in zoo.properties:
    return []
  return sorted({str(value) for value in zoo.property(name)})


class Stopwatch:
  """Wall-clock seconds of the stages of a run."""

  def __init__(self):
    self.seconds: dict[str, float] = {}
    self._since = time.monotonic()

  def lap(self, name: str) -> None:
    """Books the time since the last lap under a name."""
    now = time.monotonic()
    self.seconds[name] = now - self._since
    self._since = now


def _mean(values) -> float:
  """Returns the mean; nan if there is nothing."""
  found = list(values)
  return float(np.mean(found)) if found else float("nan")


def _moves(good: list[dict[str, Any]]) -> list[str]:
  """Returns the names of the moves that predictions were probed with."""
  return [m for m in (good[0]["invariance"] if good else ()) if m != "variance"]


def curves(workdir: pathlib.Path, seeds, losses) -> dict[str, Any]:
  """Reads curves of the seeds from their metric files.

  Args:
    workdir: of the run.
    seeds: its entries.
    losses: pairs: the name in the files, and how figures call it.

  Returns:
    By how figures call it, and by seed: `(steps, values)`.
  """
  panels: dict[str, Any] = {}
  for entry in seeds:
    records = logging.read_metrics(workdir / f"seed{entry['seed']}")
    for name, label in losses:
      points = [(r["step"], r[name]) for r in records if name in r]
      if points:
        steps, values = np.array(points, float).T
        curve = {f"seed {entry['seed']}": (steps, values)}
        panels[label] = panels.get(label, {}) | curve
  return panels


def _references(options, data: members.Data) -> dict[str, Any]:
  """Fits the references on the same split, per target."""
  log.info("fitting the references")
  table: dict[str, Any] = {}
  for target, found in references.fit(data.parts).items():
    single = len(members.target_names(options.run)) == 1
    for name, reference in found.items():
      for part in ("val", *data.tests()):
        networks = data.parts[part]
        values = metrics.evaluate(
          networks.targets[:, networks.labels.index(target)],
          reference.predictions[part],
          classes.METRICS if data.classes else METRICS,
          clusters=data.clusters(part),
        )
        row = table.setdefault(name, {}).setdefault(part, {})
        for metric, value in values.items():
          row[metric if single else f"{target} {metric}"] = value
  return table


def _on_images(options, data: members.Data):
  """Measures the reference that needs images; see `image_reference`."""
  log.info("evaluating networks on %s images", options.run.image_counts)
  counts = [int(word) for word in options.run.image_counts.split(",")]
  found, costs = image_reference.predictions(options, data, counts)
  name = members.target_names(options.run)[0]
  rows = {
    f"{count} images": {
      part: metrics.evaluate(
        data.property(part, name),
        predicted,
        METRICS,
        clusters=data.clusters(part),
      )
      for part, predicted in parts.items()
    }
    for count, parts in found.items()
  }
  return rows, [{"model": f"{cost['images']} images"} | cost for cost in costs]


def _maps(workdir: pathlib.Path, data: members.Data, good, target: str):
  """Draws the codes of the first seed's test networks.

  Returns:
    Pictures by caption, and how well the labels of the networks are mixed.
  """
  log.info("drawing maps of the codes")
  own = {part_of(data.names[z]) for z in np.unique(data.members["test"].zoo)}
  parts = [part for part in data.tests() if part not in own]
  folder = workdir / f"seed{good[0]['seed']}"
  with np.load(folder / CODES_FILE) as archive:
    codes = np.concatenate([archive[part] for part in parts])
  zoo = np.concatenate([data.members[part].zoo for part in parts])
  values = np.concatenate([data.parts[part].targets[:, 0] for part in parts])
  if data.classes:
    values = np.array(data.classes)[values.astype(int)]
  colors = {"zoo": np.array(data.names)[zoo], target: values}
  if all("architecture" in z.properties for z in data.zoos):
    found = [data.property(part, "architecture") for part in parts]
    colors["architecture"] = np.concatenate(found)
  mixed = {
    f"mixing of {name}": maps.mixing(codes, labels)
    for name, labels in colors.items()
    if labels.dtype.kind == "U" and len(np.unique(labels)) > 1
    if len(codes) > maps.NEIGHBORS
  }
  colors = {name: v for name, v in colors.items() if len(np.unique(v)) > 1}
  return maps.draw(workdir / "figures", codes, colors), mixed
