"""Matrices of classes: they report accuracy."""

import json

import pytest

from experiments.comparisons import comparison, matrix

ZOOS = ("one", "two")


def row(value):
  return {"value": value, "low": value, "high": value}


def outcome(value, parts, metrics):
  """What a model of a matrix has given, with one seed and one reference."""
  found = {part: {m: row(value) for m in metrics} for part in parts}
  halved = {part: {m: row(value / 2) for m in metrics} for part in parts}
  return {
    "seeds": [{"seed": 0, "metrics": found}],
    "references": {"constant": halved},
    "environment": {},
    "sizes": {"train": 4, "val": 2, "test": 2},
    "num_params": 1,
    "networks_per_second": 1.0,
    "seconds": {},
    "zoos": {},
  }


@pytest.mark.parametrize(
  ("flags", "shown", "metrics"),
  [
    (
      ("--targets=optimizer", "--loss=classes"),
      ("accuracy", "balanced_accuracy"),
      ("accuracy", "balanced_accuracy"),
    ),
    (
      ("--targets=learning_rate", "--target_scale=log"),
      ("kendall_tau", "mae"),
      ("kendall_tau", "mae", "spearman"),
    ),
  ],
  ids=["classes", "numbers"],
)
def test_a_matrix_shows_the_metrics_of_its_target(
  flags, shown, metrics, resolve, tmp_path
):
  options = resolve(
    *(f"--zoo={','.join(ZOOS)}", "--matrix=each", "--encoders=sne"),
    *(f"--workdir={tmp_path}", *flags),
  )
  assert list(matrix.chosen(options)) == ["sne: one", "sne: two"]
  outcomes = {
    "sne: one": outcome(0.8, ("test", "test on two"), metrics),
    "sne: two": outcome(0.4, ("test", "test on one"), metrics),
  }
  page = matrix.page(options, outcomes)
  comparison.write(tmp_path, options, outcomes, page)
  report = (tmp_path / "report.md").read_text()
  headings = [l[3:] for l in report.splitlines() if l.startswith("## ")]
  assert headings == [*shown, "Reports of the runs", "What was run"]
  assert f"figures/{shown[0]}.png" in report
  assert (tmp_path / "figures" / f"{shown[0]}.png").exists()
  of_classes = "--loss=classes" in flags
  assert ("tau is undefined" in report) != of_classes
  assert ("Target: log10 learning_rate." in report) != of_classes
  results = json.loads((tmp_path / "results.json").read_text())
  found = results["averages"][shown[0]]
  assert found["sne"]["within"]["mean"] == pytest.approx(0.6)
  assert found["constant"]["cross"]["mean"] == pytest.approx(0.3)
