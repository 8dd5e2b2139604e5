"""What a sweep leaves to read: one table, one figure, and the same as JSON.

Test numbers are those of the selected trial, and of no other: a table of them
would be one more way to choose.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from sne_jax.cli.reports import report, sweep_figure
from sne_jax.cli.sweeping import space, trials
from sne_jax.cli.sweeping.plan import Plan
from sne_jax.cli.sweeping.trials import Outcome


def ranked(plan: Plan, outcomes: Sequence[Outcome]) -> list[Outcome]:
  """Returns the trials in the order of the table; equals by their number.

  Undefined values (a constant prediction has no rank correlation) come after
  the others, then trials that were stopped early, and those that failed.
  """
  sign = -1.0 if plan.sweep.higher_is_better else 1.0

  def place(outcome: Outcome):
    value = sign * outcome.value if math.isfinite(outcome.value) else math.inf
    return bool(outcome.failed), outcome.stopped, value, outcome.number

  return sorted(outcomes, key=place)


def write(plan: Plan, study: optuna.Study, outcomes: Sequence[Outcome]) -> str:
  """Writes report.md, results.json and figures/sweep.png of a sweep.

  Returns:
    The lines that the terminal shows at the end.
  """
  order = ranked(plan, outcomes)
  contents = results(plan, order)
  chosen = contents["selected"]
  blocks = [*_trials(plan, order), *_selection(plan, study, chosen, order)]
  failed = [f"- {_link(o.number)}: {o.failed}" for o in order if o.failed]
  if failed:
    blocks += ["## Failed trials", "\n".join(failed)]
  report.write_page(plan.workdir, blocks, contents)
  counts = f"{contents['title']}: {_counts(order)}"
  if chosen is None:
    return f"{counts}; none can be selected"
  metric = plan.sweep.metric
  val, test = (report.with_interval(chosen[p].get(metric)) for p in _PARTS)
  return (
    f"{counts}\n  selected: trial {chosen['trial']}"
    f" ({space.show_all(chosen['changes'])})\n  validation {metric} {val}, test"
    f" {test}"
  )


def results(plan: Plan, order: Sequence[Outcome]) -> dict[str, Any]:
  """Returns what `results.json` holds."""
  rows, chosen = [], None
  for outcome in order:
    row: dict[str, Any] = {"trial": outcome.number, "changes": outcome.changes}
    if outcome.failed:
      row["failed"] = outcome.failed
    elif outcome.stopped:
      row["stopped_at"] = max(trials.curve(plan, outcome.number), default=0)
    elif outcome.results is not None:
      row["val"] = trials.part(plan, outcome.results, "val")
      row |= {k: outcome.results.get(k) for k in ("num_params", "seconds")}
    rows.append(row)
  if math.isfinite(order[0].value) and order[0].results is not None:
    best = order[0].results
    chosen = {key: rows[0][key] for key in ("trial", "changes", "val")}
    chosen |= {"test": trials.part(plan, best, "test")}
    chosen |= {key: best.get(key) for key in ("sizes", "environment")}
  return {
    "title": plan.base.title,
    "metric": plan.sweep.metric,
    "higher_is_better": plan.sweep.higher_is_better,
    "config": plan.identity(),
    "flagfile": plan.flagfile(),
    "trials": rows,
    "selected": chosen,
  }


def _draw(path: pathlib.Path, plan: Plan, order: Sequence[Outcome]) -> None:
  """Draws the validation metric over every swept option, a panel each."""
  finished = [o for o in order if not (o.failed or o.stopped)]
  sweep_figure.draw(
    path,
    [(outcome.changes, outcome.value) for outcome in finished],
    list(plan.space),
    label=f"validation {plan.sweep.metric}",
    best=0,
  )


_PARTS = ("val", "test")


def _counts(outcomes: Sequence[Outcome]) -> str:
  failed = sum(bool(outcome.failed) for outcome in outcomes)
  stopped = sum(outcome.stopped for outcome in outcomes)
  total = len(outcomes)
  text = f"{total - failed - stopped} of {total} trials finished"
  text += f", {stopped} stopped early" if stopped else ""
  return text + (f", {failed} failed" if failed else "")


def _trials(plan: Plan, order: Sequence[Outcome]) -> list[str]:
  """Returns the table of all trials, and how they were chosen."""
  sweep, way = plan.sweep, plan.sweep.chosen_sampler
  way += "" if way == "grid" else f", seed {sweep.sweep_seed}"
  better = "higher" if sweep.higher_is_better else "lower"
  rows = []
  for rank, outcome in enumerate(order, start=1):
    place = "stopped" if outcome.stopped else rank
    values = [outcome.changes.get(n, report.MISSING) for n in plan.space]
    seeds = (outcome.results or {}).get("seeds", ())
    known = [s["train_seconds"] for s in seeds if s.get("train_seconds")]
    rows.append([
      *("failed" if outcome.failed else place, _link(outcome.number)),
      *(*map(space.show, values), outcome.score),
      report.number((outcome.results or {}).get("num_params")),
      report.number(float(sum(known)) if known else None),
    ])  # fmt: skip
  header = ["rank", "trial", *plan.space, f"validation {sweep.metric}"]
  return [
    f"{_counts(order)} (sampler {way}; pruner {sweep.pruner}). Ranked by"
    f" {sweep.metric} on the validation networks ({better} is better), the mean"
    " over seeds with a 95 % t interval.",
    report.markdown_table([*header, "parameters", "training [s]"], rows),
  ]


def _selection(
  plan: Plan,
  study: optuna.Study,
  chosen: Mapping[str, Any] | None,
  order: Sequence[Outcome],
) -> list[str | report.Picture]:
  """Says which trial was chosen, and what it does on the test networks."""
  if chosen is None:
    return ["**No trial can be selected**: none has a validation value."]
  rows = [
    [name, *(chosen[part].get(name) for part in _PARTS)]
    for name in dict.fromkeys([*chosen["val"], *chosen["test"]])
  ]
  count = sum(not outcome.failed for outcome in order)
  return [
    report.Picture(
      "sweep",
      f"Validation {plan.sweep.metric} over the options",
      lambda path: _draw(path, plan, order),
    ),
    f"## Selected: trial {chosen['trial']}",
    f"With {space.show_all(chosen['changes'])}. It was chosen as the best"
    f" of {count} by its validation value, which is therefore too good; the"
    " test networks had no part in the choice.",
    report.markdown_table(["metric", "validation", "test"], rows),
    "Repeat it, with references:",
    f"```\n{plan.subject.repeat}"
    f" --flagfile={plan.folder(chosen['trial'])}/trial.flags"
    " --references --workdir=runs/selected\n```",
  ]


def _link(number: int) -> str:
  return f"[{number}](<trials/{number:04d}>)"
