"""Sweeps: killed and restarted, failing trials, selection, what is refused.

Most tests put a program that takes no time in the place of run.py.
"""

import contextlib
import functools
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import tomllib
import types
from typing import NamedTuple

import optuna
import pytest
from absl import flags

from experiments import sweep
from experiments.cli import options as options_lib
from experiments.sweeping import prepare, runs
from sne_jax.cli import config
from sne_jax.cli.sweeping import executors, launch
from sne_jax.cli.sweeping import options as sweep_options
from sne_jax.cli.sweeping import plan as plan_lib
from sne_jax.cli.sweeping import sweep as sweep_lib
from sne_jax.cli.sweeping.subject import Programs
from sne_jax.zoo.store import lock, store

ROOT = pathlib.Path(__file__).parents[3]
GRID = "--grid=learning_rate=1e-3,2e-3,3e-3,4e-3;head_width=4,8"

TRIAL = """
import json, os, pathlib, signal, sys, time
lines = open(sys.argv[1].partition("=")[2]).read().splitlines()
flags = dict(l[2:].split("=", 1) for l in lines if l.startswith("--"))
workdir = pathlib.Path(flags["workdir"])
(workdir / ".pid").write_text(str(os.getpid()))
os.replace(workdir / ".pid", workdir / "pid")
with open(workdir / "starts", "a") as file:
  file.write(os.environ.get("PJRT_NPROC", "all") + chr(10))
starts = (workdir / "starts").read_text().count(chr(10))
if int(workdir.name) >= int(os.environ.get("STALL_FROM", 99)):
  time.sleep(600)
rate, width = float(flags["learning_rate"]), int(flags["head_width"])
value = -abs(rate - 0.002) * 100 + width / 1000
number = lambda x: {"value": x, "low": x, "high": x}
seeds = [
  {"seed": s, "train_seconds": 1.5, "metrics": {
    "val": {"kendall_tau": number(value + s / 1e4), "mse": number(-value)},
    "test": {"kendall_tau": number(0.4321 - value), "mse": number(1.0)},
  }} for s in range(int(flags["seeds"]))
]
BEHAVIOUR
(workdir / "results.json").write_text(json.dumps(
  {"seeds": seeds, "num_params": 7, "seconds": {}, "sizes": {"val": 5}}
))
"""


PREPARE = ""


class Ended(NamedTuple):
  code: int
  out: str
  err: str

  @property
  def error(self):
    """The one line of an error."""
    assert self.code == 2, self
    assert self.err.startswith("error: "), self.err
    assert self.err.count("\n") == 1, self.err
    return self.err


def defined():
  values = flags.FlagValues()
  runs.define_flags(values)
  return values


@pytest.fixture
def programs(tmp_path):
  """Returns `programs(behaviour) -> Programs` of fast trials."""

  def write(behaviour=""):
    for name, text in (
      ("trial.py", TRIAL.replace("BEHAVIOUR", behaviour)),
      ("prepare.py", PREPARE),
    ):
      (tmp_path / name).write_text(text)
    return Programs(tmp_path / "trial.py", tmp_path / "prepare.py")

  return write


@pytest.fixture
def start(tmp_path, programs, monkeypatch):
  """Returns `start(*flags) -> Ended`: a sweep in this process, without Ray."""
  monkeypatch.setenv("PYTHONPATH", str(ROOT))

  def begin(*arguments, behaviour="", address="none"):
    out, err, code = io.StringIO(), io.StringIO(), 0
    given = [f"--workdir={tmp_path / 'run'}", "--seeds=2"]
    given += [f"--address={address}", *arguments]
    chosen = programs(behaviour)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      try:
        values = defined()
        config.parse(["sweep.py", *given], values)
        main = lambda argv: sweep.main(argv, values, chosen)
        code = config.guarded(main, ["sweep.py"], values)
      except SystemExit as ended:
        code = ended.code
    return Ended(code, out.getvalue(), err.getvalue())

  return begin


def starts(tmp_path):
  """Returns how often each trial was started, by number."""
  return {
    int(path.parent.name): path.read_text().count("\n")
    for path in sorted((tmp_path / "run" / "trials").glob("*/starts"))
  }


def results(tmp_path):
  return json.loads((tmp_path / "run" / "results.json").read_text())


def report(tmp_path):
  return (tmp_path / "run" / "report.md").read_text()


