"""Zoos of image classifiers: what they hold, and that kills change nothing."""

import dataclasses
import functools
import json
import os
import resource
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax import errors
from sne_jax.networks import families
from sne_jax.zoo.classifiers import (
  draws,
  fit,
  generate,
  images,
  properties,
  ranges,
  tiles,
)
from sne_jax.zoo.classifiers import options as image_options
from sne_jax.zoo.store import lock, partial

QUICK = {"xla_backend_optimization_level": "0"}
TINY = image_options.ImageZooOptions(
  num_networks=7,
  architecture="mlp",
  activation="relu",
  optimizer="adam",
  initializer="glorot_normal,normal",
  learning_rate="log:1e-3:3e-2",
  dropout="0",
  train_fraction="0.2,1",
  label_noise="uniform:0:0.3",
  batch_size=16,
  snapshots="0,1,2",
  eval_images=100,
  validation_share=0.2,
  test_share=0.3,
  batch_members=3,
)


def options(**changes):
  return dataclasses.replace(TINY, **changes)


def digits():
  return images.load_images(
    images.ImageOptions(train_images=160, test_images=120)
  )


def make(path, opts=TINY, data=None, **kwargs):
  return generate.generate_image_zoo(
    path, opts, data or digits(), dataset="digits", **kwargs
  )


def contents(folder):
  return {
    name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))
  }


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
  seen = []
  made = make(
    tmp_path_factory.mktemp("made") / "zoo",
    progress=lambda *said: seen.append(said[:2]),
  )
  assert seen == sorted(seen) and seen[-1] == (14, 14)
  return made


def test_members_are_snapshots(zoo):
  assert len(zoo) == 21
  assert zoo.property("network").tolist() == sorted(list(range(7)) * 3)
  assert zoo.property("epoch").tolist() == [0, 1, 2] * 7
  assert zoo.members["id"][4] == "digits-0-000001-epoch-001"
  assert zoo.members["valid"].all()
  weights = zoo.weights()[zoo.members["row"]].reshape(7, 3, -1)
  moved = np.linalg.norm(np.diff(weights, axis=1), axis=-1)
  assert (moved > 0.1).all(), "every snapshot is of another age"
  assert os.listdir(os.path.dirname(zoo.path)) == ["zoo"]


def test_hyper_parameters_are_properties(zoo):
  for name in set(properties.PROPERTIES) - {"maker"}:  # There is one alone.
    assert len(zoo.property(name)) == 21
    assert zoo.properties[name]["description"]
  rate = zoo.property("learning_rate")
  assert ((rate >= 1e-3) & (rate <= 3e-2)).all() and len(set(rate)) == 7
  assert set(zoo.property("train_fraction")) == {0.2, 1.0}
  assert set(zoo.property("initializer")) == {"glorot_normal", "normal"}
  assert set(zoo.property("dataset")) == {"digits"}
  assert set(zoo.property("depth")) == {3}
  assert set(zoo.property("widths")) == {"32,32,10"}


def test_every_snapshot_has_its_own_metrics(zoo):
  data, (spec,) = digits(), zoo.specs
  for number in range(len(zoo)):
    weights = zoo.vectors(np.array([number]))[0]
    x = data.x_test[:100].reshape(100, -1).astype(np.float32) / 127.5 - 1
    logits = families.forward(spec, weights, x)
    logs = jax.nn.log_softmax(logits)[np.arange(100), data.y_test[:100]]
    right = np.asarray(logits).argmax(axis=1) == data.y_test[:100]
    (bits,) = zoo.correct.right([number])
    assert bits.shape == (100,) and (bits != right).sum() <= 1
    np.testing.assert_allclose(
      zoo.property("test_accuracy")[number], bits.mean(), rtol=1e-6
    )
    np.testing.assert_allclose(
      zoo.property("test_loss")[number], -logs.mean(), rtol=1e-3
    )
  np.testing.assert_allclose(
    zoo.property("generalization_gap"),
    zoo.property("train_accuracy") - zoo.property("test_accuracy"),
    atol=1e-6,
  )
  np.testing.assert_array_equal(zoo.correct.classes, data.y_test[:100])
  last = zoo.select(where={"epoch": 2})
  begun = zoo.select(where={"epoch": 0})
  loss, accuracy = zoo.property("train_loss"), zoo.property("test_accuracy")
  assert (loss[last] < loss[begun]).all()
  assert accuracy[last].mean() > accuracy[begun].mean() + 0.1


