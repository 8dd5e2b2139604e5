"""What is read is what was written: kills, damage, and folders of before."""

import itertools
import json
import shutil

import numpy as np
import pytest

import sne_jax
from sne_jax import digests, errors
from sne_jax.encoders.baselines import stat_nn
from sne_jax.learning.evaluation import calibration
from sne_jax.learning.training import records, trainer
from sne_jax.networks import families
from tests import damage

SPEC = families.mlp((2, 3, 1))


class Killed(BaseException):
  """Stands for the end of the process."""


def test_a_file_is_what_its_digest_says(tmp_path):
  digests.put(tmp_path, {"a.json": "1", "b.bin": b"\xff"})
  digests.check(tmp_path)
  assert digests.read(tmp_path) == {
    "a.json": (digests.of_bytes(b"1"),),
    "b.bin": (digests.of_bytes(b"\xff"),),
  }
  (tmp_path / "a.json").write_text("2")
  digests.check(tmp_path, ("b.bin", "c"))
  with pytest.raises(
    errors.DamagedError,
    match=r"a\.json: changed or damaged .* sha256\.json says .*; mend it",
  ):
    digests.check(tmp_path, ("a.*",), remedy="mend it")
  (tmp_path / "b.bin").unlink()
  with pytest.raises(errors.DamagedError, match=r"b\.bin: file is missing; "):
    digests.check(tmp_path, ("b.bin",))


def test_a_folder_of_before_claims_nothing(tmp_path):
  (tmp_path / "a.json").write_text("1")
  digests.check(tmp_path, ("a.json", "gone"))
  with pytest.raises(errors.DamagedError, match=r"sha256\.json: file is miss"):
    digests.need(tmp_path)
  digests.put(tmp_path, {"b.json": "2"})
  digests.check(tmp_path, ("a.json",))
  digests.put(tmp_path, {"b.json": "2"}, also=("a.*", "gone"))
  (tmp_path / "a.json").write_text("3")
  with pytest.raises(errors.DamagedError, match=r"a\.json: changed"):
    digests.check(tmp_path)


@pytest.mark.parametrize(
  "text",
  [
    "{",
    "[]",
    "{}",
    json.dumps(digests.sealed({"files": {}, "format": "x", "version": 1})),
    json.dumps(
      digests.sealed(
        {"files": {"../a": [""]}, "format": digests.FORMAT, "version": 1}
      )
    ),
  ],
)
def test_what_is_no_manifest_is_refused(tmp_path, text):
  (tmp_path / digests.FILE).write_text(text)
  with pytest.raises(errors.DamagedError, match=r"sha256\.json: no manifest"):
    digests.check(tmp_path)


def test_a_kill_leaves_nothing_that_is_refused(tmp_path, monkeypatch):
  """At any write, before it and behind it, each file is the old or the new."""
  old, new = {"a": "1", "b": "2"}, {"b": "3", "c": "4", "a": "5"}
  real = digests.atomic.write_atomically
  seen = set()
  for call, after in itertools.product(range(1, 9), (False, True)):
    folder = tmp_path / f"{call}{after}" / "seed"
    digests.put(folder, old)
    digests.put(folder.parent, {"top": "0"}, also=("*/sha256.json",))
    calls = []

    def dying(path, content, calls=calls, call=call, after=after):
      calls.append(path)
      if len(calls) == call and not after:
        raise Killed
      written = real(path, content)
      if len(calls) == call:
        raise Killed
      return written

    with monkeypatch.context() as patch:
      patch.setattr(digests.atomic, "write_atomically", dying)
      killed = True
      try:
        digests.put(folder, new)
        killed = False
      except Killed:
        pass
    assert killed == (call <= 6)  # Above, both, three files, new.
    digests.check(folder)
    digests.check(folder.parent)
    for name in new:
      path = folder / name
      text = path.read_text() if path.exists() else None
      assert text in (old.get(name), new[name])
      seen.add((name, text == new[name]))
      if name in digests.read(folder):
        path.write_text("other")
        with pytest.raises(errors.DamagedError, match="changed"):
          digests.check(folder, (name,))
        path.write_text(text or new[name])
    digests.put(folder, new)
    assert all(len(found) == 1 for found in digests.read(folder).values())
  assert len(seen) == 6


