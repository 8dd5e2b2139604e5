"""Comparisons: where runs go, and what their one writer keeps."""

import json

from experiments.comparisons import comparison
from sne_jax.cli.reports import report

FAILED = {"seed": 1, "failed": "loss is nan"}
GOOD = {"seed": 0, "metrics": {}, "train_seconds": 2.0}
OUTCOMES = {
  "a, 1": {"seeds": [GOOD, FAILED], "sizes": {"test": 3}, "title": "left out"},
  "b": {"seeds": [{**GOOD, "train_seconds": 4.0}], "num_params": 5},
}


def test_a_run_has_a_folder_and_a_title_of_its_own(resolve):
  options = resolve("--workdir=w", "--title=All")
  changed = comparison.run_of(options, "a, 1", seeds=2, workdir="elsewhere")
  assert (changed.run.workdir, changed.run.title) == ("w/a__1", "All: a, 1")
  assert changed.run.seeds == 2 and changed.train == options.train


def test_what_is_written(resolve, tmp_path):
  options = resolve("--workdir=w", "--title=All")
  page = comparison.Page(["A table."], "trainings", {"metric": "mse"})
  comparison.write(tmp_path, options, OUTCOMES, page)
  lines = (tmp_path / "report.md").read_text().splitlines()
  assert lines[:5] == [
    *("# All", "", "A table.", ""),
    "**a, 1, seed 1 failed**: loss is nan",
  ]
  assert "- [a, 1](<a__1/report.md>)" in lines
  read = json.loads((tmp_path / "results.json").read_text())
  assert read["title"] == "All" and read["metric"] == "mse"
  assert read["config"]["RunOptions"]["workdir"] == "w"
  assert "--workdir=w" in read["flagfile"].splitlines()
  assert read["environment"]["versions"]["jax"]
  assert read["trainings"] == {
    "a, 1": {"seeds": [GOOD, FAILED], "sizes": {"test": 3}},
    "b": OUTCOMES["b"],
  }


def test_failed_seeds_are_counted_and_in_no_mean():
  columns = {"seeds": comparison.count, "seconds": comparison.train_seconds}
  rows = OUTCOMES | {"c": {"seeds": [FAILED]}}
  table = report.table("run", rows, columns).splitlines()
  cells = [[c.strip() for c in row.split("|")[1:-1]] for row in table[2:]]
  assert cells == [
    *(["a, 1", "1 of 2", "2"], ["b", "1", "4"]),
    ["c", "0 of 1", "n/a"],
  ]