def test_train_metrics_are_of_what_a_network_saw(zoo):
  """Of its own images, with the labels that it was given."""
  data, (spec,) = digits(), zoo.specs
  members = zoo.select(where={"epoch": 2})
  drawn = draws.draw_networks(TINY, data.shape, 10).numbers
  fraction, noise = drawn["train_fraction"], drawn["label_noise"]
  assert (np.minimum(fraction * 160, 100) == 32).any()
  blank = np.zeros(7, np.float32)
  hyper = fit.Hyper(
    fit.member_keys(0, np.arange(7)),
    *[blank] * 3,
    noise.astype(np.float32),
    np.zeros(7, np.int32),
    *[blank] * 2,
  )
  view = fit.make_view_fn(160, 10)(hyper, data.y_train.astype(np.int32))
  for network, member in enumerate(members):
    count = min(100, round(fraction[network] * 160))
    rows = np.asarray(view.subset)[network, :count]
    x = data.x_train[rows].reshape(count, -1).astype(np.float32) / 127.5 - 1
    logits = np.asarray(
      families.forward(spec, zoo.vectors(np.array([member]))[0], x)
    )
    right = logits.argmax(axis=1) == np.asarray(view.labels)[network, rows]
    np.testing.assert_allclose(
      zoo.property("train_accuracy")[member], right.mean(), atol=1.01 / count
    )


VARIED = options(
  num_networks=3,
  optimizer="sgd",
  initializer="normal",
  learning_rate="uniform:0.1:0.2",
  weight_decay="uniform:0.02:0.05",
  dropout="uniform:0.2:0.4",
  init_std="uniform:0.1:0.3",
  init_scale="uniform:0.5:0.8",
  train_fraction="0.3,0.5",
  label_noise="uniform:0.2:0.4",
  snapshots="2",
  validation_share=0.0,
)
NUMBERS = tuple(image_options.NUMBERS)


def programs_of(spec):
  """Returns what draws first weights, and the gradient of a step."""

  def loss_fn(weights, x, y, seed, rate):
    drop = functools.partial(fit._drop, rate, seed)
    logits = families.run(spec, spec.unflatten(weights), x, drop)
    return -jax.nn.log_softmax(logits)[jnp.arange(16), y].mean()

  start = lambda key, std: families.init(spec, key, "normal", std=std)
  return (
    jax.jit(start, compiler_options=QUICK),
    jax.jit(jax.grad(loss_fn), compiler_options=QUICK),
  )


def alone(spec, programs, number, found, data):
  """Trains a network by a loop of its own, from its properties alone.

  Only the draws are the library's: of the first weights, of what it sees and
  in which order, and of what dropout drops.
  """
  (raw,) = fit.member_keys(TINY.seed, np.array([number]))
  key = jax.random.wrap_key_data(raw, impl="threefry2x32")
  folded = functools.partial(jax.random.fold_in, key)
  count = round(found["train_fraction"] * 160)
  one = lambda name: np.full(1, found[name], np.float32)
  names = ("learning_rate", "weight_decay", "dropout", "label_noise")
  hyper = fit.Hyper(
    raw[None],
    *map(one, names),
    np.full(1, count, np.int32),
    *map(one, ("init_std", "init_scale")),
  )
  labels = data.y_train.astype(np.int32)
  view = fit.make_view_fn(160, 10)(hyper, labels)
  start, gradient_fn = programs
  is_weight = np.concatenate(
    [np.full(t.size, t.name.endswith("weight")) for t in spec.tensors]
  )
  std, rate = np.float32(found["init_std"]), np.float32(found["dropout"])
  weights = np.array(start(folded(fit._WEIGHTS), std))
  weights[is_weight] *= found["init_scale"]

  seed = int(jax.random.bits(folded(fit._DROPOUT), (), jnp.uint32))
  for epoch in range(2):
    order = fit._order(key, epoch, view.subset[0], np.int32(count))
    endless = np.tile(np.asarray(order)[:count], 10)
    for step in range(10):
      rows = endless[16 * step : 16 * (step + 1)]
      x = data.x_train[rows].reshape(16, -1).astype(np.float32) / 127.5 - 1
      word = np.uint32((seed + 10 * epoch + step) % 2**32)
      y = np.asarray(view.labels)[0][rows]
      gradient = np.asarray(gradient_fn(weights, x, y, word, rate))
      gradient = gradient + found["weight_decay"] * is_weight * weights
      weights = weights - np.float32(found["learning_rate"]) * gradient
  return weights


@pytest.mark.slow
def test_a_member_is_trained_as_its_properties_say(tmp_path):
  zoo, data = make(tmp_path / "zoo", VARIED), digits()
  found = {name: float(zoo.property(name)[2]) for name in NUMBERS}
  member = zoo.vectors([2])[0]
  (spec,) = zoo.specs
  run = functools.partial(alone, spec, programs_of(spec), 2, data=data)
  np.testing.assert_allclose(member, run(found), atol=2e-4)
  # The controls: each of them counts.
  for name in NUMBERS:
    other = found | {name: 0.7 * found[name]}
    assert np.abs(member - run(other)).max() > 2e-3, name


