"""Zoos of tickets: what they hold; broken off, they end with the same bytes."""

import dataclasses
import os
import pathlib

import jax
import numpy as np
import pytest

from sne_jax import errors
from sne_jax.networks import families
from sne_jax.zoo.classifiers import images
from sne_jax.zoo.store import partial, store
from sne_jax.zoo.tickets import options, pruning, ticket_zoo, trials

TINY = options.TicketOptions(
  num_networks=5,
  sparsity=0.7,
  rounds=2,
  epochs=2,
  batch_size=32,
  validation_images=50,
  validation_share=0.2,
  test_share=0.2,
  batch_members=2,
)


def digits():
  return images.load_images(
    images.ImageOptions(train_images=210, test_images=60)
  )


def made(path, opts=TINY, data=None, **more):
  return ticket_zoo.generate_ticket_zoo(
    path, opts, data or digits(), dataset="digits", **more
  )


def contents(folder):
  return {
    name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))
  }


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
  seen = []
  told = made(
    tmp_path_factory.mktemp("made") / "zoo",
    progress=lambda *said: seen.append(said[:2]),
  )
  assert seen == sorted(seen) and seen[-1] == (30, 30)
  return told


@pytest.fixture(scope="module")
def work():
  return trials.Trials(TINY, digits(), 2)


def test_members_are_first_weights_and_a_mask(zoo, work):
  (spec,) = zoo.specs
  assert spec == families.mlp((64, 32, 32, 10), "relu")
  assert len(zoo) == 5 and zoo.members["valid"].all()
  np.testing.assert_array_equal(zoo.weights(), work.first_weights(np.arange(5)))
  tensors = spec.unflatten(zoo.weights())
  deviation = np.sqrt(2 / (64 + 32))  # Of a Glorot draw: untrained.
  assert tensors[spec.tensors[0].name].std() == pytest.approx(deviation, 0.03)
  masks = zoo.masks.rows(range(5))
  counts = pruning.counts(spec, 0.3)
  assert (pruning.kept(spec, masks) == counts).all()
  assert len({mask.tobytes() for mask in masks}) == 5
  share = 1 - counts.sum() / pruning.prunable(spec).sum()
  np.testing.assert_allclose(zoo.property("sparsity"), share, rtol=1e-6)
  assert set(zoo.properties) == set(ticket_zoo.PROPERTIES)
  sizes = {part: len(rows) for part, rows in zoo.split("default").items()}
  assert sizes == {"train": 3, "val": 1, "test": 1}


def test_a_mask_keeps_the_largest_of_what_was_trained(zoo, work):
  """Round by round, from first weights, worked out anew."""
  (spec,) = zoo.specs
  numbers = np.arange(2)
  first = zoo.weights()[:2]
  masks = np.ones(first.shape, bool)
  for density in (0.3**0.5, 0.3):
    after = work.train(first, masks, numbers).weights
    assert (after[~masks] == 0).all()
    assert (after[masks] != 0).mean() > 0.9
    for n, (name, place) in enumerate(pruning.places(spec).items()):
      count = pruning.counts(spec, density)[n]
      for row in range(2):
        size = np.where(masks[row, place], np.abs(after[row, place]), -1)
        least = np.sort(size)[-count]
        masks[row, place] = size >= least
        assert masks[row, place].sum() == count, name
  np.testing.assert_array_equal(masks, zoo.masks.rows([0, 1]))


def test_what_is_masked_stays_zero_bit_by_bit(work):
  """With momentum, weight decay and Adam, and whatever begins there."""
  numbers, rng = np.arange(2), np.random.default_rng(0)
  first = work.first_weights(numbers)
  masks = pruning.best(
    work.spec, rng.random(first.shape), pruning.counts(work.spec, 0.2)
  )
  for name in ("adam", "momentum", "rmsprop", "sgd"):
    opts = dataclasses.replace(TINY, optimizer=name, epochs=1)
    some = trials.Trials(opts, digits(), 2)
    object.__setattr__(some._tuner.settings, "weight_decay", 1e-3)
    after = some.train(first, masks, numbers).weights
    assert not after[~masks].view(np.uint32).any()
    where = np.where(masks, first, 0)
    assert (after != where)[masks].mean() > 0.8


def test_accuracies_are_of_masked_trainings_in_an_order_of_their_own(zoo, work):
  (spec,) = zoo.specs
  first, numbers = zoo.weights()[:2], np.arange(2)
  masks = zoo.masks.rows([0, 1])
  kept = pruning.kept(spec, masks)
  ways = {
    "dense": np.ones(first.shape, bool),
    "imp": masks,
    "magnitude": pruning.best(spec, np.abs(first), kept),
    "random": ticket_zoo.random_masks(spec, kept, 0, numbers),
  }
  data = digits()
  x = data.x_test.reshape(60, -1).astype(np.float32) / 127.5 - 1
  for way, mask in ways.items():
    trained = work.train(first, mask, numbers, compared=True)
    for part in ("validation", "test"):
      stored = zoo.property(f"{way}_{part}_accuracy")[:2]
      np.testing.assert_allclose(getattr(trained, part), stored, atol=1e-6)
    right = [
      (np.argmax(families.forward(spec, w, x), axis=1) == data.y_test).mean()
      for w in trained.weights
    ]
    np.testing.assert_allclose(trained.test, right, atol=1 / 60 + 1e-6)
  one, other = (
    work.train(first, masks, numbers, compared=c) for c in (True, False)
  )
  assert np.abs(one.weights - other.weights).max() > 1e-3


