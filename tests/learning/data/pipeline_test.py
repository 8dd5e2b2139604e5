"""Batches: a function of seed and step, the same on any number of devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.sne import module as sne
from sne_jax.encoders.sne import options as sne_options
from sne_jax.encoders.sne import slots
from sne_jax.learning.data import pipeline
from sne_jax.learning.training import parallel
from sne_jax.networks import chunking, families

MLP = families.mlp((2, 4, 3, 1), activation="tanh")
INR = families.inr((1, 3, 1))
CNN = families.cnn((1, 4, 4), (2,), num_classes=2)
SPECS = (MLP, INR, CNN)
CHUNKS = chunking.ChunkOptions(
  chunk_size=8, linear_rule="flat", conv_rule="flat", embedding_rule="flat"
)


def networks_of(specs=SPECS, count=4):
  """`count` members of every spec; the target is the member's number."""
  rng = np.random.default_rng(0)
  numbers = np.repeat(np.arange(len(specs)), count)
  vectors = [families.random_weights(specs[n], rng) for n in numbers]
  targets = np.arange(len(numbers), dtype=np.float64)[:, None]
  return pipeline.Networks(tuple(specs), numbers, vectors, targets)


def pipe(networks, seed=0, pairs=False, devices=1, **options):
  packer = slots.packer(networks.specs, sne_options.SNEOptions(), CHUNKS)
  return pipeline.Pipeline(
    networks,
    packer,
    pipeline.DataOptions(**{"batch_size": 6, "augment_signs": False} | options),
    seed=seed,
    pairs=pairs,
    devices=devices,
  )


def vectors_in(networks, batch, copies=1):
  """The networks of a batch as (member, vector), device by device."""
  found = []
  for device in range(len(batch.targets)):
    members = batch.targets[device, :, 0].astype(int).tolist() * copies
    start = 0
    for member in members:
      spec = networks.specs[networks.numbers[member]]
      stop = start + spec.num_weights
      found.append((member, batch.packed.weights[device, start:stop]))
      start = stop
    assert not batch.packed.weights[device, start:].any()
  return found


def outputs(spec, vector, x):
  return np.asarray(families.forward(spec, jnp.asarray(vector), jnp.asarray(x)))


def trees_equal(one, other):
  same = jax.tree.map(lambda a, b: np.array_equal(a, b), one, other)
  return jax.tree.all(same)


MOVED = {
  "augment_permutation": True,
  "augment_signs": True,
  "augment_noise": 0.1,
  "augment_mask": 0.1,
  "augment_quantile": 0.1,
  "augment_pi_shifts": 2,
  "augment_scales": 1.0,
  "augment_mixup": "aligned",
}


def test_a_batch_is_a_function_of_seed_and_step():
  networks = networks_of()
  batch_fn = pipe(networks, **MOVED)
  batches = [batch_fn(step) for step in (3, 4)]
  again = pipe(networks, **MOVED)  # A restart, at another step.
  assert trees_equal(again(4), batches[1])
  assert trees_equal(again(3), batches[0])
  assert not trees_equal(again(3).packed.weights, batches[1].packed.weights)
  other = pipe(networks, seed=1, **MOVED)(3)
  assert not np.array_equal(other.packed.weights, batches[0].packed.weights)


def test_an_epoch_has_every_member_once_with_its_target():
  networks = networks_of()
  batch_fn = pipe(networks)
  found = [pair for s in (0, 1) for pair in vectors_in(networks, batch_fn(s))]
  assert sorted(member for member, _ in found) == list(range(12))
  for member, vector in found:
    np.testing.assert_array_equal(vector, networks.vectors[member])
  assert batch_fn(0).targets.shape == (1, 6, 1)


INPUTS = {
  MLP: np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2),
  INR: np.linspace(-1, 1, 5, dtype=np.float32)[:, None],
  CNN: np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 1, 4, 4),
}