def contents(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


# What a sweep leaves.


def test_a_sweep_selects_on_validation_alone(start, tmp_path):
  ended = start(GRID, "--title=A sweep")
  assert ended.code == 0
  found = results(tmp_path)
  # Best on validation: rate 0.002, width 8. On the test networks it is worst.
  assert found["selected"]["changes"] == {
    "head_width": 8,
    "learning_rate": 0.002,
  }
  assert found["selected"]["test"]["kendall_tau"]["mean"] == pytest.approx(
    0.4321 - 0.008
  )
  values = [row["val"]["kendall_tau"]["mean"] for row in found["trials"]]
  assert len(values) == 8
  assert values == sorted(values, reverse=True)
  assert values[0] == pytest.approx(0.008 + 0.5e-4)  # Mean over two seeds.
  assert not any("test" in row for row in found["trials"])
  # No test number but those of the selected trial stands anywhere.
  text = report(tmp_path) + json.dumps(found)
  others = {f"{0.4321 - v + 0.5e-4:.4g}" for v in values[1:]}
  assert not [each for each in others if each in text]
  assert f"{0.4321 - 0.008:.4g}" in text  # The control.
  table = [l for l in report(tmp_path).splitlines() if "(<trials/" in l]
  assert len(table) == 8
  assert re.match(r"\| +1 +\| \[5\]\(<trials/0005>\) +\| 8 +\| 0.002", table[0])
  assert "the test networks had no part" in report(tmp_path)
  assert "trials/0005/trial.flags" in report(tmp_path)
  assert (tmp_path / "run" / "figures" / "sweep.png").stat().st_size > 5000
  assert "selected: trial 5 (head_width=8, learning_rate=0.002)" in ended.out
  assert ended.out.endswith(f"The report is {tmp_path}/run/report.md\n")
  assert not (tmp_path / "run.lock").exists()


@pytest.mark.parametrize(
  "change",
  [
    "for each in seeds: each['metrics']['test'] = {}",
    "for each in seeds: each['metrics']['test']['kendall_tau']['value'] *= -9",
  ],
)
def test_the_choice_knows_no_test_numbers(change, start, tmp_path):
  start(GRID)
  before = results(tmp_path)
  other = tmp_path / "other" / "run"
  other.parent.mkdir()
  assert start(GRID, f"--workdir={other}", behaviour=change).code == 0
  after = results(tmp_path / "other")
  assert after["trials"] == before["trials"]
  assert after["selected"]["trial"] == before["selected"]["trial"]
  assert after["selected"]["test"] != before["selected"]["test"]  # The control.


def test_a_metric_of_which_less_is_better(start, tmp_path):
  """Its values are those of the other metric with the sign turned."""
  assert start(GRID, "--metric=mse").code == 0
  found = results(tmp_path)
  assert found["selected"]["trial"] == 5
  values = [row["val"]["mse"]["mean"] for row in found["trials"]]
  assert values == sorted(values)


def test_a_run_can_repeat_the_selected_trial(start, tmp_path):
  start(GRID, "--width=48")
  path = tmp_path / "run" / "trials" / "0005" / "trial.flags"
  values = flags.FlagValues()
  options_lib.define_flags(values)
  config.parse(["run.py", f"--flagfile={path}"], values)
  options = options_lib.from_flags(values)
  assert options.run.workdir == str(path.parent)
  assert (options.run.head_width, options.sne.width) == (8, 48)
  assert not options.run.references


def test_undefined_values_come_last_and_are_not_selected(start, tmp_path):
  undefined = (
    "if rate != 0.003:\n"
    "  seeds[1]['metrics']['val']['kendall_tau']['value'] = None"
  )
  assert start(GRID, behaviour=undefined).code == 0
  found = results(tmp_path)
  assert found["selected"]["changes"]["learning_rate"] == 0.003
  rates = [row["changes"]["learning_rate"] for row in found["trials"]]
  assert rates[:2] == [0.003, 0.003]
  assert report(tmp_path).count("n/a") == 6
  everywhere = undefined.replace("rate != 0.003", "True")
  (tmp_path / "other").mkdir()
  ended = start(
    *(GRID, f"--workdir={tmp_path / 'other' / 'run'}"), behaviour=everywhere
  )
  assert ended.code == 0
  assert "none can be selected" in ended.out
  text = report(tmp_path / "other")
  assert "**No trial can be selected**" in text


def test_another_metric_ranks_what_is_there(start, tmp_path):
  assert start(GRID).code == 0
  error = start(GRID, "--metric=frequency mse").error
  assert "trials report kendall_tau, mse" in error
  assert start(GRID, "--metric=mse").code == 0
  assert starts(tmp_path) == dict.fromkeys(range(8), 1)
  assert results(tmp_path)["metric"] == "mse"


def test_a_zoo_that_is_not_there_leaves_nothing(tmp_path, monkeypatch, start):
  fail = "raise SystemExit('error: there is no zoo')"
  monkeypatch.setitem(globals(), "PREPARE", fail)
  assert "there is no zoo" in start(GRID).error
  assert not (tmp_path / "run").exists()


def test_no_room_ends_the_sweep(tmp_path, start):
  text = "runs/0: the disk is full: it cannot be written; free space there"
  fail = f"print('error: {text}'); sys.exit(75)"
  grid = "--grid=learning_rate=1e-3,2e-3"
  ended = start(grid, "--retries=1", behaviour=fail)
  assert ended.code == 75
  assert ended.err.splitlines()[-1] == f"error: {text}"
  assert starts(tmp_path) == {0: 1}
  assert start(grid).code == 0


def test_a_wrong_metric_stops_the_sweep_at_its_first_trial(start, tmp_path):
  error = start(GRID, "--metric=spearman").error
  assert "metric is 'spearman', but the trials report kendall_tau, mse" in error
  assert starts(tmp_path) == {0: 1}
  assert start(GRID).code == 0
  assert starts(tmp_path) == dict.fromkeys(range(8), 1)


# What goes on where it was.


def test_more_trials_and_more_seeds_later(start, tmp_path):
  search = "--random=learning_rate=log:1e-4:1e-2;head_width=4,8"
  assert start(search, "--num_trials=2", "--seeds=1").code == 0
  first = {r["trial"]: r["changes"] for r in results(tmp_path)["trials"]}
  assert start(search, "--num_trials=4", "--seeds=1").code == 0
  assert starts(tmp_path) == dict.fromkeys(range(4), 1)
  more = {r["trial"]: r["changes"] for r in results(tmp_path)["trials"]}
  assert len(more) == 4
  assert {k: more[k] for k in first} == first
  assert start(search, "--num_trials=4", "--seeds=3").code == 0
  assert starts(tmp_path) == dict.fromkeys(range(4), 2)
  found = results(tmp_path)["trials"][0]["val"]["kendall_tau"]
  assert found["count"] == 3
  assert start(search, "--num_trials=4", "--seeds=2").code == 0
  assert starts(tmp_path) == dict.fromkeys(range(4), 2)
  found = results(tmp_path)["trials"][0]["val"]["kendall_tau"]
  assert found["count"] == 2


TPE = ("--random=learning_rate=log:1e-4:1e-2;head_width=4,8", "--sampler=tpe")


@pytest.mark.slow
def test_tpe_learns_and_resumes_as_if_unbroken(start, tmp_path):
  assert start(*TPE, "--num_trials=12").code == 0
  chosen = lambda folder: {
    row["trial"]: row["changes"] for row in results(folder)["trials"]
  }
  assert len({str(each) for each in chosen(tmp_path).values()}) == 12
  runs = {}
  for name, counts, behaviour in (
    ("broken", (3, 11, 12), ""),
    ("turned", (12,), "for s in seeds: s['metrics']['val']['kendall_tau'] = "
     "number(s['metrics']['val']['kendall_tau']['value'] * -1)"),
  ):  # fmt: skip
    (tmp_path / name).mkdir()
    where = f"--workdir={tmp_path / name / 'run'}"
    for count in counts:
      start(*TPE, f"--num_trials={count}", where, behaviour=behaviour)
    runs[name] = chosen(tmp_path / name)
  assert runs["broken"] == chosen(tmp_path)
  # Ten trials are drawn by themselves; what follows depends on what they gave.
  early = lambda run: [run[number] for number in range(10)]
  assert early(runs["turned"]) == early(chosen(tmp_path))
  assert runs["turned"][11] != chosen(tmp_path)[11]
  # What a trial has is kept, though nothing but its folder knows it.
  (tmp_path / "run/trials/0011/results.json").unlink()
  before = chosen(tmp_path)
  assert start(*TPE, "--num_trials=12").code == 0
  assert chosen(tmp_path) == before
  assert starts(tmp_path) == dict.fromkeys(range(12), 1) | {11: 2}


def test_options_that_do_not_go_together_fail_a_trial_of_tpe(start, tmp_path):
  fails = ("--random=width=64,65", "--sampler=tpe", "--num_trials=6")
  assert start(*fails, "--learning_rate=0.002", "--head_width=4").code == 1
  rows = results(tmp_path)["trials"]
  failed = [row for row in rows if "failed" in row]
  assert {row["changes"]["width"] for row in failed} == {65}
  assert len(failed) < 6
  assert "width 65 is not a multiple of heads" in failed[0]["failed"]


CURVE = """
(workdir / "seed0").mkdir(exist_ok=True)
steps = {"val/kendall_tau": value, "val/loss": -value}
with open(workdir / "seed0" / "metrics.jsonl", "w") as file:
  for step in (1000, 2000):
    file.write(json.dumps(steps | {"step": step}) + chr(10))
if int(workdir.name) == 7:
  time.sleep(STALL)
"""


@pytest.mark.parametrize("metric", ["kendall_tau", "mse"])
def test_a_trial_that_falls_behind_is_stopped(metric, start, tmp_path):
  """The last is the worst at its first evaluation, and then would go on."""
  stalls = CURVE.replace("STALL", "60")
  began = time.monotonic()
  ended = start(GRID, "--pruner=median", f"--metric={metric}", behaviour=stalls)
  assert time.monotonic() - began < 50
  assert ended.code == 0
  assert "7 of 8 trials finished, 1 stopped early" in ended.out
  found = results(tmp_path)
  assert found["selected"]["trial"] == 5
  assert found["trials"][-1]["trial"] == 7
  assert found["trials"][-1]["stopped_at"] == 2000
  assert "| stopped |" in report(tmp_path)
  # It stays so, and the rest is not run again.
  assert start(GRID, f"--metric={metric}").code == 0
  assert starts(tmp_path) == dict.fromkeys(range(8), 1)
  assert results(tmp_path)["trials"] == found["trials"]


@pytest.mark.slow
def test_no_trial_is_stopped_unasked_or_after_its_last_step(start, tmp_path):
  waits = CURVE.replace("STALL", "3")
  assert start(GRID, behaviour=waits).code == 0
  short = tmp_path / "short" / "run"
  short.parent.mkdir()
  more = (f"--workdir={short}", "--num_steps=1000", "--pruner=median")
  assert start(GRID, *more, behaviour=waits).code == 0
  for folder in (tmp_path, tmp_path / "short"):
    assert not any("stopped_at" in row for row in results(folder)["trials"])


def test_hyperband_is_told_the_steps_of_training():
  values = defined()
  asked = ["--pruner=hyperband", "--num_steps=900", "--eval_every=100", GRID]
  config.parse(["sweep.py", *asked], values)
  pruner = plan_lib.make(runs.SUBJECT, values).pruner()
  study = optuna.create_study(direction="maximize", pruner=pruner)
  stopped = []
  for number in range(20):
    trial = study.ask()
    for step in range(100, 1000, 100):
      trial.report(number % 2, step)
      if trial.should_prune():
        stopped.append((number % 2, step))
        break
    study.tell(trial, number % 2)
  assert {good for good, _ in stopped} == {0}
  assert min(step for _, step in stopped) < 900


def pids(tmp_path):
  """Returns the processes of all trials that have begun."""
  paths = (tmp_path / "run" / "trials").glob("*/pid")
  return [int(path.read_text()) for path in paths]


def alive(pid):
  """Whether a process runs; one that nobody has waited for does not."""
  try:
    return (
      pathlib.Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    )
  except (OSError, IndexError):
    return False


DRIVER = """
import sys
from experiments import sweep
from experiments.cli import console
from sne_jax.cli import config
from experiments.sweeping import runs
from sne_jax.cli.sweeping.subject import Programs
programs = Programs(sys.argv.pop(1), sys.argv.pop(1))
runs.define_flags()
console.setup()
config.run_main(lambda argv: sweep.main(argv, programs=programs))
"""


@pytest.mark.slow
@pytest.mark.parametrize("address", ["none", "local"])
def test_a_sweep_of_eight_that_is_killed_and_restarted(
  address, programs, tmp_path
):
  if address == "local":
    pytest.importorskip("ray")
  chosen = programs()
  command = [sys.executable, "-c", DRIVER, chosen.trial, chosen.prepare]
  command += [GRID, f"--workdir={tmp_path / 'run'}", f"--address={address}"]
  environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  finished = lambda: {
    int(path.parent.name)
    for path in (tmp_path / "run" / "trials").glob("*/results.json")
  }
  begin = lambda **more: subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    env=environment | more,
  )

  process = begin(STALL_FROM="3")
  while len(starts(tmp_path)) < 4 and process.poll() is None:
    time.sleep(0.01)
  while len(finished()) < 3 and process.poll() is None:
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL
  # What was running ends, too, and nothing else begins.
  deadline = time.monotonic() + 60
  while any(map(alive, pids(tmp_path))) and time.monotonic() < deadline:
    time.sleep(0.01)
  time.sleep(1.0)
  assert not any(map(alive, pids(tmp_path)))
  begun = starts(tmp_path)
  assert finished() == {0, 1, 2}
  assert set(begun) - finished() in ({3}, {3, 4})
  assert set(begun.values()) == {1}

  process = begin()
  out, err = process.communicate()
  assert process.returncode == 0, err.decode()
  assert b"8 of 8 trials finished" in out
  assert finished() == set(range(8))
  again = {number for number, count in starts(tmp_path).items() if count == 2}
  assert again == set(begun) - {0, 1, 2}
  assert results(tmp_path)["selected"]["trial"] == 5
  shares = {p.read_text() for p in (tmp_path / "run").rglob("starts")}
  assert {line for text in shares for line in text.split()} == (
    {"all"} if address == "none" else {"1"}
  )


