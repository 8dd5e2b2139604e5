"""Sine-INR zoos: what they hold, and that breaking off changes nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from sne_jax import errors
from sne_jax.networks import families
from sne_jax.zoo.inrs import fit as inr_fit
from sne_jax.zoo.inrs import generate
from sne_jax.zoo.store import lock, partial, store, writing

TINY = generate.InrZooOptions(
  num_networks=7,
  points=40,
  hidden=6,
  max_steps=50,
  check_every=20,
  tolerance=0.2,
  learning_rate=3e-3,
  weight_decay=0.05,
  batch_members=2,
)


def options(**changes):
  return generate.dataclasses.replace(TINY, **changes)


def independent_forward(options, weights, x):
  """The INR in numpy and float64, written without the library."""
  sizes = [1, *[options.hidden] * options.layers, 1]
  values, place = x[:, None].astype(np.float64), 0
  for level, (inputs, outputs) in enumerate(
    zip(sizes[:-1], sizes[1:], strict=True)
  ):
    matrix = weights[place : place + inputs * outputs]
    place += inputs * outputs
    bias = weights[place : place + outputs]
    place += outputs
    values = values @ matrix.reshape(outputs, inputs).T.astype(np.float64)
    values = values + bias
    if level < options.layers:
      values = np.sin(options.w0 * values)
  assert place == len(weights)
  return values[:, 0] + 0.5


def contents(folder):
  return {
    name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))
  }


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
  seen = []
  made = generate.generate_inr_zoo(
    tmp_path_factory.mktemp("made") / "zoo",
    TINY,
    split={"train": 4, "test": 3},
    progress=lambda *said: seen.append(said[:2]),
  )
  assert [done for done, _ in seen] == sorted(done for done, _ in seen)
  assert seen[-1] == (7, 7)
  return made


def test_the_zoo_is_what_was_asked_for(zoo):
  assert len(zoo) == 7
  assert zoo.specs == (families.inr((1, 6, 6, 1)),)
  assert {p: len(n) for p, n in zoo.split("default").items()} == {
    "train": 4,
    "test": 3,
  }
  frequency = zoo.property("frequency")
  assert ((frequency >= 0.5) & (frequency < 10)).all()
  assert len(set(frequency)) == 7
  assert (zoo.property("amplitude") == 1).all()
  assert os.listdir(os.path.dirname(zoo.path)) == ["zoo"]


def test_reconstruction_error_is_that_of_the_stored_weights(zoo):
  x = generate.wave_points(TINY)
  assert x[0] == np.float32(-np.pi)
  assert x[-1] < np.pi
  for number in range(len(zoo)):
    wave = np.sin(zoo.property("frequency")[number] * x)
    fitted = independent_forward(TINY, zoo.weights()[number], x)
    np.testing.assert_allclose(
      zoo.property("reconstruction_error")[number],
      np.mean((fitted - wave) ** 2),
      rtol=1e-4,
    )


def test_networks_stop_when_good_enough_or_out_of_steps(zoo):
  error, steps = zoo.property("reconstruction_error"), zoo.property("steps")
  converged = zoo.property("converged")
  np.testing.assert_array_equal(converged, error <= TINY.tolerance)
  assert set(steps) <= {20, 40, 50}
  assert (steps[~converged] == 50).all()
  assert converged.any() and not converged.all(), "the test must see both"
  assert zoo.members["valid"].all()


def test_initialisations_differ(zoo):
  weights = zoo.weights()
  apart = np.linalg.norm(weights[:, None] - weights[None, :], axis=-1)
  assert (apart[~np.eye(7, dtype=bool)] > 0.1).all()


@pytest.mark.slow
def test_the_fit_is_that_of_torch_adam(fns):
  """Adam with L2 weight decay, by hand, on one network."""
  start, advance = fns
  key = jax.random.key(3)
  state = start(key[None])
  x = generate.wave_points(TINY)
  wave = np.sin(2 * x)[None]
  spec = generate.inr_spec(TINY)

  def loss_fn(weights):
    out = families.forward(spec, weights, jax.numpy.asarray(x)[:, None])[:, 0]
    return ((out - wave[0]) ** 2).mean()

  tensors = jax.tree.map(np.asarray, state.tensors)
  weights = spec.flatten(tensors, np)[0].astype(np.float64)
  mean, square = np.zeros_like(weights), np.zeros_like(weights)
  gradient_fn = jax.jit(jax.grad(loss_fn))
  for step in range(1, 4):
    gradient = np.asarray(gradient_fn(weights.astype(np.float32)))
    gradient = gradient + TINY.weight_decay * weights
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.999 * square + 0.001 * gradient**2
    change = mean / (1 - 0.9**step)
    change /= np.sqrt(square / (1 - 0.999**step)) + 1e-8
    weights = weights - TINY.learning_rate * change
  state, error = advance(state, wave, 3)
  got = spec.flatten(jax.tree.map(np.asarray, state.tensors), np)[0]
  np.testing.assert_allclose(got, weights, atol=1e-5)
  np.testing.assert_allclose(
    error[0], loss_fn(jax.numpy.asarray(weights, np.float32)), rtol=1e-4
  )


def fit(fns, members, sizes, devices=1, targets=None):
  keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(members)
  if targets is None:
    x = generate.wave_points(TINY)
    targets = np.sin(generate.member_waves(TINY)[1][members, None] * x)
  return inr_fit.fit_batch(
    generate.inr_spec(TINY),
    *fns,
    keys,
    targets.astype(np.float32),
    sizes=sizes,
    devices=jax.local_devices()[:devices],
    max_steps=TINY.max_steps,
    check_every=TINY.check_every,
    tolerance=TINY.tolerance,
    on_done=lambda done: None,
  )


@pytest.fixture(scope="module")
def fns():
  return generate.fit_fns(TINY)


@pytest.fixture(scope="module")
def together(fns):
  return fit(fns, np.arange(7), [8])


def test_shrinking_the_batch_changes_nothing(fns, together):
  start, advance = fns
  sizes = []

  def spy(state, targets, count):
    sizes.append(len(targets))
    return advance(state, targets, count)

  shrunk = fit((start, spy), np.arange(7), [8, 4, 2, 1])
  assert min(sizes) < 8, "the test must see it shrink"
  assert shrunk.steps[0] < shrunk.steps.max(), "and to another than the first"
  np.testing.assert_array_equal(shrunk.steps, together.steps)
  np.testing.assert_allclose(shrunk.weights, together.weights, atol=1e-4)
  np.testing.assert_allclose(shrunk.error, together.error, rtol=1e-3)


def test_a_network_alone_is_the_network_in_the_batch(fns, together):
  for member in (0, 5):
    alone = fit(fns, np.array([member]), [1])
    assert alone.steps[0] == together.steps[member]
    np.testing.assert_allclose(
      alone.weights[0], together.weights[member], atol=1e-4
    )
  # The control: another network is another network.
  assert np.abs(alone.weights[0] - together.weights[0]).max() > 1e-2


def test_a_diverged_network_leaves_its_neighbours_alone(fns, together):
  x = generate.wave_points(TINY)
  targets = np.sin(generate.member_waves(TINY)[1][:, None] * x)
  targets[3] = 1e30  # the square overflows
  hurt = fit(fns, np.arange(7), [8], targets=targets)
  assert not np.isfinite(hurt.error[3])
  assert hurt.steps[3] == TINY.check_every, "it stops at the first look"
  others = np.arange(7) != 3
  np.testing.assert_array_equal(hurt.weights[others], together.weights[others])


@pytest.mark.skipif(jax.local_device_count() < 2, reason="needs two devices")
def test_devices_share_the_networks(zoo, together):
  state = partial.place(np.zeros((4, 3)), jax.local_devices()[:2])
  assert [s.data.shape for s in state.addressable_shards] == [(2, 3)] * 2
  # The zoo was made on all devices, in batches of two; `together` on one.
  np.testing.assert_array_equal(zoo.property("steps"), together.steps)
  np.testing.assert_allclose(zoo.weights(), together.weights, atol=1e-4)


def test_batch_sizes_are_few_and_divide():
  assert inr_fit.batch_sizes(7, 2) == [8]
  sizes = inr_fit.batch_sizes(100, 4)
  assert sizes == sorted(set(sizes), reverse=True)
  assert sizes[0] == 100
  assert sizes[-1] <= 12
  assert len(sizes) <= 9
  assert all(size % 4 == 0 for size in sizes)
  assert inr_fit.batch_sizes(1, 1) == [1]


def test_a_diverged_network_is_kept_as_not_valid(tmp_path, monkeypatch):
  real = inr_fit.fit_batch

  def fit_batch(*args, **kwargs):
    fitted = real(*args, **kwargs)
    fitted.weights[0, 0], fitted.error[0] = np.nan, np.nan
    return fitted

  monkeypatch.setattr(inr_fit, "fit_batch", fit_batch)
  zoo = generate.generate_inr_zoo(tmp_path / "zoo", TINY, split={"train": 7})
  # The first of every batch of two.
  assert zoo.members["valid"].tolist() == [False, True] * 3 + [False]
  assert not zoo.property("converged")[::2].any()
  assert zoo.split("default")["train"].tolist() == [1, 3, 5]


@pytest.mark.slow
def test_the_dws_variant(tmp_path):
  small = options(
    variant="dws", points=0, num_networks=2, max_steps=3, check_every=2
  )
  zoo = generate.generate_inr_zoo(tmp_path / "zoo", small)
  assert zoo.splits == ()
  assert zoo.provenance["options"]["points"] == 2000
  x = generate.wave_points(small)
  assert len(x) == 2000
  np.testing.assert_allclose(np.diff(x), np.pi / 1000, rtol=1e-3)
  assert zoo.property("steps").tolist() == [3, 3]
  for number in range(2):
    wave = zoo.property("amplitude")[number] * np.sin(
      zoo.property("frequency")[number] * x
    )
    fitted = independent_forward(small, zoo.weights()[number], x)
    np.testing.assert_allclose(
      zoo.property("reconstruction_error")[number],
      np.mean((fitted - wave) ** 2),
      rtol=1e-4,
    )


def test_waves_are_spread_over_their_ranges():
  many = options(num_networks=2000)
  amplitude, frequency = generate.member_waves(many)
  assert (amplitude == 1).all()
  assert 0.5 <= frequency.min() < 0.6 and 9.9 < frequency.max() < 10
  assert abs(frequency.mean() - 5.25) < 0.2
  amplitude, frequency = generate.member_waves(
    options(num_networks=2000, variant="dws")
  )
  assert abs(np.corrcoef(amplitude, frequency)[0, 1]) < 0.1
  assert 9.9 < amplitude.max() < 10 and amplitude.min() < 0.1
  # A member is the same in a larger zoo, and another under another seed.
  np.testing.assert_array_equal(
    generate.member_waves(TINY)[1], generate.member_waves(many)[1][:7]
  )
  assert not np.isin(
    generate.member_waves(options(seed=1))[1], generate.member_waves(TINY)[1]
  ).any()


def test_a_zoo_that_is_there_is_opened_not_made(zoo, monkeypatch):
  monkeypatch.setattr(inr_fit, "fit_batch", None)  # would raise
  split = {"train": 4, "test": 3}
  again = generate.generate_inr_zoo(zoo.path, TINY, split=split)
  np.testing.assert_array_equal(again.weights(), zoo.weights())
  # The size of a batch is no property of a zoo.
  generate.generate_inr_zoo(zoo.path, options(batch_members=5), split=split)
  # Nor does who asks for no split mind one.
  assert generate.generate_inr_zoo(zoo.path, TINY).splits == ("default",)


def test_other_options_are_refused_by_name(zoo):
  split = {"train": 4, "test": 3}
  with pytest.raises(errors.ZooError) as caught:
    generate.generate_inr_zoo(zoo.path, options(seed=1, w0=20.0), split=split)
  assert "seed is 0 there, 1 asked for" in str(caught.value)
  assert "w0 is 30.0 there, 20.0 asked for" in str(caught.value)
  assert "points" not in str(caught.value)
  with pytest.raises(errors.ZooError, match="split is"):
    generate.generate_inr_zoo(zoo.path, TINY, split={"train": 5})


def test_a_zoo_of_another_origin_is_refused(tmp_path):
  spec = families.inr((1, 2, 1))
  writing.write_zoo(
    tmp_path / "zoo",
    specs=[spec],
    weights=[np.zeros((1, spec.num_weights), np.float32)],
    ids=["x"],
  )
  with pytest.raises(errors.ZooError, match="another origin"):
    generate.generate_inr_zoo(tmp_path / "zoo", TINY)


def test_a_partial_zoo_of_other_options_is_refused(tmp_path, monkeypatch):
  def broken(*args, **kwargs):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(inr_fit, "fit_batch", broken)
    with pytest.raises(KeyboardInterrupt):
      generate.generate_inr_zoo(tmp_path / "zoo", TINY)
  assert os.listdir(tmp_path) == ["zoo.partial"]
  with pytest.raises(errors.ZooError, match=r"zoo\.partial: .*seed is 0 there"):
    generate.generate_inr_zoo(tmp_path / "zoo", options(seed=1))
  with pytest.raises(errors.ZooError, match="batches of 2, not 3"):
    generate.generate_inr_zoo(tmp_path / "zoo", options(batch_members=3))
  (tmp_path / "zoo.partial" / "plan.json").write_text("{")
  with pytest.raises(errors.ZooError, match=r"plan\.json: unreadable"):
    generate.generate_inr_zoo(tmp_path / "zoo", TINY)


def test_two_generators_do_not_meet(tmp_path):
  with (
    lock.folder_lock(tmp_path / "zoo"),
    pytest.raises(errors.ZooError, match="is writing here"),
  ):
    generate.generate_inr_zoo(tmp_path / "zoo", TINY)


def test_many_may_open_a_whole_zoo(tmp_path):
  """Runs that start at once read the same zoo; nobody writes it."""
  generate.generate_inr_zoo(tmp_path / "zoo", TINY)
  with lock.folder_lock(tmp_path / "zoo"):
    assert len(generate.generate_inr_zoo(tmp_path / "zoo", TINY))
    with pytest.raises(errors.ZooError, match="seed is 0 there"):
      generate.generate_inr_zoo(tmp_path / "zoo", options(seed=1))
    # What a generator has left behind is not for readers to remove.
    (tmp_path / "zoo.partial").mkdir()
    with pytest.raises(errors.ZooError, match="is writing here"):
      generate.generate_inr_zoo(tmp_path / "zoo", TINY)
  assert len(generate.generate_inr_zoo(tmp_path / "zoo", TINY))
  assert not (tmp_path / "zoo.partial").exists()


CHILD = """
import json, sys, time
from sne_jax.zoo.inrs import generate
generate.generate_inr_zoo(
  sys.argv[1],
  generate.InrZooOptions(**json.loads(sys.argv[2])),
  split={"train": 4, "test": 3},
  progress=lambda done, total, message: time.sleep(0.1),
)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(zoo, tmp_path):
  values = json.dumps(generate.dataclasses.asdict(TINY))
  child = subprocess.Popen(
    [sys.executable, "-c", CHILD, str(tmp_path / "zoo"), values],
    env=os.environ | {"JAX_NUM_CPU_DEVICES": str(jax.local_device_count())},
  )
  partial = tmp_path / "zoo.partial"
  wanted = random.randint(1, 2)  # any moment must do
  end = time.monotonic() + 120
  while len(list(partial.glob("part-*.safetensors"))) < wanted:
    assert child.poll() is None and time.monotonic() < end
    time.sleep(0.005)
  time.sleep(random.uniform(0, 0.05))
  child.send_signal(signal.SIGKILL)
  assert child.wait() == -signal.SIGKILL
  with pytest.raises(errors.ZooError, match="missing"):
    store.Zoo.open(tmp_path / "zoo")
  assert (tmp_path / "zoo.lock").exists(), "the dead process left its lock"

  there = []
  generate.generate_inr_zoo(
    tmp_path / "zoo",
    options(batch_members=0),  # takes up the size it was begun with
    split={"train": 4, "test": 3},
    progress=lambda done, total, message: there.append("already" in message),
  )
  assert sum(there) >= wanted, "finished batches were not trained again"
  assert not all(there)
  assert os.listdir(tmp_path) == ["zoo"]
  made = contents(tmp_path / "zoo")
  assert made == contents(type(tmp_path)(zoo.path))


