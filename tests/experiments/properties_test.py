"""Flagfiles of the properties of the digits zoo: what they ask for."""

import pathlib

import pytest

from experiments import options as options_lib
from experiments.tasks import property as task

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "flags" / "properties"
TEXT = ("activation", "initializer", "optimizer")
NUMBERS = ("epoch", "generalization_gap", "learning_rate")


@pytest.fixture
def asked(resolve, monkeypatch):
  """Returns `asked(name) -> options` of a flagfile."""
  monkeypatch.chdir(ROOT)
  return lambda name: resolve(f"--flagfile={FOLDER / name}.flags")


def test_there_is_one_for_each():
  found = sorted(path.stem for path in FOLDER.glob("*.flags"))
  assert found == sorted(TEXT + NUMBERS)


@pytest.mark.parametrize("name", TEXT + NUMBERS)
def test_it_asks_for_what_it_is_named_after(name, asked):
  options = asked(name)
  run = options.run
  assert run.target_names == (name,)
  assert run.workdir == f"runs/properties/{name}"
  assert run.title.lower().startswith(name.replace("_", " "))
  assert run.loss == ("classes" if name in TEXT else "mse")
  assert run.target_scale == ("log" if name == "learning_rate" else "linear")
  assert (ROOT / run.zoo).is_file()
  assert options_lib.RunOptions().seeds == run.seeds == 3
  task.check_monitor(options)


@pytest.mark.parametrize("path", FOLDER.parent.glob("*.flags"), ids=str)
def test_flagfiles_choose_the_better_end_of_what_they_monitor(
  path, resolve, monkeypatch
):
  monkeypatch.chdir(ROOT)
  task.check_monitor(resolve(f"--flagfile={path}"))