def test_a_trial_that_outlives_a_killed_sweep(start, tmp_path, monkeypatch):
  monkeypatch.setattr(sweep_lib, "PATIENCE", 0.0)
  folder = tmp_path / "run" / "trials" / "0002"
  folder.mkdir(parents=True)
  with lock.folder_lock(folder):
    error = start(GRID).error
  assert f"{folder}" in error
  assert f"process {os.getpid()} is writing here" in error
  assert starts(tmp_path) == {}


def test_ctrl_c_takes_one_line(start, tmp_path, monkeypatch):
  def interrupted(*args):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(launch, "run", interrupted)
    ended = start(GRID)
  assert ended.code == 130
  assert ended.err == "error: interrupted; the same command continues\n"
  assert start(GRID).code == 0


# Trials that fail.


def test_a_trial_that_fails_is_started_again_then_reported(start, tmp_path):
  fails = (
    "if rate == 0.002: sys.exit('some words' + chr(10) + 'error: it burns')"
  )
  ended = start(GRID, "--retries=2", behaviour=fails)
  assert ended.code == 1
  assert "6 of 8 trials finished, 2 failed" in ended.out
  assert starts(tmp_path) == dict.fromkeys(range(8), 1) | {1: 3, 5: 3}
  text = report(tmp_path)
  assert "6 of 8 trials finished, 2 failed" in text
  assert "- [1](<trials/0001>): it burns\n" in text
  assert text.count("| failed ") == 2
  found = results(tmp_path)
  assert [r["trial"] for r in found["trials"] if "failed" in r] == [1, 5]
  assert found["selected"]["changes"]["learning_rate"] in (0.001, 0.003)
  log = (tmp_path / "run" / "trials" / "0001" / "log.txt").read_text()
  assert log.count("== ") == 3
  # Mended, the same command finishes them, and them alone.
  assert start(GRID).code == 0
  assert starts(tmp_path) == dict.fromkeys(range(8), 1) | {1: 4, 5: 4}


