"""Comparisons of runs: what each of them says, and the one writer of reports.

A comparison (`variants.py`, `contest.py`, `matrix.py`, `probing.py`) says
which runs it wants and what a reader is shown. Every run has a folder and a
report of its own, and is not done again once it has finished.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.cli import options as options_lib
from sne_jax.cli import config, environment
from sne_jax.cli.reports import report, run_report
from sne_jax.encoders import table

Runs = dict[str, options_lib.Options]
Outcomes = Mapping[str, dict[str, Any]]
"""By label, what `results.json` of a run holds."""

KEPT = (
  *("summary", "summaries", "seeds", "sizes", "num_params", "references"),
  *("networks_per_second", "invariance", "reconstruction", "costs", "maps"),
  *("seconds", "ceilings"),
)
"""What `results.json` of a comparison has of each run, where the run has it."""


class Page(NamedTuple):
  """What a comparison shows.

  Attributes:
    blocks: markdown and pictures, the table of results among the first.
    runs: the name of the runs in `results.json`.
    results: what else `results.json` holds.
    compared: labels of the runs that are; empty: all. Others only choose.
  """

  blocks: Sequence[str | report.Picture]
  runs: str
  results: Mapping[str, Any] = {}
  compared: Sequence[str] = ()


class Comparison(NamedTuple):
  """What `run.py` must know of a comparison.

  Attributes:
    chosen: returns the runs, by label.
    page: returns what is shown of their outcomes.
    check: raises if a later run would be refused, before the first is trained.
    finals: returns the runs that follow from the outcomes of the first.
  """

  chosen: Callable[[options_lib.Options], Runs]
  page: Callable[[options_lib.Options, Outcomes], Page]
  check: Callable[[options_lib.Options], None] = lambda options: None
  finals: Callable[[options_lib.Options, Outcomes], Runs] = lambda *_: {}


def run_of(options: options_lib.Options, label: str, **changes: Any):
  """Returns the options of one run: changed, and with a folder of its own.

  A `probe_rate` is for those of the runs that have learned inputs.
  """
  place = {
    "workdir": str(pathlib.Path(options.run.workdir) / folder_name(label)),
    "title": f"{options.run.title}: {label}",
  }
  changed = options.replaced(**changes | place)
  encoder = changed.run.encoder
  if table.row(encoder).has_probes(changed.encoder_options(encoder)):
    return changed
  return changed.replaced(probe_rate=0.0)


def folder_name(label: str) -> str:
  """Returns a name for the folder of a run."""
  return "".join(c if c.isalnum() or c in ".-" else "_" for c in label)


def write(
  workdir: pathlib.Path,
  options: options_lib.Options,
  outcomes: Outcomes,
  page: Page,
) -> None:
  """Writes `report.md`, `results.json` and the figures of a comparison."""
  failed = [
    f"**{label}, seed {entry['seed']} failed**: {entry['failed']}"
    for label, results in outcomes.items()
    for entry in results["seeds"]
    if "failed" in entry
  ]
  links = [
    f"- [{label}](<{folder_name(label)}/report.md>)" for label in outcomes
  ]
  runs = {
    label: {key: results[key] for key in KEPT if key in results}
    for label, results in outcomes.items()
  }
  compared = {label: outcomes[label] for label in page.compared or outcomes}
  unknown = [o["no_ceilings"] for o in outcomes.values() if "no_ceilings" in o]
  report.write_page(
    workdir,
    [
      *page.blocks,
      *failed,
      *run_report.ceiling_section(compared),
      *dict.fromkeys(unknown),
      "## Reports of the runs",
      "\n".join(links),
    ],
    {**heading(options), **page.results, page.runs: runs},
  )


def heading(options: options_lib.Options) -> dict[str, Any]:
  """Returns what the results of all reports begin with."""
  return {
    "title": options.run.title,
    "config": config.resolved(*options.groups()),
    "flagfile": options_lib.to_flagfile(options),
    "environment": environment.environment(),
  }


def count(results: Mapping[str, Any]) -> str | int:
  """Returns how many seeds have finished, of how many if some have not."""
  good, total = len(report.finished(results["seeds"])), len(results["seeds"])
  return good if good == total else f"{good} of {total}"


def train_seconds(results: Mapping[str, Any]) -> float | None:
  """Returns the mean seconds of a training; None where none has finished."""
  seconds = [
    entry["train_seconds"] for entry in report.finished(results["seeds"])
  ]
  return float(np.mean(seconds)) if seconds else None
