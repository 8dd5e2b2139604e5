"""Runs that train an editor: from zoo to report, and what they refuse."""

import json

import numpy as np
import pytest

from experiments.tasks import editing, zoos
from sne_jax.learning.editing import targets
from sne_jax.zoo.classifiers import images
from sne_jax.zoo.inrs import image_options, image_zoo, refit
from sne_jax.zoo.store import store

HOW = image_options.ImageInrOptions(
  hidden=4, max_steps=20, validation_share=0.2
)
FLAGS = (
  *("--edit=dilate", "--encoder=nfn_hnp", "--batch_size=4", "--num_steps=9"),
  *("--encoder_option=nfn_channels=4", "--encoder_option=nfn_layers=1"),
  *("--split=default", "--learning_rate=1e-2", "--ema_decay=0"),
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
  """A zoo of 20 digits, and the flagfile that makes it."""
  folder = tmp_path_factory.mktemp("digits")
  some = images.ImageOptions(train_images=15, test_images=5)
  data = images.load_images(some)
  image_zoo.generate_image_inr_zoo(folder / "z", HOW, data, dataset="digits")
  path = folder / "z.flags"
  path.write_text(
    f"--zoo={folder / 'z'}\n--family=inr_image\n--train_images=15\n"
    "--test_images=5\n--inr_hidden=4\n--inr_max_steps=20\n"
    "--inr_validation_share=0.2\n"
  )
  return path


@pytest.fixture(scope="module")
def done(launch, zoo, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("edited") / "run"
  ended = launch(workdir, zoo, *FLAGS)
  assert ended.code == 0, ended.err
  return workdir, ended


@pytest.mark.slow
def test_a_run_reports_the_editor_between_no_edit_and_the_floor(done):
  workdir, ended = done
  results = json.loads((workdir / "results.json").read_text())
  of = results["references"]
  no_edit, anew = (
    of[n]["test"]["mse"] for n in (editing.NO_EDIT, editing.ANEW)
  )
  assert no_edit["low"] < no_edit["value"] < no_edit["high"]
  (seed,) = results["seeds"]
  error = seed["metrics"]["test"]["mse"]
  assert error["value"] < no_edit["value"] and anew["value"] < no_edit["value"]
  moved = list(results["invariance"].values())
  assert moved[0] < 1e-3 < 1e-2 < moved[1]
  text = (workdir / "report.md").read_text()
  for words in ("images from -1 (black) to 1", "Learned scales", "edited.png"):
    assert words in text
  assert (workdir / "figures" / "edited.png").stat().st_size > 2000
  assert "test mse" in ended.out


@pytest.mark.slow
def test_errors_are_those_worked_out_from_renderings(done, zoo, resolve):
  """The error of no edit, from images of 0 to 1: 4 times their difference."""
  workdir, _ = done
  opened = store.Zoo.open(zoo.with_suffix(""))
  rows = opened.split("default")["test"]
  vectors = np.stack(opened.vectors(rows))
  shown = image_zoo.rendered(opened.specs[0], vectors, 8)
  digits = images.load_images(images.ImageOptions(test_images=5)).x_test
  target = targets.dilated(digits[opened.property("image")[rows]]) / 255
  results = json.loads((workdir / "results.json").read_text())
  value = results["references"][editing.NO_EDIT]["test"]["mse"]["value"]
  assert value == pytest.approx(4 * np.mean((shown - target) ** 2), rel=1e-4)
  data = editing.gathered(resolve(f"--zoo={zoo}", *FLAGS))
  mean = data.after["train"].mean(axis=0) / 255
  value = results["references"][editing.MEAN]["test"]["mse"]["value"]
  assert value == pytest.approx(4 * np.mean((mean - target) ** 2), rel=1e-4)


@pytest.mark.slow
def test_a_run_that_goes_on_gives_the_same(done, launch, zoo):
  workdir, _ = done
  before = (workdir / "results.json").read_text()
  path = workdir / "seed0" / "result.json"
  stamp = path.stat().st_mtime_ns
  assert launch(workdir, zoo, *FLAGS).code == 0
  assert path.stat().st_mtime_ns == stamp
  old, new = (
    json.loads(before),
    json.loads((workdir / "results.json").read_text()),
  )
  assert old["references"] == new["references"]
  said = launch(workdir, zoo, *FLAGS, "--edit=erode").error
  assert "edit" in said and "dilate" in said


@pytest.mark.parametrize(
  ("word", "changes", "said"),
  [
    ("folder", (), "does not say where its images are; name the .flags file"),
    ("file", ("--pretrain=sne",), "pretrain is sne and edit is dilate"),
    ("file", ("--encoder=stat_pool",), "stat_pool cannot edit: it gives no"),
  ],
)
def test_what_cannot_be_is_one_line(word, changes, said, launch, zoo, tmp_path):
  path = zoo if word == "file" else zoo.with_suffix("")
  ended = launch(tmp_path / "run", path, *FLAGS, *changes)
  assert said in ended.error
  assert not (tmp_path / "run").exists()


def test_networks_that_are_no_images_are_refused(launch, tiny_zoo, tmp_path):
  flags_ = (*FLAGS, "--edit_images=renderings")
  said = launch(tmp_path / "run", tiny_zoo, *flags_).error
  assert "is no image: networks of two coordinates" in said


def test_images_that_are_not_there(resolve, zoo, monkeypatch):
  monkeypatch.setattr(images, "are_there", lambda options: False)
  options = resolve(f"--zoo={zoo}", *FLAGS)
  with pytest.raises(
    ValueError, match=r"\(digits\) are not there; name the fol"
  ):
    editing.gathered(options)


def test_renderings_stand_in_for_images(resolve, zoo):
  options = resolve(
    *(f"--zoo={zoo.with_suffix('')}", *FLAGS, "--edit_images=renderings"),
    "--edit_size=5",
  )
  data = editing.gathered(options)
  assert data.before["test"].shape == (5, 1, 5, 5)
  np.testing.assert_array_equal(
    data.after["val"], targets.dilated(data.before["val"])
  )
  opened = store.Zoo.open(zoos.sources(str(zoo))[0].path)
  shown = image_zoo.rendered(
    opened.specs[0], np.stack(data.parts["test"].vectors), 5
  )
  np.testing.assert_allclose(
    data.before["test"], 255 * np.clip(shown, 0, 1), atol=0.51
  )


@pytest.mark.slow
def test_refits_come_near_their_images_from_other_weights(zoo):
  digits = images.load_images(images.ImageOptions(test_images=5)).x_test
  fit = refit.fitted(HOW, digits)
  assert fit.weights.shape == (5, image_options.inr_spec(HOW).num_weights)
  opened = store.Zoo.open(zoo.with_suffix(""))
  theirs = np.stack(opened.vectors(opened.split("default")["test"]))
  assert np.abs(fit.weights - theirs).max(axis=1).min() > 1e-3
  other = opened.property("reconstruction_error")
  assert fit.error.mean() < 3 * other.mean()
