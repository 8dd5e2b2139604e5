"""Trained on one, tested on another: encoders over several zoos.

A row is what a model was trained on, a column the zoo that it is tested on.
`--matrix` says what a row is:

- `each`: each zoo by itself. A cell whose zoo is that of the row is "within".
- `others`: all zoos but that of the column: one model for each column.
- `all`: all zoos together.

Every model is a run of its own in a folder of its own, so it has a report, and
is not trained again once it is finished. References that learn from statistics
of the weights see the same networks.
"""

import collections
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from experiments.cli import options as options_lib
from experiments.comparisons import comparison
from experiments.comparisons.comparison import Outcomes
from experiments.tasks import members, zoos
from experiments.tasks import property as property_lib
from sne_jax.cli.reports import figures, report, run_report
from sne_jax.learning.evaluation import classes, metrics

METRICS = ("kendall_tau", "r_squared", "mae")
"""What a report shows; results.json has all. Of classes: `classes.METRICS`."""

ALL = "all zoos"

Cell = Mapping[int, Any]
"""The value of a metric by seed; references, which have none, are seed -1."""

Table = Mapping[tuple[str, str], Cell]
"""Cells by row and column."""

GROUPS = ("within", "other data set", "other architecture", "cross", "all")
"""What cells are averaged over. `cross` is all that is not `within`.

The zoos of the row `ALL` were all trained on: each of its cells is `within`,
but for those of zoos that are only tested on."""


def chosen(options: options_lib.Options) -> dict[str, options_lib.Options]:
  """Returns the models to train, by encoder and row.

  Raises:
    ValueError: fewer zoos than the matrix needs, or several targets.
  """
  run = options.run
  if len(run.target_names) != 1:
    raise ValueError(
      f"a matrix is of one target, but targets is {run.targets!r}; name one"
    )
  runs = {}
  for place, (encoder, steps) in enumerate(run.encoder_steps.items()):
    for row, (trained, tested) in _rows(run).items():
      label = f"{encoder}: {row}"
      runs[label] = comparison.run_of(
        options,
        label,
        encoder=encoder,
        num_steps=steps or options.train.num_steps,
        zoo=trained,
        test_zoos=tested,
        matrix="",
        # They are the same for every encoder.
        references=run.references and not place,
        image_counts="" if place else run.image_counts,
      )
  return runs


def _rows(run: options_lib.RunOptions) -> dict[str, tuple[str, str]]:
  """Returns by row the zoos to train on, and those to test on besides."""
  trained = zoos.sources(run.zoo, run.data_dir)
  tested = _columns(run)
  words = lambda sources: ",".join(s.word for s in sources)
  if run.matrix == "all":
    known = {s.name for s in trained}
    return {
      ALL: (words(trained), words(s for s in tested if s.name not in known))
    }
  if run.matrix == "each":
    return {
      s.name: (s.word, words(t for t in tested if t.name != s.name))
      for s in trained
    }
  rows = {}
  for column in tested:
    left = [s for s in trained if s.name != column.name]
    if not left:
      raise ValueError(
        f"matrix is others, but no zoo is left to train on for {column.name};"
        " name more with --zoo"
      )
    rows[f"all but {column.name}"] = (words(left), column.word)
  return rows


def check(options: options_lib.Options) -> None:
  """Makes the zoos that are not there, and puts every row together once.

  Every encoder looks at them too. So whatever is wrong with a later row, or
  encoder, is said before the first is trained.

  Raises:
    ZooError, ValueError: of `members.loaded` and, naming the row, of
      `members.assembled`.
  """
  run = options.run
  sources = (*zoos.sources(run.zoo, run.data_dir), *_columns(run))
  loaded = members.loaded(options, tuple({s.name: s for s in sources}.values()))
  for row, words in _rows(run).items():
    trained, tested = (
      [loaded[s.name] for s in zoos.sources(text, run.data_dir)] if text else []
      for text in words
    )
    try:
      data = members.assembled(options, trained, tested)
      for encoder in run.encoder_steps:
        property_lib.describe(options.replaced(encoder=encoder), data)
    except ValueError as error:
      raise ValueError(f"trained on {row}: {error}") from error