def test_a_second_attempt_may_succeed(start, tmp_path):
  fails = "if rate == 0.002 and starts == 1: sys.exit('error: not yet')"
  assert start(GRID, behaviour=fails).code == 0
  assert starts(tmp_path) == dict.fromkeys(range(8), 1) | {1: 2, 5: 2}
  assert "failed" not in report(tmp_path)


def test_all_trials_fail(start, tmp_path):
  ended = start(GRID, "--retries=0", behaviour="1 / 0")
  assert ended.code == 1
  assert "0 of 8 trials finished, 8 failed; none can be selected" in ended.out
  text = report(tmp_path)
  assert "- [7](<trials/0007>): ZeroDivisionError: division by zero\n" in text
  assert starts(tmp_path) == dict.fromkeys(range(8), 1)


@pytest.mark.parametrize(
  ("behaviour", "words"),
  [
    ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
    ("sys.exit(3)", "exit code 3, without a word"),
    ("os._exit(0)", "it has not run"),
    (
      "seeds[1] = {'seed': 1, 'failed': 'training diverged'}",
      "seed 1 failed: training diverged",
    ),
    ("seeds.pop()", "seed 1 failed: it has not run"),
  ],
)
def test_how_a_trial_can_fail(behaviour, words, start, tmp_path):
  ended = start("--grid=head_width=4", "--retries=0", behaviour=behaviour)
  assert ended.code == 1
  assert f"- [0](<trials/0000>): {words}\n" in report(tmp_path)


