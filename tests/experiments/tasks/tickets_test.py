"""Runs that predict winning tickets: from zoo to report, and refusals."""

import json

import numpy as np
import pytest

from experiments.tasks import tickets
from sne_jax.zoo.classifiers import images
from sne_jax.zoo.store import store, writing
from sne_jax.zoo.tickets import options, pruning, ticket_zoo

HOW = options.TicketOptions(
  num_networks=16,
  sparsity=0.7,
  rounds=1,
  epochs=2,
  validation_images=20,
  validation_share=0.2,
  test_share=0.25,
)
SOME = images.ImageOptions(train_images=150, test_images=60)
FLAGS = (
  *("--mask=imp", "--encoder=neural_graph", "--batch_size=4"),
  *("--encoder_option=graph_width=4", "--encoder_option=graph_layers=1"),
  *("--split=default", "--num_steps=9", "--learning_rate=1e-2"),
  "--ema_decay=0",
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
  """A zoo of 16 tickets, and the flagfile that makes it."""
  folder = tmp_path_factory.mktemp("tickets")
  data = images.load_images(SOME)
  ticket_zoo.generate_ticket_zoo(folder / "z", HOW, data, dataset="digits")
  path = folder / "z.flags"
  path.write_text(
    f"--zoo={folder / 'z'}\n--family=tickets\n--train_images=150\n"
    "--test_images=60\n--ticket_num_networks=16\n--ticket_sparsity=0.7\n"
    "--ticket_rounds=1\n--ticket_epochs=2\n--ticket_validation_images=20\n"
    "--ticket_validation_share=0.2\n--ticket_test_share=0.25\n"
  )
  return path


@pytest.fixture(scope="module")
def done(launch, zoo, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("masked") / "run"
  ended = launch(workdir, zoo, *FLAGS)
  assert ended.code == 0, ended.err
  return workdir, ended


@pytest.mark.slow
def test_a_run_reports_predicted_masks_beside_others(done, zoo):
  workdir, ended = done
  results = json.loads((workdir / "results.json").read_text())
  opened = store.Zoo.open(zoo.with_suffix(""))
  rows = opened.split("default")["test"]
  of = results["references"]
  for name, way in (
    (tickets.IMP, "imp"),
    (tickets.FIRST, "magnitude"),
    (tickets.RANDOM, "random"),
    (tickets.DENSE, "dense"),
  ):
    stored = opened.property(f"{way}_test_accuracy")[rows].mean()
    value = of[name]["test"]["trained_accuracy"]["value"]
    assert value == pytest.approx(stored, abs=1e-6), name
  assert of[tickets.IMP]["test"]["agreement"]["value"] == 1
  assert of[tickets.RANDOM]["test"]["agreement"]["value"] < 0.5
  moved = results["invariance"]
  assert moved["logits under a true permutation, away from moved ones"] < 1e-4
  assert moved["logits under a false permutation, away from moved ones"] > 1e-2
  (seed,) = results["seeds"]
  mean = seed["metrics"]["test"]["trained_accuracy"]["value"]
  assert mean == pytest.approx(np.mean(seed["accuracies"]))
  assert "test trained_accuracy" in ended.out
  text = (workdir / "report.md").read_text()
  for words in ("Predicted masks against", "which no round has seen", "Share"):
    assert words in text


@pytest.mark.slow
def test_a_run_that_goes_on_gives_the_same(done, launch, zoo):
  workdir, _ = done
  before = json.loads((workdir / "results.json").read_text())
  stamp = (workdir / "seed0" / "result.json").stat().st_mtime_ns
  assert launch(workdir, zoo, *FLAGS).code == 0
  assert (workdir / "seed0" / "result.json").stat().st_mtime_ns == stamp
  after = json.loads((workdir / "results.json").read_text())
  assert before["references"] == after["references"]
  assert before["tables"] == after["tables"]


def test_masks_that_are_compared_are_of_equal_density(zoo, resolve):
  data = tickets.gathered(resolve(f"--zoo={zoo}", *FLAGS))
  assert len(data.parts["train"]) == 9 and len(data.parts["test"]) == 4
  counts = pruning.counts(data.spec, 0.3)
  known = tickets.references(data)
  dense = known.pop(tickets.DENSE)
  assert dense.all()
  for masks in known.values():
    assert (pruning.kept(data.spec, masks) == counts).all()
  each = [masks.tobytes() for masks in known.values()]
  assert len(set(each)) == 5
  opened = store.Zoo.open(zoo.with_suffix(""))
  rows = opened.split("default")["test"]
  np.testing.assert_array_equal(known[tickets.IMP], opened.masks.rows(rows))


def test_gains_and_the_share_of_the_way_are_worked_out_by_hand():
  accuracy = {
    tickets.IMP: np.array([0.9, 0.8, 0.7]),
    tickets.RANDOM: np.array([0.3, 0.2, 0.4]),
  }
  predicted = [np.array([0.5, 0.5, 0.6]), np.array([0.7, 0.5, 0.4])]
  gains, way = tickets.tables(accuracy, predicted)
  imp, random = gains["rows"]
  assert imp[:3] == [tickets.IMP, pytest.approx(0.8), pytest.approx(-0.8 / 3)]
  assert random[2] == pytest.approx(0.7 / 3)
  assert random[3] == pytest.approx(0.1) and random[4] == pytest.approx(0.3)
  (row,) = way["rows"]
  assert row[:4] == pytest.approx([0.3, 1.6 / 3, 0.8, 0.7 / 1.5])
  assert row[4] <= row[3] <= row[5]


@pytest.mark.parametrize(
  ("word", "changes", "said"),
  [
    ("folder", (), "does not say where its images are, to train networks on"),
    ("file", ("--edit=dilate",), "edit is dilate and mask is imp"),
    ("file", ("--encoder=stat_pool",), "stat_pool cannot predict masks: it g"),
    ("file", ("--batch_size=64",), "batch_size is 64, but there are 9 train"),
  ],
)
def test_what_cannot_be_is_one_line(word, changes, said, launch, zoo, tmp_path):
  path = zoo if word == "file" else zoo.with_suffix("")
  ended = launch(tmp_path / "run", path, *FLAGS, *changes)
  assert said in ended.error
  assert not (tmp_path / "run").exists()


def test_a_zoo_of_other_networks_is_refused(launch, tmp_path):
  path = tmp_path / "z.flags"
  path.write_text(f"--zoo={tmp_path / 'z'}\n--family=inr_image\n")
  said = launch(tmp_path / "run", path, *FLAGS).error
  assert "makes no zoo of tickets, so its networks have no masks" in said
  assert not (tmp_path / "z").exists()


def test_a_zoo_without_masks_is_refused(zoo, resolve, tmp_path):
  """One of this name that somebody else has written."""
  there = store.Zoo.open(zoo.with_suffix(""))
  writing.write_zoo(
    tmp_path / "z",
    specs=there.specs,
    weights=[there.weights()],
    ids=there.members["id"],
    provenance=there.provenance,
  )
  path = tmp_path / "z.flags"
  text = zoo.read_text().replace(str(zoo.with_suffix("")), str(tmp_path / "z"))
  path.write_text(text)
  with pytest.raises(ValueError, match="have no masks; delete the folder"):
    tickets.gathered(resolve(f"--zoo={path}", *FLAGS))


def test_images_that_are_not_there(resolve, zoo, monkeypatch):
  monkeypatch.setattr(images, "are_there", lambda options: False)
  with pytest.raises(ValueError, match=r"\(digits\) are not there, to train"):
    tickets.gathered(resolve(f"--zoo={zoo}", *FLAGS))
