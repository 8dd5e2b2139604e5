"""Puts together what the seeds of a run gave: results, figures, report."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from absl import logging as log

from experiments.cli import options as options_lib
from experiments.comparisons import comparison
from experiments.reports import maps, shown_images
from experiments.tasks import ceilings, image_reference, members
from sne_jax.cli import config
from sne_jax.cli.atlas import content, gathering, predicting
from sne_jax.cli.reports import figures, probe_figure, report, run_report
from sne_jax.learning.data import folders
from sne_jax.learning.evaluation import (
  calibration,
  classes,
  metrics,
  references,
)
from sne_jax.learning.evaluation.calibration import CODES_FILE, METRICS
from sne_jax.learning.training import records as logging
from sne_jax.learning.training.workdirs import MODEL_FILE

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
OF_SEED = (
  *("seed", "metrics", "failed", "best_step", "train_seconds"),
  "networks_per_second",
)
"""What the results of a run hold of each seed, where it has it."""


def collect(
  options: options_lib.Options,
  data: members.Data,
  seeds: list[dict[str, Any]],
  seconds: dict[str, float],
) -> dict[str, Any]:
  """Returns the results of a run, for `results.json` and the report."""
  targets = members.target_labels(options.run)
  good = report.finished(seeds)
  common = of_training(options, data, seeds, seconds, named=len(targets) > 1)
  rows = [
    {key: entry[key] for key in OF_SEED if key in entry}
    for entry in common["seeds"]
  ]
  results = common | {
    "target": ", ".join(targets),
    "zoos": {
      name: common["zoos"][name]
      | {key: _values(zoo, key) for key in ("dataset", "architecture")}
      for name, zoo in zip(data.names, data.zoos, strict=True)
    },
    "seeds": rows,
    "references": _references(options, data) if options.run.references else {},
    "invariance": {
      f"{move}, {what}": _mean(e["invariance"][move][what] for e in good)
      for move in _moves(good)
      for what in ("error", "ratio")
    },
    "notes": members.flagged(data.names, data.zoos)
    + [line for zoo in data.zoos for line in folders.remarks(zoo)]
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
  results |= {"summary": summary(results)}
  return ceilings.added(results, options, data)


def of_training(
  options: options_lib.Options,
  data: members.Data,
  seeds: list[dict[str, Any]],
  seconds: dict[str, float],
  *,
  named: bool,
) -> dict[str, Any]:
  """Returns what results hold of a training, by labels or without.

  Args:
    options: of the run.
    data: its networks.
    seeds: what is known of each, its metrics by part and target.
    seconds: of the stages of the run.
    named: whether metrics are named with their target.
  """
  good = report.finished(seeds)
  rows = [
    entry
    | {
      "metrics": {
        part: {
          f"{name} {metric}" if named else metric: value
          for name, by_metric in by_target.items()
          for metric, value in by_metric.items()
        }
        for part, by_target in entry["metrics"].items()
      }
    }
    for entry in good
  ]
  return {
    **comparison.heading(options),
    "seconds": seconds
    | {f"training seed {e['seed']}": e["train_seconds"] for e in good},
    "sizes": data.sizes(),
    gathering.ZOOS: gathering.where(
      options.run.workdir,
      {n: z.path for n, z in zip(data.names, data.zoos, strict=True)},
    ),
    "num_params": good[0]["num_params"] if good else None,
    "networks_per_second": _mean(e["networks_per_second"] for e in good),
    "select": options.train.monitor,
    "seeds": rows + [entry for entry in seeds if "failed" in entry],
  }


def summary(results: dict[str, Any], part: str = "test") -> dict[str, Any]:
  """Returns the mean over seeds, with interval, of every metric of a part."""
  rows = [entry["metrics"][part] for entry in report.finished(results["seeds"])]
  return {
    name: metrics.mean_interval([row[name]["value"] for row in rows])
    for name in (rows[0] if rows else ())
  }


def write(
  workdir: pathlib.Path,
  options: options_lib.Options,
  data: members.Data,
  seeds: list[dict[str, Any]],
  results: dict[str, Any],
) -> None:
  """Writes results, figures and report of a run."""
  folder = workdir / "figures"
  drawn = {}
  test = data.parts["test"]
  good = report.finished(seeds)
  if good and data.classes:
    name = options.run.targets
    caption = (
      f"Predicted {name} of the test networks by true {name}: how many, mean"
      " over seeds, and the share of the true class"
    )
    drawn[caption] = figures.confusion(
      folder / f"confusion_{name}.png", **results["confusion"], name=name
    )
    said = np.argmax(np.asarray(good[0]["predictions"]["test"]), axis=-1)
    names = np.asarray(data.classes)
    drawn |= shown_images.draw(
      folder / "test_images.png",
      test,
      names[test.targets[:, 0].astype(int)],
      names[said],
    )
  labels = members.target_labels(options.run)
  for t, name in enumerate(labels if good and not data.classes else ()):
    truth, stem = test.targets[:, t], name.replace(" ", "_")
    predictions = {
      f"seed {e['seed']}": np.asarray(e["predictions"]["test"])[:, t]
      for e in good
    }
    drawn[f"Predicted against true {name} of the test networks"] = (
      figures.predicted_against_true(
        folder / f"predicted_{stem}.png", truth, predictions, name=name
      )
    )
    label = next(iter(predictions))
    drawn[f"Absolute error against {name}, {label}"] = (
      figures.error_against_property(
        folder / f"error_{stem}.png", truth, predictions[label], name=name
      )
    )
  losses = CLASS_LOSSES if data.classes else LOSSES
  drawn |= draw_curves(workdir, seeds, losses)
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
  if good:
    seed = workdir / f"seed{good[0]['seed']}"
    drawn |= probe_figure.draw(folder, seed)
  if options.run.maps and good:
    target = members.target_labels(options.run)[0]
    pictures, results["maps"] = _maps(workdir, data, good, target)
    drawn |= pictures
  if (workdir / calibration.FILE).exists() and not data.classes:
    targets = logging.read_json(workdir / calibration.FILE)["targets"]
    results["coverage"] = {
      name: target["coverage"] for name, target in targets.items()
    }
  atlas = _atlas(workdir, data, good)
  run_report.write(workdir, results, drawn, atlas)


def _atlas(
  workdir: pathlib.Path,
  data: members.Data,
  good: list[dict[str, Any]],
) -> content.Atlas | None:
  """Returns the map of the test networks; None where codes are not kept."""
  known = calibration.read(workdir)
  seeds = [workdir / f"seed{entry['seed']}" for entry in good]
  codes = calibration.read_codes(seeds)
  if "test" not in codes:
    return None
  placed = list(zip(*data.members["test"], strict=True))
  lead = lambda z: f"{data.names[z]}/" if len(data.zoos) > 1 else ""
  names = [lead(z) + str(data.zoos[z].members["id"][r]) for z, r in placed]
  several = {"zoo": np.array(data.names)[data.members["test"].zoo]}
  shared = [
    name
    for name in data.zoos[0].properties
    if all(name in zoo.properties for zoo in data.zoos)
  ]
  return predicting.tested(
    dataclasses.replace(data.parts["test"], names=tuple(names)),
    codes["test"],
    np.mean([np.asarray(e["predictions"]["test"]) for e in good], axis=0),
    known=known._replace(codes=codes),
    description=logging.read_json(seeds[0] / MODEL_FILE),
    properties={name: data.property("test", name) for name in shared}
    | (several if len(data.zoos) > 1 else {}),
  )


def _values(zoo, name: str) -> list[str]:
  """Returns the values of a property of text; none where a zoo lacks it."""
  if name not in zoo.properties:
    return []
  return sorted({str(value) for value in zoo.property(name)})


def _mean(values) -> float:
  """Returns the mean; nan if there is nothing."""
  known = list(values)
  return float(np.mean(known)) if known else float("nan")


def _moves(good: list[dict[str, Any]]) -> list[str]:
  """Returns the names of the moves that predictions were probed with."""
  return [m for m in (good[0]["invariance"] if good else ()) if m != "variance"]


def draw_curves(workdir: pathlib.Path, seeds, losses) -> dict[str, Any]:
  """Draws curves of the seeds from their metric files.

  Args:
    workdir: of the run.
    seeds: its entries.
    losses: pairs: the name in the files, and how figures call it.

  Returns:
    The picture by its caption; nothing where there are no curves.
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
  if not panels:
    return {}
  path = workdir / "figures" / "learning_curves.png"
  return {"Learning curves": figures.learning_curves(path, panels)}


