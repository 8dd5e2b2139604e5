"""`sne-jax sweep`: searches over trainings on one's own networks."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from sne_jax.cli import config, help_text, main
from sne_jax.cli.commands import sweep, train
from sne_jax.cli.sweeping import options as sweep_options
from tests.cli import own_test
from tests.learning.data import own_networks

ROOT = pathlib.Path(__file__).parents[2]
GRID = "--grid=learning_rate=1e-2,1e-30;batch_size=4,8"

TRIAL = """
import json, pathlib, sys
lines = open(sys.argv[1].partition("=")[2]).read().splitlines()
flags = dict(l[2:].split("=", 1) for l in lines if "=" in l)
workdir = pathlib.Path(flags["workdir"])
value = float(flags["learning_rate"]) + int(flags["batch_size"]) / 1e4
row = {"kendall_tau": {"value": value, "low": value, "high": value}}
seeds = [{"seed": s, "metrics": {"val": row, "test": row}}
         for s in range(int(flags["seeds"]))]
(workdir / "results.json").write_text(json.dumps({"seeds": seeds}))
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
  folder = tmp_path_factory.mktemp("own")
  own_networks.write(folder, 24)
  return folder


@pytest.fixture
def start(own, tmp_path, monkeypatch):
  """Returns `start(*flags)`: a sweep of programs that take no time."""
  pytest.importorskip("optuna")
  from sne_jax.cli.sweeping import trainings

  (tmp_path / "trial.py").write_text(TRIAL)
  (tmp_path / "prepare.py").write_text("")
  paths = tmp_path / "trial.py", tmp_path / "prepare.py"
  fast = trainings.SUBJECT._replace(programs=trainings.Programs(*paths))
  monkeypatch.setattr(trainings, "SUBJECT", fast)

  def begin(*arguments):
    return own_test.launched(
      lambda values: main.define_flags(sweep, values),
      sweep.main,
      *own_test.named(own, tmp_path / "run"),
      *("--address=none", *arguments),
    )

  return begin


def trial_flags(tmp_path, number):
  """Returns the flags that a trial was given, as `sne-jax train` has them."""
  values = flags.FlagValues()
  main.define_flags(train, values)
  path = tmp_path / "run" / "trials" / f"{number:04d}" / "trial.flags"
  config.parse(["train", f"--flagfile={path}"], values)
  return values


def test_every_combination_is_a_training_and_the_best_is_selected(
  start, tmp_path
):
  ended = start(GRID, "--seeds=2")
  assert ended.code == 0, ended
  found = json.loads((tmp_path / "run" / "results.json").read_text())
  assert found["title"] == "size of networks"
  best = {"batch_size": 8, "learning_rate": 0.01}
  assert found["selected"]["changes"] == best
  assert [row["trial"] for row in found["trials"]] == [2, 0, 3, 1]
  values = trial_flags(tmp_path, 2)
  assert (values["learning_rate"].value, values["batch_size"].value) == (
    0.01,
    8,
  )
  assert values["references"].value is False
  # All share one zoo.
  zoos = {trial_flags(tmp_path, n)["zoo_out"].value for n in range(4)}
  assert zoos == {str(tmp_path / "run_zoo")}
  report = (tmp_path / "run" / "report.md").read_text()
  assert "sne-jax train --flagfile=" in report and "experiments" not in report


def test_it_continues_and_refuses_others(start, tmp_path):
  assert start(GRID).code == 0
  path = tmp_path / "run" / "trials" / "0001" / "results.json"
  before = path.stat().st_mtime_ns
  assert start(GRID).code == 0
  assert path.stat().st_mtime_ns == before
  assert "num_steps: 1500 there, 9 now" in start(GRID, "--num_steps=9").error
  flagfile = tmp_path / "run" / "flags.txt"
  assert start(f"--flagfile={flagfile}").code == 0


@pytest.mark.parametrize(
  ("given", "words"),
  [
    (["--grid=targets=size,depth"], "targets cannot be swept"),
    (["--grid=zoo_out=a,b"], "zoo_out cannot be swept"),
    (["--grid=seeds=1,2"], "seeds cannot be swept"),
    (["--grid=learning_rat=1"], "did you mean learning_rate?"),
    (["--grid=width=64,65"], "trial 1 (width=65): width 65 is not a multiple"),
    (["--grid=stat_width=4,8"], "stat_width is an option of stat_nn and"),
    ([], "give one of them"),
    ([GRID, "--networks=", "--table="], "networks is empty"),
  ],
)
def test_what_is_refused_leaves_nothing(given, words, start, tmp_path):
  assert words in start(*given).error
  assert not (tmp_path / "run").exists()


def test_options_of_an_encoder_are_swept(start, tmp_path):
  from sne_jax.cli.sweeping import plan, trainings

  values = flags.FlagValues()
  main.define_flags(sweep, values)
  given = ["--networks=n", "--table=t", "--targets=x", "--encoder=stat_pool"]
  given += ["--grid=stat_width=4,8;encoder=stat_pool,mlp"]
  config.parse(["sweep", *given], values)
  made = plan.make(trainings.SUBJECT, values)
  texts = [made.run_flags(made.options(*o)) for o in enumerate(made.planned)]
  found = ["stat_width=8" in text for text in texts]
  assert found == [False, True, False, False]
  assert ["mlp_" in text for text in texts] == [False, False, True, True]


def test_help_is_grouped_and_needs_no_optuna(monkeypatch):
  monkeypatch.setitem(sys.modules, "optuna", None)
  values = flags.FlagValues()
  main.define_flags(sweep, values)
  page = help_text.Page(doc=sweep.__doc__ or "", topics=sweep.TOPICS)
  text = page.text(values, full=False)
  places = [text.index(f"\n{topic}\n") for topic in sweep.TOPICS]
  assert places == sorted(places) and len(places) == 3
  assert "\n  --grid=" in text and "\n  --learning_rate=" in text
  assert len(text.splitlines()) < 140


@pytest.mark.parametrize("library", sweep_options.NEEDED)
def test_what_is_missing_takes_one_line(library, start, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, library, None)
  error = start(GRID, "--address=local").error
  name = library.capitalize()
  assert f"{name}, which is not installed: pip install '" in error
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_sweep_of_real_trainings_from_a_wheel(own, tmp_path):
  """Nothing but the package is at hand, as where the wheel is installed."""
  pytest.importorskip("optuna")
  (tmp_path / "site").mkdir()
  (tmp_path / "site" / "sne_jax").symlink_to(ROOT / "sne_jax")
  command = [sys.executable, "-m", "sne_jax.cli.main", "sweep"]
  command += [*own_test.named(own, "run"), *own_test.QUICK, "--address=none"]
  ended = subprocess.run(
    [*command, "--grid=learning_rate=1e-2,1e-30", "--metric=mse"],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    env=os.environ
    | {"PYTHONPATH": str(tmp_path / "site"), "JAX_PLATFORMS": "cpu"},
    check=False,
  )
  assert ended.returncode == 0, ended.stderr
  found = json.loads((tmp_path / "run" / "results.json").read_text())
  assert len(found["trials"]) == 2
  assert not [row for row in found["trials"] if "failed" in row]
  assert found["selected"]["test"]["mse"]["mean"] > 0
  assert (tmp_path / "run" / "trials" / "0001" / "report.html").exists()