def _columns(run: options_lib.RunOptions) -> tuple[zoos.Source, ...]:
  return zoos.sources(run.test_zoos or run.zoo, run.data_dir)


def cells(
  options: options_lib.Options, outcomes: Outcomes
) -> dict[str, dict[str, Table]]:
  """Returns by metric and model the values of all seeds; encoders first."""
  run = options.run
  tables: Any = collections.defaultdict(
    lambda: collections.defaultdict(lambda: collections.defaultdict(dict))
  )
  for label, results in outcomes.items():
    encoder, row = label.split(": ", 1)
    for column in (s.name for s in _columns(run)):
      if run.matrix == "others" and row != f"all but {column}":
        continue
      part = "test" if column == row else members.part_of(column)
      for entry in results["seeds"]:
        for metric, value in entry.get("metrics", {}).get(part, {}).items():
          cell = tables[metric][encoder][row, column]
          cell[entry["seed"]] = value["value"]
      for reference, parts in results["references"].items():
        for metric in {name for values in parts.values() for name in values}:
          value = parts.get(part, {}).get(metric, {"value": None})
          tables[metric][reference][row, column] = {-1: value["value"]}
  return {
    metric: {
      model: dict(by_model[model])
      for model in sorted(by_model, key=lambda m: m not in run.encoder_steps)
    }
    for metric, by_model in tables.items()
  }


def averages(
  table: Table,
  kinds: Mapping[str, Mapping[str, Any]] | None = None,
  trained: Collection[str] = (),
) -> dict[str, Any]:
  """Returns means over cells, with their interval over seeds, by `GROUPS`.

  A value that is undefined counts as missing, and so does a mean that lacks
  one.

  Args:
    table: by row and column, the values of all seeds.
    kinds: by zoo its `dataset` and `architecture`; a cell whose row and column
      have equal architectures is of another data set.
    trained: the zoos that the row `ALL` was trained on.
  """
  groups: dict[str, list[Cell]] = {name: [] for name in GROUPS}
  for (row, column), cell in table.items():
    groups["all"].append(cell)
    is_within = column in trained if row == ALL else row == column
    groups["within" if is_within else "cross"].append(cell)
    one, other = ((kinds or {}).get(name) for name in (row, column))
    if row != column and one and other:
      same = one["architecture"] == other["architecture"]
      groups["other data set" if same else "other architecture"].append(cell)
  means = {}
  for name, group in groups.items():
    seeds = sorted({seed for cell in group for seed in cell})
    if seeds:
      values = [[cell.get(seed) for cell in group] for seed in seeds]
      of_seed = np.array(values, np.float64).mean(axis=1)
      means[name] = metrics.mean_interval(of_seed.tolist())
  return means