def test_a_part_that_is_not_whole_is_made_again(zoo, tmp_path, monkeypatch):
  def stop(*args, **kwargs):
    raise KeyboardInterrupt

  split = {"train": 4, "test": 3}
  with monkeypatch.context() as patch:
    patch.setattr(writing, "write_zoo", stop)
    with pytest.raises(KeyboardInterrupt):
      generate.generate_inr_zoo(tmp_path / "zoo", TINY, split=split)
  part = tmp_path / "zoo.partial" / "part-00000002.safetensors"
  os.truncate(part, 100)
  generate.generate_inr_zoo(tmp_path / "zoo", TINY, split=split)
  assert contents(tmp_path / "zoo") == contents(type(tmp_path)(zoo.path))


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("num_networks", 0),
    ("variant", "square"),
    ("hidden", 0),
    ("w0", 0.0),
    ("learning_rate", -1.0),
    ("max_steps", 0),
    ("check_every", 0),
    ("batch_members", -1),
    ("tolerance", float("nan")),
  ],
)
def test_bad_options_are_named(name, value):
  with pytest.raises(ValueError, match=name):
    options(**{name: value})


def test_a_split_larger_than_the_zoo_is_refused_at_once(tmp_path):
  with pytest.raises(ValueError, match="there are 7 members"):
    generate.generate_inr_zoo(tmp_path / "zoo", TINY, split={"train": 8})
  assert os.listdir(tmp_path) == []


def test_a_batch_is_found_for_the_memory_there_is(monkeypatch):
  assert 1 <= generate.free_batch_members(TINY) <= 100
  monkeypatch.setattr(partial, "_free_host_bytes", lambda: 1 << 20)
  assert generate.free_batch_members(generate.InrZooOptions()) == 1