def test_a_trial_whose_program_is_missing(start, tmp_path, monkeypatch):
  monkeypatch.setattr(launch.sys, "executable", str(tmp_path / "python"))
  assert "python" in start(GRID).error


def test_results_that_cannot_be_read(start, tmp_path):
  assert start(GRID).code == 0
  (tmp_path / "run" / "trials" / "0003" / "results.json").write_text("{")
  error = start(GRID).error
  assert "trials/0003/results.json cannot be read" in error
  assert "remove it, and the trial runs again" in error


# What is refused.


def test_a_comparison_is_no_trial(start, tmp_path):
  flags = ("matrix=each", "variants=components", "rates=1e-3", "probes=all")
  for flag in flags:
    said = start(GRID, f"--{flag}").error
    assert flag.partition("=")[0] in said and "a trial is one run" in said
  assert not (tmp_path / "run").exists()


def test_bad_flags_write_nothing(start, tmp_path):
  assert "did you mean learning_rate" in start("--grid=learning_rat=1").error
  assert "trial 1 (width=65)" in start("--grid=width=64,65", "--heads=4").error
  assert "Did you mean: grid" in start("--gird=head_width=1").error
  assert not (tmp_path / "run").exists()


def test_ray_is_missing(start, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "ray", None)
  error = start(GRID, address="local").error
  assert "pip install 'ray>=" in error
  assert "--address=none" in error
  assert not (tmp_path / "run").exists()
  assert start(GRID).code == 0  # The control.


