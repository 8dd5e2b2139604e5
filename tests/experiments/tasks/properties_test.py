"""Flagfiles of the properties of the digits zoo: what they ask for."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[3]
FOLDER = ROOT / "experiments" / "flags" / "properties"
TEXT = ("activation", "initializer", "optimizer")
NUMBERS = ("epoch", "generalization_gap", "learning_rate")


def test_there_is_one_for_each():
  found = sorted(path.stem for path in FOLDER.glob("*.flags"))
  assert found == sorted(TEXT + NUMBERS)


@pytest.mark.parametrize("name", TEXT + NUMBERS)
def test_it_asks_for_what_it_is_named_after(name, resolve, monkeypatch):
  monkeypatch.chdir(ROOT)
  options = resolve(f"--flagfile={FOLDER / name}.flags")
  run = options.run
  assert run.target_names == (name,)
  assert run.workdir == f"runs/properties/{name}"
  assert run.title.lower().startswith(name.replace("_", " "))
  assert (ROOT / run.zoo).is_file()
  assert run.target_scale == ("log" if name == "learning_rate" else "linear")
  of_classes = name in TEXT
  assert run.loss == ("classes" if of_classes else "mse")
  monitor = "accuracy" if of_classes else "kendall_tau"
  assert options.train.monitor == monitor
  assert (run.seeds, options.train.num_steps) == (3, 1000)
  assert options.chunk.chunk_size == 320
