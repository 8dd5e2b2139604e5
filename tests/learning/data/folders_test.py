"""Zoos of a folder and a table: what is in them, and what is refused."""

import csv
import os
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy

import sne_jax
from sne_jax.errors import ZooError
from sne_jax.learning.data import folders, labelled
from sne_jax.zoo.public import conversion
from tests.learning.data import own_networks


@pytest.fixture(scope="module")
def own(tmp_path_factory):
  """21 networks of seven trainings, and their table."""
  folder = tmp_path_factory.mktemp("own")
  own_networks.write(folder, 21, snapshots=3)
  return folder


@pytest.fixture
def copy(own, tmp_path):
  return pathlib.Path(shutil.copytree(own, tmp_path / "own"))


def rows_of(folder):
  with open(folder / "labels.csv", newline="") as file:
    return list(csv.reader(file))


def changed(folder, change):
  """Writes the table anew, after `change(rows)`; the first is the header."""
  rows = rows_of(folder)
  rows = change(rows) or rows
  own_networks.table(folder, rows[1:], *rows[0])


def made(folder, **kwargs):
  given = {"targets": "size"} | kwargs
  return sne_jax.zoo_of_files(
    folder / "networks", folder / "labels.csv", folder / "zoo", **given
  )


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_zoo_holds_files_and_table(copy):
  zoo = made(copy)
  known = {row[0]: row[1:] for row in rows_of(copy)[1:]}
  assert sorted(zoo.members["id"]) == sorted(known)
  networks = sne_jax.Networks.from_files(
    copy / "networks", copy / "labels.csv", "size"
  )
  weights = {
    os.path.basename(name): pair[1]
    for name, pair in zip(networks.names, networks.pairs(), strict=True)
  }
  for number, name in enumerate(zoo.members["id"]):
    size, kind, place = known[name]
    assert zoo.property("size")[number] == float(size)
    assert zoo.property("kind")[number] == kind
    assert zoo.property("number")[number] == int(place)
    np.testing.assert_array_equal(zoo.vectors([number])[0], weights[name])
  assert not (copy / "zoo.partial").exists()


def test_kin_are_in_one_part(copy):
  zoo = made(copy)
  numbers = zoo.property("network")
  runs = [name.partition("_")[0] for name in zoo.members["id"]]
  assert len(set(zip(numbers, runs, strict=True))) == len(set(runs)) == 7
  parts = [set(numbers[rows]) for rows in zoo.split("default").values()]
  assert len(parts) == 3 and sum(map(len, parts)) == 7
  assert any("7 trainings" in line for line in folders.remarks(zoo))


def test_a_column_says_who_is_kin(copy):
  def half(rows):
    return [[*rows[0], "group"]] + [
      [*row, "a" if n < 15 else f"b{n}"] for n, row in enumerate(rows[1:])
    ]

  changed(copy, half)
  zoo = made(copy)
  numbers, places = zoo.property("network"), zoo.property("number")
  assert len(set(numbers[places < 15])) == 1
  assert len(set(numbers)) == 7
  networks = sne_jax.Networks.from_files(
    copy / "networks", copy / "labels.csv", "size"
  )
  assert networks.clusters is not None
  assert len(set(networks.clusters[:15])) == 1
  assert networks.target_names == ("size",)


def test_the_order_of_rows_changes_no_byte(copy, monkeypatch):
  made(copy)
  before = contents(copy / "zoo")
  shutil.rmtree(copy / "zoo")
  changed(copy, lambda rows: [rows[0], *rows[:0:-1]])
  made(copy)
  assert contents(copy / "zoo") == before
  monkeypatch.setattr(conversion, "_read_part", None)  # Nothing is read again.
  assert len(made(copy)) == 21


def test_a_stopped_conversion_resumes(copy, monkeypatch):
  read, seen = folders._read, []
  monkeypatch.setattr(conversion, "PART_MEMBERS", 5)

  def stopped(path, *args):
    if len(seen) == 12:
      raise KeyboardInterrupt
    seen.append(path)
    return read(path, *args)

  monkeypatch.setattr(folders, "_read", stopped)
  with pytest.raises(KeyboardInterrupt):
    made(copy)
  assert not (copy / "zoo").exists()
  again = []

  def counted(path, *args):
    again.append(path)
    return read(path, *args)

  monkeypatch.setattr(folders, "_read", counted)
  assert len(made(copy)) == 21
  assert len(again) == 11


def test_other_files_or_labels_are_another_zoo(copy):
  made(copy)
  changed(copy, lambda rows: [*rows[:-1], [rows[-1][0], "7", *rows[-1][2:]]])
  with pytest.raises(ZooError, match="zoo of other options: table is"):
    made(copy)
  shutil.copy(own_networks_file(copy, 0), own_networks_file(copy, 3))
  with pytest.raises(ZooError, match="zoo of other options: files is"):
    made(copy)


