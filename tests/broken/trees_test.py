"""What the comparison of two folders sees, and what it does not mind."""

import json

import numpy as np
import pytest

from tests.broken import trees

REPORT = """# A run

| what | value |
| ---- | ----: |
| parameters | 7 |
| training [s] | {seconds} |

| model | mse | train s |
| ----- | --- | ------- |
| sne | {value} | {seconds} |
"""


def write(folder, value=1.0, seconds=2.0):
  folder.mkdir()
  (folder / "report.md").write_text(REPORT.format(value=value, seconds=seconds))
  text = json.dumps({"mse": value, "train_seconds": seconds})
  (folder / "result.json").write_text(text)
  (folder / "metrics.jsonl").write_text(f"{text}\n")
  np.savez(folder / "codes.npz", codes=np.full(3, value))
  (folder / "figure.png").write_bytes(bytes([int(value)]))
  return folder


def test_clocks_are_not_minded(tmp_path):
  one, two = write(tmp_path / "1"), write(tmp_path / "2", seconds=33.0)
  assert trees.difference(one, two) == []


def test_every_other_difference_is_named(tmp_path):
  one, two = write(tmp_path / "1"), write(tmp_path / "2", value=2.0)
  names = sorted(path.name for path in one.iterdir())
  assert trees.difference(one, two) == [f"differs: {name}" for name in names]


@pytest.mark.parametrize("name", [".a.json.7.tmp", "run.lock", "seed0/left"])
def test_stray_and_missing_files_are_named(name, tmp_path):
  one, two = write(tmp_path / "1"), write(tmp_path / "2")
  (two / name).parent.mkdir(exist_ok=True)
  (two / name).touch()
  assert trees.difference(one, two) == [f"stray: {name}"]
  assert trees.difference(two, one) == [f"missing: {name}"]


def test_order_counts(tmp_path):
  one, two = write(tmp_path / "1"), write(tmp_path / "2")
  (one / "result.json").write_text('{"a": 1, "b": 2}')
  (two / "result.json").write_text('{"b": 2, "a": 1}')
  assert trees.difference(one, two) == ["differs: result.json"]
