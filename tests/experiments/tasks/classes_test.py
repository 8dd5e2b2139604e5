"""Classes of a property: their order, what is refused, and a whole run."""

import json

import numpy as np
import pytest

from experiments.reports import maps
from experiments.tasks import members, outcome
from sne_jax import predictor
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import calibration, classes, references
from sne_jax.learning.training import records as logging
from sne_jax.networks import families
from sne_jax.zoo.store import store, writing

SPEC = families.inr((1, 4, 4, 1))
SIZES = ("--train_members=36", "--validation_members=12", "--test_members=12")
OF_CLASSES = ("--targets=level", "--loss=classes")
MEANS = {"low": -1.0, "mid": 0.0, "high": 1.0}
"""Mean weight by class; not in the order of the names."""


def text(values):
  return {"level": writing.Property(list(values), "the mean of the weights")}


@pytest.fixture(scope="module")
def leveled(write_zoo, tmp_path_factory):
  """A zoo of 60 networks whose class is the level of their weights."""
  rng = np.random.default_rng(0)
  names = rng.permutation(np.repeat(list(MEANS), 20))
  offsets = np.array([MEANS[name] for name in names])[:, None]
  weights = offsets + 0.5 * rng.normal(size=(60, SPEC.num_weights))
  return write_zoo(
    tmp_path_factory.mktemp("leveled") / "zoo",
    count=60,
    weights=[weights.astype(np.float32)],
    properties=text(names)
    | {
      "rank": writing.Property(np.arange(60.0), "a number"),
      "digit": writing.Property(np.arange(60) % 3 + 9, "a whole number"),
    },
  )


@pytest.fixture(scope="module")
def done(launch, leveled, tmp_path_factory):
  """A finished run of two seeds, with quick references."""
  workdir = tmp_path_factory.mktemp("done") / "run"
  quick = lambda parts, **_: {
    "constant": references.constant(parts, classes=True),
    "logistic": references.logistic(parts, strengths=[1e-2]),
  }
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(references, "all_references", quick)
    ended = launch(
      *(workdir, leveled.path, *SIZES, *OF_CLASSES, "--seeds=2"),
      *("--references", "--monitor=accuracy"),
      *("--noaugment_signs", "--head_dropout=0", "--learning_rate=1e-2"),
      *("--invariance_weight=0.1", "--num_steps=90", "--eval_every=30"),
      *("--batch_size=8", "--save_every=90"),
    )
  assert ended.code == 0, ended
  return workdir, ended


def read(path):
  return json.loads(path.read_text())


def test_classes_are_the_sorted_values_of_training():
  names = classes.names_of(np.array(["sgd", "adam", "rmsprop", "adam"]))
  assert names == ("adam", "rmsprop", "sgd")
  numbers = classes.numbers(names, np.array(["sgd", "adam", "rmsprop"]))
  assert numbers.tolist() == [2.0, 0.0, 1.0]
  with pytest.raises(ValueError, match=r"2 members of the part 'val' .*'b'"):
    classes.numbers(("a", "c"), np.array(["a", "b", "b"]), "val")
  with pytest.raises(ValueError, match="all training members are of one class"):
    classes.names_of(np.array(["a", "a"]))


def test_what_is_monitored_by_hand():
  logits = np.log([[1.0, 2, 5], [5, 2, 1], [2, 4, 2]])
  found = classes.monitored(np.array([2.0, 1, 1]), logits)
  assert found["loss"] == pytest.approx(-np.log([5 / 8, 2 / 8, 4 / 8]).mean())
  assert found["accuracy"] == pytest.approx(2 / 3)
  assert set(found) == set(classes.MONITORS)
  far = classes.monitored(np.array([0.0]), np.array([[-1e4, 1e4]]))
  assert far["loss"] == pytest.approx(2e4)
  lost = classes.monitored(np.array([0.0]), np.array([[np.nan, 1.0]]))
  assert np.isnan([*lost.values()]).all()


def test_numbers_as_probabilities():
  np.testing.assert_array_equal(
    classes.certain(np.array([[2.0], [0.0]]), 3), [[0, 0, 1], [1, 0, 0]]
  )


