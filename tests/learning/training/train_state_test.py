"""Checkpoints: whole or absent, at any interruption; damaged ones refused."""

import errno
import functools
import logging as python_logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging

from sne_jax import digests, errors, room
from sne_jax.learning.training import loop, records, train_state

STATE = loop.TrainState(
  step=np.int32(3),
  params={"dense": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}},
  opt_state=(optax.EmptyState(), optax.TraceState({"a": np.ones(2)})),
  key=None,
)


def make_state(step=3):
  """A small state with a key, an empty tree and a named tuple."""
  arrays = jax.tree.map(jnp.array, STATE._replace(step=np.int32(step)))
  return arrays._replace(key=jax.random.key(9))


def record(step=0, **changes):
  """A record whose best step is `step`."""
  best = {"best_value": 0.1, "best_step": step} if step else {}
  return train_state.LoopRecord(**(best | changes))


def test_a_state_is_read_back_exactly(tmp_path):
  checkpoints = train_state.Checkpoints(tmp_path)
  checkpoints.save_best(2, STATE.params, {"mse": 0.1})
  saved = record(
    2,
    best_metrics={"mse": 0.1 + 1e-16, "tau": float("inf")},
    seconds=1 / 3,
    num_records=7,
    bad_evaluations=2,
  )
  checkpoints.save(3, make_state(), saved)

  again = train_state.Checkpoints(tmp_path)
  state, found = again.restore_or_init(make_state(step=0))
  assert found == saved
  assert state.step == 3 and state.ema is None
  assert isinstance(state.opt_state[1], optax.TraceState)
  np.testing.assert_array_equal(
    state.params["dense"]["kernel"], STATE.params["dense"]["kernel"]
  )
  np.testing.assert_array_equal(
    jax.random.key_data(state.key), jax.random.key_data(jax.random.key(9))
  )
  best = again.restore_best(state.params, found)
  np.testing.assert_array_equal(
    best["dense"]["kernel"], STATE.params["dense"]["kernel"]
  )


def test_nothing_saved_gives_the_given_state(tmp_path):
  state = make_state()
  found, empty = train_state.Checkpoints(tmp_path).restore_or_init(state)
  assert found is state and empty == train_state.LoopRecord()


def test_best_parameters_are_read_without_the_training_code(tmp_path):
  checkpoints = train_state.Checkpoints(tmp_path)
  checkpoints.save_best(5, make_state().params, {"mse": 0.25})
  params, found = train_state.load_best(tmp_path)
  assert isinstance(params["dense"]["kernel"], np.ndarray)
  np.testing.assert_array_equal(
    params["dense"]["kernel"], STATE.params["dense"]["kernel"]
  )
  assert found == {"step": 5, "mse": 0.25}
  with pytest.raises(train_state.CheckpointError, match="holds no parameters"):
    train_state.load_best(tmp_path / "elsewhere")


def folders(workdir, name):
  """Names of what lies in a folder of checkpoints."""
  return sorted(p.name for p in (workdir / "checkpoints" / name).iterdir())


@pytest.mark.parametrize("keep", [1, 2])
def test_the_latest_are_kept(tmp_path, keep):
  checkpoints = train_state.Checkpoints(tmp_path, keep=keep)
  for step in (8, 9, 10):
    checkpoints.save(step, make_state(step), record())
  assert folders(tmp_path, "latest") == sorted(["10", "9"][:keep])
  assert checkpoints.latest_step == 10


def test_a_best_is_kept_until_a_state_names_another(tmp_path):
  checkpoints = train_state.Checkpoints(tmp_path)
  checkpoints.save_best(1, STATE.params, {})
  checkpoints.save(1, make_state(1), record(1))
  checkpoints.save_best(2, STATE.params, {})
  assert folders(tmp_path, "best") == ["1", "2"]
  # Killed here: the state of step 1 knows nothing of step 2.
  again = train_state.Checkpoints(tmp_path)
  _, found = again.restore_or_init(make_state())
  assert (found.best_step, folders(tmp_path, "best")) == (1, ["1"])
  again.save_best(2, STATE.params, {})
  again.save(2, make_state(2), record(2))
  assert folders(tmp_path, "best") == ["2"]