def own_networks_file(folder, row):
  return folder / "networks" / rows_of(folder)[1 + row][0]


def test_what_cannot_be_read_is_left_out_by_choice_only(copy, caplog):
  own_networks_file(copy, 4).write_bytes(b"PK\x03\x04")
  with pytest.raises(ZooError, match=r"run1_epoch1\.pt: .*--skip_unreadable"):
    made(copy)
  assert not any(path.name.startswith("zoo") for path in copy.iterdir())
  zoo = made(copy, skip_unreadable=True)
  assert len(zoo) == 20 and "run1_epoch1.pt" not in zoo.members["id"]
  assert "run1_epoch1.pt" in caplog.text
  assert any("run1_epoch1.pt" in line for line in folders.remarks(zoo))
  with pytest.raises(ValueError, match="without 1 files.*run1_epoch1"):
    made(copy)


def test_weights_that_are_not_finite_are_left_out_by_choice_only(copy):
  path = own_networks_file(copy, 0)
  arrays = safetensors.numpy.load_file(path)
  name = next(iter(arrays))
  arrays[name] = np.full_like(arrays[name], np.nan)
  safetensors.numpy.save_file(arrays, path)
  with pytest.raises(ZooError, match="run0_epoch0"):
    made(copy)
  assert len(made(copy, skip_unreadable=True)) == 20


def test_folders_below_and_hidden_files(copy):
  nets = copy / "networks"
  (nets / "deep").mkdir()
  (nets / ".hidden.pt").write_bytes(b"no network")
  (nets / "notes.txt").write_text("no network")
  first, second = (own_networks_file(copy, n) for n in (0, 1))
  first.rename(nets / "deep" / first.name)
  second.rename(nets / "deep" / first.name.replace("0.s", "0b.s"))
  with pytest.raises(ValueError, match=r"run0_epoch1\.pt', and .*1 of 21"):
    made(copy)
  changed(copy, lambda rows: rows[:2] + rows[3:])
  zoo = made(copy)
  assert "deep/run0_epoch0.safetensors" in zoo.members["id"]
  assert zoo.provenance["not in the table"] == 1
  shutil.copy(nets / "deep" / first.name, nets)
  with pytest.raises(ValueError, match="is the name of 2 files.*give paths"):
    made(copy)


@pytest.mark.parametrize(
  ("change", "kwargs", "words"),
  [
    (lambda r: r + [r[1]], {}, "names .*run0_epoch0.safetensors twice"),
    (lambda r: r[1].__setitem__(0, ""), {}, "names no file in row 0"),
    (lambda r: r[3].__setitem__(1, "n/a"), {}, "holds numbers, but 'n/a' for"),
    (lambda r: r[3].__setitem__(1, ""), {}, "'size' is nan for run0_epoch2"),
    (lambda r: r[:4], {}, "3 networks in 1 groups, .* too few"),
    (lambda r: r, {"targets": "accuracy"}, "no column 'accuracy' to predict"),
    (lambda r: r, {"targets": "kind"}, "'kind' is text .first: '.*'., and l"),
    (
      lambda r: [r[0], *([*row[:2], "x", *row[3:]] for row in r[1:])],
      {"targets": "kind", "loss": "classes"},
      "all 21 values of target 'kind' are of one class .'x'",
    ),
    (
      lambda r: [r[0], *([row[0], 1, *row[2:]] for row in r[1:])],
      {},
      "equal .'1.0'",
    ),
    (lambda r: [["file", "id"], *(x[:2] for x in r[1:])], {"targets": "id"},
     "'id' has a name that zoos use"),
    (lambda r: r, {"files": "path"}, "no column 'path'.*file_column"),
    (lambda r: r, {"group": "run"}, "no column 'run'"),
  ],
)  # fmt: skip
def test_bad_tables_take_one_line_and_leave_nothing(
  change, kwargs, words, copy
):
  changed(copy, change)
  before = sorted(copy.iterdir())
  with pytest.raises(ValueError, match=words) as caught:
    made(copy, **kwargs)
  assert "\n" not in str(caught.value)
  assert sorted(copy.iterdir()) == before


@pytest.mark.parametrize(
  ("names", "keys"),
  [
    (["a1.pt", "a2.pt"], None),
    (["sleep3.pt", "sleep4.pt"], None),
    (["a_best.pt", "b_best.pt"], None),
    (["a/epoch=1-step=20.ckpt", "a/epoch=2-step=40.ckpt"], ["a", "a"]),
    (["r1_epoch1.pt", "r1_epoch20.npz", "r2_epoch1.pt"], ["r1", "r1", "r2"]),
    (["r1-final.pt", "r1_checkpoint_10.pt"], ["r1", "r1"]),
  ],
)
def test_names_say_who_is_kin(names, keys):
  found = labelled.relatives(names)
  assert (None if found is None else found.tolist()) == keys
