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

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from experiments import config, matrix_figures, report, zoos
from experiments import options as options_lib
from experiments.tasks import members
from experiments.tasks import property as property_lib
from experiments.tasks.variants import folder_name
from sne_jax.learning import classes, metrics

METRICS = ("kendall_tau", "r_squared", "mae")
"""What a report shows; results.json has all. Of classes: `classes.METRICS`."""

ALL = "all zoos"

Cell = Mapping[int, float]
"""The value of a metric by seed; references, which have none, are seed -1."""


def chosen(options: options_lib.Options) -> dict[str, options_lib.Options]:
  """Returns the models to train, by encoder and row.

  Raises:
    ValueError: fewer zoos than the matrix needs, or several targets.
  """
  run = options.run
  if len(members.target_names(run)) != 1:
    raise ValueError(
      f"a matrix is of one target, but targets is {run.targets!r}; name one"
    )
  found = {}
  for place, (encoder, steps) in enumerate(run.encoder_steps.items()):
    for row, (trained, tested) in _rows(run).items():
      label = f"{encoder}: {row}"
      found[label] = options.replaced(
        encoder=encoder,
        num_steps=steps or options.train.num_steps,
        zoo=trained,
        test_zoos=tested,
        matrix="",
        workdir=str(pathlib.Path(run.workdir) / folder_name(label)),
        title=f"{run.title}: {label}",
        # They are the same for every encoder.
        references=run.references and not place,
        image_counts="" if place else run.image_counts,
      )
  return found


def _rows(run: options_lib.RunOptions) -> dict[str, tuple[str, str]]:
  """Returns by row the zoos to train on, and those to test on besides."""
  trained = zoos.sources(run.zoo, run.data_dir)
  tested = _columns(run)
  words = lambda found: ",".join(s.word for s in found)
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
  found = members.loaded(options, tuple({s.name: s for s in sources}.values()))
  for row, words in _rows(run).items():
    own, others = (
      [found[s.name] for s in zoos.sources(text, run.data_dir)] if text else []
      for text in words
    )
    try:
      data = members.assembled(options, own, others)
      for encoder in run.encoder_steps:
        property_lib.describe(options.replaced(encoder=encoder), data)
    except ValueError as error:
      raise ValueError(f"trained on {row}: {error}") from error


def _columns(run: options_lib.RunOptions) -> tuple[zoos.Source, ...]:
  return zoos.sources(run.test_zoos or run.zoo, run.data_dir)


def cells(
  options: options_lib.Options, outcomes: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, dict[tuple[str, str], Cell]]]:
  """Returns by metric, model, and (row, column) the values of all seeds."""
  run = options.run
  names = [s.name for s in _columns(run)]
  found: dict[str, dict[str, dict[tuple[str, str], Cell]]] = {}

  def put(metric, model, row, column, seed, value):
    table = found.setdefault(metric, {}).setdefault(model, {})
    table.setdefault((row, column), {})[seed] = value

  for label, results in outcomes.items():
    encoder, row = label.split(": ", 1)
    for column in names:
      if run.matrix == "others" and row != f"all but {column}":
        continue
      part = "test" if column == row else members.part_of(column)
      for entry in results["seeds"]:
        for metric, value in entry.get("metrics", {}).get(part, {}).items():
          put(metric, encoder, row, column, entry["seed"], value["value"])
      for reference, parts in results["references"].items():
        for metric in {name for values in parts.values() for name in values}:
          value = parts.get(part, {}).get(metric, {"value": None})
          put(metric, reference, row, column, -1, value["value"])
  first = list(run.encoder_steps)  # Then the references.
  order = lambda model: (
    model not in first,
    first.index(model) if model in first else 0,
  )
  return {
    metric: {model: tables[model] for model in sorted(tables, key=order)}
    for metric, tables in found.items()
  }


GROUPS = ("within", "other data set", "other architecture", "cross", "all")
"""What cells are averaged over. `cross` is all that is not `within`.

The zoos of the row `ALL` were all trained on: each of its cells is `within`,
but for those of zoos that are only tested on."""


