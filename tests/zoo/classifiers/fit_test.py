"""The trainer of populations against a loop written without it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks import families
from sne_jax.zoo.classifiers import fit, tiles
from sne_jax.zoo.store import partial

N, SIDE, BATCH, EPOCHS = 40, 6, 8, 10  # 10 epochs of 5 steps.
DECAY = 0.03
QUICK = {"xla_backend_optimization_level": "0"}


def spec_of(activation):
  return families.cnn(
    (1, SIDE, SIDE),
    (3, 2),
    (3, 2),
    (2, 1),
    num_classes=3,
    activation=activation,
  )


def population(size, **changes):
  values = {
    "learning_rate": np.linspace(0.01, 0.03, size),
    "weight_decay": np.full(size, DECAY),
    "dropout": np.zeros(size),
    "label_noise": np.zeros(size),
    "init_std": np.full(size, 0.1),
    "init_scale": np.full(size, 1.0),
  } | changes
  seen = values.pop("num_images", np.linspace(N // 2, N, size))
  return fit.Hyper(
    key=fit.member_keys(3, np.arange(size)),
    num_images=np.asarray(seen).astype(np.int32),
    **{k: np.asarray(v, np.float32) for k, v in values.items()},
  )


def taken(hyper, places):
  return fit.Hyper(*(np.asarray(a)[places] for a in hyper))


@pytest.fixture(scope="module")
def data():
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (N + 10, SIDE * SIDE), np.uint8)
  labels = (pixels[:, :12].mean(axis=1) > 127).astype(np.int32)
  return fit.Data(pixels, labels + (pixels[:, 0] > 200))


def epoch_of(spec, optimizer, *, dropout=False, devices=1):
  return fit.make_epoch_fn(
    spec,
    optimizer,
    num_train=N,
    num_classes=3,
    batch_size=BATCH,
    dropout=dropout,
    devices=tuple(jax.local_devices()[:devices]),
  )


def view_of(hyper, data):
  return jax.tree.map(
    np.asarray, fit.make_view_fn(N, 3)(hyper, data.labels[:N])
  )


def first(spec, optimizer, hyper):
  start = fit.make_start_fn(spec, "glorot_normal")
  tensors = jax.tree.map(np.asarray, start(hyper))
  return fit.begin(optimizer, tensors)


def train(epoch, spec, optimizer, hyper, data, *, devices=1, epochs=EPOCHS):
  held = jax.local_devices()[:devices]
  state = first(spec, optimizer, hyper)
  state, view, hyper = partial.place((state, view_of(hyper, data), hyper), held)
  for number in range(epochs):
    state = epoch(state, hyper, view, data, np.int32(number))
  return spec.flatten(jax.tree.map(np.asarray, state.tensors), np)


def update(optimizer, gradient, memory, step):
  """One step of each optimiser, by its textbook formula."""
  mean, square = memory
  if optimizer == "sgd":
    return gradient, memory
  if optimizer == "momentum":
    mean = 0.9 * mean + gradient
    return mean, (mean, square)
  if optimizer == "rmsprop":
    square = 0.9 * square + 0.1 * gradient**2
    return gradient / np.sqrt(square + 1e-8), (mean, square)
  mean = 0.9 * mean + 0.1 * gradient
  square = 0.999 * square + 0.001 * gradient**2
  up = mean / (1 - 0.9**step)
  return up / (np.sqrt(square / (1 - 0.999**step)) + 1e-8), (mean, square)


def train_alone(spec, optimizer, hyper, data, member):
  """One network in a plain loop; only the order of images is the library's."""
  own = taken(hyper, [member])
  view = view_of(own, data)
  rate = own.dropout[0]
  weights = spec.flatten(first(spec, optimizer, own).tensors, np)[0]
  weights = weights.astype(np.float64)
  decayed = np.concatenate(
    [np.full(t.size, t.name.endswith("weight")) for t in spec.tensors]
  )

  def loss_fn(weights, x, y, seed):
    drop = functools.partial(fit._drop, jnp.float32(rate), seed)
    drop = (drop,) if rate else ()
    logits = families.run(spec, spec.unflatten(weights), x, *drop)
    return -jax.nn.log_softmax(logits)[jnp.arange(BATCH), y].mean()

  gradient_fn = jax.jit(jax.grad(loss_fn), compiler_options=QUICK)
  key = jax.random.wrap_key_data(own.key[0], impl="threefry2x32")
  folded = jax.random.fold_in(key, fit._DROPOUT)
  seed = int(jax.random.bits(folded, (), jnp.uint32))
  memory, step = (np.zeros(weights.size), np.zeros(weights.size)), 0
  count = own.num_images[0]
  for epoch in range(EPOCHS):
    order = np.asarray(
      fit._order(key, epoch, view.subset[0], own.num_images[0])
    )[:count]
    assert sorted(order) == sorted(view.subset[0][:count])
    endless = np.tile(order, 3)
    for place in range(0, N, BATCH):
      rows = endless[place : place + BATCH]
      x = data.pixels[rows].astype(np.float32) / 127.5 - 1
      gradient = gradient_fn(
        weights.astype(np.float32),
        x.reshape(BATCH, 1, SIDE, SIDE),
        view.labels[0][rows],
        np.uint32((seed + step) % 2**32),
      )
      gradient = np.asarray(gradient, np.float64) + DECAY * decayed * weights
      step += 1
      change, memory = update(optimizer, gradient, memory, step)
      weights = weights - own.learning_rate[0] * change
  assert step == 50
  return weights