def page(options: options_lib.Options, outcomes: Outcomes) -> comparison.Page:
  """Returns averages, a heat map, and a table for each model and metric."""
  run = options.run
  columns = [s.name for s in _columns(run)]
  trained = {s.name for s in zoos.sources(run.zoo, run.data_dir)}
  rows = list(dict.fromkeys(label.split(": ", 1)[1] for label in outcomes))
  kinds = {k: v for o in outcomes.values() for k, v in o["zoos"].items()}
  tables = cells(options, outcomes)
  means = {
    metric: {m: averages(t, kinds, trained) for m, t in by_model.items()}
    for metric, by_model in tables.items()
  }
  is_shown = classes.METRICS if run.loss == classes.LOSS else METRICS
  shown = [metric for metric in is_shown if metric in tables]
  blocks: list[str | report.Picture] = [_description(options, outcomes)]
  for metric in shown:
    groups = [g for g in GROUPS if any(g in m for m in means[metric].values())]
    blocks += [
      f"## {metric}",
      report.table(
        "average",
        means[metric],
        {group: lambda m, group=group: m.get(group) for group in groups},
      ),
    ]
    if metric == is_shown[0]:
      blocks += _heat_maps(metric, tables[metric], rows, columns)
    for model, table in tables[metric].items():
      means_of = {place: _over_seeds(cell) for place, cell in table.items()}
      blocks += [
        f"**{model}** (rows: trained on; columns: tested on)",
        report.markdown_table(
          ["trained on", *columns],
          [[r, *(means_of.get((r, c), "") for c in columns)] for r in rows],
        ),
      ]
  blocks += _cost_section(outcomes) + _map_section(outcomes)
  over_seeds = {
    metric: {
      model: {
        f"{row} -> {column}": _over_seeds(cell)
        for (row, column), cell in table.items()
      }
      for model, table in by_model.items()
    }
    for metric, by_model in tables.items()
  }
  about = {"rows": rows, "columns": columns, "cells": over_seeds}
  return comparison.Page(blocks, "models", about | {"averages": means})


COMPARISON = comparison.Comparison(chosen, page, check)


def _description(options, outcomes) -> str:
  """Says what was trained and tested, and how many networks there were."""
  parts = {}
  for label, results in outcomes.items():
    parts.setdefault(label.split(": ", 1)[1], report.sizes(results["sizes"]))
  lines = [f"- {row}: {sizes}." for row, sizes in parts.items()]
  (target,) = members.target_labels(options.run)
  of_constant = " A constant ranks nothing, so its tau is undefined."
  return (
    f"Target: {target}. Mean of {options.run.seeds} seed(s) with a 95 % t"
    " interval; references are fitted once."
    + ("" if options.run.loss == classes.LOSS else of_constant)
    + " The checkpoint is chosen by validation networks of the zoos trained on;"
    " no network of another zoo is seen before the test.\n\n"
    "Networks:\n\n" + "\n".join(lines)
  )


def _heat_maps(
  metric: str, tables: Mapping[str, Table], rows, columns
) -> list[report.Picture]:
  """The picture of a metric; none where nothing is defined."""
  mean = lambda cell: _over_seeds(cell)["mean"]
  arrays = {
    model: np.array([[mean(table.get((r, c))) for c in columns] for r in rows])
    for model, table in tables.items()
    if not model.endswith(" images")  # Alike in all rows.
  }
  arrays = {m: array for m, array in arrays.items() if np.isfinite(array).any()}
  if not arrays:
    return []
  undefined = {  # As tau of predictions that are all equal.
    model: np.array([[(r, c) in tables[model] for c in columns] for r in rows])
    for model in arrays
  }
  draw = lambda path: figures.heat_maps(
    path, arrays, rows, columns, name=metric, undefined=undefined
  )
  return [report.Picture(metric, f"{metric} by zoo, for each model", draw)]


def _cost_section(outcomes: Outcomes) -> list[str]:
  """Seconds and operations of a prediction: of all models and rows."""
  rows = []
  for label, results in outcomes.items():
    encoder, row = label.split(": ", 1)
    for cost in results.get("costs") or ():
      model = label if cost["model"] == encoder else f"{cost['model']}: {row}"
      rows.append(cost | {"model": model})
  return run_report.cost_section(rows)


def _map_section(outcomes: Outcomes) -> list[str]:
  """How labels are mixed in the codes of every model."""
  by_label = {
    label: o["maps"] for label, o in outcomes.items() if o.get("maps")
  }
  names = list(dict.fromkeys(n for maps in by_label.values() for n in maps))
  return report.section(
    "Mixing of the codes",
    ["model", *names],
    [[label, *map(maps.get, names)] for label, maps in by_label.items()],
    run_report.MIXING,
  )


def _over_seeds(cell: Cell | None) -> dict[str, float]:
  """Returns the mean over seeds, with its interval."""
  return metrics.mean_interval(list((cell or {-1: None}).values()))
