"""The report of one run: a table per part, pictures, and what to beware of.

`results` is a dictionary of plain values; what is missing in a run's is said to
be missing rather than left out in silence. Entries of a run:

* `title`: text. `target`: name of the property.
* `config`, `flagfile`, `environment`: see `report`.
* `seconds`: `{what: wall-clock seconds}`.
* `sizes`: `{part: number of networks}`.
* `num_params`: of the encoder and its head.
* `select`: the name of the metric that chose the checkpoint, if any.
* `seeds`: one entry per training seed: `{"seed": int, "metrics": {part:
  {metric: {"value", "low", "high"}}}}`, or `{"seed": int, "failed": text}`.
* `references`: `{name: {part: {metric: {"value", "low", "high"}}}}`.
* `invariance`: `{name: number}`, measured on networks never trained on.
* `confusion`: of classes, `{"classes": names, "counts": [K, K]}`: true by
  predicted, the mean over seeds.
* `costs`: list of `{"model", "seconds_per_network", "flops_per_network"}`.
* `ceilings`: of accuracies, `{part: {"kendall_tau", "ties", "images",
  "collapsed", "models"}}`; of a model `{"kendall_tau", "share"}`.
  `no_ceilings`: text, why a part of such a target has none.
* `maps`: `{name: number}`, how labels are mixed in code space.
* `tables`: list of `{"title", "text", "header", "rows"}`, printed as they are.
* `notes`: list of text.
"""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sne_jax.cli.atlas import content
from sne_jax.cli.reports import report
from sne_jax.cli.reports.report import section
from sne_jax.learning.evaluation import headline, metrics

FEW_SEEDS = 3
"""Fewer training seeds than this are remarked upon."""

CEILINGS = (
  "The ceiling is the tau that perfect knowledge of every network's accuracy on"
  " the distribution of the images would reach on these labels, which are"
  " accuracies on so many images: estimated from random halves of them"
  " (sne_jax/learning/evaluation/ceilings.py). Networks that give one class to"
  " all images have collapsed, and are tied in it. The ceiling of ties is the"
  " best of any predictor without ties."
)
"""What the numbers of `ceilings` are."""

MIXING = (
  "Of the nearest neighbours of a code, the share with another label over the"
  " share that chance gives: 1 is mixed like chance, 0 is apart."
)
"""What the numbers of `maps` are."""


def write(
  workdir: str | os.PathLike,
  results: Mapping[str, Any],
  figures: Mapping[str, str | os.PathLike] | None = None,
  atlas: content.Atlas | None = None,
) -> pathlib.Path:
  """Writes `report.md`, `report.html` and `results.json` of a run.

  Args:
    workdir: where they go.
    results: see the module.
    figures: pictures by caption; their paths are inside `workdir`.
    atlas: networks for the map of the page; None: it has none.
  """
  workdir = pathlib.Path(workdir)
  links = {
    caption: pathlib.Path(path).relative_to(workdir).as_posix()
    for caption, path in (figures or {}).items()
  }
  report.publish(workdir, results, figures or {})
  report.write_results(workdir, results)
  return report.write_report(workdir, text(results, links), atlas)


def text(
  results: Mapping[str, Any], figures: Mapping[str, str] | None = None
) -> str:
  """Returns the report of a run as markdown. `figures` are links by caption."""
  results = report.to_json(results)
  blocks = [f"# {results['title']}"]
  blocks += filter(None, [headline.sentence(results)])
  blocks += _metric_sections(results)
  blocks += ceiling_section({"": results})
  for table in results.get("tables") or ():
    blocks += section(**table)
  measured = ["what", "measured"]
  invariances = list((results.get("invariance") or {}).items())
  blocks += section("Measured invariance", measured, invariances)
  blocks += cost_section(results.get("costs") or ())
  maps = list((results.get("maps") or {}).items())
  blocks += section("Mixing of the codes", measured, maps, MIXING)
  blocks += _coverage_section(results)
  if figures:
    blocks.append("## Figures")
    blocks += [report.image(*item) for item in figures.items()]
  blocks += ["## Notes", "\n".join(f"- {n}" for n in notes(results))]
  blocks += report.run_sections(results)
  return "\n\n".join(blocks) + "\n"


def notes(results: Mapping[str, Any]) -> list[str]:
  """Returns what a reader must know to judge the numbers of a run."""
  results = report.to_json(results)
  good = report.finished(results["seeds"])
  failed = [entry for entry in results["seeds"] if "failed" in entry]
  names = ", ".join(f"number {entry['seed']}" for entry in good)
  finished = f"{len(good)} ({names})" if good else "none"
  lines = [
    f"Networks: {report.sizes(results['sizes'])}.",
    f"Trainings that finished: {finished}.",
  ]
  if len(good) < FEW_SEEDS:
    lines.append(
      f"**Only {len(good)} finished seed(s)**: the spread between trainings is"
      " hardly known; differences between runs may be chance."
    )
  lines += [
    f"**Seed {entry['seed']} failed** and is in no mean:"
    f" {' '.join(str(entry['failed']).split())}"
    for entry in failed
  ]
  lines += _undefined(good)
  lines += _beaten(results, good)
  if results.get("no_ceilings"):
    lines.append(results["no_ceilings"])
  if not results.get("references"):
    lines.append("**No reference was run** on this split.")
  if not results.get("invariance"):
    lines.append("Invariance was not measured.")
  if results.get("select"):
    lines.append(
      f"The checkpoint was chosen by validation {results['select']}: the"
      " validation numbers are therefore a little too good."
    )
  revision = results["environment"].get("revision")
  if revision is None:
    lines.append("The revision of the code is unknown.")
  elif revision.endswith("-dirty"):
    lines.append(f"**The code differs from its revision** ({revision}).")
  return lines + [str(note) for note in results.get("notes") or ()]


