"""How high tau can be on the labels of a run, where its zoos say so.

The labels are test accuracies, and the zoos know which images each network
classifies rightly (`make_zoo.py --label_images`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.cli import options as options_lib
from experiments.tasks import members
from sne_jax.cli.reports import report
from sne_jax.learning.evaluation import ceilings, metrics

TARGET = "test_accuracy"
"""The property that is measured on the images."""

METRIC = "kendall_tau"
MEAN = "mean of the seeds"

UNKNOWN = (
  "How high tau can be on these labels is not known: {zoos} does not say which"
  " test images each network classifies rightly. `make_zoo.py --label_images=1`"
  " with the flags that made it adds that, without training."
)
"""What is said of zoos whose members could have ceilings."""


def added(
  results: dict[str, Any], options: options_lib.Options, data: members.Data
) -> dict[str, Any]:
  """Returns results with `ceilings`, by part, or with `no_ceilings`.

  Of a part: `kendall_tau` and `ties` (`learning.evaluation.ceilings`), the
  `images` of a label, and by model the tau reached and its `share` of the
  ceiling. `no_ceilings` says why parts have none, and how to have them. Results
  of other targets stay as they are.
  """
  if TARGET not in options.run.target_names:
    return results
  silent = [
    name
    for name, zoo in zip(data.names, data.zoos, strict=True)
    if zoo.correct is None
  ]
  if silent:
    note = UNKNOWN.format(zoos=", ".join(silent))
    results = results | {"no_ceilings": note}
  (target,) = (t for t in members.target_labels(options.run) if TARGET in t)
  found = {}
  for part in ("val", *data.tests()):
    row = _measured(data, part)
    if row is not None:
      reached = _reached(results, part, target)
      shares = {
        model: {METRIC: tau, "share": tau / row[METRIC]}
        for model, tau in reached.items()
        if np.isfinite(tau) and row[METRIC] > 0
      }
      found[part] = row | {"models": shares}
  return results | {"ceilings": found} if found else results


def _measured(data: members.Data, part: str) -> dict[str, Any] | None:
  """Returns the ceilings of a part; None where one of its zoos is silent."""
  zoo_of, row_of = data.members[part]
  bits, same = [], []
  for zoo in np.unique(zoo_of):
    correct = data.zoos[zoo].correct
    if correct is None:
      return None
    right = correct.right(row_of[zoo_of == zoo])
    bits.append(right)
    same.append(ceilings.collapsed(right, correct.classes))
  labels = np.concatenate([right.mean(axis=1) for right in bits])
  return {
    METRIC: ceilings.tau_ceiling(bits, same),
    "ties": ceilings.tie_ceiling(labels),
    "images": min(right.shape[1] for right in bits),
    "collapsed": int(sum((numbers >= 0).sum() for numbers in same)),
  }


def _reached(results: Mapping[str, Any], part: str, target: str):
  """Returns the tau of every model on a part, by name."""
  names = (METRIC, f"{target} {METRIC}")

  def tau(row):
    value = next((row[name]["value"] for name in names if name in row), None)
    return np.nan if value is None else value

  good = [e["metrics"][part] for e in report.finished(results["seeds"])]
  taus = [tau(row) for row in good]
  models = {MEAN: metrics.mean_interval(taus)["mean"]} if taus else {}
  return models | {
    f"reference: {name}": tau(parts.get(part, {}))
    for name, parts in results["references"].items()
  }