def test_a_part_that_would_be_empty_names_its_option(tmp_path):
  few = options(num_networks=3, validation_share=0.1)
  with pytest.raises(ValueError, match=r"validation_share 0\.1 and test_share"):
    make(tmp_path / "zoo", few)


def test_a_file_in_the_place_of_the_folder(tmp_path):
  path = tmp_path / "zoo"
  path.write_text("precious")
  with pytest.raises(errors.ZooError, match="is a file, not a folder"):
    make(path, progress=lambda *_: pytest.fail("it trains"))
  assert path.read_text() == "precious" and os.listdir(tmp_path) == ["zoo"]


def test_a_full_disk_is_an_os_error(tmp_path):
  """Which is one line for the user; a file may not grow past 10 kB here."""
  kept = {"a": np.arange(10000, dtype=np.float32)}
  write = lambda: partial.part(str(tmp_path), 3, {"a": (10000,)}, lambda: kept)
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10000, before[1]))
  try:
    with pytest.raises(OSError):
      write()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert os.listdir(tmp_path) == []
  assert not write()[1]
  arrays, there = write()
  assert there
  np.testing.assert_array_equal(arrays["a"], kept["a"])


def test_a_split_never_parts_a_network(zoo):
  split = zoo.split("default")
  network = zoo.property("network")
  parts = [set(network[numbers]) for numbers in split.values()]
  assert sorted(split) == ["test", "train", "val"]
  assert sum(map(len, parts)) == len(set().union(*parts)) == 7
  assert sum(map(len, split.values())) == 21


@pytest.mark.slow
def test_a_network_is_a_function_of_seed_and_number(zoo, tmp_path):
  shares = {"validation_share": 0.0, "test_share": 0.5}
  few = make(
    tmp_path / "few", options(num_networks=2, batch_members=2, **shares)
  )
  np.testing.assert_allclose(few.weights(), zoo.weights()[:6], atol=1e-4)
  for name in ("learning_rate", "initializer", "test_accuracy"):
    got, want = few.property(name), zoo.property(name)[:6]
    if got.dtype.kind == "f":
      np.testing.assert_allclose(got, want, atol=0.02)
    else:
      np.testing.assert_array_equal(got, want)
  other = draws.draw_networks(options(seed=1), (1, 8, 8), 10)
  same = draws.draw_networks(TINY, (1, 8, 8), 10)
  for name in ("learning_rate", "label_noise", "init_std"):
    assert not np.isin(other.numbers[name], same.numbers[name]).any()


def test_a_diverged_network_is_kept_and_flagged(zoo, tmp_path, monkeypatch):
  real = draws.draw_networks

  def draw(*args):
    drawn = real(*args)
    drawn.numbers["learning_rate"][1] = 1e36
    drawn.numbers["init_scale"][1] = 1e30
    return drawn

  monkeypatch.setattr(draws, "draw_networks", draw)
  hurt = make(tmp_path / "zoo")
  assert np.flatnonzero(~hurt.members["valid"]).tolist() == [3, 4, 5]
  others = zoo.property("network") != 1
  np.testing.assert_array_equal(hurt.weights()[others], zoo.weights()[others])
  assert not any(
    np.isin([3, 4, 5], part).any() for part in hurt.split("default").values()
  )