@pytest.mark.parametrize(
  ("augment", "value", "which"),
  [
    ("augment_permutation", True, MLP),
    ("augment_signs", True, MLP),
    ("augment_pi_shifts", 2, INR),
    ("augment_scales", 1.0, CNN),
  ],
)
def test_moved_networks_are_the_same_functions(augment, value, which):
  networks = networks_of(count=2)
  batch = pipe(networks, **{augment: value})(0)
  changed = set()
  for member, vector in vectors_in(networks, batch):
    spec, before = networks.specs[member // 2], networks.vectors[member]
    x = INPUTS[spec]
    np.testing.assert_allclose(
      outputs(spec, vector, x),
      outputs(spec, before, x),
      atol=1e-5,
    )
    if (vector != before).any():
      changed.add(spec)
  assert which in changed


def test_the_second_view_is_the_first_one_moved():
  networks = networks_of(count=2)
  batch = pipe(networks, pairs=True, augment_signs=True, augment_noise=0.1)(0)
  found = vectors_in(networks, batch, copies=2)
  first, second = found[:6], found[6:]
  moved = 0
  for (member, one), (same, other) in zip(first, second, strict=True):
    assert member == same
    spec, before = networks.specs[member // 2], networks.vectors[member]
    assert (one != before).any()
    np.testing.assert_array_equal(np.sort(one), np.sort(other))
    np.testing.assert_allclose(
      outputs(spec, one, INPUTS[spec]),
      outputs(spec, other, INPUTS[spec]),
      atol=1e-5,
    )
    moved += (one != other).any()
  assert moved >= 2


def test_noise_is_a_share_of_each_tensor():
  spec = families.mlp((30, 40, 1))
  networks = networks_of([spec], 1)
  batch = pipe(networks, batch_size=1, augment_noise=0.1)(0)
  [(_, vector)] = vectors_in(networks, batch)
  noise = spec.unflatten(vector - networks.vectors[0])["layer0.weight"]
  size = spec.unflatten(networks.vectors[0])["layer0.weight"].std()
  assert noise.std() == pytest.approx(0.1 * size, rel=0.1)


def test_translated_networks_have_a_shifted_input():
  networks = networks_of([INR], 1)
  batch = pipe(networks, batch_size=1, augment_translate=0.3)(0)
  [(_, vector)] = vectors_in(networks, batch)
  fine = np.linspace(-1.5, 1.5, 3001, dtype=np.float32)[:, None]
  before = outputs(INR, networks.vectors[0], fine)[:, 0]
  after = outputs(INR, vector, fine)[:, 0]
  errors = {
    shift: np.abs(after[400:2600] - before[400 + shift : 2600 + shift]).max()
    for shift in range(-350, 351)
  }
  best = min(errors, key=lambda shift: errors[shift])
  assert 0 < abs(best) <= 300  # Steps of 0.001.
  assert errors[best] < 0.1 * errors[0]


ROUND = families.inr((2, 3, 1))


def test_scales_are_within_their_range():
  networks = networks_of([CNN], 1)
  batch = pipe(networks, batch_size=1, augment_scales=1.0)(0)
  [(_, vector)] = vectors_in(networks, batch)
  factor = CNN.unflatten(vector / networks.vectors[0])["conv0.bias"]
  assert (np.abs(np.log2(factor)) <= 1).all()
  assert np.ptp(factor) > 0.01


def test_rotated_and_zoomed_networks_have_another_input():
  """The first weight is turned, or stretched; nothing else moves."""
  networks = networks_of([ROUND], 1)
  start = ROUND.unflatten(networks.vectors[0])["layer0.weight"]
  moved = {"augment_rotate": [], "augment_zoom": []}
  for step in range(12):
    for name, value in (("augment_rotate", 45.0), ("augment_zoom", 0.2)):
      batch = pipe(networks, batch_size=1, **{name: value})(step)
      [(_, vector)] = vectors_in(networks, batch)
      np.testing.assert_array_equal(vector[6:], networks.vectors[0][6:])
      first = ROUND.unflatten(vector)["layer0.weight"]
      moved[name].append(np.linalg.lstsq(start, first, rcond=None)[0])
  turns = np.array(moved["augment_rotate"])
  np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-5)
  angles = np.degrees(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
  assert np.abs(angles).max() <= 45 < np.ptp(angles)
  zooms = np.array(moved["augment_zoom"])
  np.testing.assert_allclose(zooms[:, 0, 1], 0, atol=1e-5)
  np.testing.assert_allclose(zooms[:, 0, 0], zooms[:, 1, 1], rtol=1e-5)
  assert np.abs(zooms[:, 0, 0] - 1).max() <= 0.2 < np.ptp(zooms[:, 0, 0])


def test_up_to_a_share_of_the_smallest_weights_is_dropped():
  networks = networks_of([MLP], 1)
  shares = []
  for step in range(20):
    batch = pipe(networks, batch_size=1, augment_quantile=0.5)(step)
    [(_, vector)] = vectors_in(networks, batch)
    shares.append((vector == 0).mean())
  assert max(shares) <= 0.52
  assert np.ptp(shares) > 0.25


def test_mixed_networks_have_mixed_targets():
  """Weights of one spec lie between, and so does what is to be predicted."""
  networks = networks_of([INR], 5)
  lines = [np.full(INR.num_weights, n, np.float32) for n in range(5)]
  networks = dataclasses.replace(networks, vectors=lines)
  batch = pipe(networks, augment_mixup="plain")(0)
  rows = batch.packed.weights.reshape(6, -1)
  assert np.ptp(rows, axis=1).max() == 0
  np.testing.assert_allclose(rows[:, :1], batch.targets[0], rtol=1e-6)
  assert (batch.targets % 1 != 0).all()
  found = pipe(networks)(0).targets
  assert (found % 1 == 0).all()


@pytest.mark.parametrize("pairs", [False, True])
def test_devices_share_out_the_same_networks(pairs):
  networks = networks_of()
  copies = 1 + pairs
  options = MOVED | {"augment_mixup": "none"}  # Targets name the members.
  one = vectors_in(networks, pipe(networks, pairs=pairs, **options)(2), copies)
  batch = pipe(networks, pairs=pairs, devices=2, **options)(2)
  assert batch.targets.shape == (2, 3, 1)
  assert all(len(leaf) == 2 for leaf in jax.tree.leaves(batch))
  two = vectors_in(networks, batch, copies)

  def listed(found):
    return sorted((m, v.tobytes()) for m, v in found)

  assert listed(one) == listed(two)
  # Each device has its share of every architecture, as far as that goes.
  members = batch.targets[..., 0].astype(int)
  for number in range(3):
    counts = (networks.numbers[members] == number).sum(axis=1)
    assert abs(counts[0] - counts[1]) <= 1


@pytest.mark.slow
def test_codes_do_not_depend_on_the_number_of_devices():
  networks = networks_of()
  options = sne_options.SNEOptions(
    width=8,
    heads=2,
    layer_function="deepsets",
    network_function="deepsets",
    layer_blocks=1,
    network_blocks=1,
    identifier_dim=4,
  )
  module = sne.SNE(options)
  one, two = (pipe(networks, devices=d)(1) for d in (1, 2))
  first = jax.tree.map(lambda x: x[0], one.packed)
  params = jax.jit(module.init)({"params": jax.random.key(0)}, first)
  apply = jax.jit(module.apply)
  found = {}
  for batch in (one, two):
    for device in range(len(batch.targets)):
      packed = jax.tree.map(lambda x, d=device: x[d], batch.packed)
      codes = apply(params, packed)
      for member, code in zip(batch.targets[device, :, 0], codes, strict=True):
        found.setdefault(int(member), []).append(code)
  assert len(found) == 6
  for first_code, second_code in found.values():
    np.testing.assert_allclose(first_code, second_code, atol=1e-5)
  # A loss and its gradient, through the mesh.
  mesh = parallel.make_mesh(2)

  def loss_fn(params, batch, key):
    del key
    codes = module.apply(params, batch.packed)
    weight = jnp.arange(1.0, 9.0)[None, :]
    return jnp.mean(codes * weight * batch.targets), {}

  steps = [
    jax.jit(parallel.value_and_grad(loss_fn, parallel.make_mesh(1))),
    jax.jit(parallel.value_and_grad(loss_fn, mesh)),
    jax.jit(parallel.value_and_grad(loss_fn, parallel.make_mesh(1))),
  ]
  in_turn = pipe(networks, micro_batches=2)(1)
  given = [one, parallel.shard(two, mesh), in_turn]
  results = [
    jax.device_get(step(params, batch, jax.random.key(0)))
    for step, batch in zip(steps, given, strict=True)
  ]
  for other in results[1:]:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
      results[0],
      other,
    )


def test_nearly_all_batches_of_a_mixed_zoo_have_one_shape():
  rng = np.random.default_rng(2)
  specs = [
    families.mlp((2, *rng.integers(2, 12, rng.integers(1, 4)).tolist(), 1))
    for _ in range(20)
  ]
  batch_fn = pipe(networks_of(specs, 1), batch_size=8, devices=2)
  shapes = [
    str(jax.tree.map(np.shape, batch_fn(step).packed)) for step in range(30)
  ]
  commonest = max(shapes.count(shape) for shape in shapes)
  assert commonest >= 25
  assert len(set(shapes)) <= 4


def test_fixed_batches_hold_everybody_once():
  networks = networks_of(count=5)
  packer = slots.packer(networks.specs, sne_options.SNEOptions(), CHUNKS)
  for size in (1, 2, 4, 5, 64):
    seen, shapes = [], []
    for members, packed in pipeline.fixed_batches(networks, packer, size):
      start = 0
      for member in members:
        vector = networks.vectors[member]
        stop = start + len(vector)
        np.testing.assert_array_equal(packed.weights[start:stop], vector)
        start = stop
      assert len(packed.order["networks"]) <= size
      seen += members.tolist()
      shapes.append(str(jax.tree.map(np.shape, packed)))
    assert sorted(seen) == list(range(15))
    if size <= 5:  # Full batches of a spec are of one shape.
      assert len(set(shapes)) == 3
    else:
      assert len(shapes) == 1


def test_many_architectures_are_few_batches():
  specs = [families.mlp((2, width, 1)) for width in range(2, 18)]
  networks = networks_of(specs, 1)
  packer = slots.packer(networks.specs, sne_options.SNEOptions(), CHUNKS)
  batches = list(pipeline.fixed_batches(networks, packer, 8))
  assert [len(members) for members, _ in batches] == [8, 8]


def test_what_cannot_be_shared_out_is_refused():
  with pytest.raises(ValueError, match="6 does not divide over 4"):
    pipe(networks_of(), devices=4)
  with pytest.raises(ValueError, match="micro_batches 3; choose a multiple"):
    pipe(networks_of(), micro_batches=3, batch_size=8)
  with pytest.raises(ValueError, match="micro_batches is 0"):
    pipeline.DataOptions(micro_batches=0)
  with pytest.raises(ValueError, match="batch_size is 0"):
    pipeline.DataOptions(batch_size=0)


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("augment_pi_shifts", -1),
    ("augment_scales", float("inf")),
    ("augment_noise", -0.1),
    ("augment_mask", 1.0),
    ("augment_quantile", float("nan")),
    ("augment_translate", float("nan")),
    ("augment_rotate", 200.0),
    ("augment_zoom", -0.1),
    ("augment_mixup", "beta"),
  ],
)
def test_augmentations_that_cannot_be_are_named(name, value):
  with pytest.raises(ValueError, match=f"{name} is {value!r}"):
    pipeline.DataOptions(**{name: value})