def test_a_folder_above_forgets_what_is_written_anew(tmp_path):
  digests.put(tmp_path / "seed0", {"a": "1"})
  digests.put(tmp_path, {"top": "0"}, also=("*/sha256.json",))
  pin = "seed0/sha256.json"
  assert pin in digests.read(tmp_path)
  digests.put(tmp_path / "seed0", {"a": "2"})
  assert pin not in digests.read(tmp_path)
  digests.put(tmp_path, {"top": "0"}, also=("*/sha256.json",))
  digests.drop(tmp_path / "seed0")
  digests.check(tmp_path)
  assert not (tmp_path / pin).exists()


def test_a_reader_that_meets_a_writer_reads_again(tmp_path, monkeypatch):
  digests.put(tmp_path, {"a": "1"})
  before = digests.read(tmp_path)
  digests.put(tmp_path, {"a": "2"})
  real, given = digests.read, [before]
  monkeypatch.setattr(
    digests, "read", lambda folder: given.pop() if given else real(folder)
  )
  digests.check(tmp_path)
  assert not given


# Damage of a whole run.


@pytest.fixture(scope="module")
def parts():
  rng = np.random.default_rng(0)
  pairs = [
    (SPEC, rng.normal(size=SPEC.num_weights).astype(np.float32))
    for _ in range(20)
  ]
  values = [float(np.abs(w).mean()) for _, w in pairs]
  return sne_jax.Networks.of(pairs, {"size": values}).split(0.5, 0.25, seed=1)


@pytest.fixture(scope="module")
def trained(parts, tmp_path_factory):
  """Two finished runs, of other rates."""
  train, val, test = parts
  folders, programs = [], {}
  for rate in (1e-3, 2e-3):
    folders.append(tmp_path_factory.mktemp("runs") / "run")
    sne_jax.fit(
      *(train, val),
      tests={"test": test},
      encoder="stat_pool",
      options=stat_nn.StatOptions(width=4),
      data=sne_jax.DataOptions(batch_size=4),
      training=sne_jax.TrainOptions(
        num_steps=4, log_every=1, eval_every=2, save_every=2
      ),
      optimizer=trainer.optimizers.OptimizerOptions(learning_rate=rate),
      devices=1,
      seeds=2,
      workdir=folders[-1],
      programs=programs,
    )
  return folders


@pytest.fixture
def runs(trained, tmp_path):
  return [
    shutil.copytree(folder, tmp_path / f"run{n}")
    for n, folder in enumerate(trained)
  ]


def read_run(folder):
  """Returns all that prediction, report and resume read of a finished run."""
  model = sne_jax.Predictor.load(folder)
  seeds = []
  for seed in ("seed0", "seed1"):
    done = trainer._read(folder / seed)
    lines = records.read_metrics(folder / seed)
    seeds.append((done.params, done.result, done.codes, lines))
  known = (model.known.described(), dict(model.known.codes))
  return model.description, model.params, known, seeds


def resume(folder):
  """Compares what the resume of a run that has not finished reads first."""
  digests.check(folder, ("fit.json",))
  for path in sorted(folder.glob("seed*/checkpoints/*/*")):
    digests.check(path)


def read_all(folder):
  """Reads as predictions, report and any resume do."""
  resume(folder)
  return read_run(folder)


def check_flips(run, count, every=1):
  table = damage.flips(run, read_all, count, every)
  for name, found in table.items():
    # TensorBoard alone reads its events; empty files have no bits.
    if "tensorboard" not in name and (run / name).stat().st_size:
      assert set(found) == {damage.REFUSED}, name
  return table


def test_flipped_bits_of_a_run_are_refused(runs):
  table = check_flips(runs[0], 1, every=5)
  assert len(table) > 10


