"""Whole runs of run.py: what they leave, continue, refuse and survive."""

import errno
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments import run as run_lib
from sne_jax import digests, predictor, room
from sne_jax.cli import config
from sne_jax.cli.atlas import gathering
from sne_jax.learning.evaluation import references
from sne_jax.learning.training import loop, records, train_state
from sne_jax.networks import families
from sne_jax.zoo.store import lock, store
from tests.cli.atlas import reading

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def done(launch, tiny_zoo, tmp_path_factory):
  """A finished run of two seeds, with two of the references."""
  workdir = tmp_path_factory.mktemp("done") / "run"
  few = lambda parts, **_: {
    "constant": references.constant(parts),
    "ridge": references.ridge(parts),
  }
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(references, "all_references", few)
    ended = launch(workdir, tiny_zoo, "--seeds=2", "--references")
  assert ended.code == 0, ended
  return workdir, ended


@pytest.fixture
def copy(done, tmp_path):
  """A copy of the finished run."""
  return pathlib.Path(shutil.copytree(done[0], tmp_path / "run"))


@pytest.fixture
def trained(monkeypatch):
  """The titles of the trainings that a test has started."""
  titles, fit = [], loop.fit

  def counted(*args, title, **kwargs):
    titles.append(title)
    return fit(*args, title=title, **kwargs)

  monkeypatch.setattr(loop, "fit", counted)
  return titles


def params(workdir, seed=0):
  return train_state.load_best(workdir / f"seed{seed}")[0]


def same(one, other):
  return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def contents(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(pathlib.Path(folder).rglob("*"))
    if path.is_file()
  }


def test_a_run_leaves_what_it_promises(done):
  workdir, ended = done
  names = {path.name for path in workdir.iterdir()}
  assert names == {
    *("report.md", "figures", "results.json", "flags.txt", "config.json"),
    *("environment.json", "data.json", "calibration.json", "fit.json"),
    *("strangers.npz", "seed0", "seed1", "sha256.json", "report.html"),
    "tensorboard",
  }
  assert {path.name for path in (workdir / "figures").iterdir()} == {
    *("predicted_frequency.png", "error_frequency.png"),
    *("learning_curves.png", "invariance.png"),
  }
  assert not (workdir.parent / "run.lock").exists()
  last = ended.out.splitlines()[-1]
  assert last == f"The report is {workdir / 'report.md'}"
  report = (workdir / "report.md").read_text()
  assert "mean of 2 seed(s)" in report
  assert "figures/predicted_frequency.png" in report
  assert "reference: ridge" in report
  inexact = "chunk_function=linear reads weights in their order"
  assert inexact in report.partition("## Notes")[2]
  results = json.loads((workdir / "results.json").read_text())
  assert results["sizes"] == {"train": 14, "val": 5, "test": 5}
  (zoo,) = gathering.zoos_of(workdir)
  header, _ = reading.data_of((workdir / "report.html").read_text())
  opened = store.Zoo.open(zoo)
  split = opened.split(gathering.split_of(workdir))
  assert header["names"] == list(opened.members["id"][split["test"]])
  assert results["environment"]["versions"]["jax"]
  one, two = (s["metrics"]["test"]["mse"]["value"] for s in results["seeds"])
  assert one != two
  assert results["summary"]["mse"]["mean"] == pytest.approx((one + two) / 2)


def test_predictions_belong_to_the_reported_metrics(done, tiny_zoo):
  """The reported error is that of the saved model on the test networks."""
  zoo = store.Zoo.open(tiny_zoo)
  rows = zoo.split("default")["test"]
  networks = [(zoo.specs[0], vector) for vector in zoo.vectors(rows)]
  model = predictor.Predictor.load(done[0] / "seed1")
  found = model.predict(networks)[:, 0]
  mse = np.mean((found - zoo.property("frequency")[rows]) ** 2)
  result = json.loads((done[0] / "seed1" / "result.json").read_text())
  reported = result["metrics"]["test"]["frequency"]["mse"]["value"]
  assert mse == pytest.approx(reported, rel=1e-5)
  np.testing.assert_allclose(
    found, np.array(result["predictions"]["test"])[:, 0], rtol=1e-5
  )


def test_flags_repeat_the_run(done, resolve):
  again = resolve(f"--flagfile={done[0] / 'flags.txt'}")
  found = json.loads((done[0] / "config.json").read_text())
  assert config.resolved(*again.groups()) == found


def test_finished_seeds_are_not_trained_again(copy, launch, tiny_zoo, trained):
  before = contents(copy / "seed0")
  ended = launch(copy, tiny_zoo, "--seeds=2")
  assert ended.code == 0
  assert trained == []
  assert contents(copy / "seed0") == before


