"""Shortages: what counts as one, what is said of it, how much is expected."""

import errno
import os
import resource
import signal

import numpy as np
import pytest

from sne_jax import atomic, room
from sne_jax.checkpoints import foreign
from sne_jax.cli import config
from sne_jax.learning.training import train_state
from sne_jax.networks import families
from sne_jax.zoo.inrs import generate
from sne_jax.zoo.store import partial, writing


def left(main, capsys):
  """Returns exit code and line of a program."""
  with pytest.raises(SystemExit) as ended:
    config.guarded(lambda _: main(), ["program"])
  return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
  ("number", "said"),
  [
    (errno.ENOSPC, "the disk is full"),
    (errno.EDQUOT, "the quota of the disk is used up"),
    (errno.EROFS, "the folder is read-only"),
    (errno.EACCES, "there is no permission"),
    (errno.EMFILE, "too many files are open in this process"),
    (errno.EFBIG, "a file may not become so large"),
  ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_a_shortage_is_one_line(number, said, hidden, tmp_path, capsys):
  path = tmp_path / "run" / "file"

  def main():
    error = OSError(number, os.strerror(number), str(path))
    if hidden:  # As libraries do.
      raise KeyError(f"RESOURCE_EXHAUSTED: {os.strerror(number)} [1]")
    raise error

  if hidden:
    with pytest.raises(room.NoRoom) as caught, room.writing(path, "it", 1500):
      main()
    line = str(caught.value)
    assert "it cannot be written, 1.5 kB are needed" in line
  else:
    code, line = left(main, capsys)
    assert code == room.EXIT_CODE
    assert "file cannot be" in line
  assert f"{tmp_path}/run: {said}" in line
  assert line.count("\n") == (not hidden)
  assert ("are free" in line) == (number in (errno.ENOSPC, errno.EDQUOT))
  assert "give the same command again; it continues" in line


def test_what_is_no_shortage_stays_as_it_is(tmp_path, capsys):
  for error in (FileNotFoundError(errno.ENOENT, "gone"), KeyError("a")):
    with pytest.raises(type(error)), room.writing(tmp_path / "file"):
      raise error
  with pytest.raises(KeyError):
    config.guarded(lambda _: {}["a"], ["program"])

  code, line = left(lambda: train_state.load_best(tmp_path), capsys)
  assert code == 2 and "holds no parameters" in line


def test_no_file_is_at_fault_where_too_many_are_open(tmp_path, capsys):
  path = tmp_path / "a.safetensors"

  def main():
    cause = OSError(errno.EMFILE, "Too many open files", str(path))
    with foreign.guard(str(path), "cannot be mapped", OSError):
      raise cause

  code, line = left(main, capsys)
  assert code == room.EXIT_CODE and "restore" not in line
  assert "too many files are open" in line and "ulimit -n 4096" in line


@pytest.mark.parametrize(
  "error",
  [
    MemoryError("Unable to allocate 9 TiB"),
    RuntimeError("RESOURCE_EXHAUSTED: Unable to allocate 9 TiB on a device"),
  ],
)
def test_memory_that_runs_out_is_one_line(error, capsys):
  def main():
    raise error

  code, line = left(main, capsys)
  assert code == room.EXIT_CODE
  assert line.startswith("error: memory has run out (Unable to allocate 9 TiB")
  assert "batch_members" in line
  assert room.explained(error, ["runs/a", "b"]).startswith("runs/a: memory has")


def test_a_limit_of_the_system_leaves_the_old_file(tmp_path):
  path = tmp_path / "file"
  atomic.write_atomically(path, "old")
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
  try:
    with pytest.raises(room.NoRoom, match=f"^{tmp_path}: .*ulimit -f.*: file "):
      atomic.write_atomically(path, bytes(5000))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["file"]


def test_a_margin_is_asked_for_beyond_what_is_there(tmp_path, monkeypatch):
  monkeypatch.setattr(room, "free", lambda folder: 1_100)
  room.check(tmp_path / "run", 1_000, "the zoo")
  room.check(tmp_path / "run", 3_000, "the zoo", there=2_000)
  with pytest.raises(room.NoRoom, match="the zoo .* 1.11 kB are needed"):
    room.check(tmp_path / "run", 1_010, "the zoo")


def test_room_is_that_of_the_folder_above_which_is_there(tmp_path):
  here, above = room.free(tmp_path / "a" / "b"), room.free(tmp_path)
  assert abs(here - above) < 1e9 and above > 0


def test_a_zoo_takes_what_is_expected(tmp_path):
  spec, count = families.inr((1, 8, 8, 1)), 2000
  rng = np.random.default_rng(0)
  weights = rng.normal(size=(count, spec.num_weights)).astype(np.float32)
  names = [f"network-{n:06d}" for n in range(count)]
  values = writing.Property(rng.normal(size=count), "random")
  writing.write_zoo(
    tmp_path / "zoo",
    specs=[spec],
    weights=[weights],
    ids=names,
    properties={"one": values, "two": values},
    splits={"default": {"train": names}},
  )
  taken = room.taken(tmp_path / "zoo") + weights.nbytes  # And its parts.
  expected = room.of_zoo(count, spec.num_weights, 2)
  assert 0.8 * expected < taken < room.MARGIN * expected


@pytest.mark.parametrize("networks", [100, 200])
def test_a_zoo_that_will_not_fit_is_not_begun(networks, tmp_path, monkeypatch):
  options = generate.InrZooOptions(num_networks=networks)
  weights = 4 * generate.inr_spec(options).num_weights
  monkeypatch.setattr(room, "free", lambda folder: 2 * networks * weights)
  with pytest.raises(room.NoRoom, match=f"^{tmp_path}: .*the zoo .*needed"):
    generate.generate_inr_zoo(tmp_path / "zoo", options)
  assert not list(tmp_path.iterdir())
  begun = []
  monkeypatch.setattr(room, "free", lambda folder: 3 * networks * weights)
  monkeypatch.setattr(partial, "begin", lambda *_: begun.append(1) or 1)
  monkeypatch.setattr(generate, "_fit_all", lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    generate.generate_inr_zoo(tmp_path / "zoo", options)
  assert begun


def test_a_training_takes_what_is_expected(tmp_path):
  arrays = np.random.default_rng(0).normal(size=(3, 100_000))
  params, state = {"a": arrays[0]}, {"a": arrays, "step": np.zeros(1)}
  checkpoints = train_state.Checkpoints(tmp_path, keep=2)
  record = train_state.LoopRecord(best_value=1.0, best_step=1)
  checkpoints.save_best(1, params, {})
  checkpoints.save(1, state, record)
  size = train_state.num_bytes
  one = size(params) + size(state)
  assert 0.8 * one < room.taken(tmp_path) < one
  expected = room.of_training(
    size(params), size(state), seeds=2, keep=2, records=100
  )
  assert expected == 2 * (3 * one + 100_000)