@pytest.mark.parametrize(
  "damage", ["unfinished name", "no metadata", "no arrays", "being removed"]
)
def test_an_incomplete_checkpoint_is_not_taken_for_a_whole_one(
  tmp_path, damage
):
  train_state.Checkpoints(tmp_path).save(1, make_state(1), record())
  folder = tmp_path / "checkpoints" / "latest"
  name = {
    "unfinished name": "2.orbax-checkpoint-tmp",
    "being removed": "2.removing",
  }.get(damage, "2")
  shutil.copytree(folder / "1", folder / name)
  if damage == "no metadata":
    (folder / name / "_CHECKPOINT_METADATA").unlink()
  if damage == "no arrays":
    shutil.rmtree(folder / name / "state")
  checkpoints = train_state.Checkpoints(tmp_path)
  assert checkpoints.latest_step == 1
  assert folders(tmp_path, "latest") == ["1"]
  checkpoints.save(2, make_state(2), record())
  assert train_state.Checkpoints(tmp_path).latest_step == 2


def test_another_model_is_refused_with_the_folder_named(tmp_path):
  train_state.Checkpoints(tmp_path).save(1, make_state(1), record())
  other = make_state()._replace(params={"other": jnp.ones(4)})
  with pytest.raises(train_state.CheckpointError, match="latest/1 cannot be"):
    train_state.Checkpoints(tmp_path).restore_or_init(other)


def test_a_kill_after_the_last_save_leaves_no_old_state(tmp_path):
  checkpoints = train_state.Checkpoints(tmp_path, keep=3)
  for step in (1, 2, 3):
    checkpoints.save_best(step, STATE.params, {})
    checkpoints.save(step, make_state(step), record(step))
  checkpoints = train_state.Checkpoints(tmp_path, keep=2)
  state, _ = checkpoints.restore_or_init(make_state())
  assert state.step == 3
  assert folders(tmp_path, "latest") == folders(tmp_path, "best") == ["2", "3"]


@pytest.fixture
def quiet():
  """Takes away what a failure of the library silences."""
  hook, logger = sys.unraisablehook, logging.get_absl_logger()
  filters = list(logger.filters)
  yield
  sys.unraisablehook, logger.filters = hook, filters


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kind", ["system", "wrapped", "text"])
def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch, kind):
  checkpoints = train_state.Checkpoints(tmp_path)
  checkpoints.save_best(1, STATE.params, {})
  checkpoints.save(1, make_state(1), record(1))

  def full(path, *unused, **unused_too):
    part = pathlib.Path(f"{path}.orbax-checkpoint-tmp")
    part.mkdir()
    (part / "half").write_text("half")
    system = OSError(errno.ENOSPC, "No space left on device")
    if kind == "system":
      raise system
    if kind == "wrapped":
      raise RuntimeError("a write failed") from system
    raise ValueError("RESOURCE_EXHAUSTED: No space left on device [28]")

  with monkeypatch.context() as patch:
    patch.setattr(train_state.ocp, "save", full)
    with pytest.raises(
      train_state.CheckpointError,
      match=f"^{tmp_path}.*disk is full.*step 2 .*needed.*free;.*again.*step 1",
    ):
      checkpoints.save(2, make_state(2), record(1))
    with pytest.raises(train_state.CheckpointError, match="disk is full"):
      checkpoints.save_best(2, STATE.params, {})
  # The space is given back, and what was there is still whole.
  assert folders(tmp_path, "latest") == folders(tmp_path, "best") == ["1"]
  state, _ = train_state.Checkpoints(tmp_path).restore_or_init(make_state())
  assert state.step == 1


def test_other_failures_are_not_called_a_full_disk(tmp_path, monkeypatch):
  def refuse(*unused, **unused_too):
    raise FileNotFoundError(errno.ENOENT, "No such file or directory")

  monkeypatch.setattr(train_state.ocp, "save", refuse)
  with pytest.raises(FileNotFoundError):
    train_state.Checkpoints(tmp_path).save(2, make_state(2), record())


@pytest.mark.usefixtures("quiet")
def test_the_library_is_not_started_where_there_is_no_room(
  tmp_path, monkeypatch
):
  def never(*unused, **unused_too):
    raise AssertionError("it was started")

  monkeypatch.setattr(train_state.ocp, "save", never)
  monkeypatch.setattr(room, "free", lambda folder: 50_000)
  with pytest.raises(train_state.CheckpointError, match="50 kB are free"):
    train_state.Checkpoints(tmp_path).save(2, make_state(2), record())


