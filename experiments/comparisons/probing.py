"""Compares encoders without labels by what linear probes read from them.

Each of `--probes` is a run of `--pretrain` of its own, in a folder of its own,
on the same networks and splits; a run that has finished is not done again. One
table per test part holds R^2 and Kendall's tau of every target.
"""

import operator
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.cli import options as options_lib
from experiments.comparisons import comparison
from experiments.comparisons.comparison import Outcomes
from experiments.tasks import members, pretrain, zoos
from sne_jax.cli.reports import figures, report

SHOWN = {"r_squared": "R^2", "kendall_tau": "Kendall's tau"}


def chosen(options: options_lib.Options) -> dict[str, options_lib.Options]:
  """Returns the run of every name; a flagfile's is that of its file.

  Raises:
    ValueError: a flagfile that is not there, or does not say what to pretrain;
      or two runs of one name.
  """
  runs = {}
  for word in options.run.probe_names:
    changes, name = {"pretrain": word}, word
    if word.endswith(zoos.SUFFIX):
      changes, name = _changes(word), pathlib.Path(word).stem
    if name in runs:
      raise ValueError(f"probes has two runs that are called {name}")
    runs[name] = comparison.run_of(options, name, **changes | {"probes": ""})
  return runs


def _changes(flagfile: str) -> dict[str, Any]:
  """Returns the flags that a flagfile sets, those it includes too."""
  if not pathlib.Path(flagfile).is_file():
    raise ValueError(f"probes: there is no flagfile {flagfile}")
  values = options_lib.parsed(flagfile)
  changes = {n: values[n].value for n in values if values[n].present}
  if "pretrain" not in changes:
    raise ValueError(
      f"probes: {flagfile} does not say what to pretrain; add --pretrain=NAME"
    )
  return changes


def check(options: options_lib.Options) -> None:
  """Has everybody look at the networks, before the first is trained.

  Raises:
    ValueError: one of them cannot read them.
  """
  data = members.gathered(options)
  for changed in chosen(options).values():
    pretrain.check(changed, data)


def page(options: options_lib.Options, outcomes: Outcomes) -> comparison.Page:
  """Returns a table and a figure of every target for every test part."""
  good = {name: o for name, o in outcomes.items() if o["summary"]}
  first = next(iter(outcomes.values()))
  targets = members.target_labels(options.run)
  parts = list(next(iter(good.values()))["summaries"]) if good else []
  blocks: list[str | report.Picture] = [
    "Linear probes (ridge, the penalty chosen on the validation part) from"
    " codes that were learned without labels, and from baselines. Mean over"
    f" {options.run.seeds} seeds with a 95 % t interval. Networks:"
    f" {report.sizes(first['sizes'])}.",
    *(first.get("notes") or ()),
  ]
  for part in parts:
    rows = {name: o["summaries"][part] for name, o in good.items()}
    columns = {
      f"{target} {word}": operator.itemgetter(f"{target} {metric}")
      for target in targets
      for metric, word in SHOWN.items()
    }
    blocks += [f"## {part}", report.table("codes", rows, columns)]
    blocks += [_picture(good, part, target) for target in targets]
  blocks += _reconstruction(good)
  blocks += [
    "## Size and time",
    report.table(
      "encoder",
      good,
      {
        "parameters": operator.itemgetter("num_params"),
        "seconds of training per seed": comparison.train_seconds,
      },
    ),
  ]
  return comparison.Page(blocks, "probes", {"sizes": first["sizes"]})


COMPARISON = comparison.Comparison(chosen, page, check)


def _picture(good: Outcomes, part: str, target: str) -> report.Picture:
  """R^2 of a target by encoder; those that were trained are strong."""
  rows = {
    name: _cut(o["summaries"][part][f"{target} r_squared"])
    for name, o in good.items()
  }
  trained = [n for n, o in good.items() if _is_trained(o)]
  return report.Picture(
    f"{comparison.folder_name(part)}_{comparison.folder_name(target)}",
    f"R^2 of {target}, {part}",
    lambda path: figures.bars_with_intervals(
      path,
      rows,
      xlabel=f"R^2 of {target}, {part} (axis begins at -1 at the least)",
      highlight=trained,
    ),
  )


def _reconstruction(good: Outcomes) -> list[str]:
  """The reconstructions of the autoencoders, all layers together."""
  by_name = {
    name: o["reconstruction"] for name, o in good.items() if o["reconstruction"]
  }
  parts = list(next(iter(by_name.values()), ()))
  return report.section(
    "Reconstruction",
    ["encoder", *parts],
    [[n, *(p["all"] for p in row.values())] for n, row in by_name.items()],
    "R^2 of whole networks, standardised, against the mean of the training"
    " networks; layers are in the reports of each.",
  )


def _cut(row: Mapping[str, Any]) -> dict[str, float]:
  """Keeps a bar in sight: what is worse than -1 ends there."""
  return {key: max(row[key], -1.0) for key in ("mean", "low", "high")}


def _is_trained(results: Mapping[str, Any]) -> bool:
  return any(entry.get("best_step") for entry in results["seeds"])
