"""Runs that sample networks: what they leave, and what may choose."""

import json
import pathlib
import shutil
import types
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from absl import flags

from experiments import run as run_lib
from experiments.tasks import anchors, sampling
from sne_jax.cli import config
from sne_jax.cli.commands import zoo as make_zoo
from sne_jax.learning.generative import generation
from sne_jax.learning.selfsup import pretraining
from sne_jax.networks import families, standardise
from sne_jax.zoo.classifiers import fine_tune

ZOO = (
  *("--dataset=digits", "--train_images=90", "--test_images=40"),
  *("--num_networks=10", "--architecture=mlp", "--activation=relu"),
  *("--optimizer=adam", "--initializer=he_normal", "--learning_rate=0.01"),
  *("--weight_decay=0", "--dropout=0", "--train_fraction=1"),
  *("--batch_size=30", "--snapshots=3,6", "--cpu_devices=2"),
  *("--validation_share=0.2", "--test_share=0.2"),
)
METHODS = ("kde_coupled", "subsample", "weights_gauss")
SAMPLE = (
  *("--snapshots=last", "--sample_networks=2", "--sample_candidates=4"),
  *("--sample_epochs=2", "--sample_bandwidths=0.02", "--sample_anchors=0.5"),
  *("--sample_validation_images=50", f"--sample_methods={','.join(METHODS)}"),
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
  """The flagfile of a zoo that is there."""
  folder = tmp_path_factory.mktemp("zoos")
  flagfile = folder / "own.flags"
  flagfile.write_text("\n".join([f"--zoo={folder / 'own'}", *ZOO]) + "\n")
  values = flags.FlagValues()
  make_zoo.define_flags(values)
  config.parse(["make_zoo.py", f"--zoo={folder / 'own'}", *ZOO], values)
  make_zoo.main([], values)
  return flagfile


def codec_of(model, spec, workdir):
  """No autoencoder is trained: the weights themselves are the codes."""
  del model, workdir
  rng = np.random.default_rng(0)
  weights = 0.3 * rng.normal(size=(4, spec.num_weights))
  return generation.weight_codec(spec, standardise.measure(spec, weights))


def untrained(patch):
  """See `codec_of`."""
  patch.setattr(sampling, "opened", lambda workdir: None)
  patch.setattr(sampling, "codec_of", codec_of)
  patch.setattr(sampling, "digest", lambda model: "one")


@pytest.fixture(autouse=True)
def codec(monkeypatch):
  untrained(monkeypatch)


@pytest.fixture(scope="module")
def done(launch, zoo, tmp_path_factory):
  """A finished run of two seeds, on two data sets."""
  workdir = tmp_path_factory.mktemp("done") / "run"
  with pytest.MonkeyPatch.context() as patch:
    untrained(patch)
    ended = start(launch, workdir, zoo, "--seeds=2")
  assert ended.code == 0, ended
  return workdir


def start(launch, workdir, zoo, *more):
  more = ("--sample_images=digits_inverted", *SAMPLE, *more)
  return launch(workdir, zoo, "--sample_from=somewhere", *more)


def parts(workdir, seed=0):
  folder = pathlib.Path(workdir) / f"seed{seed}" / sampling.PARTS_FOLDER
  return {
    path.name: safetensors.numpy.load_file(path)
    for path in sorted(folder.iterdir())
  }


def test_a_run_samples_tunes_and_says_so(done):
  results = json.loads((done / "results.json").read_text())
  assert list(results["curves"]) == ["digits", "digits_inverted"]
  own = results["curves"]["digits"]
  assert list(own) == [*sampling.BASELINES, *METHODS]
  for curves in own.values():
    assert len(curves["test"]["mean"]) == 3 and curves["test"]["count"] == 4
  first = {name: curves["test"]["mean"][0] for name, curves in own.items()}
  assert first["prompt"] > 0.5 and first["kde_coupled"] > 0.5
  assert first["scratch"] < 0.3 and first["weights_gauss"] < 0.3
  # Through a codec that loses nothing, anchors are what they were.
  assert own["prompt"] == own["reconstructed"]
  assert own["scratch"]["test"]["mean"][2] > first["scratch"] + 0.1
  assert results["chosen"]["kde_coupled"]["distance"] < 0.5
  assert results["chosen"]["weights_gauss"]["distance"] > 2
  text = (done / "report.md").read_text()
  assert "## digits_inverted" in text and "Test images chose nothing" in text
  for name in results["curves"]:
    assert (done / "figures" / f"{name}.png").stat().st_size > 5000


def test_test_images_choose_nothing(done, launch, zoo, monkeypatch, tmp_path):
  """Others change what is reported, and nothing else: to the bit."""
  before, load = parts(done), anchors.load_parts

  def changed(*args):
    found = load(*args)
    size = found.sizes[2]
    labels = found.labels.copy()
    labels[-size:] = (labels[-size:] + 1) % 10
    pixels = found.pixels.copy()
    pixels[-size:] = pixels[-size:][::-1]
    return found._replace(pixels=pixels, labels=labels)

  monkeypatch.setattr(anchors, "load_parts", changed)
  again = tmp_path / "again"
  assert start(launch, again, zoo, "--seeds=1").code == 0
  after, differ = parts(again), 0
  assert before.keys() == after.keys()
  for name, arrays in before.items():
    for key, array in arrays.items():
      if key == "test":
        differ += (array != after[name][key]).any()
      else:
        np.testing.assert_array_equal(array, after[name][key], err_msg=name)
  assert differ >= 4


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(done, launch, zoo, monkeypatch):
  copy = done.parent / "copy"
  shutil.copytree(done, copy)
  before = json.loads((copy / "results.json").read_text())
  gone = sorted((copy / "seed1" / sampling.PARTS_FOLDER).iterdir())[-2:]
  for path in gone:
    path.unlink()
  tuned, tune = [], fine_tune.Tuner.tune

  def counted(self, *args):
    tuned.append(1)
    return tune(self, *args)

  monkeypatch.setattr(fine_tune.Tuner, "tune", counted)
  monkeypatch.setattr(generation, "sample", None)  # Nothing is drawn anew.
  assert start(launch, copy, zoo, "--seeds=2").code == 0
  assert len(tuned) == 2
  after = json.loads((copy / "results.json").read_text())
  assert after["curves"] == before["curves"]
  assert after["chosen"] == before["chosen"]
  # Not with another autoencoder: what is there is of this one.
  monkeypatch.setattr(sampling, "digest", lambda model: "two")
  ended = start(launch, copy, zoo, "--seeds=2")
  assert "somewhere has changed since" in ended.error
  assert "(autoencoder)" in ended.error


def test_bad_input_takes_one_line(launch, zoo, tmp_path, monkeypatch):
  ended = start(launch, tmp_path / "a", zoo.parent / "own")
  assert "does not say where its images are" in ended.error
  ended = start(launch, tmp_path / "b", zoo, "--sample_methods=kde,magic")
  assert "unknown sampler 'magic'" in ended.error
  ended = start(launch, tmp_path / "c", zoo, "--matrix=each")
  assert "sample_from is somewhere and matrix is each" in ended.error
  monkeypatch.undo()
  ended = start(launch, tmp_path / "d", zoo)
  assert "somewhere is no work directory of an autoencoder" in ended.error
  assert not (tmp_path / "d" / "config.json").exists()


def test_a_flagfile_is_trained_first(tmp_path, monkeypatch):
  trained = []
  monkeypatch.setattr(run_lib, "run", lambda o: trained.append(o.run.pretrain))
  flagfile, workdir = tmp_path / "a.flags", str(tmp_path / "ae")
  flagfile.write_text(f"--workdir={workdir}\n--pretrain=sane\n")
  assert run_lib.autoencoder_of(str(flagfile)) == workdir
  assert trained == ["sane"]
  assert run_lib.autoencoder_of("some/folder") == "some/folder"
  flagfile.write_text(f"--workdir={workdir}\n")
  with pytest.raises(ValueError, match="trains no autoencoder"):
    run_lib.autoencoder_of(str(flagfile))
  assert trained == ["sane"]


def test_an_autoencoder_of_other_networks_is_refused(tmp_path, monkeypatch):
  monkeypatch.undo()
  spec = families.mlp((3, 4, 2))
  folder = tmp_path / "run" / "seed0"
  folder.mkdir(parents=True)
  (folder / pretraining.FILE).write_text("{}")
  for name, reconstruct, match in (
    ("sne", None, "sne has no decoder"),
    ("sane", lambda *unused: None, "the autoencoder is of mlp"),
  ):
    model: Any = object.__new__(pretraining.Pretrained)
    model.description = {"method": name}
    model.method = types.SimpleNamespace(reconstruct=reconstruct)
    model.spec = families.mlp((3, 5, 2)).layout
    monkeypatch.setattr(
      pretraining.Pretrained, "load", lambda folder, model=model: model
    )
    with pytest.raises(ValueError, match=match):
      workdir = str(tmp_path / "run")
      sampling.codec_of(sampling.opened(workdir), spec, workdir)


def test_images_that_do_not_fit_and_no_anchors_are_refused(
  launch, zoo, tmp_path, monkeypatch
):
  load = anchors.load_parts

  def larger(*args):
    found = load(*args)
    if args[-1] == "digits":
      return found
    return found._replace(pixels=np.pad(found.pixels, [(0, 0)] * 3 + [(1, 1)]))

  with monkeypatch.context() as patch:
    patch.setattr(anchors, "load_parts", larger)
    ended = start(launch, tmp_path / "a", zoo)
    assert "takes images of 64, and these are of 1x8x10" in ended.error
  monkeypatch.setattr(
    fine_tune.Tuner,
    "score",
    lambda self, weights: np.full(len(weights), np.nan),
  )
  assert "no anchors" in start(launch, tmp_path / "b", zoo).error


def test_a_new_last_layer_is_drawn_for_other_classes():
  """Weights but those of the last layer are carried over."""
  own = families.architecture("mlp", (1, 4, 4), 3, "relu")
  parts_of = lambda classes: fine_tune.ImageParts(
    np.zeros((30, 1, 4, 4), np.uint8),
    np.arange(30) % classes,
    (10, 10, 10),
    classes,
  )
  hyper = {"architecture": ["mlp"], "activation": ["relu"]}
  none = np.zeros(0)
  best = anchors.Anchors(own, none, none, none, none, hyper)
  assert anchors.target_spec(best, parts_of(3)) == own
  other = anchors.target_spec(best, parts_of(5))
  assert other == families.architecture("mlp", (1, 4, 4), 5, "relu")
  tuner = types.SimpleNamespace(spec=other)
  options: Any = types.SimpleNamespace()
  task = sampling.Task(options, {}, best, {}, {}, {})
  weights = np.random.default_rng(0).normal(size=(2, own.num_weights))
  weights = weights.astype(np.float32)
  found = sampling.begun(task, tuner, "kde", weights, 0)
  assert found.shape == (2, other.num_weights)
  before, after = own.unflatten(weights), other.unflatten(found)
  same = [n for n in before if np.array_equal(before[n], after[n])]
  assert len(same) == len(before) - 2
  assert np.abs(found).max() > 0 and not np.array_equal(*found[:, -5:])
  tuner.spec = own
  assert sampling.begun(task, tuner, "kde", weights, 0) is weights
  with pytest.raises(ValueError, match="cannot be built anew"):
    hyper["architecture"] = ["wild_park"]
    anchors.target_spec(best, parts_of(5))
