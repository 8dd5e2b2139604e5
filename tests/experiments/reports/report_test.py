"""The report's text, its honesty, and what the files survive."""

import copy
import dataclasses
import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax import digests
from sne_jax.cli.reports import drawing, report, run_report


def _row(value, half=0.1):
  return {"value": value, "low": value - half, "high": value + half}


def _seed(seed, mse, r_squared):
  row = {"mse": _row(mse), "r_squared": _row(r_squared)}
  return {"seed": seed, "metrics": {"test": row}}


RESULTS = {
  "title": "Frequency of sine INRs",
  "target": "frequency",
  "config": {"ModelOptions": {"width": 32, "bias": True}},
  "flagfile": "--width=32\n--bias=true\n",
  "environment": {"versions": {"jax": "0.10.2"}, "revision": "abc"},
  "seconds": {"training": 12.5},
  "sizes": {"train": 100, "test": 50},
  "num_params": 1234,
  "seeds": [_seed(0, 1.0, 0.5), _seed(1, 2.0, 0.7), _seed(2, 3.0, 0.6)],
  "references": {
    "constant": {"test": {"mse": _row(7.0), "r_squared": _row(0.0)}},
    "ridge": {"test": {"mse": _row(1.5), "r_squared": _row(0.4)}},
  },
  "invariance": {"neuron permutation, ratio": 3.25e-5},
  "notes": ["The zoo is small."],
}


def _changed(**changes):
  return copy.deepcopy(RESULTS) | changes


def test_report_text():
  text = run_report.text(RESULTS, {"Errors": "figures/a b.png"})
  lines = text.splitlines()
  assert lines[0] == "# Frequency of sine INRs"
  start = lines.index("## test (50 networks)")
  # The t quantile of 2 degrees of freedom is 4.3027: 2 +- 4.3027 / sqrt(3).
  assert lines[start + 2 : start + 9] == [
    "| model                 | mse                | r_squared            |",
    "| --------------------- | ------------------ | -------------------- |",
    "| **mean of 3 seed(s)** | 2 [-0.4841, 4.484] | 0.6 [0.3516, 0.8484] |",
    "| seed 0                | 1 [0.9, 1.1]       | 0.5 [0.4, 0.6]       |",
    "| seed 1                | 2 [1.9, 2.1]       | 0.7 [0.6, 0.8]       |",
    "| seed 2                | 3 [2.9, 3.1]       | 0.6 [0.5, 0.7]       |",
    "| reference: constant   | 7 [6.9, 7.1]       | 0 [-0.1, 0.1]        |",
  ]
  assert "| neuron permutation, ratio | 3.25e-05 |" in text
  assert "![Errors](<figures/a b.png>)" in text
  # Options are linked, and stand in the report neither once nor twice.
  assert "[flags.txt](<flags.txt>)" in text and "width" not in text
  assert "| versions.jax | 0.10.2 |" in text
  assert "| training [s] |  12.5 |" in text
  assert "- The zoo is small." in text
  assert text == run_report.text(RESULTS, {"Errors": "figures/a b.png"})


def test_a_better_reference_is_named():
  found = run_report.notes(RESULTS)
  beaten = [note for note in found if "no worse" in note]
  assert beaten == [
    "**The reference `ridge` is no worse** in test mse: 1.5 against 2."
  ]


def test_a_good_run_has_no_warnings():
  fine = _changed(references={"constant": RESULTS["references"]["constant"]})
  assert not [note for note in run_report.notes(fine) if "**" in note]


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"seeds": RESULTS["seeds"][:1]}, "Only 1 finished seed"),
    ({"seeds": []}, "Only 0 finished seed"),
    ({"references": {}}, "No reference was run"),
    ({"invariance": {}}, "Invariance was not measured"),
    ({"environment": {"revision": "abc-dirty"}}, "differs from its revision"),
    ({"environment": {}}, "revision of the code is unknown"),
    ({"select": "mse"}, "chosen by validation mse"),
  ],
)
def test_what_is_missing_is_said(changes, words):
  assert any(words in note for note in run_report.notes(_changed(**changes)))
  assert not any(words in note for note in run_report.notes(RESULTS))


def test_failed_and_undefined_seeds_are_flagged_and_not_averaged_away():
  seeds = copy.deepcopy(RESULTS["seeds"])
  seeds[1] = {"seed": 1, "failed": "loss is\nnan at step 7"}
  seeds[2]["metrics"]["test"]["mse"] = {
    "value": float("nan"),
    "low": float("nan"),
    "high": float("nan"),
  }
  text = run_report.text(_changed(seeds=seeds))
  assert "**Seed 1 failed** and is in no mean: loss is nan at step 7" in text
  assert "**Undefined**: mse of seed 2 on test" in text
  mean = next(row for row in text.splitlines() if "mean of 2" in row)
  assert mean.split("|")[2].strip() == "n/a"
  assert mean.split("|")[3].strip().startswith("0.55 [")