@pytest.mark.usefixtures("quiet")
def test_threads_of_the_library_say_nothing_after_a_failure(monkeypatch):
  said = []
  monkeypatch.setattr(sys, "unraisablehook", said.append)
  logger = logging.get_absl_logger()
  before = sys.unraisablehook, list(logger.filters)
  with train_state._without_threads():
    pass
  assert (sys.unraisablehook, logger.filters) == before
  with pytest.raises(ValueError), train_state._without_threads():
    raise ValueError("a save fails")
  closed = RuntimeError("Event loop is closed")
  other = RuntimeError("something else")
  cases = [(closed, None), (other, None), (closed, "an object")]
  for error, owner in cases:
    sys.unraisablehook(types.SimpleNamespace(exc_value=error, object=owner))
  assert [(u.exc_value, u.object) for u in said] == cases[1:]
  [late] = [f for f in logger.filters if f not in before[1]]
  line = lambda path: python_logging.makeLogRecord({"pathname": path})
  assert not late.filter(line("/lib/orbax/checkpoint/future.py"))
  assert late.filter(line("/lib/sne_jax/learning/training/loop.py"))


# Interruptions. The work below is run here, and by the child that is killed.


@functools.cache
def make_update():
  """Returns the optimizer and the update, compiled once."""

  def loss_fn(params, batch, key):
    kept = jax.random.bernoulli(key, 0.5, batch.shape)
    return jnp.mean(((batch * kept) @ params["w"] - 1) ** 2), {}

  tx = optax.adam(0.05)
  return tx, loop.make_update_fn(loss_fn, tx, ema_decay=0.9)


def work(workdir, *, delay=0.0):
  """A short noisy training that saves, evaluates and records often."""

  def batch_fn(step):
    time.sleep(delay)
    return np.random.default_rng(step).normal(size=(4, 3)).astype(np.float32)

  def evaluate(params):  # Neither always better nor always worse.
    return {"loss": float(np.sin(40 * np.asarray(params["w"]).sum()))}

  tx, update = make_update()
  state = loop.init_state(
    {"w": jnp.zeros(3)}, tx, jax.random.key(0), ema_decay=0.9
  )
  options = loop.TrainOptions(
    num_steps=60, log_every=9, eval_every=8, save_every=12
  )
  return loop.fit(state, update, batch_fn, evaluate, options, workdir)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
  """The work, done without interruption."""
  return work(tmp_path_factory.mktemp("unbroken"))


def assert_equal_runs(result, expected, workdir):
  """Compares parameters, best and metrics bit for bit."""
  pairs = (
    (result.state.params, expected.state.params),
    (result.state.ema, expected.state.ema),
    (result.state.opt_state, expected.state.opt_state),
    (result.best_params, expected.best_params),
  )
  for a, b in pairs:
    jax.tree.map(np.testing.assert_array_equal, a, b)
  assert result.best_step == expected.best_step
  assert result.best_metrics == expected.best_metrics

  def lasting(records):
    return [
      {k: v for k, v in r.items() if not k.startswith("time/")} for r in records
    ]

  assert lasting(result.history) == lasting(expected.history)
  assert records.read_metrics(workdir) == result.history
  _, found = train_state.load_best(workdir)
  assert found == {"step": expected.best_step, **expected.best_metrics}


@pytest.mark.slow
def test_a_killed_run_ends_like_an_unbroken_one(tmp_path, unbroken):
  root = str(pathlib.Path(__file__).parents[3])  # Also without an install.
  child = subprocess.Popen(
    [sys.executable, __file__, str(tmp_path)],
    env=os.environ | {"PYTHONPATH": root},
  )
  try:
    deadline = time.monotonic() + 120
    while not records.read_metrics(tmp_path):
      assert child.poll() is None and time.monotonic() < deadline
      time.sleep(0.01)
    # From the first metric on the child needs 2.5 seconds: 51 steps of 0.05.
    time.sleep(np.random.default_rng().uniform(0, 1.0))
    assert child.poll() is None, "the child ended before it was killed"
  finally:
    child.send_signal(signal.SIGKILL)
    child.wait()
  assert len(records.read_metrics(tmp_path)) < len(unbroken.history)
  assert_equal_runs(work(tmp_path), unbroken, tmp_path)


