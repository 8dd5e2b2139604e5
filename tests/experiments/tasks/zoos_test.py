"""Zoos by name: folders and flagfiles, made where they are not there."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from experiments.tasks import image_reference, members, zoos
from sne_jax import room
from sne_jax.cli.commands import zoo as make_zoo
from sne_jax.networks import families
from sne_jax.zoo.classifiers import images, labels
from sne_jax.zoo.inrs import generate
from sne_jax.zoo.store import store

INR = generate.InrZooOptions()
FLAGS = """
--zoo={zoo}
--image_size=16
--train_images=1000
--num_networks=8
--activation=relu
--optimizer=adam
--initializer=he_normal
--snapshots=1,2
--validation_share=0.25
--test_share=0.25
--cpu_devices=1
{more}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A flagfile, and the zoo that it has made."""
  folder = tmp_path_factory.mktemp("zoos")
  path = folder / "tiny.flags"
  path.write_text(FLAGS.format(zoo=folder / "tiny", more=""))
  (source,) = zoos.sources(str(path))
  return source, zoos.opened(source, generate.InrZooOptions())


def test_a_flagfile_becomes_its_zoo(made):
  source, zoo = made
  assert source.name == "tiny" and pathlib.Path(zoo.path).name == "tiny"
  assert len(zoo) == 16 and set(zoo.property("epoch")) == {1, 2}
  again = zoos.opened(source, generate.InrZooOptions())
  assert again.path == zoo.path


def test_a_zoo_of_other_options_is_refused(made, tmp_path):
  source, _ = made
  path = tmp_path / "tiny.flags"
  path.write_text(FLAGS.format(zoo=source.path, more="--seed=5"))
  (other,) = zoos.sources(str(path))
  with pytest.raises(ValueError, match=r"made with seed=0.*says 5"):
    zoos.opened(other, generate.InrZooOptions())


def test_making_that_fails_is_one_line(tmp_path, capfd):
  path = tmp_path / "bad.flags"
  path.write_text(FLAGS.format(zoo=tmp_path / "z", more="--dataset=nothing"))
  (source,) = zoos.sources(str(path))
  with pytest.raises(ValueError, match="was not made; see the error above"):
    zoos.opened(source, generate.InrZooOptions())
  assert "no images called 'nothing'" in capfd.readouterr().err


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("", "zoo is empty; .*quickstart.flags"),
    ("missing.flags", "there is no flagfile missing.flags"),
    ("sine:a/x,sine:b/x", "two zoos are called 'x'"),
    ("experiments/flags/zoos/quik.flags", "there is no flagfile"),
    ("experiments/flags/zoos/quick.flag", "did you mean .*quick.flags"),
    ("nowhere", "there is no zoo nowhere; .*sine:nowhere"),
  ],
)
def test_names_that_are_refused(text, words):
  with pytest.raises(ValueError, match=words):
    zoos.check_there(*zoos.sources(text))


@pytest.mark.parametrize(
  ("code", "kind", "words"),
  [
    (room.EXIT_CODE, SystemExit, "75"),  # It has said its line.
    (-signal.SIGKILL, ValueError, "as systems do where memory runs out"),
  ],
)
def test_a_process_that_had_no_room_is_not_the_flagfiles_fault(
  code, kind, words, tmp_path, monkeypatch
):
  process = types.SimpleNamespace(
    start=lambda: None, join=lambda: None, exitcode=code
  )
  spawn = types.SimpleNamespace(Process=lambda **_: process)
  monkeypatch.setattr(zoos.multiprocessing, "get_context", lambda _: spawn)
  flagfile = tmp_path / "own.flags"
  flagfile.write_text(f"--zoo={tmp_path / 'own'}\n")
  [source] = zoos.sources(str(flagfile))
  with pytest.raises(kind, match=words):
    zoos.opened(source, generate.InrZooOptions())


def test_spare_images_were_never_used(made):
  source, _ = made
  x, y = source.spare_images()
  assert x.shape == (297, 1, 16, 16) and y.shape == (297,)
  _, zoo = made
  load = lambda count: images.load_images(
    images.ImageOptions(image_size=16, train_images=count)
  )
  used, every = load(1000), load(0)
  assert zoo.provenance["options"]["images"] == images.digest(used)
  np.testing.assert_array_equal(
    np.concatenate([used.x_train, x]), every.x_train
  )
  np.testing.assert_array_equal(
    np.concatenate([used.y_train, y]), every.y_train
  )


def test_images_to_label_with_are_not_spare(made, tmp_path):
  """And a flagfile that asks for more labels than there are gets them."""
  source, zoo = made
  shutil.copytree(zoo.path, tmp_path / "tiny")
  path = tmp_path / "tiny.flags"
  text = FLAGS.format(zoo=tmp_path / "tiny", more="--label_images=600")
  path.write_text(text)
  (asking,) = zoos.sources(str(path))
  assert not source.needs_labels(zoo) and asking.needs_labels(zoo)
  image, networks = asking.options()
  labelled = labels.relabel(
    tmp_path / "tiny",
    make_zoo.load_images(image, networks),
    make_zoo.load_all_images(image, networks),
    600,
  )
  assert not asking.needs_labels(labelled)
  x, y = asking.spare_images()
  free, classes = source.spare_images()
  np.testing.assert_array_equal(x, free[:197])
  np.testing.assert_array_equal(y, classes[:197])
  rest = labelled.correct.classes[500:]
  np.testing.assert_array_equal(rest[::-1], classes[197:])
  path.write_text(text + "--label_images=100000")  # All there are, at most.
  (greedy,) = zoos.sources(str(path))
  assert greedy.needs_labels(labelled)


@pytest.mark.parametrize(
  "more",
  [
    "--train_images=900",
    "--image_size=17",
    "--image_size=0",
    "--test_images=9",
  ],
)
def test_images_of_another_zoo_are_refused(made, tmp_path, more):
  source, _ = made
  path = tmp_path / "tiny.flags"
  path.write_text(FLAGS.format(zoo=source.path, more=more))
  (other,) = zoos.sources(str(path))
  for look in (other.spare_images, lambda: zoos.opened(other, INR)):
    # Where no size is said, arch1 has images of 16 x 16: the same.
    refused = pytest.raises(ValueError, match="was made on other images")
    with contextlib.nullcontext() if "size=0" in more else refused:
      look()


def test_a_zoo_whose_images_are_gone_is_used_all_the_same(tmp_path, caplog):
  """With a warning; and it is told from one whose images have changed."""
  rng = np.random.default_rng(0)
  arrays = {
    f"{name}_{part}": values
    for part in ("train", "test")
    for name, values in (
      ("x", rng.integers(0, 256, (30, 8, 8), np.uint8)),
      ("y", rng.integers(0, 3, 30)),
    )
  }
  np.savez(tmp_path / "mine.npz", **arrays)
  path = tmp_path / "tiny.flags"
  more = "--dataset=mine\n--architecture=mlp\n--train_images=0\n--image_size=0"
  more += f"\n--data_dir={tmp_path}\n--snapshots=0\n--num_networks=4"
  path.write_text(FLAGS.format(zoo=tmp_path / "z", more=more))
  (source,) = zoos.sources(str(path))
  make_zoo.main([], zoos._parsed(source.arguments))
  assert len(zoos.opened(source, INR)) == 4
  assert not caplog.records
  arrays["y_train"][0] = (arrays["y_train"][0] + 1) % 3
  np.savez(tmp_path / "mine.npz", **arrays)
  with pytest.raises(ValueError, match="was made on other images"):
    zoos.opened(source, INR)
  (tmp_path / "mine.npz").unlink()
  assert len(zoos.opened(source, INR)) == 4
  assert [r.levelname for r in caplog.records] == ["WARNING"]
  assert "the images of" in caplog.text and str(tmp_path) in caplog.text


def test_a_zoo_of_another_data_set_is_refused(made, tmp_path):
  source, _ = made
  path = tmp_path / "tiny.flags"
  more = "--dataset=digits_inverted"
  path.write_text(FLAGS.format(zoo=source.path, more=more))
  (other,) = zoos.sources(str(path))
  with pytest.raises(ValueError, match="made with dataset='digits'"):
    zoos.opened(other, generate.InrZooOptions())


def test_a_folder_does_not_say_where_its_images_are():
  (source,) = zoos.sources("some/folder")
  with pytest.raises(ValueError, match="does not say where its images are"):
    source.spare_images()


@pytest.mark.slow
def test_accuracy_on_images_is_that_of_the_networks(made, resolve):
  source, zoo = made
  options = resolve(
    f"--zoo={source.word}", "--targets=test_accuracy", "--loss=bce"
  )
  data = members.gathered(options)
  found, costs = image_reference.predictions(options, data, (10, 200))
  x, y = source.spare_images()
  for count, parts in found.items():
    for part, accuracy in parts.items():
      for place, row in enumerate(data.members[part].row):
        vector = zoo.vectors([int(row)])[0]
        spec = zoo.specs[zoo.members["spec"][row]]
        pixels = x[:count].astype(np.float32) / 127.5 - 1
        logits = families.run(spec, spec.unflatten(vector), pixels)
        right = np.asarray(logits).argmax(axis=-1) == y[:count]
        assert abs(right.mean() - accuracy[place]) < 1e-6
  assert [c["images"] for c in costs] == [10, 200]
  assert costs[1]["flops_per_network"] > 5 * costs[0]["flops_per_network"]
  with pytest.raises(ValueError, match="asks for 300 images, but 297"):
    image_reference.predictions(options, data, (300,))


@pytest.mark.slow
def test_a_killed_run_takes_the_making_with_it(tmp_path):
  path = tmp_path / "z.flags"
  more = "--num_networks=200\n--snapshots=500"
  path.write_text(FLAGS.format(zoo=tmp_path / "z", more=more))
  code = (
    "from experiments.tasks import zoos\n"
    "from sne_jax.zoo.inrs import generate\n"
    f"if __name__ == '__main__': zoos.opened(zoos.sources({str(path)!r})[0],"
    " generate.InrZooOptions())"
  )
  script = tmp_path / "script.py"
  script.write_text(code)
  root = str(pathlib.Path(zoos.__file__).parents[2])
  process = subprocess.Popen(
    [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": root}
  )
  partial = tmp_path / "z.partial" / "plan.json"
  deadline = time.monotonic() + 120
  while not partial.exists() and time.monotonic() < deadline:
    time.sleep(0.2)
  assert partial.exists()
  process.send_signal(signal.SIGKILL)
  process.wait()
  # The folder is free again: nobody works in it.
  from sne_jax.zoo.store import lock

  deadline = time.monotonic() + 30
  while time.monotonic() < deadline:
    try:
      with lock.folder_lock(str(tmp_path / "z")):
        return
    except ValueError:
      time.sleep(0.2)
  pytest.fail("the making goes on")


def test_the_store_is_read_as_any_other(made):
  _, zoo = made
  assert store.Zoo.open(zoo.path).provenance["generator"].endswith("generate")


def test_a_flagfile_of_tickets_is_a_zoo_that_says_how_far_it_is(
  tmp_path, capfd
):
  path = tmp_path / "tickets.flags"
  text = (
    f"--zoo={tmp_path / 'z'}\n--family=tickets\n--train_images=70\n"
    "--test_images=20\n--ticket_num_networks=3\n--ticket_rounds=1\n"
    "--ticket_epochs=1\n--ticket_validation_images=20\n"
    "--ticket_validation_share=0\n--ticket_test_share=0\n"
  )
  path.write_text(text)
  (source,) = zoos.sources(str(path))
  assert "imp_test_accuracy" in source.properties()
  assert "label" not in source.properties()
  assert len(zoos.opened(source, INR)) == 3
  said = capfd.readouterr().err
  assert "finding tickets 15/15 (100 %), trainings of all networks" in said
  with pytest.raises(ValueError, match="are untrained and classify none"):
    source.spare_images()
  path.write_text(f"{text}--ticket_sparsity=0.5\n")
  (other,) = zoos.sources(str(path))
  with pytest.raises(ValueError, match="made with sparsity=0.95"):
    zoos.opened(other, INR)


def test_a_flagfile_of_images_as_networks_is_a_zoo(tmp_path):
  path = tmp_path / "images.flags"
  text = (
    f"--zoo={tmp_path / 'z'}\n--family=inr_image\n--train_images=4\n"
    "--test_images=2\n--inr_hidden=4\n--inr_max_steps=5\n"
    "--inr_validation_share=0.5\n"
  )
  path.write_text(text)
  (source,) = zoos.sources(str(path))
  assert "label" in source.properties()
  assert "test_accuracy" not in source.properties()
  make_zoo.main([], zoos._parsed(source.arguments))
  assert len(zoos.opened(source, INR)) == 6
  with pytest.raises(ValueError, match="are images and classify none"):
    source.spare_images()
  for more, message in (
    ("--inr_max_steps=6", "made with max_steps=5"),
    ("--train_images=5", "was made on other images"),
  ):
    path.write_text(f"{text}{more}\n")
    (other,) = zoos.sources(str(path))
    with pytest.raises(ValueError, match=message):
      zoos.opened(other, INR)