def averages(
  table: Mapping[tuple[str, str], Cell],
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
    own = column in trained if row == ALL else row == column
    groups["within" if own else "cross"].append(cell)
    one, other = ((kinds or {}).get(name) for name in (row, column))
    if row != column and one and other:
      same = one["architecture"] == other["architecture"]
      name = "other data set" if same else "other architecture"
      groups[name].append(cell)
  found = {}
  for name, members_ in groups.items():
    seeds = sorted({seed for cell in members_ for seed in cell})
    if members_ and seeds:
      found[name] = _over_seeds(
        {s: np.mean([_number(c.get(s)) for c in members_]) for s in seeds}
      )
  return found


def write(
  workdir: pathlib.Path,
  options: options_lib.Options,
  outcomes: dict[str, dict[str, Any]],
) -> None:
  """Writes tables, heat maps and results of a matrix."""
  run = options.run
  found = cells(options, outcomes)
  columns = [s.name for s in _columns(run)]
  trained = {s.name for s in zoos.sources(run.zoo, run.data_dir)}
  rows = list(dict.fromkeys(label.split(": ", 1)[1] for label in outcomes))
  first = next(iter(outcomes.values()))
  kinds = {k: v for o in outcomes.values() for k, v in o["zoos"].items()}
  text = [f"# {run.title}", _description(options, outcomes)]
  shown_metrics = classes.METRICS if run.loss == classes.LOSS else METRICS
  for metric in shown_metrics:
    tables = found.get(metric, {})
    if not tables:
      continue
    text += [f"## {metric}", _summary(tables, kinds, trained)]
    shown = {
      model: _array(table, rows, columns)
      for model, table in tables.items()
      if np.isfinite(_array(table, rows, columns)).any()
      and not model.endswith(" images")  # Alike in all rows.
    }
    if shown and metric == shown_metrics[0]:
      (workdir / "figures").mkdir(parents=True, exist_ok=True)
      picture = matrix_figures.heat_maps(
        workdir / "figures" / f"{metric}.png", shown, rows, columns, name=metric
      )
      text.append(f"![{metric}](<figures/{picture.name}>)")
    for model, table in tables.items():
      text += [
        f"**{model}** (rows: trained on; columns: tested on)",
        report.markdown_table(
          ["trained on", *columns],
          [
            [row, *(_cell(table.get((row, column))) for column in columns)]
            for row in rows
          ],
        ),
      ]
  text += _cost_section(outcomes) + _map_section(outcomes)
  text += [
    f"**{label}, seed {entry['seed']} failed**: {entry['failed']}"
    for label, o in outcomes.items()
    for entry in o["seeds"]
    if "failed" in entry
  ]
  text += [
    "Repeat it with `--flagfile` and this file:",
    "```\n"
    + config.to_flagfile(
      *options.groups(), prefixes=options_lib.PREFIXES
    ).strip()
    + "\n```",
    "Reports of the models:",
    "\n".join(
      f"- [{label}](<{folder_name(label)}/report.md>)" for label in outcomes
    ),
  ]
  report.write_text(workdir / "report.md", "\n\n".join(text) + "\n")
  keys = ("seeds", "sizes", "num_params", "networks_per_second", "seconds")
  report.write_results(
    workdir,
    {
      "title": run.title,
      "config": config.resolved(*options.groups()),
      "flagfile": config.to_flagfile(
        *options.groups(), prefixes=options_lib.PREFIXES
      ),
      "environment": first["environment"],
      "rows": rows,
      "columns": columns,
      "cells": {
        metric: {
          model: {
            f"{row} -> {column}": _over_seeds(cell)
            for (row, column), cell in table.items()
          }
          for model, table in tables.items()
        }
        for metric, tables in found.items()
      },
      "averages": {
        metric: {
          model: averages(table, kinds, trained)
          for model, table in tables.items()
        }
        for metric, tables in found.items()
      },
      "models": {
        label: {key: o[key] for key in (*keys, "references")}
        | {key: o[key] for key in ("costs", "maps") if o.get(key)}
        for label, o in outcomes.items()
      },
    },
  )


def _description(options, outcomes) -> str:
  """Says what was trained and tested, and how many networks there were."""
  parts: dict[str, Any] = {}
  for label, results in outcomes.items():
    row = label.split(": ", 1)[1]
    parts.setdefault(
      row, ", ".join(f"{p} {n}" for p, n in results["sizes"].items())
    )
  seeds = options.run.seeds
  lines = [f"- {row}: {sizes}." for row, sizes in parts.items()]
  (target,) = members.target_labels(options.run)
  of_constant = " A constant ranks nothing, so its tau is undefined."
  return (
    f"Target: {target}. Mean of {seeds} seed(s) with a 95 % t interval;"
    " references are fitted once."
    + ("" if options.run.loss == classes.LOSS else of_constant)
    + " The checkpoint is chosen by validation networks of the zoos trained on;"
    " no network of another zoo is seen before the test.\n\n"
    "Networks:\n\n" + "\n".join(lines)
  )


def _cost_section(outcomes: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """Seconds and operations of a prediction: of all models and rows."""
  rows = []
  for label, results in outcomes.items():
    encoder, row = label.split(": ", 1)
    for cost in results.get("costs") or ():
      model = label if cost["model"] == encoder else f"{cost['model']}: {row}"
      rows.append(cost | {"model": model})
  return report.cost_section(rows)


def _map_section(outcomes: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """How labels are mixed in the codes of every model."""
  found = {label: o["maps"] for label, o in outcomes.items() if o.get("maps")}
  names = list(dict.fromkeys(name for maps in found.values() for name in maps))
  if not names:
    return []
  table = report.markdown_table(
    ["model", *names],
    [
      [label, *(report.number(maps.get(name)) for name in names)]
      for label, maps in found.items()
    ],
  )
  return ["## Mixing of the codes", report.MIXING, table]


def _summary(
  tables: Mapping[str, Mapping[tuple[str, str], Cell]],
  kinds: Mapping[str, Mapping[str, Any]],
  trained: Collection[str],
) -> str:
  """A table of the averages of every model."""
  found = {
    model: averages(table, kinds, trained) for model, table in tables.items()
  }
  names = [n for n in GROUPS if any(n in row for row in found.values())]
  return report.markdown_table(
    ["average", *names],
    [
      [model, *(report.with_interval(row.get(n)) for n in names)]
      for model, row in found.items()
    ],
  )


def _array(table, rows, columns) -> np.ndarray:
  """Returns the means over seeds as an array, nan where there is none."""
  return np.array(
    [
      [_over_seeds(table.get((row, column), {}))["mean"] for column in columns]
      for row in rows
    ]
  )


def _cell(cell: Cell | None) -> str:
  return report.with_interval(_over_seeds(cell)) if cell else ""


def _over_seeds(cell: Mapping[int, Any]) -> dict[str, Any]:
  """Returns the mean over seeds, with its interval."""
  if not cell:
    return {"mean": float("nan")}
  return dict(metrics.mean_interval([_number(v) for v in cell.values()]))


def _number(value: Any) -> float:
  return float("nan") if value is None else float(value)