CASES = list(
  zip(
    [name for name in families.ACTIVATIONS if name != "none"],
    ["adam", "momentum", "rmsprop", "sgd"] * 2,
    strict=True,
  )
)


@pytest.mark.parametrize(
  ("activation", "optimizer"),
  # With the slow ones, each optimizer and activation.
  [
    pytest.param(*c, marks=() if n == 1 else pytest.mark.slow)
    for n, c in enumerate(CASES)
  ],
)
def test_a_member_is_the_network_trained_alone(activation, optimizer, data):
  spec, hyper = spec_of(activation), population(3)
  together = train(epoch_of(spec, optimizer), spec, optimizer, hyper, data)
  alone = train_alone(spec, optimizer, hyper, data, 1)
  np.testing.assert_allclose(together[1], alone, atol=1e-4)
  # The controls: it has learned, and its neighbours are others.
  begun = spec.flatten(first(spec, optimizer, hyper).tensors, np)
  assert np.abs(together[1] - begun[1]).max() > 0.02
  assert np.abs(together[0] - together[1]).max() > 0.02


@pytest.mark.slow
def test_dropout_is_applied_at_the_rate_of_the_member(data):
  spec, hyper = spec_of("tanh"), population(2, dropout=[0.0, 0.4])
  epoch = epoch_of(spec, "sgd", dropout=True)
  together = train(epoch, spec, "sgd", hyper, data)
  for member in range(2):
    own = train_alone(spec, "sgd", hyper, data, member)
    np.testing.assert_allclose(together[member], own, atol=1e-4)
  # The control: another rate gives other weights.
  other = hyper._replace(dropout=np.float32([0.0, 0.3]))
  changed = train_alone(spec, "sgd", other, data, 1)
  assert np.abs(together[1] - changed).max() > 2e-3


@pytest.mark.slow
def test_order_in_the_population_does_not_matter(data):
  spec, hyper = spec_of("relu"), population(4)
  epoch = epoch_of(spec, "adam", dropout=True)
  hyper = hyper._replace(dropout=np.float32([0.0, 0.2, 0.4, 0.6]))
  straight = train(epoch, spec, "adam", hyper, data, epochs=3)
  turned = train(
    epoch, spec, "adam", taken(hyper, [2, 0, 3, 1]), data, epochs=3
  )
  np.testing.assert_allclose(turned, straight[[2, 0, 3, 1]], atol=1e-5)
  if jax.local_device_count() > 1:
    both = epoch_of(spec, "adam", dropout=True, devices=2)
    shared = train(both, spec, "adam", hyper, data, devices=2, epochs=3)
    np.testing.assert_allclose(shared, straight, atol=1e-5)


@pytest.mark.slow
def test_a_diverged_neighbour_changes_no_bit(data):
  spec, hyper = spec_of("relu"), population(3)
  epoch = epoch_of(spec, "sgd")
  good = train(epoch, spec, "sgd", hyper, data, epochs=2)
  rates = hyper.learning_rate * np.float32([1, 1e30, 1])
  hurt = train(
    epoch, spec, "sgd", hyper._replace(learning_rate=rates), data, epochs=2
  )
  assert not np.isfinite(hurt[1]).all()
  np.testing.assert_array_equal(hurt[[0, 2]], good[[0, 2]])


def test_views_of_the_data(data):
  hyper = population(3, label_noise=[0.0, 0.5, 1.0])
  view = view_of(hyper, data)
  assert (np.sort(view.subset, axis=1) == np.arange(N)).all()
  assert (view.subset[0] != view.subset[1]).any()
  true = data.labels[:N]
  changed = (view.labels != true).mean(axis=1)
  assert changed[0] == 0 and 0.1 < changed[1] < 0.55 and changed[2] > 0.4