@pytest.mark.slow
def test_more_seeds_continue(copy, launch, tiny_zoo, trained):
  ended = launch(copy, tiny_zoo, "--seeds=3")
  assert ended.code == 0
  assert trained == ["seed 2"]
  results = json.loads((copy / "results.json").read_text())
  assert [entry["seed"] for entry in results["seeds"]] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 4])
def test_a_full_disk_loses_nothing(
  at, done, launch, tiny_zoo, tmp_path, monkeypatch
):
  """The write that fails is the first of all, or one in the middle."""
  save, count = train_state.ocp.save, []

  def full(path, *args, **kwargs):
    count.append(path)
    if len(count) == at:
      pathlib.Path(path).mkdir()  # A part was written.
      raise OSError(errno.ENOSPC, "No space left on device")
    return save(path, *args, **kwargs)

  monkeypatch.setattr(train_state.ocp, "save", full)
  ended = launch(tmp_path / "run", tiny_zoo)
  assert "the disk is full" in ended.error
  assert "give the same command again" in ended.error
  ended = launch(tmp_path / "run", tiny_zoo)
  assert ended.code == 0
  assert same(params(tmp_path / "run"), params(done[0]))


def test_a_full_disk_while_writing_metrics(
  launch, tiny_zoo, tmp_path, monkeypatch
):
  def full(self, step, values, prefix=""):
    raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

  monkeypatch.setattr(records.MetricWriter, "write", full)
  ended = launch(tmp_path / "run", tiny_zoo)
  assert ended.code == room.EXIT_CODE
  assert "the disk is full: metrics.jsonl cannot be written" in ended.error


def test_a_damaged_checkpoint_is_named(copy, launch, tiny_zoo):
  (copy / "seed0" / "result.json").unlink()
  for path in (copy / "seed0" / "checkpoints" / "latest").rglob("*"):
    if path.is_file() and path.parent.name == "d":
      path.write_bytes(b"?")
  error = launch(copy, tiny_zoo).error
  assert "checkpoints/latest/12/state/d/" in error
  assert "changed or damaged since it was written" in error


def test_one_seed_that_diverges_is_reported(
  copy, launch, tiny_zoo, monkeypatch
):
  (copy / "seed1" / "result.json").unlink()

  def diverge(*args, **kwargs):
    raise loop.TrainingDiverged(3, float("nan"), "loss is nan")

  monkeypatch.setattr(loop, "fit", diverge)
  ended = launch(copy, tiny_zoo, "--seeds=2")
  assert ended.code == 0
  assert "seed 1 failed: training diverged" in ended.out
  report = (copy / "report.md").read_text()
  assert "**Seed 1 failed**" in report
  assert "mean of 1 seed(s)" in report
  results = json.loads((copy / "results.json").read_text())
  assert results["summary"]["mse"]["count"] == 1


def test_training_that_diverges_takes_one_line(launch, tiny_zoo, tmp_path):
  ended = launch(
    *(tmp_path / "run", tiny_zoo),
    *("--optimizer=sgd", "--learning_rate=1e30", "--clip_norm=0"),
  )
  assert "training diverged" in ended.error
  assert str(tmp_path / "run" / "report.md") in ended.error
  assert "**Seed 0 failed**" in (tmp_path / "run" / "report.md").read_text()


def test_the_compilation_cache_is_filled(done):
  """`done` has run with --compilation_cache."""
  folder = pathlib.Path(
    json.loads((done[0] / "config.json").read_text())["RunOptions"][
      "compilation_cache"
    ]
  )
  assert any(name.startswith("jit_update") for name in os.listdir(folder))


# What is refused.


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("--learning_rate=0.5", "OptimizerOptions.learning_rate: 0.001 there"),
    ("--width=16", "SNEOptions.width"),
  ],
)
def test_a_workdir_of_another_configuration(
  copy, launch, tiny_zoo, flag, words
):
  before = contents(copy)
  error = launch(copy, tiny_zoo, flag).error
  assert words in error
  assert "choose another workdir" in error
  assert contents(copy) == before


def test_two_processes_in_one_workdir(copy, launch, tiny_zoo, trained):
  before = contents(copy)
  with lock.folder_lock(str(copy)):
    error = launch(copy, tiny_zoo, "--seeds=3").error
  assert f"process {os.getpid()} is writing here" in error
  assert contents(copy) == before
  assert trained == []


def test_the_lock_of_a_dead_process_is_taken_over(copy, launch, tiny_zoo):
  held = pathlib.Path(f"{copy}.lock")
  held.write_text("999999999")
  assert launch(copy, tiny_zoo, "--seeds=2").code == 0
  assert not held.exists()


