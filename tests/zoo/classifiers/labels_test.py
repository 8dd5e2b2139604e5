"""Labelling networks of a zoo that is there: more images, the same weights."""

import os

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.networks import families
from sne_jax.zoo.classifiers import fit, images, labels
from sne_jax.zoo.store import store, writing

SPECS = (families.mlp((64, 4, 10)), families.mlp((64, 10)))
NUMBERS, ROWS = [0, 1, 0, 1, 0], [0, 0, 1, 1, 2]
EVERY = images.load_images(images.ImageOptions())
USED = images.load_images(images.ImageOptions(train_images=900, test_images=60))
TESTED = 50
"""Test images that the zoo was made with."""


def weights():
  rng = np.random.default_rng(0)
  sizes = zip((3, 2), SPECS, strict=True)
  return [rng.normal(size=(n, s.num_weights)).astype("f4") for n, s in sizes]


def right_of(number, x, y):
  """Which images a member classifies rightly, one network at a time."""
  spec = SPECS[NUMBERS[number]]
  row = weights()[NUMBERS[number]][ROWS[number]]
  pixels = x.reshape(len(x), -1).astype(np.float32) / 127.5 - 1
  return np.asarray(families.forward(spec, row, pixels)).argmax(axis=1) == y


@pytest.fixture
def path(tmp_path):
  first = [
    right_of(n, USED.x_test[:TESTED], USED.y_test[:TESTED]).mean()
    for n in range(5)
  ]
  values = {
    "test_accuracy": first,
    "train_accuracy": [0.5] * 5,
    "test_loss": [9.0] * 5,
    "generalization_gap": [0.5 - a for a in first],
  }
  made_with = {"images": images.digest(USED), "eval_images": TESTED}
  writing.write_zoo(
    tmp_path / "zoo",
    specs=SPECS,
    weights=weights(),
    ids=list("abcde"),
    spec_numbers=NUMBERS,
    rows=ROWS,
    properties={k: writing.Property(v, k) for k, v in values.items()},
    splits={"default": {"train": ["a", "b"], "val": ["c"], "test": ["d"]}},
    provenance={"options": made_with},
  )
  return tmp_path / "zoo"


def contents(folder):
  return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


def test_bits_are_added_and_all_else_stays(path):
  before = contents(path)
  zoo = labels.relabel(path, USED, EVERY, 1)
  assert len(zoo.correct.classes) == TESTED
  for number in range(5):
    wanted = right_of(number, USED.x_test[:TESTED], USED.y_test[:TESTED])
    np.testing.assert_array_equal(zoo.correct.right([number])[0], wanted)
  now = contents(path)
  del before["zoo.json"]
  assert now.items() >= before.items() and len(now) == len(before) + 2
  assert os.listdir(path.parent) == ["zoo"]


def test_more_images_are_test_images_then_those_nobody_saw(path):
  before = contents(path)
  zoo = labels.relabel(path, USED, EVERY, 600)
  x = np.concatenate([EVERY.x_test, EVERY.x_train[:-101:-1]])
  y = np.concatenate([EVERY.y_test, EVERY.y_train[:-101:-1]])
  np.testing.assert_array_equal(zoo.correct.classes, y)
  accuracy = zoo.property("test_accuracy")
  for number in range(5):
    wanted = right_of(number, x, y)
    assert (zoo.correct.right([number])[0] != wanted).sum() <= 1
    assert accuracy[number] == pytest.approx(wanted.mean(), abs=1 / 500)
  np.testing.assert_allclose(zoo.property("generalization_gap"), 0.5 - accuracy)
  assert (zoo.property("test_loss") != 9).all()
  now = contents(path)
  for name, content in before.items():
    if name not in ("zoo.json", "members.parquet"):
      assert now[name] == content, name
  for least in (600, 300):  # There are enough already.
    labels.relabel(path, USED, EVERY, least)
    assert contents(path) == now
  zoo = labels.relabel(path, USED, EVERY, 10**6)
  assert len(zoo.correct.classes) == 500 + (1297 - 900)


def test_what_was_evaluated_before_a_kill_is_kept(path, monkeypatch):
  monkeypatch.setattr(labels, "MEMBERS", 2)
  real, calls = fit.make_evaluate_fn, []

  def counted(*args):
    calls.append(args)
    return real(*args)

  monkeypatch.setattr(fit, "make_evaluate_fn", counted)

  def kill(done, total, message):
    if done == 3:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    labels.relabel(path, USED, EVERY, 300, progress=kill)
  assert len(calls) == 2 and store.Zoo.open(path).correct is None
  with pytest.raises(errors.ZooError, match="label_images is 300 there, 301"):
    labels.relabel(path, USED, EVERY, 301)
  assert len(calls) == 2, "nothing was evaluated"
  zoo = labels.relabel(path, USED, EVERY, 300)
  assert len(calls) == 3 and len(zoo.correct.classes) == 300
  assert os.listdir(path.parent) == ["zoo"]


def test_other_images_are_refused(path):
  other = USED._replace(x_train=255 - USED.x_train)
  for used, every in ((other, EVERY), (USED, EVERY._replace(x_test=other[0]))):
    with pytest.raises(errors.ZooError, match="made on other images"):
      labels.relabel(path, used, every, 300)