@pytest.mark.parametrize(
  "name",
  ["calibration.json", "strangers.npz", "seed0/model.json", "seed1/codes.npz"],
)
def test_a_flipped_bit_of_a_model_is_refused(runs, name):
  """By the predictor alone."""
  path = runs[0] / name
  data = path.read_bytes()
  path.write_bytes(data[:-3] + bytes([data[-3] ^ 2]) + data[-2:])
  with pytest.raises(errors.DamagedError, match=f"{name}: changed"):
    sne_jax.Predictor.load(runs[0])


def test_flipped_bits_of_the_best_parameters_are_refused(runs):
  """By the predictor alone, in every file of the checkpoint."""
  for seed in ("seed0", "seed1"):
    folder = max(
      (runs[0] / seed / "checkpoints" / "best").iterdir(),
      key=lambda path: int(path.name),
    )
    for path in damage.paths_of(folder):
      data = path.read_bytes()
      path.write_bytes(bytes([data[0] ^ 1]) + data[1:] if data else b"1")
      with pytest.raises(errors.DamagedError, match="best/"):
        sne_jax.Predictor.load(runs[0])
      with pytest.raises(errors.DamagedError, match="best/.* remove .*/seed"):
        trainer._read(runs[0] / seed)
      path.write_bytes(data)


def test_larger_damage_of_a_run_is_refused(runs):
  found = damage.outcomes(*runs, read_all, every=23)
  assert found["swapped", damage.REFUSED] and found["cut", damage.REFUSED]


@pytest.mark.slow
def test_every_damage_of_a_run_is_refused(runs):
  table = check_flips(runs[0], damage.PLACES)
  print(damage.lines(table))  # noqa: T201
  found = damage.outcomes(*runs, read_all)
  for kind, count in sorted(found.items()):
    print(*kind, count)  # noqa: T201
  assert found["another", damage.REFUSED] > 10


def test_metrics_come_back_in_their_order(trained):
  result = json.loads((trained[0] / "seed0" / "result.json").read_text())
  found = list(result["metrics"]["test"]["size"])
  assert found == [name for name in calibration.METRICS if name in found]
  assert found != sorted(found)


def test_the_brave_read_what_is_damaged(runs):
  file = runs[0] / "seed0" / "model.json"
  file.write_text(file.read_text() + "\n")
  with pytest.raises(errors.DamagedError, match=r"model\.json.*verify=False"):
    sne_jax.Predictor.load(runs[0])
  assert sne_jax.Predictor.load(runs[0], verify=False).targets == ("size",)


def test_seeds_of_other_runs_and_lost_digests_are_refused(runs):
  one, other = runs
  sne_jax.Predictor.load(one / "seed0")
  shutil.rmtree(one / "seed0")
  shutil.copytree(other / "seed0", one / "seed0")
  with pytest.raises(errors.DamagedError, match=r"seed0/sha256\.json: changed"):
    sne_jax.Predictor.load(one)
  (one / digests.FILE).unlink()
  with pytest.raises(errors.DamagedError, match=r"run0/sha256\.json: file is"):
    sne_jax.Predictor.load(one)
  (other / "seed1" / digests.FILE).unlink()
  with pytest.raises(errors.DamagedError, match=r"seed1/sha256\.json: file is"):
    sne_jax.Predictor.load(other / "seed1")


def test_a_saved_model_is_compared_too(runs, tmp_path):
  model = sne_jax.Predictor.load(runs[0])
  model.save(tmp_path / "saved")
  again = sne_jax.Predictor.load(tmp_path / "saved")
  np.testing.assert_array_equal(
    *(np.concatenate([*m.known.codes.values()]) for m in (model, again))
  )
  digests.check(tmp_path / "saved")
  path = tmp_path / "saved" / "seed1" / "model.json"
  path.write_text(path.read_text() + " ")
  with pytest.raises(errors.DamagedError, match="seed1/model.json: changed"):
    sne_jax.Predictor.load(tmp_path / "saved")