@pytest.mark.slow
def test_images_that_are_reported_on_find_no_mask(tmp_path):
  """Other validation and test images: the same weights and masks."""
  data = digits()
  other = data._replace(
    x_train=np.concatenate([data.x_train[:160], 255 - data.x_train[160:]]),
    x_test=255 - data.x_test,
    y_test=data.y_test[::-1].copy(),
  )
  one, two = made(tmp_path / "a"), made(tmp_path / "b", data=other)
  np.testing.assert_array_equal(one.masks.packed, two.masks.packed)
  np.testing.assert_array_equal(one.weights(), two.weights())
  name = "dense_test_accuracy"
  assert (one.property(name) != two.property(name)).any()


def test_a_zoo_that_was_broken_off_ends_with_the_same_bytes(
  zoo, tmp_path, monkeypatch
):
  path, true = tmp_path / "zoo", partial.part
  calls = []

  def killed(*args):
    if len(calls) == 1:
      raise KeyboardInterrupt
    calls.append(1)
    return true(*args)

  with monkeypatch.context() as patched:
    patched.setattr(partial, "part", killed)
    with pytest.raises(KeyboardInterrupt):
      made(path)
  assert not path.exists()
  (part,) = (tmp_path / "zoo.partial").glob("part-*")
  stamp = part.stat().st_mtime_ns
  seen = []

  def watch(*args):
    found = true(*args)
    seen.append((part.exists() and part.stat().st_mtime_ns, found[1]))
    return found

  monkeypatch.setattr(partial, "part", watch)
  made(path)
  assert seen[0] == (stamp, True) and not seen[1][1]
  assert contents(path) == contents(pathlib.Path(zoo.path))


def test_of_other_options_it_is_refused(zoo):
  with pytest.raises(errors.ZooError, match=r"sparsity is 0\.7 there"):
    made(zoo.path, dataclasses.replace(TINY, sparsity=0.5))


def test_global_pruning_keeps_as_many_in_all(tmp_path):
  opts = dataclasses.replace(TINY, scope="global", num_networks=3)
  opts = dataclasses.replace(opts, validation_share=0.0, test_share=0.0)
  zoo = made(tmp_path / "zoo", opts)
  kept = pruning.kept(zoo.specs[0], zoo.masks.rows(range(3)))
  assert (kept.sum(axis=1) == pruning.counts(zoo.specs[0], 0.3).sum()).all()
  assert (kept != pruning.counts(zoo.specs[0], 0.3)).any()


def test_sensitivity_is_gradient_times_weight(work):
  """Against differences of the loss, worked out by hand."""
  data, spec = digits(), work.spec
  weights = work.first_weights(np.arange(1))
  found = work.sensitivity(weights)[0]
  x = data.x_train[:160].reshape(160, -1).astype(np.float32) / 127.5 - 1

  def loss(row):
    logs = jax.nn.log_softmax(families.forward(spec, row, x))
    return -logs[np.arange(160), data.y_train[:160]].mean()

  g = jax.grad(loss)(weights[0])
  np.testing.assert_allclose(
    found, np.abs(np.asarray(g) * weights[0]), rtol=1e-3, atol=1e-7
  )


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"num_networks": 1}, "of num_networks 1 leave a part empty"),
    ({"validation_images": 210}, "validation_images is 210, and there are 210"),
    ({"architecture": "arch1"}, "arch1"),
  ],
)
def test_what_cannot_be_is_said_before_anything_is_made(
  changes, said, tmp_path
):
  with pytest.raises(ValueError, match=said):
    made(tmp_path / "zoo", dataclasses.replace(TINY, **changes))
  assert not os.listdir(tmp_path)


def test_masks_of_another_architecture_are_refused(work):
  first = work.first_weights(np.arange(2))
  masks = np.ones((2, 7), bool)
  with pytest.raises(ValueError, match="masks are of 7 weights, and mlp of 34"):
    work.train(first, masks, np.arange(2))
  with pytest.raises(ValueError, match="2 networks and 1 masks"):
    work.train(first, np.ones(first[:1].shape, bool), np.arange(2))


def test_a_stored_zoo_is_opened_with_its_masks(zoo):
  again = store.Zoo.open(zoo.path)
  np.testing.assert_array_equal(again.masks.packed, zoo.masks.packed)