def test_networks_that_have_changed_since(copy, launch, tiny_zoo, write_zoo):
  assert launch(copy, tiny_zoo, "--seeds=2").code == 0
  data = json.loads((copy / "data.json").read_text())
  other = json.dumps(data | {"networks": "other"})
  (copy / "data.json").write_text(other)
  error = launch(copy, tiny_zoo, "--seeds=3").error
  assert "data.json: changed or damaged" in error
  digests.put(copy, {"data.json": other})
  error = launch(copy, tiny_zoo, "--seeds=3").error
  assert "has changed since" in error
  assert "(networks)" in error


def truncated(zoo):
  path = zoo / "weights-0.safetensors"
  path.write_bytes(path.read_bytes()[:-10])
  return "weights-0.safetensors: cut short"


def flipped(zoo):
  path = zoo / "weights-0.safetensors"
  data = bytearray(path.read_bytes())
  data[-5] ^= 1
  path.write_bytes(bytes(data))
  return "weights-0.safetensors: contents changed"


def missing(zoo):
  (zoo / "weights-0.safetensors").unlink()
  return "weights-0.safetensors: file is missing"


def rewritten(zoo, change):
  """Changes the weights and their checksum, as a faulty program would."""
  path = zoo / "weights-0.safetensors"
  weights = change(safetensors.numpy.load_file(path)["weights"])
  safetensors.numpy.save_file({"weights": weights}, path)
  index = json.loads((zoo / "zoo.json").read_text())
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  index["specs"][0]["weights"]["sha256"] = digest
  (zoo / "zoo.json").write_text(json.dumps(digests.sealed(index)))


def not_finite(zoo):
  def change(weights):
    weights[3, 2] = np.nan
    return weights

  rewritten(zoo, change)
  return "weights of 1 valid members are NaN or infinite: 'n003'"


def wrong_shape(zoo):
  rewritten(zoo, lambda weights: weights[:, 1:].copy())
  return "shape is (24, 32) where (24, 33) is due"


def unknown_kind(zoo):
  text = (zoo / "zoo.json").read_text()
  kind = json.loads(text)["specs"][0]["spec"]["tensors"][0]["kind"]
  index = json.loads(text.replace(f'"{kind}"', '"quantum"'))
  (zoo / "zoo.json").write_text(json.dumps(digests.sealed(index)))
  return "quantum"


def newer(zoo):
  index = json.loads((zoo / "zoo.json").read_text())
  (zoo / "zoo.json").write_text(json.dumps(index | {"version": 99}))
  return "install a newer sne_jax"


DAMAGES = (
  *(truncated, flipped, missing, not_finite, wrong_shape, unknown_kind),
  newer,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_a_damaged_zoo(damage, own_zoo, launch, tmp_path):
  words = damage(own_zoo)
  before = contents(own_zoo)
  error = launch(tmp_path / "run", own_zoo).error
  assert words in error
  assert str(own_zoo) in error
  assert contents(own_zoo) == before
  assert not (tmp_path / "run" / "seed0").exists()


def test_the_undamaged_zoo_is_fine(own_zoo):
  """The control of the test above."""
  rewritten(own_zoo, lambda weights: weights)
  assert len(store.Zoo.open(own_zoo)) == 24


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("--widht=8", "Did you mean: width"),
    ("--width=9", "width 9 is not a multiple of heads 2"),
    ("--encoder=snee", "encoder is 'snee'; choose one of"),
    ("--targets=", "targets is empty"),
    ("--targets=accuracy", "no property 'accuracy'"),
    ("--targets=dataset", "is text"),
    ("--train_members=500 --split=new", "ask for 510"),
    ("--seeds=0", "seeds is 0"),
    ("--monitor=accuracy", "choose loss or kendall_tau"),
    ("--target_scale=ln", "target_scale is 'ln'; choose one of linear, log"),
    ("--target_scale=log --loss=bce", "target_scale is log, but loss is bce"),
    ("--loss=classes", "is a number, and loss is classes"),
    ("--variants=everything", "known are"),
    ("--only=full", "variants is empty"),
    ("--devices=99", "num_devices must be from 1"),
    ("--flagfile=absent.flags", "absent.flags"),
    ("--loss=bce", "needs targets in [0, 1]"),
    ("--invariance_weight=nan", "invariance_weight is nan"),
    ("--augment_noise=-1", "augment_noise is -1"),
    ("--augment_translate=nan", "augment_translate is nan"),
    ("--augment_mixup=beta", "augment_mixup is 'beta'; choose one of none"),
  ],
)
def test_flags_that_cannot_be(flag, words, own_zoo, launch, tmp_path):
  assert words in launch(tmp_path / "run", own_zoo, *flag.split()).error
  # The folder stays free for the flags as they were meant.
  assert not (tmp_path / "run" / "config.json").exists()