def _metric_sections(results: Mapping[str, Any]) -> list[str]:
  """One table per part: seeds, their mean, and the references."""
  good = report.finished(results["seeds"])
  references = results.get("references") or {}
  parts = _ordered(
    [entry["metrics"] for entry in good] + list(references.values())
  )
  if not parts:
    return ["**There are no metrics to report.**"]
  sections = [
    f"Metrics of the predicted {results['target']}. A seed and a reference have"
    " a 95 % bootstrap interval over networks; the mean has a 95 % t interval"
    " over seeds."
  ]
  for part in sorted(parts, key=lambda part: part == "val"):  # It comes last.
    seeds = {
      f"seed {entry['seed']}": entry["metrics"].get(part) or {}
      for entry in good
    }
    rows = seeds | {
      f"reference: {name}": by_part[part]
      for name, by_part in references.items()
      if part in by_part
    }
    names = _ordered(list(rows.values()))
    if seeds:
      label = f"**mean of {len(seeds)} seed(s)**"
      means = {m: _mean(list(seeds.values()), m) for m in names}
      rows = {label: means} | rows
    size = results["sizes"].get(part)
    sections += section(
      part + (f" ({size} networks)" if size else ""),
      ["model", *names],
      [
        [label, *(row.get(m, {}) for m in names)] for label, row in rows.items()
      ],
    )
  return sections


def ceiling_section(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """Returns how high tau can be, and is; nothing where that is not known.

  Args:
    runs: results by label. Of several, models are the runs themselves.
  """
  rows = []
  for label, results in runs.items():
    for part, row in (results.get("ceilings") or {}).items():
      for model, reached in row["models"].items():
        if label and model.startswith("reference"):
          continue
        rows.append(
          [part, label or model, reached["kendall_tau"], row["kendall_tau"]]
          + [reached["share"], row["ties"], row["images"], row["collapsed"]]
        )
  header = ["part", "model", "kendall_tau", "ceiling", "share of the ceiling"]
  header += ["ceiling of ties", "images", "collapsed"]
  return section("Ceilings of tau", header, rows, CEILINGS)


def cost_section(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns the table of `costs`; nothing where there are none."""
  names = ("seconds_per_network", "flops_per_network")
  return section(
    "Cost of a prediction",
    ["model", "seconds per network", "floating-point operations per network"],
    [[row["model"], *(row.get(name) for name in names)] for row in rows],
    "Once compiled, in batches. The encoder needs no images.",
  )


def _coverage_section(results: Mapping[str, Any]) -> list[str]:
  coverage = results.get("coverage") or {}
  rows = [
    (name, part, levels)
    for name, parts in coverage.items()
    for part, levels in parts.items()
  ]
  levels = rows[0][2] if rows else ()
  return section(
    "Coverage of intervals",
    ["target", "part", *(f"{float(level):.0%}" for level in levels)],
    [[name, part, *shares.values()] for name, part, shares in rows],
    "Intervals are as wide as the errors of the mean of all seeds on the"
    " validation part say; this is the share of networks whose truth they"
    " hold.",
  )


def _ordered(tables: Sequence[Mapping[str, Any]]) -> list[str]:
  """Keys of all tables, in the order of their first occurrence."""
  return list(dict.fromkeys(key for table in tables for key in table))


def _mean(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
  return metrics.mean_interval(
    [(row.get(metric) or {}).get("value") for row in rows]
  )


def _undefined(good) -> list[str]:
  return [
    f"**Undefined**: {metric} of seed {entry['seed']} on {part} (constant"
    " or not finite prediction, or too few networks)."
    for entry in good
    for part, row in entry["metrics"].items()
    for metric, value in row.items()
    if value.get("value") is None
  ]


def _beaten(results, good) -> list[str]:
  """Names every test metric in which a reference is at least as good."""
  lines = []
  rows = [entry["metrics"].get("test") or {} for entry in good]
  for metric in _ordered(rows):
    higher = metrics.HIGHER_IS_BETTER.get(metric)
    mean = _mean(rows, metric)["mean"]
    if higher is None or not math.isfinite(mean):
      continue
    for name, by_part in (results.get("references") or {}).items():
      value = ((by_part.get("test") or {}).get(metric) or {}).get("value")
      if value is None:
        continue
      if (value >= mean) if higher else (value <= mean):
        lines.append(
          f"**The reference `{name}` is no worse** in test {metric}:"
          f" {report.number(value)} against {report.number(mean)}."
        )
  return lines