def test_epochs_have_orders_of_their_own(data):
  hyper = population(1)
  key = jax.random.wrap_key_data(hyper.key[0], impl="threefry2x32")
  subset = view_of(hyper, data).subset[0]
  order = functools.partial(fit._order, key)
  one, two = (np.asarray(order(e, subset, np.int32(20))) for e in (0, 1))
  assert (one[:20] != two[:20]).any()
  assert sorted(one[:20]) == sorted(two[:20]) == sorted(subset[:20])


def test_dropout_drops_its_share_and_keeps_the_mean():
  x = jnp.ones((50, 40))
  drop = functools.partial(fit._drop, jnp.float32(0.3))
  one = np.asarray(drop(jnp.uint32(5), 0, x))
  np.testing.assert_allclose(np.unique(one), [0, 1 / 0.7], rtol=1e-6)
  assert abs((one == 0).mean() - 0.3) < 0.03
  # Rows, columns, steps and levels are independent.
  assert (one == 0).mean(axis=0).std() < 0.12
  assert (one == 0).mean(axis=1).std() < 0.12
  for other in (drop(jnp.uint32(6), 0, x), drop(jnp.uint32(5), 1, x)):
    both = ((one == 0) & (np.asarray(other) == 0)).mean()
    assert abs(both - 0.09) < 0.03
  np.testing.assert_array_equal(
    fit._drop(jnp.float32(0.0), jnp.uint32(5), 0, x), x
  )


@pytest.mark.slow
def test_evaluation_counts_what_is_real(data):
  spec, hyper = spec_of("relu"), population(2)
  tensors = first(spec, "sgd", hyper).tensors
  width = 2 * fit.BLOCK
  rng = np.random.default_rng(1)
  places = rng.integers(0, N, (2, width)).astype(np.int32)
  labels = data.labels[places]
  real = rng.random((2, width)) < 0.3
  evaluate = fit.make_evaluate_fn(spec, tuple(jax.local_devices()[:1]))
  found = evaluate(tensors, data, places, labels, real)
  for member in range(2):
    rows = places[member][real[member]]
    x = data.pixels[rows].astype(np.float32) / 127.5 - 1
    logits = families.forward(
      spec,
      spec.flatten(tensors, np)[member],
      x.reshape(-1, 1, SIDE, SIDE),
    )
    y = data.labels[rows]
    logs = jax.nn.log_softmax(logits)[jnp.arange(len(y)), y]
    np.testing.assert_allclose(found.loss[member], -logs.mean(), rtol=1e-5)
    right = (np.asarray(logits).argmax(axis=1) == y).mean()
    np.testing.assert_allclose(found.accuracy[member], right, rtol=1e-6)


def test_slots_divide_evenly():
  assert tiles.even_slots(5, 4, 1) == 6
  assert tiles.even_slots(83, 1, 2) == 84
  assert tiles.even_slots(1, 1 << 30, 2) == 2
  assert tiles.even_slots(7, 100, 1) == 7


@pytest.mark.slow
def test_a_batch_in_parts_has_the_gradient_of_the_whole(monkeypatch):
  spec = families.architecture("arch1", (1, 16, 16), 10, "relu", ())
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (128, 256), np.uint8)
  labels = rng.integers(0, 10, 128).astype(np.int32)
  found = []
  for most in (tiles.STEP_BYTES, 1):
    monkeypatch.setattr(tiles, "STEP_BYTES", most)
    fit.make_epoch_fn.cache_clear()
    parts = tiles.step_parts(spec, 64, "cpu")
    assert parts == (1 if most > 1 else 2)
    devices = tuple(jax.local_devices()[:1])
    epoch = fit.make_epoch_fn(
      spec,
      "sgd",
      num_train=128,
      num_classes=10,
      batch_size=64,
      dropout=False,
      devices=devices,
    )
    one = np.ones(1, np.float32)
    hyper = fit.Hyper(
      key=fit.member_keys(0, np.arange(1)),
      learning_rate=0.1 * one,
      weight_decay=0.01 * one,
      dropout=0 * one,
      label_noise=0 * one,
      num_images=np.full(1, 128, np.int32),
      init_std=one,
      init_scale=one,
    )
    start = fit.make_start_fn(spec, "he_normal")(hyper)
    state = fit.begin("sgd", jax.tree.map(np.asarray, start))
    view = fit.make_view_fn(128, 10)(hyper, jnp.asarray(labels))
    data = fit.Data(pixels, labels)
    state = epoch(state, hyper, view, data, np.int32(0))
    found.append(jax.tree.map(np.asarray, state.tensors))
    moved = np.abs(found[-1]["conv0.weight"] - start["conv0.weight"]).max()
    assert moved > 1e-3
  for whole, parts in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(whole, parts, atol=1e-6)