class Killed(BaseException):
  """Stands for the end of the process."""


@pytest.mark.parametrize(
  ("owner", "name", "call", "where"),
  [
    (train_state, "_save", 1, "after"),  # A best, and no state yet.
    (train_state, "_save", 6, "before"),  # A better best, not yet named.
    (train_state, "_save", 5, "after"),
    (train_state, "_remove", 1, "before"),
    (train_state, "_remove", 2, "after"),
    (records.MetricWriter, "write", 8, "after"),
  ],
)
def test_a_run_that_dies_anywhere_ends_like_an_unbroken_one(
  tmp_path, unbroken, monkeypatch, owner, name, call, where
):
  real, calls = getattr(owner, name), []

  def dying(*args, **kwargs):
    calls.append(args)
    if len(calls) == call and where == "before":
      raise Killed
    real(*args, **kwargs)
    if len(calls) == call:
      raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(owner, name, dying)
    with pytest.raises(Killed):
      work(tmp_path)
  assert_equal_runs(work(tmp_path), unbroken, tmp_path)


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
  """The work, ended behind step 48, with the checkpoint of 36 before it."""
  folder = tmp_path_factory.mktemp("halfway")

  def saved(self, step, state, record, real=train_state.Checkpoints.save):
    real(self, step, state, record)
    if step == 48:
      raise Killed

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train_state.Checkpoints, "save", saved)
    with pytest.raises(Killed):
      work(folder)
  assert folders(folder, "latest") == ["36", "48"]
  assert folders(folder, "best") == ["48", "8"], "one for each"
  return folder


def newest(folder, kind):
  """The last checkpoint of a kind."""
  found = (folder / "checkpoints" / kind).iterdir()
  return max(found, key=lambda path: int(path.name))


def flip(path):
  data = path.read_bytes()
  path.write_bytes(data[:-1] + (bytes([data[-1] ^ 1]) if data else b"1"))


def test_every_file_of_a_checkpoint_is_compared(halfway, tmp_path):
  for kind in ("latest", "best"):
    folder = shutil.copytree(newest(halfway, kind), tmp_path / kind)
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    assert len(paths) > 5
    for path in paths:
      before = path.read_bytes()
      flip(path)
      with pytest.raises(errors.DamagedError, match=path.name):
        digests.check(folder)
      path.write_bytes(before)
    digests.check(folder)


@pytest.mark.parametrize("kind", ["latest", "best"])
def test_a_resume_takes_the_checkpoint_before_a_damaged_one(
  tmp_path, halfway, unbroken, caplog, kind
):
  workdir = shutil.copytree(halfway, tmp_path / "work")
  for path in (newest(workdir, kind) / "state" / "d").iterdir():
    flip(path)
  with caplog.at_level("WARNING", logger="absl"):
    result = work(workdir)
  [line] = [r.getMessage() for r in caplog.records]
  assert "changed or damaged" in line and f"/{kind}/" in line
  assert line.endswith("Continuing from step 36, the checkpoint before")
  assert_equal_runs(result, unbroken, workdir)


def test_a_resume_without_an_intact_checkpoint_is_refused(tmp_path, halfway):
  workdir = shutil.copytree(halfway, tmp_path / "work")
  for path in (workdir / "checkpoints" / "latest").glob("*/_CHECKPOINT_*"):
    flip(path)
  kept = folders(workdir, "latest"), folders(workdir, "best")
  with pytest.raises(
    errors.DamagedError, match="latest/48/_CHECKPOINT_META.*start the same"
  ):
    work(workdir)
  assert kept == (folders(workdir, "latest"), folders(workdir, "best"))


def test_a_checkpoint_of_before_is_read(tmp_path, halfway, unbroken):
  workdir = shutil.copytree(halfway, tmp_path / "work")
  for path in workdir.rglob(digests.FILE):
    path.unlink()
  assert_equal_runs(work(workdir), unbroken, workdir)


if __name__ == "__main__":
  jax.config.update("jax_num_cpu_devices", 2)
  work(sys.argv[1], delay=0.05)