@pytest.mark.slow
def test_mixed_networks_are_between_classes(launch, leveled, tmp_path):
  """A run with MixUp ends, its loss finite, and predicts classes as ever."""
  ended = launch(
    *(tmp_path / "run", leveled.path, *SIZES, *OF_CLASSES, "--seeds=1"),
    *("--encoder=stat_nn", "--stat_width=4", "--noreferences"),
    *("--augment_mixup=plain", "--noaugment_signs", "--batch_size=8"),
    *("--num_steps=4", "--eval_every=4", "--save_every=4", "--log_every=1"),
  )
  assert ended.code == 0, ended
  result = read(tmp_path / "run" / "seed0" / "result.json")
  probabilities = np.array(result["predictions"]["test"])
  np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
  metrics = (tmp_path / "run" / "seed0" / "metrics.jsonl").read_text()
  rows = [json.loads(line) for line in metrics.splitlines()]
  values = [row["train/loss"] for row in rows if "train/loss" in row]
  assert len(values) == 4
  assert np.isfinite(values).all()


def test_predictions_that_are_not_finite_are_in_no_class():
  scores = np.array([[0.1, 0.9], [np.nan, 0.5], [0.7, np.inf]])
  np.testing.assert_array_equal(
    classes.most_probable(scores), [1.0, np.nan, np.nan]
  )
  networks = Networks(
    (), np.zeros(3, int), [], np.zeros((3, 1)), classes=("a",)
  )
  measured = calibration.evaluate(networks, scores)["target"]
  assert np.isnan(measured["accuracy"]["value"])


def test_confusion_by_hand():
  one = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
  two = np.array([[0.1, 0.9], [0.2, 0.8], [np.nan, 0.4]])
  found = classes.mean_confusion(("a", "b"), np.array([0.0, 0, 1]), [one, two])
  assert found["classes"] == ["a", "b"]
  # True class by row: 1 and 1 of a, then 0 and 2; 1 of b, then none.
  np.testing.assert_allclose(found["counts"], [[0.5, 1.5], [0.5, 0]])


def test_classes_of_several_zoos(resolve, write_zoo, tmp_path):
  """A class that only the other zoo has, and zoos of different widths."""
  for name, values in (("one", "ab"), ("two", "bc"), ("far", ("a", "ccc"))):
    write_zoo(tmp_path / name, properties=text(np.resize(list(values), 24)))
  flags = (
    *("--train_members=14", "--validation_members=5", "--test_members=5"),
    *(*OF_CLASSES, f"--zoo={tmp_path / 'one'},{tmp_path / 'two'}"),
  )
  data = members.gathered(resolve(*flags))
  assert data.classes == ("a", "b", "c")
  for part, networks in data.parts.items():
    named = np.array(data.classes)[networks.targets[:, 0].astype(int)]
    np.testing.assert_array_equal(named, data.property(part, "level"))
  with pytest.raises(ValueError, match=r"'test on far' .*'ccc'.*has a, b, c"):
    members.gathered(resolve(*flags, f"--test_zoos={tmp_path / 'far'}"))


def test_a_class_is_learned(done, leveled):
  """Far above chance, by the saved model on the networks of the test part."""
  workdir, ended = done
  assert "test accuracy" in ended.out
  zoo = store.Zoo.open(leveled.path)
  rows = zoo.split("default")["test"]
  truth = zoo.property("level")[rows]
  model = predictor.Predictor.load(workdir / "seed0")
  assert model.targets == ("level",)
  assert model.classes == ("high", "low", "mid")
  found = model.predict([(SPEC, vector) for vector in zoo.vectors(rows)])
  np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
  result = read(workdir / "seed0" / "result.json")
  np.testing.assert_allclose(found, result["predictions"]["test"], atol=1e-5)
  right = np.array(model.classes)[found.argmax(axis=1)] == truth
  reported = result["metrics"]["test"]["level"]
  assert right.mean() == pytest.approx(reported["accuracy"]["value"])
  assert right.mean() > 0.8
  shares = [right[truth == name].mean() for name in np.unique(truth)]
  assert np.mean(shares) == pytest.approx(
    reported["balanced_accuracy"]["value"]
  )