def _references(options, data: members.Data) -> dict[str, Any]:
  """Fits the references on the same split, per target."""
  log.info("fitting the references")
  table: dict[str, Any] = {}
  single = len(options.run.target_names) == 1
  for target, fitted in references.fit(data.parts).items():
    for name, reference in fitted.items():
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
  counts = [int(word) for word in config.words(options.run.image_counts)]
  by_count, costs = image_reference.predictions(options, data, counts)
  name = options.run.target_names[0]
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
    for count, parts in by_count.items()
  }
  return rows, [{"model": f"{cost['images']} images"} | cost for cost in costs]


def _maps(workdir: pathlib.Path, data: members.Data, good, target: str):
  """Draws the codes of the first seed's test networks.

  Returns:
    Pictures by caption, and how well the labels of the networks are mixed.
  """
  log.info("drawing maps of the codes")
  # The part `test` holds the test parts of the zoos trained on already.
  trained = {members.part_of(data.names[z]) for z in data.members["test"].zoo}
  parts = [part for part in data.tests() if part not in trained]
  folder = workdir / f"seed{good[0]['seed']}"
  with np.load(folder / CODES_FILE) as archive:
    codes = np.concatenate([archive[part] for part in parts])
  zoo = np.concatenate([data.members[part].zoo for part in parts])
  values = np.concatenate([data.parts[part].targets[:, 0] for part in parts])
  if data.classes:
    values = np.array(data.classes)[values.astype(int)]
  colors = {"zoo": np.array(data.names)[zoo], target: values}
  if all("architecture" in z.properties for z in data.zoos):
    colors["architecture"] = np.concatenate(
      [data.property(part, "architecture") for part in parts]
    )
  mixed = {
    f"mixing of {name}": maps.mixing(codes, labels)
    for name, labels in colors.items()
    if labels.dtype.kind == "U" and len(np.unique(labels)) > 1
    if len(codes) > maps.NEIGHBORS
  }
  colors = {name: v for name, v in colors.items() if len(np.unique(v)) > 1}
  return maps.draw(workdir / "figures", codes, colors), mixed