CHILD = """
import json, sys, time
from sne_jax.zoo.classifiers import generate, images, options
generate.generate_image_zoo(
  sys.argv[1],
  options.ImageZooOptions(**json.loads(sys.argv[2])),
  images.load_images(images.ImageOptions(train_images=160, test_images=120)),
  dataset="digits",
  progress=lambda done, total, message: time.sleep(0.1),
)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(zoo, tmp_path):
  values = json.dumps(dataclasses.asdict(TINY))
  child = subprocess.Popen(
    [sys.executable, "-c", CHILD, str(tmp_path / "zoo"), values],
    env=os.environ
    | {
      "JAX_NUM_CPU_DEVICES": str(jax.local_device_count()),
      "PYTHONPATH": os.pathsep.join(sys.path),
    },
  )
  folder = tmp_path / "zoo.partial"
  end = time.monotonic() + 300
  while not list(folder.glob("part-*.safetensors")):
    assert child.poll() is None and time.monotonic() < end
    time.sleep(0.005)
  child.send_signal(signal.SIGKILL)
  assert child.wait() == -signal.SIGKILL
  assert not (tmp_path / "zoo").exists()
  there = []
  make(
    tmp_path / "zoo",
    options(batch_members=0),  # Takes up the size it was begun with.
    progress=lambda done, total, message: there.append("already" in message),
  )
  assert any(there) and not all(there)
  assert os.listdir(tmp_path) == ["zoo"]
  assert contents(tmp_path / "zoo") == contents(type(tmp_path)(zoo.path))


def test_two_generators_do_not_meet(tmp_path):
  with (
    lock.folder_lock(tmp_path / "zoo"),
    pytest.raises(errors.ZooError, match="is writing here"),
  ):
    make(tmp_path / "zoo")


def test_other_options_or_images_are_refused_by_name(zoo):
  assert len(make(zoo.path, options(batch_members=5))) == 21
  with pytest.raises(errors.ZooError) as caught:
    make(zoo.path, options(seed=1, batch_size=8))
  assert "seed is 0 there, 1 asked for" in str(caught.value)
  assert "batch_size is 16 there, 8 asked for" in str(caught.value)
  data = digits()
  moved = data._replace(x_train=255 - data.x_train)
  with pytest.raises(errors.ZooError, match="images is"):
    make(zoo.path, data=moved)


def test_an_image_that_an_architecture_cannot_take(tmp_path):
  for name in ("arch1", "schuerholt"):
    with pytest.raises(ValueError, match=f"'{name}' cannot take .* 8x8.*fit"):
      make(tmp_path / "zoo", options(architecture=name))
  assert os.listdir(tmp_path) == []


def test_wild_park_members_share_programs():
  many = options(
    num_networks=40,
    architecture="wild_park",
    optimizer="adam,sgd",
    members_per_architecture=4,
  )
  drawn = draws.draw_networks(many, (1, 8, 8), 10)
  spec, optimizer = (
    drawn.spec.reshape(10, 4),
    np.reshape(drawn.optimizer, (10, 4)),
  )
  assert (spec == spec[:, :1]).all() and (optimizer == optimizer[:, :1]).all()
  assert len(drawn.specs) > 5 and len(set(drawn.optimizer)) == 2
  assert len({len(s.activations) for s in drawn.specs}) > 1
  assert any(s.skips for s in drawn.specs)
  assert len(set(drawn.numbers["learning_rate"])) == 40
  batches = list(generate.batches(drawn, 3))
  assert sorted(np.concatenate([b.members for b in batches])) == list(range(40))
  assert {(len(b.members), b.slots) for b in batches} == {(2, 2)}


def test_a_batch_is_found_for_the_memory_there_is(monkeypatch):
  data = digits()
  spec = families.architecture("arch1", (1, 28, 28))
  devices = jax.local_devices()
  for count in (1, 2, 64):  # The same share for each, on any number.
    monkeypatch.setattr(jax, "local_devices", lambda n=count: devices[:1] * n)
    monkeypatch.setattr(partial, "_free_host_bytes", lambda n=count: n << 32)
    found = generate.free_batch_members([spec], 128, data)
    assert found == generate.CPU_MEMBERS * count
    # All of them are filled, whatever their tiles: no place is left over.
    for tile in range(1, 20):
      assert tiles.even_slots(found, tile, count) == found
  monkeypatch.setattr(partial, "_free_host_bytes", lambda: 1 << 20)
  assert generate.free_batch_members([spec], 128, data) == 1


@pytest.mark.parametrize(
  ("text", "share", "value"),
  [
    ("0.3", 0.7, 0.3),
    ("1,2,4", 0.99, 4.0),
    ("1,2,4", 0.0, 1.0),
    ("uniform:1:3", 0.25, 1.5),
    ("log:1e-4:1e-2", 0.5, 1e-3),
  ],
)
def test_ranges_by_hand(text, share, value):
  drawn = ranges.draw("x", text, np.array([share]))
  np.testing.assert_allclose(drawn, [value], rtol=1e-12)


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("num_networks", 0),
    ("architecture", "vgg"),
    ("activation", "relu,swoosh"),
    ("optimizer", ""),
    ("initializer", "siren"),
    ("learning_rate", "log:0:1"),
    ("learning_rate", "log:1"),
    ("learning_rate", "fast"),
    ("weight_decay", "nan"),
    ("dropout", "1"),
    ("train_fraction", "uniform:0.5:1.5"),
    ("label_noise", "-0.1"),
    ("snapshots", "3,1"),
    ("snapshots", "one"),
    ("batch_size", 0),
    ("test_share", 0.9),
  ],
)
def test_bad_options_are_named(name, value):
  with pytest.raises(ValueError, match=name):
    options(**{name: value})