def test_the_loss_falls_and_validation_is_monitored(done):
  records = logging.read_metrics(done[0] / "seed0")
  losses = [r["train/task"] for r in records if "train/task" in r]
  assert np.mean(losses[:3]) > 0.8
  assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:3])
  seen = {r["step"]: r for r in records if "val/accuracy" in r}
  assert {"val/loss", "val/accuracy"} <= seen[30].keys()
  best = read(done[0] / "seed0" / "result.json")["best_step"]
  assert seen[best]["val/accuracy"] == max(
    r["val/accuracy"] for r in seen.values()
  )


def test_what_a_run_of_classes_leaves(done):
  workdir, _ = done
  report = (workdir / "report.md").read_text()
  for words in (
    *("figures/confusion_level.png", "| balanced_accuracy"),
    *("reference: constant", "reference: logistic", "predicted level"),
  ):
    assert words in report, words
  assert "kendall_tau |" not in report
  pictures = {path.name for path in (workdir / "figures").iterdir()}
  assert "confusion_level.png" in pictures
  assert not any(name.startswith(("predicted", "error")) for name in pictures)
  results = read(workdir / "results.json")
  counts = np.array(results["confusion"]["counts"])
  assert results["confusion"]["classes"] == ["high", "low", "mid"]
  assert counts.sum() == pytest.approx(12)
  right = [s["metrics"]["test"]["accuracy"]["value"] for s in results["seeds"]]
  assert np.trace(counts) / 12 == pytest.approx(np.mean(right))
  constant = results["references"]["constant"]["test"]
  assert constant["balanced_accuracy"]["value"] == pytest.approx(1 / 3)
  description = read(workdir / "seed0" / "model.json")
  assert description["classes"] == ["high", "low", "mid"]
  assert "target_mean" not in description


def test_maps_are_coloured_by_the_names_of_classes(
  leveled, resolve, tmp_path, monkeypatch
):
  data = members.gathered(resolve(f"--zoo={leveled.path}", *SIZES, *OF_CLASSES))
  codes = np.random.default_rng(0).normal(size=(12, 3))
  (tmp_path / "seed0").mkdir()
  np.savez(tmp_path / "seed0" / outcome.CODES_FILE, test=codes)
  monkeypatch.setattr(maps, "draw", lambda folder, codes, colors: colors)
  colors, mixed = outcome._maps(tmp_path, data, [{"seed": 0}], "level")
  np.testing.assert_array_equal(colors["level"], data.property("test", "level"))
  assert "mixing of level" in mixed


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("--monitor=kendall_tau",), "loss is classes; choose loss or accuracy"),
    (("--targets=level,rank",), "name one property"),
    (("--targets=rank",), "is a number, and loss is classes"),
    (("--loss=mse",), "or --loss=classes"),
    (("--loss=class",), "choose one of mse, bce, classes"),
    (("--target_scale=log",), "but loss is classes"),
  ],
)
def test_what_does_not_go_with_classes(flags, words, launch, leveled, tmp_path):
  ended = launch(tmp_path / "run", leveled.path, *SIZES, *OF_CLASSES, *flags)
  assert words in ended.error
  assert not (tmp_path / "run" / "config.json").exists()


def test_an_unseen_class_takes_one_line(launch, write_zoo, tmp_path):
  ids = [f"n{i:03d}" for i in range(24)]
  split = {"train": ids[:14], "val": ids[14:19], "test": ids[19:]}
  levels = [*("a", "b") * 10, *("a", "b", "new", "a")]
  zoo = write_zoo(
    tmp_path / "zoo", properties=text(levels), splits={"default": split}
  )
  ended = launch(tmp_path / "run", zoo.path, *OF_CLASSES)
  assert "1 members of the part 'test'" in ended.error
  assert "'new'" in ended.error


def test_whole_numbers_are_classes(leveled, resolve):
  options = resolve(
    *(f"--zoo={leveled.path}", "--targets=digit", "--loss=classes"),
    *(*SIZES, "--split=of_digits"),
  )
  data = members.gathered(options)
  assert data.classes == ("10", "11", "9")  # Sorted as text, as by `fit`.
  row = data.members["train"].row
  names = np.array(data.classes)[data.parts["train"].targets[:, 0].astype(int)]
  assert names.tolist() == [str(value) for value in row % 3 + 9]