def test_optuna_is_missing(start, tmp_path, monkeypatch):
  find = sweep_options.importlib.util.find_spec
  hidden = lambda name: None if name == "optuna" else find(name)
  monkeypatch.setattr(sweep_options.importlib.util, "find_spec", hidden)
  error = start(GRID).error
  assert "Optuna, which is not installed: pip install 'optuna>=5" in error
  assert not (tmp_path / "run").exists()


def test_what_pip_is_told_is_what_the_project_asks_for():
  text = (ROOT / "pyproject.toml").read_text()
  asked = tomllib.loads(text)["project"]["optional-dependencies"]["sweep"]
  assert sorted(asked) == sorted(sweep_options.NEEDED.values())


def test_a_workdir_of_another_sweep(start, tmp_path):
  assert start(GRID).code == 0
  before = contents(tmp_path / "run")
  error = start(GRID.replace("4,8", "4,8,16")).error
  assert "SweepOptions.space.head_width: [4, 8] there, [4, 8, 16] now" in error
  assert "choose another workdir" in error
  assert "width: 64 there" in start(GRID, "--width=48").error
  error = start("--random=learning_rate=1e-3,2e-3;head_width=4,8").error
  assert "SweepOptions.sampler" in error
  assert contents(tmp_path / "run") == before


def test_a_sweep_of_before_is_left_alone(start, tmp_path):
  (tmp_path / "run" / "trials" / "0000").mkdir(parents=True)
  before = {"SweepOptions": {"space": {"head_width": [4, 8]}}}
  (tmp_path / "run" / "config.json").write_text(json.dumps(before))
  files = contents(tmp_path / "run")
  error = start("--grid=head_width=4,8").error
  assert "SweepOptions.sampler" in error
  assert "choose another workdir" in error
  assert contents(tmp_path / "run") == files


def test_the_workdir_of_a_run(start, tmp_path):
  (tmp_path / "run").mkdir()
  values = defined()
  config.parse(["sweep.py"], values)
  found = config.resolved(*options_lib.from_flags(values).groups())
  (tmp_path / "run" / "config.json").write_text(json.dumps(found))
  assert "SweepOptions.space" in start(GRID).error


def test_two_sweeps_in_one_workdir(start, tmp_path):
  with lock.folder_lock(tmp_path / "run"):
    error = start(GRID).error
  assert f"process {os.getpid()} is writing here" in error
  assert not (tmp_path / "run").exists()


def test_a_zoo_that_does_not_fit_is_said_once(
  start, programs, tmp_path, monkeypatch
):
  broken = "import sys; sys.exit('error: the zoo is damaged')"
  monkeypatch.setattr(
    pathlib.Path,
    "write_text",
    lambda path, text, write=pathlib.Path.write_text: write(
      path, broken if path.name == "prepare.py" else text
    ),
  )
  assert start(GRID).error == "error: the zoo is damaged\n"
  assert not (tmp_path / "run" / "trials").exists()
  assert not (tmp_path / "run" / "config.json").exists()
  monkeypatch.undo()
  assert start("--grid=head_width=4").code == 0  # The folder is free.