def test_parts_and_metrics_may_differ_between_models():
  seeds = [{"seed": 0, "metrics": {"val": {"mse": _row(1.0)}}}]
  text = run_report.text(_changed(seeds=seeds))
  assert "## val\n" in text
  assert "## test (50 networks)" in text
  assert "nan" not in text


def test_the_test_part_comes_first():
  seeds = copy.deepcopy(RESULTS["seeds"])
  for entry in seeds:
    rows = entry["metrics"]["test"]
    entry["metrics"] = {"val": rows, "test": rows, "test on b": rows}
  text = run_report.text(_changed(seeds=seeds))
  headings = [line for line in text.splitlines() if line.startswith("## ")]
  assert headings[:3] == ["## test (50 networks)", "## test on b", "## val"]


def test_markdown_table():
  table = report.markdown_table(["name", "n"], [["a|b", 1], ["c\nd", 20.5]])
  assert table.splitlines() == [
    "| name |    n |",
    "| ---- | ---: |",
    "| a\\|b |    1 |",
    "| c d  | 20.5 |",
  ]
  assert report.markdown_table(["a"], []).splitlines()[0] == "| a   |"
  with pytest.raises(ValueError, match="2 cells, not 1"):
    report.markdown_table(["a"], [[1, 2]])


def test_numbers():
  assert report.number(0.123456) == "0.1235"
  assert report.number(12345) == "12345"
  assert report.number(math.inf) == report.number(None) == "n/a"
  assert report.with_interval({"mean": 0.5, "low": math.nan}) == "0.5"
  assert report.with_interval(None) == "n/a"


def test_results_are_json(tmp_path):
  @dataclasses.dataclass
  class Options:
    width: int = 3

  values = {
    "nan": float("nan"),
    "inf": np.float32("inf"),
    "array": np.array([1.0, np.nan]),
    "device": jnp.bfloat16(0.5),
    "count": np.int64(3),
    "flag": np.bool_(True),
    "options": Options(),
    "path": tmp_path,
    1: (1, 2),
  }
  path = report.write_results(tmp_path / "new", values)
  read = json.loads(path.read_text(), parse_constant=pytest.fail)
  assert read == {
    "nan": None,
    "inf": None,
    "array": [1.0, None],
    "device": 0.5,
    "count": 3,
    "flag": True,
    "options": {"width": 3},
    "path": str(tmp_path),
    "1": [1, 2],
  }
  with pytest.raises(ValueError, match=r"results.a\[1\] is of type set"):
    report.write_results(tmp_path, {"a": [1, {2}]})


def test_a_report_reads_the_same_from_the_results_on_disk(tmp_path):
  path = report.write_results(tmp_path, RESULTS)
  read = json.loads(path.read_text())
  assert run_report.text(read) == run_report.text(RESULTS)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
  path = report.write_results(tmp_path, {"a": 1})

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="the disk is full: sha256.json"):
    report.write_results(tmp_path, {"a": 2})
  assert json.loads(path.read_text()) == {"a": 1}
  files = {path.name for path in tmp_path.iterdir()}
  assert files == {"results.json", digests.FILE}


def picture(path):
  with drawing.drawn(path, (1.0, 1.0)):
    return path


def test_figures_inside_the_folder_are_linked_relatively(tmp_path):
  inside = picture(tmp_path / "figures" / "a.png")
  path = run_report.write(tmp_path, RESULTS, {"A": inside})
  assert path.name == "report.md"
  assert "![A](<figures/a.png>)" in path.read_text()


def test_a_page_draws_its_pictures_and_ends_with_what_was_run(tmp_path):
  blocks = ["A text.", report.Picture("b", "A caption", picture)]
  report.write_page(tmp_path / "run", blocks, RESULTS)
  text = (tmp_path / "run" / "report.md").read_text()
  places = [
    text.index(words)
    for words in (
      *("# Frequency of sine INRs", "A text.", "![A caption](<figures/b.png>)"),
      *("## What was run", "[flags.txt](<flags.txt>)", "| versions.jax"),
    )
  ]
  assert places == sorted(places)
  drawn = (tmp_path / "run" / "figures" / "b.png").read_bytes()
  (events,) = (tmp_path / "run" / "tensorboard").iterdir()
  assert drawn in events.read_bytes()
  read = json.loads((tmp_path / "run" / "results.json").read_text())
  assert read == RESULTS


def test_table():
  rows = {"a": {"n": 1, "m": _row(0.5)}, "b": {"n": 20}}
  columns = {"n": lambda row: row["n"], "m": lambda row: row.get("m")}
  assert report.table("what", rows, columns).splitlines() == [
    "| what |   n | m              |",
    "| ---- | --: | -------------- |",
    "| a    |   1 | 0.5 [0.4, 0.6] |",
    "| b    |  20 | n/a            |",
  ]
