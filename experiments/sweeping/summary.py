"""What a sweep leaves to read: one table, one figure, and the same as JSON.

Test numbers are those of the selected trial, and of no other: a table of them
would be one more way to choose.
"""

import math
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import optuna
from optuna.visualization import matplotlib as visualization

from experiments import report
from experiments.sweeping import space as space_lib
from experiments.sweeping import trials
from experiments.sweeping.plan import Plan
from experiments.sweeping.trials import Outcome


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


def selected(order: Sequence[Outcome]) -> Outcome | None:
  """Returns the best of `ranked`; None where no value is defined."""
  return order[0] if math.isfinite(order[0].value) else None


def write(plan: Plan, study: optuna.Study, outcomes: Sequence[Outcome]) -> None:
  """Writes report.md, results.json and figures/sweep.png of a sweep."""
  order = ranked(plan, outcomes)
  contents = results(plan, order)
  report.write_results(plan.workdir, contents)
  if selected(order) is not None:
    draw(plan.workdir / "figures" / "sweep.png", plan, study)
  report.write_text(plan.workdir / "report.md", _report(plan, order, contents))


def results(plan: Plan, order: Sequence[Outcome]) -> dict[str, Any]:
  """Returns what `results.json` holds."""
  rows, best = [], selected(order)
  for outcome in order:
    row: dict[str, Any] = {"trial": outcome.number, "changes": outcome.changes}
    if outcome.failed:
      row["failed"] = outcome.failed
    elif outcome.stopped:
      row["stopped_at"] = max(trials.curve(plan, outcome.number), default=0)
    elif outcome.results is not None:
      row["val"] = trials.part(plan, outcome.results, "val")
      for name in ("num_params", "seconds"):
        row[name] = outcome.results.get(name)
    rows.append(row)
  contents: dict[str, Any] = {
    "title": plan.base.run.title,
    "metric": plan.sweep.metric,
    "higher_is_better": plan.sweep.higher_is_better,
    "config": plan.identity(),
    "flagfile": plan.flagfile(),
    "trials": rows,
    "selected": None,
  }
  if best is not None and best.results is not None:
    contents["selected"] = {
      "trial": best.number,
      "changes": best.changes,
      "val": trials.part(plan, best.results, "val"),
      "test": trials.part(plan, best.results, "test"),
      "sizes": best.results.get("sizes"),
      "environment": best.results.get("environment"),
    }
  return contents


def headline(plan: Plan, outcomes: Sequence[Outcome]) -> str:
  """Returns the lines that the terminal shows at the end."""
  best = selected(ranked(plan, outcomes))
  text = f"{plan.base.run.title}: {_counts(outcomes)}"
  if best is None or best.results is None:
    return text + "; none can be selected"
  metric = plan.sweep.metric
  test = trials.part(plan, best.results, "test").get(metric)
  return (
    f"{text}\n  selected: trial {best.number}"
    f" ({space_lib.show_all(best.changes)})\n  validation {metric}"
    f" {report.with_interval(best.score)}, test {report.with_interval(test)}"
  )


def draw(path: pathlib.Path, plan: Plan, study: optuna.Study) -> None:
  """Draws the validation metric over every swept option, a panel each."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with mpl.rc_context(), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Experimental; one value has no range.
    mpl.use("agg")
    axes = visualization.plot_slice(
      study,
      params=list(plan.space),
      target_name=f"validation {plan.sweep.metric}",
    )
    first = axes if len(plan.space) == 1 else axes[0]  # pyright: ignore
    picture = first.get_figure()  # pyright: ignore
    picture.suptitle("")
    picture.savefig(path, dpi=150, bbox_inches="tight")
    mpl.pyplot.close(picture)  # pyright: ignore


def _counts(outcomes: Sequence[Outcome]) -> str:
  failed = sum(bool(outcome.failed) for outcome in outcomes)
  stopped = sum(outcome.stopped for outcome in outcomes)
  total = len(outcomes)
  text = f"{total - failed - stopped} of {total} trials finished"
  text += f", {stopped} stopped early" if stopped else ""
  return text + (f", {failed} failed" if failed else "")


def _report(
  plan: Plan, order: Sequence[Outcome], contents: Mapping[str, Any]
) -> str:
  """Returns the report as markdown."""
  sweep = plan.sweep
  way = sweep.chosen_sampler
  way += "" if way == "grid" else f", seed {sweep.sweep_seed}"
  better = "higher" if sweep.higher_is_better else "lower"
  rows = [
    [_rank(rank, outcome), _link(outcome.number)]
    + [
      space_lib.show(outcome.changes.get(n, report.MISSING)) for n in plan.space
    ]
    + [report.with_interval(outcome.score), *_cost(outcome)]
    for rank, outcome in enumerate(order, start=1)
  ]
  header = ["rank", "trial", *plan.space, f"validation {sweep.metric}"]
  sections = [
    f"# {contents['title']}",
    f"{_counts(order)} (sampler {way}; pruner {sweep.pruner}). Ranked by"
    f" {sweep.metric} on the validation networks ({better} is better), the mean"
    " over seeds with a 95 % t interval.",
    report.markdown_table([*header, "parameters", "training [s]"], rows),
  ]
  sections += _selection(plan, contents["selected"], order)
  failed = [outcome for outcome in order if outcome.failed]
  if failed:
    lines = [f"- {_link(o.number)}: {o.failed}" for o in failed]
    sections += ["## Failed trials", "\n".join(lines)]
  sections += [
    "## What was run",
    "Repeat it with `--flagfile` and this file:",
    f"```\n{contents['flagfile'].strip()}\n```",
  ]
  return "\n\n".join(sections) + "\n"


def _selection(
  plan: Plan, chosen: Mapping[str, Any] | None, order: Sequence[Outcome]
) -> list[str]:
  """Says which trial was chosen, and what it does on the test networks."""
  if chosen is None:
    return ["**No trial can be selected**: none has a validation value."]
  names = dict.fromkeys([*chosen["val"], *chosen["test"]])
  rows = [
    [name, *(report.with_interval(chosen[p].get(name)) for p in _PARTS)]
    for name in names
  ]
  count = sum(not outcome.failed for outcome in order)
  return [
    "![Validation over the options](<figures/sweep.png>)",
    f"## Selected: trial {chosen['trial']}",
    f"With {space_lib.show_all(chosen['changes'])}. It was chosen as the best"
    f" of {count} by its validation value, which is therefore too good; the"
    " test networks had no part in the choice.",
    report.markdown_table(["metric", "validation", "test"], rows),
    "Repeat it, with references:",
    "```\npython experiments/run.py"
    f" --flagfile={plan.folder(chosen['trial'])}/trial.flags"
    " --references --workdir=runs/selected\n```",
  ]


_PARTS = ("val", "test")


def _rank(rank: int, outcome: Outcome) -> int | str:
  if outcome.failed:
    return "failed"
  return "stopped" if outcome.stopped else rank


def _cost(outcome: Outcome) -> list[str]:
  """Returns the size of the model, and the seconds of all its seeds."""
  contents = outcome.results or {}
  seconds = [entry.get("train_seconds") for entry in contents.get("seeds", ())]
  known = [each for each in seconds if each is not None]
  return [
    report.number(contents.get("num_params")),
    report.number(float(sum(known)) if known else None),
  ]


def _link(number: int) -> str:
  return f"[{number}](<trials/{number:04d}>)"