def prepared(zoo, tiny_flags, *arguments):
  values = flags.FlagValues()
  options_lib.define_flags(values)
  config.parse(["", *tiny_flags, f"--zoo={zoo}", *arguments], values)
  prepare.main([], values)


def test_preparing_draws_the_split(own_zoo, tiny_flags):
  prepared(own_zoo, tiny_flags, "--split=mine")
  assert len(store.Zoo.open(own_zoo).split("mine")["train"]) == 14
  with pytest.raises(ValueError, match="ask for 510"):
    prepared(own_zoo, tiny_flags, "--train_members=500", "--split=other")


# Who runs the trials.


def test_a_program_ends_with_its_starter(tmp_path):
  (tmp_path / "sleeps.py").write_text(
    "import sys, time\nprint(sys.argv[1], flush=True)\ntime.sleep(60)"
  )
  process = subprocess.Popen(
    [sys.executable, launch.__file__, tmp_path / "sleeps.py", "word"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  assert process.stdin is not None
  assert process.stdout is not None
  assert process.stdout.readline() == b"word\n"
  time.sleep(0.3)
  assert process.poll() is None  # The control: the pipe is open.
  process.stdin.close()
  assert process.wait(10) == -signal.SIGKILL


def test_a_program_runs_as_if_it_had_been_started(tmp_path):
  (tmp_path / "beside.py").write_text("WORD = 'beside'")
  (tmp_path / "program.py").write_text(
    "import sys, beside\nprint(__name__, beside.WORD, sys.argv[1:])\n"
    "sys.exit(7)"
  )
  job = launch.Job(
    command=(launch.__file__, str(tmp_path / "program.py"), "--flag"),
    log=str(tmp_path / "log"),
    cwd=str(tmp_path),
    environment={},
  )
  assert launch.run(job, {}) == launch.Ended(7)
  text = (tmp_path / "log").read_text()
  assert text.endswith("__main__ beside ['--flag']\n")


def test_the_share_of_a_machine(monkeypatch):
  monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
  assert launch.share_of(3, 0)["PJRT_NPROC"] == "3"
  assert "XLA_CLIENT_MEM_FRACTION" not in launch.share_of(3, 0)
  assert "XLA_CLIENT_MEM_FRACTION" not in launch.share_of(3, 1)
  assert launch.share_of(1, 0.5)["XLA_CLIENT_MEM_FRACTION"] == "0.450"
  # JAX refuses to be told twice.
  monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2")
  assert "XLA_CLIENT_MEM_FRACTION" not in launch.share_of(1, 0.5)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "ray://x:y"])
def test_no_cluster_at_an_address(address, start, tmp_path, monkeypatch):
  found = lambda name: name
  monkeypatch.setattr(sweep_options.importlib.util, "find_spec", found)
  error = start(GRID, address=address).error
  assert f"Ray cannot be reached (address={address})" in error
  assert not (tmp_path / "run" / "config.json").exists()


class FakeRay(types.ModuleType):
  """As much of Ray as is used, without the processes."""

  class RayError(Exception):
    pass

  def __init__(self, machines):
    super().__init__("ray")
    self.machines = machines
    self.exceptions = types.SimpleNamespace(RayError=self.RayError)
    self.cloudpickle = types.SimpleNamespace(register_pickle_by_value=id)
    self.given, self.asked, self.is_up = {}, {}, False

  def init(self, **options):
    if not self.machines:
      raise Exception("no room\nat all")
    self.given, self.is_up = options, True

  def shutdown(self):
    self.is_up = False

  def nodes(self):
    gone = {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}}
    return [gone] + [{"Alive": True, "Resources": m} for m in self.machines]

  def remote(self, **options):
    self.asked = options
    return lambda function: types.SimpleNamespace(
      remote=lambda *arguments: functools.partial(function, *arguments)
    )

  def wait(self, references, **unused):
    return references, []

  def get(self, reference):
    return reference()


@pytest.fixture
def fake_ray(monkeypatch):
  """Returns `fake_ray(machines) -> FakeRay`, which is imported as Ray."""

  def put(machines):
    fake = FakeRay(machines)
    find_spec = lambda name: name
    monkeypatch.setattr(sweep_options.importlib.util, "find_spec", find_spec)
    monkeypatch.setitem(sys.modules, "ray", fake)
    for name in ("RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED"):
      monkeypatch.setenv(name, "")  # What the sweep sets is undone.
      monkeypatch.delenv(name)
    return fake

  return put


