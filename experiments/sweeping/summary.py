"""What a sweep leaves to read: one table, one figure, and the same as JSON.

Test numbers are those of the selected trial, and of no other: a table of them
would be one more way to choose.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments import drawing, report
from experiments.sweeping import collect
from experiments.sweeping import space as space_lib
from experiments.sweeping.collect import Outcome
from experiments.sweeping.plan import Plan

COLUMNS = 3
"""Panels in a row of the figure."""

LOG_RATIO = 20
"""Listed numbers that are further apart have a logarithmic axis."""


def write(plan: Plan, outcomes: Sequence[Outcome]) -> None:
  """Writes report.md, results.json and figures/sweep.png of a sweep."""
  order = collect.ranked(plan, outcomes)
  best = collect.selected(order)
  failed = [outcome for outcome in outcomes if outcome.failed]
  found = results(plan, order, best, failed)
  report.write_results(plan.workdir, found)
  picture = None
  if best is not None:
    picture = draw(plan.workdir / "figures" / "sweep.png", plan, order, failed)
  text = _report(plan, order, best, failed, picture, found)
  report.write_text(plan.workdir / "report.md", text)


def results(
  plan: Plan,
  order: Sequence[Outcome],
  best: Outcome | None,
  failed: Sequence[Outcome],
) -> dict[str, Any]:
  """Returns what `results.json` holds."""
  rows = []
  for outcome in [*order, *failed]:
    row: dict[str, Any] = {"trial": outcome.trial.number}
    row["changes"] = outcome.trial.changes
    if outcome.failed:
      row["failed"] = outcome.failed
    elif outcome.results is not None:
      row["val"] = collect.part(outcome.trial, outcome.results, "val")
      for name in ("num_params", "seconds"):
        row[name] = outcome.results.get(name)
    rows.append(row)
  found: dict[str, Any] = {
    "title": plan.title,
    "metric": plan.sweep.metric,
    "higher_is_better": plan.sweep.higher_is_better,
    "config": plan.identity(),
    "flagfile": plan.flagfile(),
    "trials": rows,
    "selected": None,
  }
  if best is not None and best.results is not None:
    found["selected"] = {
      "trial": best.trial.number,
      "changes": best.trial.changes,
      "val": collect.part(best.trial, best.results, "val"),
      "test": collect.part(best.trial, best.results, "test"),
      "sizes": best.results.get("sizes"),
      "environment": best.results.get("environment"),
    }
  return found


def headline(plan: Plan, best: Outcome | None, failed: int) -> str:
  """Returns the lines that the terminal shows at the end."""
  count = len(plan.trials)
  lines = [f"{plan.title}: {count - failed} of {count} trials finished"]
  if best is None or best.results is None:
    return lines[0] + "; none can be selected"
  metric = plan.sweep.metric
  test = collect.part(best.trial, best.results, "test").get(metric)
  lines += [
    f"  selected: trial {best.trial.number}"
    f" ({space_lib.show_all(best.trial.changes)})",
    f"  validation {metric} {report.with_interval(best.score)}, test"
    f" {report.with_interval(test)}",
  ]
  return "\n".join(lines)


def draw(
  path: pathlib.Path,
  plan: Plan,
  order: Sequence[Outcome],
  failed: Sequence[Outcome],
) -> pathlib.Path:
  """Draws the validation metric over every swept option, a panel each."""
  names = list(plan.space)
  columns = min(len(names), COLUMNS)
  rows = -(-len(names) // columns)
  size = (2.9 * columns + 0.8, 2.7 * rows + 0.3)
  with drawing.drawn(path, size) as picture:
    panels = picture.subplots(rows, columns, sharey=True, squeeze=False)
    for place, panel in enumerate(panels.flat):
      if place >= len(names):
        panel.remove()
        continue
      _panel(panel, names[place], plan, order, failed)
      if place % columns == 0:
        panel.set_ylabel(f"validation {plan.sweep.metric}")
    known = {
      label: handle
      for handle, label in zip(
        *panels[0, 0].get_legend_handles_labels(), strict=True
      )
    }
    picture.legend(
      known.values(), known, loc="outside upper right", ncols=len(known)
    )
  return drawing.png_path(path)


def _panel(
  axes: Axes,
  name: str,
  plan: Plan,
  order: Sequence[Outcome],
  failed: Sequence[Outcome],
) -> None:
  """Draws one option: a point per trial, its interval, and the failed ones."""
  dimension = plan.space[name]
  words = dimension.kind in (str, bool)
  place = lambda o: (
    dimension.values.index(o.trial.changes[name])
    if words
    else o.trial.changes[name]
  )
  for rank, outcome in enumerate(order):
    value, low, high = drawing.interval(outcome.score)
    if not np.isfinite(value):
      continue
    best = rank == 0
    color = drawing.color(1 if best else 0)
    if np.isfinite(low) and np.isfinite(high):
      axes.plot([place(outcome)] * 2, [low, high], color=color, lw=0.8)
    axes.plot(
      *(place(outcome), value, "D" if best else "o"),
      color=color,
      ms=6 if best else 4.5,
      alpha=1.0 if best else 0.7,
      zorder=3 if best else 2,
      label="selected trial" if best else "trial",
    )
  if failed:
    axes.plot(
      *([place(outcome) for outcome in failed], [0.02] * len(failed), "x"),
      transform=axes.get_xaxis_transform(),
      color=drawing.PALE,
      ms=5,
      label="failed trial",
    )
  if words:
    labels = [space_lib.show(value) for value in dimension.values]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.5, len(labels) - 0.5)
  elif dimension.range.startswith("log") or _is_wide(dimension.values):
    axes.set_xscale("log")
  axes.set_xlabel(name)
  axes.grid(True, which="major")


def _is_wide(values: Sequence[float]) -> bool:
  return bool(values) and min(values) > 0 and (
    max(values) / min(values) >= LOG_RATIO
  )  # fmt: skip


def _report(
  plan: Plan,
  order: Sequence[Outcome],
  best: Outcome | None,
  failed: Sequence[Outcome],
  picture: pathlib.Path | None,
  found: Mapping[str, Any],
) -> str:
  """Returns the report as markdown."""
  sweep, names = plan.sweep, list(plan.space)
  way = "grid" if sweep.grid else f"random search, seed {sweep.sweep_seed}"
  better = "higher" if sweep.higher_is_better else "lower"
  sections = [
    f"# {plan.title}",
    f"{len(plan.trials)} trials ({way}): {len(order)} finished,"
    f" {len(failed)} failed. Ranked by {sweep.metric} on the validation"
    f" networks ({better} is better), the mean over seeds with a 95 % t"
    " interval.",
  ]
  rows = [
    [
      rank,
      _link(outcome),
      *(space_lib.show(outcome.trial.changes[name]) for name in names),
      report.with_interval(outcome.score),
      *_cost(outcome),
    ]
    for rank, outcome in enumerate(order, start=1)
  ] + [
    [
      "failed",
      _link(outcome),
      *(space_lib.show(outcome.trial.changes[name]) for name in names),
      *[report.MISSING] * 3,
    ]
    for outcome in failed
  ]
  header = ["rank", "trial", *names, f"validation {sweep.metric}"]
  header += ["parameters", "training [s]"]
  sections.append(report.markdown_table(header, rows))
  if picture is not None:
    sections.append("![Validation over the options](<figures/sweep.png>)")
  sections += _selection(plan, found["selected"], len(order))
  if failed:
    sections += [
      "## Failed trials",
      "\n".join(f"- {_link(o)}: {o.failed}" for o in failed),
    ]
  sections += [
    "## What was run",
    "Repeat it with `--flagfile` and this file:",
    f"```\n{found['flagfile'].strip()}\n```",
  ]
  return "\n\n".join(sections) + "\n"


def _selection(
  plan: Plan, selected: Mapping[str, Any] | None, count: int
) -> list[str]:
  """Says which trial was chosen, and what it does on the test networks."""
  if selected is None:
    return ["**No trial can be selected**: none has a validation value."]
  number = selected["trial"]
  names = list(dict.fromkeys([*selected["val"], *selected["test"]]))
  table = report.markdown_table(
    ["metric", "validation", "test"],
    [
      [name]
      + [report.with_interval(selected[p].get(name)) for p in ("val", "test")]
      for name in names
    ],
  )
  return [
    f"## Selected: trial {number}",
    f"With {space_lib.show_all(selected['changes'])}. It was chosen as the best"
    f" of {count} by its validation value, which is therefore too good; the"
    " test networks had no part in the choice.",
    table,
    "Repeat it, with references:",
    "```\npython experiments/run.py"
    f" --flagfile={plan.workdir}/{_folder(number)}/trial.flags"
    " --references --workdir=runs/selected\n```",
  ]


def _cost(outcome: Outcome) -> list[Any]:
  """Returns the size of the model, and the seconds of all its seeds."""
  results = outcome.results or {}
  seconds = [entry.get("train_seconds") for entry in results.get("seeds", ())]
  known = [each for each in seconds if each is not None]
  return [
    report.number(results.get("num_params")),
    report.number(float(sum(known)) if known else None),
  ]


def _folder(number: int) -> str:
  return f"trials/{number:04d}"


def _link(outcome: Outcome) -> str:
  number = outcome.trial.number
  return f"[{number}](<{_folder(number)}>)"
