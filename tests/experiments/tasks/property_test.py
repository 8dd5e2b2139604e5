"""Training on a property: the model's description, its start, its checks."""

import json

import jax
import numpy as np
import pytest

from experiments.tasks import members
from experiments.tasks import property as task
from sne_jax.learning.training import program, records
from sne_jax.networks import families

SPECS = (families.inr((1, 4, 1)), families.inr((1, 3, 3, 1)))


@pytest.fixture
def load(write_zoo, resolve, tiny_flags, tmp_path):
  """Returns `load(*flags, **changes) -> options, data`."""

  def make(*flags, **changes):
    zoo = write_zoo(tmp_path / "zoo", **changes)
    options = resolve(*tiny_flags, f"--zoo={zoo.path}", *flags)
    return options, members.load(options, zoo)

  return make


def test_the_head_is_as_the_flags_say(resolve):
  head = task.fields_of(resolve())["head"]
  assert not head.collapsed
  options = resolve("--head_collapsed", "--head_collapsed_within=0.02")
  head = task.fields_of(options)["head"]
  assert head.collapsed and head.collapsed_within == 0.02


def test_description_is_that_of_the_training_part(load):
  options, data = load("--nofan_in_scale")
  found = task.describe(options, data)
  assert json.loads(json.dumps(found)) == found
  train = data.parts["train"]
  weights = np.concatenate(train.vectors).astype(np.float64)
  assert found["global_scale"] == pytest.approx(np.sqrt(np.mean(weights**2)))
  assert found["target_mean"][0] == pytest.approx(train.targets.mean())
  assert found["target_spread"][0] == pytest.approx(train.targets.std())
  assert found["max_level"] == 2
  every = np.concatenate([p.targets for p in data.parts.values()])
  assert found["target_mean"][0] != pytest.approx(every.mean())


def test_a_logarithm_is_described_as_one(load):
  options, data = load("--target_scale=log")
  found = task.describe(options, data)
  assert found["targets"] == ["log10 frequency"]
  frequency = data.property("train", "frequency")
  assert found["target_mean"][0] == pytest.approx(np.log10(frequency).mean())


def test_fan_in_scale(load):
  options, data = load("--fan_in_scale")
  found = task.describe(options, data)["global_scale"]
  spec, train = data.zoos[0].specs[0], data.parts["train"]
  total = sum(
    tensor.fan_in * np.sum(np.asarray(v[a : a + tensor.size], float) ** 2)
    for v in train.vectors
    for tensor, a in zip(spec.tensors, spec.offsets, strict=True)
  )
  count = sum(map(len, train.vectors))
  assert found == pytest.approx(np.sqrt(total / count))


def test_deepest_level_is_that_of_the_training_part(load):
  ids = [f"n{i:03d}" for i in range(24)]  # The second spec from n012 on.
  split = {"train": ids[:8], "val": ids[8:12], "test": ids[12:]}
  options, data = load(specs=SPECS, count=12, splits={"default": split})
  assert task.describe(options, data)["max_level"] == 1


def test_parameters_are_those_of_the_seed(load):
  options, data = load()
  trainer = task.trainer(options, data)
  net, encoder = trainer.model.net, trainer.model.encoder
  spec = data.zoos[0].specs[0]
  init = lambda seed: trainer.start(seed)[0].params
  fixed = jax.jit(lambda: program.init_params(net, encoder, spec, 3))()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    init(3),
    fixed,
  )
  one, other = (
    np.concatenate([x.ravel() for x in jax.tree.leaves(init(s))])
    for s in (3, 4)
  )
  assert not np.allclose(one, other)


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("--loss=bce", r"needs targets in \[0, 1\]"),
    ("--monitor=accuracy", "choose loss or kendall_tau"),
  ],
)
def test_what_does_not_go_together(flag, words, load):
  options, data = load(flag, specs=SPECS, count=12)
  with pytest.raises(ValueError, match=words):
    task.trainer(options, data)


@pytest.mark.slow
def test_the_checkpoint_is_chosen_by_the_validation_part(load, tmp_path):
  options, data = load(
    *("--num_steps=24", "--learning_rate=1e-2", "--head_dropout=0"),
    *("--eval_every=4", "--save_every=24", "--batch_size=8", "--monitor=loss"),
  )
  result = task.trainer(options, data).run(0, tmp_path / "seed0").result
  found = {
    record["step"]: record["val/loss"]
    for record in records.read_metrics(tmp_path / "seed0")
    if "val/loss" in record
  }
  assert len(found) >= 6
  assert result["best_step"] == min(found, key=found.__getitem__)
  errors = {}
  for part in ("val", "test"):
    truth = data.parts[part].targets
    predicted = np.array(result["predictions"][part])
    errors[part] = np.mean((predicted - truth) ** 2)
  # What was monitored is the error of the reported validation predictions.
  assert min(found.values()) == pytest.approx(errors["val"], rel=1e-4)
  assert errors["val"] != pytest.approx(errors["test"], rel=0.01)


@pytest.mark.slow
def test_the_loss_falls(load, tmp_path):
  """The smallest run, of a property that is easy to see."""
  options, data = load(
    *("--num_steps=60", "--learning_rate=1e-2", "--head_dropout=0"),
    *("--eval_every=60", "--save_every=60", "--batch_size=8"),
  )
  trainer = task.trainer(options, data)
  result = trainer.run(0, tmp_path / "seed0").result
  losses = [
    record["train/loss"]
    for record in records.read_metrics(tmp_path / "seed0")
    if "train/loss" in record
  ]
  assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
  assert result == trainer.run(0, tmp_path / "seed0").result
  assert result["steps"] == 60
