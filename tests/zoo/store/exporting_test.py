"""A zoo as a data set, and as data frames: every value arrives."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from absl import flags

from sne_jax import errors
from sne_jax.cli import config, main
from sne_jax.cli.commands import convert
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.store import exporting, frames, store
from tests.zoo.store import store_test

PARTS = {"train": ["a0", "b1"], "validation": ["a1"], "test": ["b0"]}


@pytest.fixture
def zoo(tmp_path):
  store_test.write(tmp_path / "zoo")
  return store.Zoo.open(tmp_path / "zoo")


def rows_of(folder, part):
  """Returns the rows of a part, as Python values."""
  files = sorted((folder / "data").glob(f"{part}-*.parquet"))
  assert files
  return [row for file in files for row in pq.read_table(file).to_pylist()]


def check(zoo, rows, part):
  """Compares rows with the members of the zoo."""
  assert [row["id"] for row in rows] == PARTS[part]
  for row in rows:
    number = zoo.members["id"].tolist().index(row["id"])
    spec = zoo.members["spec"][number]
    assert row["spec"] == spec
    (vector,) = zoo.vectors([number])
    assert len(row["weights"]) == zoo.specs[spec].num_weights
    np.testing.assert_array_equal(np.float32(row["weights"]), vector)
    for name in zoo.properties:
      value = zoo.property(name)[number]
      assert row[name] == value or (row[name] != row[name] and value != value)


@pytest.mark.parametrize("sizes", [(2**26, 2**29), (50, 60), (1, 2**29)])
def test_every_value_is_there(zoo, tmp_path, monkeypatch, sizes):
  for name, size in zip(("GROUP_BYTES", "FILE_BYTES"), sizes, strict=True):
    monkeypatch.setattr(exporting, name, size)
  told = []
  out = exporting.export(
    zoo, tmp_path / "hub" / "out", progress=lambda *now: told.append(now)
  )
  for part in PARTS:
    check(zoo, rows_of(out, part), part)  # Without a2, which is not valid.
  assert told[-1] == (4, 4)
  files = len(list((out / "data").iterdir()))
  assert files == (4 if sizes[1] == 60 else 3)  # Two of train.
  specs = json.loads((out / "specs.json").read_text())
  found = [spec_lib.NetworkSpec.from_json(specs[str(n)]) for n in range(2)]
  assert tuple(found) == zoo.specs
  card = (out / "README.md").read_text()
  assert "- split: validation\n    path: data/validation-*.parquet" in card
  assert "| accuracy | share correct on test | share |" in card
  assert {path.name for path in (tmp_path / "hub").iterdir()} == {"out"}


def test_the_true_library_reads_it(zoo, tmp_path):
  datasets = pytest.importorskip("datasets")
  out = exporting.export(zoo, tmp_path / "out")
  found = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
  assert set(found) == set(PARTS)
  for part in PARTS:
    check(zoo, found[part].to_list(), part)


def test_what_is_refused_leaves_nothing(zoo, tmp_path, monkeypatch):
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "mine.txt").write_text("mine")
  with pytest.raises(errors.ZooError, match="full: it holds something already"):
    exporting.export(zoo, tmp_path / "full")
  with pytest.raises(errors.ZooError, match="no split 'other'"):
    exporting.export(zoo, tmp_path / "out", split="other")

  def broken(*args):
    raise ValueError("broken")

  monkeypatch.setattr(exporting, "_card", broken)
  with pytest.raises(ValueError, match="broken"):
    exporting.export(zoo, tmp_path / "new" / "out")
  assert {path.name for path in tmp_path.iterdir()} == {"zoo", "full"}


def test_the_command(zoo, tmp_path, capsys):
  values = flags.FlagValues()
  main.define_flags(convert, values)
  given = [f"--source={zoo.path}", f"--out={tmp_path / 'out'}"]
  config.parse(["convert", "--to=datasets", *given], values)
  convert.main([], values)
  assert f"load_dataset('{tmp_path}/out')" in capsys.readouterr().out
  check(zoo, rows_of(tmp_path / "out", "train"), "train")


def test_members_as_a_frame(zoo):
  rows = zoo.to_frame("arrow").to_pylist()
  assert [row["id"] for row in rows] == store_test.IDS
  assert [row["split default"] for row in rows] == [
    *("train", "val", "", "test", "train"),
  ]
  assert [row["parameters"] for row in rows] == [10, 10, 10, 12, 12]
  assert rows[0]["architecture"] == zoo.specs[0].family
  assert rows[1]["accuracy"] == 0.25 and rows[2]["valid"] is False
  assert "row" not in rows[0]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_of_other_libraries(zoo, library):
  pytest.importorskip(library)
  found = zoo.to_frame(library)
  assert type(found).__module__.startswith(library)
  table = zoo.to_frame("arrow")
  assert list(found.columns) == table.column_names
  assert list(found["id"]) == store_test.IDS
  np.testing.assert_array_equal(found["accuracy"], table["accuracy"])


def test_a_library_that_is_missing_takes_one_line(zoo, monkeypatch):
  monkeypatch.setitem(sys.modules, "polars", None)
  with pytest.raises(ValueError, match="pip install polars, or ask for"):
    zoo.to_frame("polars")
  with pytest.raises(ValueError, match="library is 'excel'; choose one of"):
    frames.frame({}, "excel")
