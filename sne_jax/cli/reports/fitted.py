"""Results and pictures of a predictor that `fit` has trained.

Dimensions: `N` test networks, `T` targets.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.cli import environment
from sne_jax.cli.atlas import content, predicting
from sne_jax.cli.reports import figures, report
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import (
  calibration,
  classes,
  headline,
  metrics,
)
from sne_jax.learning.evaluation import references as references_lib
from sne_jax.predictor import Predictor


def results(
  predictor: Predictor,
  parts: Mapping[str, Networks],
  *,
  title: str,
  config: Mapping[str, Any],
  references: bool = True,
  notes: Sequence[str] = (),
) -> dict[str, Any]:
  """Returns what `run_report` shows, of plain values.

  Args:
    predictor: trained with `parts["test"]` as its test part.
    parts: train, val and test.
    title: heading of the report.
    config: the options, by class.
    references: whether simple references are fitted to the same parts.
    notes: what a reader must know besides.
  """
  parts = _numbered(predictor, parts)
  several = len(predictor.targets) > 1
  seeds = [_entry(result, several) for result in predictor.results]
  good = [e for e in predictor.results if "failed" not in e]
  found: dict[str, Any] = {
    "title": title,
    "target": ", ".join(predictor.targets),
    "config": config,
    "environment": environment.environment(),
    "sizes": {part: len(networks) for part, networks in parts.items()},
    "num_params": good[0]["num_params"],
    "select": predictor.description.get("monitor") or "loss",
    "seconds": {f"training seed {e['seed']}": e["train_seconds"] for e in good},
    "seeds": seeds,
    "references": _references(parts, several) if references else {},
    "notes": [*notes, *good[0].get("notes", ())],
  }
  moves = [m for m in good[0].get("invariance", ()) if m != "variance"]
  found["invariance"] = {
    f"{move}, {what}": float(
      np.mean([e["invariance"][move][what] for e in good])
    )
    for move in moves
    for what in ("error", "ratio")
  }
  if predictor.classes:
    found["confusion"] = classes.mean_confusion(
      predictor.classes,
      parts["test"].targets[:, 0],
      [np.asarray(e["predictions"]["test"]) for e in good],
    )
  plain = report.to_json(found)
  return found | {"headline": headline.sentence(plain)}


def draw(
  folder: pathlib.Path, predictor: Predictor, test: Networks
) -> dict[str, pathlib.Path]:
  """Draws predictions of the test networks; returns pictures by caption."""
  good = [e for e in predictor.results if "failed" not in e]
  test = _numbered(predictor, {"test": test})["test"]
  by_seed = {
    f"seed {e['seed']}": np.asarray(e["predictions"]["test"]) for e in good
  }
  if predictor.classes:
    name = predictor.targets[0]
    counts = classes.mean_confusion(
      predictor.classes, test.targets[:, 0], list(by_seed.values())
    )
    caption = f"Predicted {name} of the test networks by true {name}"
    path = folder / f"confusion_{_stem(name)}.png"
    return {caption: figures.confusion(path, **counts, name=name)}
  return {
    f"Predicted against true {name} of the test networks": (
      figures.predicted_against_true(
        folder / f"predicted_{_stem(name)}.png",
        test.targets[:, t],
        {label: values[:, t] for label, values in by_seed.items()},
        name=name,
      )
    )
    for t, name in enumerate(predictor.targets)
  }


def atlas(predictor: Predictor, test: Networks) -> content.Atlas | None:
  """Returns the map of the test networks; None where no codes were kept."""
  codes = predictor.known.codes.get("test")
  good = [e for e in predictor.results if "failed" not in e]
  if codes is None or not good:
    return None
  return predicting.tested(
    _numbered(predictor, {"test": test})["test"],
    codes,
    np.mean([np.asarray(e["predictions"]["test"]) for e in good], axis=0),
    known=predictor.known,
    description=predictor.description,
  )


def _numbered(
  predictor: Predictor, parts: Mapping[str, Networks]
) -> dict[str, Networks]:
  """Returns the parts with classes as numbers, where there are any."""
  if not predictor.classes:
    return dict(parts)
  return {p: n.classified(predictor.classes) for p, n in parts.items()}


def _entry(result: Mapping[str, Any], several: bool) -> dict[str, Any]:
  """Returns what a report holds of a seed; metrics named by part."""
  kept = ("seed", "failed", "best_step", "train_seconds", "networks_per_second")
  entry = {name: result[name] for name in kept if name in result}
  if "failed" in result:
    return entry
  return entry | {
    "metrics": {
      part: {
        f"{target} {metric}" if several else metric: value
        for target, row in by_target.items()
        for metric, value in row.items()
      }
      for part, by_target in result["metrics"].items()
    }
  }


def _references(parts: Mapping[str, Networks], several: bool) -> dict[str, Any]:
  """Fits the references on the same split; metrics by name and part."""
  measured = calibration.METRICS
  if parts["train"].classes:
    measured = classes.METRICS
  found: dict[str, Any] = {}
  for target, by_name in references_lib.fit(parts).items():
    for name, reference in by_name.items():
      for part in ("val", "test"):
        networks = parts[part]
        values = metrics.evaluate(
          networks.targets[:, networks.labels.index(target)],
          reference.predictions[part],
          measured,
          clusters=networks.clusters,
        )
        row = found.setdefault(name, {}).setdefault(part, {})
        for metric, value in values.items():
          row[f"{target} {metric}" if several else metric] = value
  return found


def _stem(name: str) -> str:
  """Returns a name as a part of a file's name."""
  return "".join(c if c.isalnum() else "_" for c in name)