def test_what_ray_is_asked_for(start, tmp_path, fake_ray, monkeypatch):
  monkeypatch.setenv("OPENBLAS_NUM_THREADS", "5")
  lost = "the machine is gone\nand more"
  fake = fake_ray([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 8.0}])
  shares = ("--cpus_per_trial=4", "--gpus_per_trial=0.5", "--retries=0")
  assert start(GRID, *shares, address="local").code == 0
  assert fake.asked == {"num_cpus": 4, "num_gpus": 0.5, "max_retries": 0}
  assert fake.given["address"] == "local"
  assert fake.given["include_dashboard"] is False
  assert not fake.is_up
  assert os.environ["RAY_AUTH_MODE"] == "token"
  assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
  assert (tmp_path / "run/trials/0000/starts").read_text() == "4\n"
  # A machine that is lost fails a trial, in one line, and no other.
  (tmp_path / "run/trials/0003/results.json").unlink()
  fake = fake_ray([{"CPU": 1.0}])
  launched = []

  def get(reference):
    launched.append(reference)
    if len(launched) == 2:  # The first prepares the zoo.
      raise fake.RayError(lost)
    return launch.Ended(0)

  fake.get = get
  assert start(GRID, "--retries=0", address="auto").code == 1
  assert "(<trials/0003>): Ray: the machine is gone\n" in report(tmp_path)
  assert "include_dashboard" not in fake.given


def test_ray_does_not_start(start, tmp_path, fake_ray):
  fake_ray([])
  error = start(GRID, address="local").error
  assert error == (
    "error: Ray cannot be started (address=local): no room; --address=none"
    " does without it\n"
  )
  assert not (tmp_path / "run" / "config.json").exists()


def test_a_trial_that_is_larger_than_this_machine(start, tmp_path, fake_ray):
  fake = fake_ray([{"CPU": 4.0}, {"CPU": 2.0, "GPU": 1.0}])
  error = start(
    *(GRID, "--cpus_per_trial=4", "--gpus_per_trial=1"), address="local"
  ).error
  assert "a trial asks for 4 CPUs and 1 GPUs" in error
  assert "no machine has both" in error
  assert not fake.is_up
  assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_a_trial_that_no_machine_can_run(programs, tmp_path):
  pytest.importorskip("ray")
  chosen = programs()
  ended = subprocess.run(
    [
      *(sys.executable, "-c", DRIVER, chosen.trial, chosen.prepare, GRID),
      *(f"--workdir={tmp_path / 'run'}", "--cpus_per_trial=4096"),
    ],
    capture_output=True,
    text=True,
    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    check=False,
  )
  error = Ended(ended.returncode, ended.stdout, ended.stderr).error
  assert "a trial asks for 4096 CPUs" in error
  assert not (tmp_path / "run" / "config.json").exists()


def test_the_executors_are_told_apart(monkeypatch):
  options = lambda **kw: sweep_options.SweepOptions(grid="head_width=1", **kw)
  with executors.choose(options(address="none")) as executor:
    assert executor.room == 1
  with pytest.raises(ValueError, match="Ray, which is not installed"):
    monkeypatch.setitem(sys.modules, "ray", None)
    executors.choose(options())


# The whole of it.


@pytest.mark.slow
def test_a_sweep_of_real_runs(own_zoo, tiny_flags, tmp_path):
  command = [sys.executable, str(sweep.__file__), *tiny_flags, "--address=none"]
  command += ["--grid=learning_rate=1e-2,1e-30", "--num_steps=60"]
  command += [f"--workdir={tmp_path / 'run'}", f"--zoo={own_zoo}"]
  ended = subprocess.run(
    [*command, "--metric=mse"],
    capture_output=True,
    text=True,
    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    check=False,
  )
  assert ended.returncode == 0, ended.stderr
  # A rate of nothing learns nothing.
  assert results(tmp_path)["selected"]["changes"]["learning_rate"] == 0.01
  one, two = results(tmp_path)["trials"]
  assert one["val"]["mse"]["mean"] < two["val"]["mse"]["mean"]
  assert results(tmp_path)["selected"]["environment"]["versions"]["jax"]
  assert (tmp_path / "run" / "trials" / "0000" / "report.md").exists()


def test_help_teaches():
  text = " ".join((sweep.__doc__ or "").split())
  for word in ("--grid", "--random", "--address", "report.md", "--num_trials"):
    assert word in text