def test_a_fault_of_ours_keeps_its_traceback(
  launch, tiny_zoo, tmp_path, monkeypatch
):
  def broken(*args, **kwargs):
    raise RuntimeError("a bug")

  monkeypatch.setattr(loop, "fit", broken)
  with pytest.raises(RuntimeError, match="a bug"):
    launch(tmp_path / "run", tiny_zoo)


def test_ctrl_c_takes_one_line(launch, tiny_zoo, tmp_path, monkeypatch):
  def interrupted(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(loop, "fit", interrupted)
  ended = launch(tmp_path / "run", tiny_zoo)
  assert ended.code == 130
  assert ended.err.endswith("error: interrupted; the same command continues\n")
  assert not (tmp_path / "run.lock").exists()


# Networks unlike those of the training.


@pytest.mark.parametrize("hidden", [1, pytest.param(9, marks=pytest.mark.slow)])
def test_a_network_deeper_or_shallower_than_any_seen(done, hidden):
  """Levels have sinusoids, which go on: a prediction for every depth."""
  spec = families.inr((1, *[4] * hidden, 1))
  weights = np.random.default_rng(0).normal(size=spec.num_weights)
  model = predictor.Predictor.load(done[0] / "seed0")
  assert model.description["max_level"] == 2
  found = model.predict([(spec, weights.astype(np.float32))])
  assert np.isfinite(found).all()


# The program itself.


def program(*arguments):
  return subprocess.run(
    [sys.executable, str(ROOT / "experiments" / "run.py"), *arguments],
    capture_output=True,
    text=True,
    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    check=False,
  )


def test_the_program_names_a_misspelt_flag(tmp_path):
  ended = program("--widht=8", f"--workdir={tmp_path / 'run'}")
  assert ended.returncode == 2
  assert ended.stdout == ""
  assert ended.stderr.startswith("error: ")
  assert ended.stderr.count("\n") == 1
  assert "Did you mean: width" in ended.stderr
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_program_names_a_damaged_zoo(own_zoo, tmp_path):
  words = flipped(own_zoo)
  ended = program(f"--workdir={tmp_path / 'run'}", f"--zoo={own_zoo}")
  assert ended.returncode == 2
  assert ended.stderr.startswith("error: ")
  assert ended.stderr.count("\n") == 1
  assert words in ended.stderr


def test_help_teaches(resolve):
  text = " ".join((run_lib.__doc__ or "").split())
  for word in ("quickstart.flags", "report.md", "--workdir", "--variants"):
    assert word in text
  for option in resolve().groups():
    assert type(option).__doc__


def test_options_that_are_wrong_leave_no_folder(tmp_path):
  workdir = tmp_path / "new" / "run"

  def failing(error):
    with run_lib.claim_workdir(workdir, {"a": 1}, ""):
      (workdir / "environment.json").write_text("{}")
      raise error

  for error in (ValueError("a typo"), SystemExit(2)):
    with pytest.raises(type(error)):
      failing(error)
    assert list(tmp_path.iterdir()) == []
  workdir.mkdir(parents=True)
  (workdir / "mine").touch()
  with pytest.raises(ValueError, match="a typo"):
    failing(ValueError("a typo"))
  assert [path.name for path in workdir.iterdir()] == ["mine"]


def test_what_a_kill_has_left_is_removed(tmp_path):
  (tmp_path / "run" / "seed0").mkdir(parents=True)
  left = [tmp_path / "run" / ".a.json.12.tmp"]
  left.append(tmp_path / "run" / "seed0" / ".b.json.12.tmp")
  for path in left:
    path.touch()
  with run_lib.claim_workdir(tmp_path / "run", {"a": 1}, ""):
    assert not any(path.exists() for path in left)


def test_folders_of_before_hold_options_of_encoders_not_in_use(tmp_path):
  before = {"EncoderOptions": {"mlp_width": 8, "stat_width": 9}}
  with run_lib.claim_workdir(tmp_path / "run", before, ""):
    pass
  with run_lib.claim_workdir(
    tmp_path / "run", {"EncoderOptions": {"mlp_width": 8}}, ""
  ):
    pass
  other = {"EncoderOptions": {"mlp_width": 4}}
  with (
    pytest.raises(ValueError, match="mlp_width: 8 there, 4 now"),
    run_lib.claim_workdir(tmp_path / "run", other, ""),
  ):
    pass
