"""Packing is checked against the chunk layouts that it is made of."""

import jax
import numpy as np
import pytest

from sne_jax.encoders import buckets, packing
from sne_jax.networks import chunking, families

SPECS = families.tiny_specs()
NAMES = ("inr", "mlp", "cnn_pool", "cnn_flat", "resnet", "transformer")
OPTIONS = {
  "flat": chunking.ChunkOptions.published(8),
  "neuron": chunking.ChunkOptions(
    chunk_size=16, linear_rule="neuron", conv_rule="neuron"
  ),
}


def packer_of(rule="flat", names=NAMES, **kwargs):
  return packing.Packer([SPECS[n] for n in names], OPTIONS[rule], **kwargs)


def vectors_of(packer, numbers, seed=0):
  rng = np.random.default_rng(seed)
  return [families.random_weights(packer.specs[n], rng) for n in numbers]


def rows_of(sets, row):
  """Members of the set in a row, counted over all rectangles."""
  for rectangle in sets:
    if row < len(rectangle.members):
      return rectangle.members[row][rectangle.mask[row]]
    row -= len(rectangle.members)
  raise IndexError(row)


def shapes_of(packed):
  return jax.tree.map(np.shape, packed)


def test_bucket_sizes():
  found = [buckets.round_up(n) for n in range(1, 18)]
  assert found == [1, 2, 3, 4, 6, 6, 8, 8] + [12] * 4 + [16] * 4 + [24]
  assert all(n <= buckets.round_up(n) <= 1.5 * n for n in range(1, 3000))


@pytest.mark.parametrize("rule", OPTIONS)
def test_every_network_finds_its_own_chunks_layers_and_skips(rule):
  packer = packer_of(rule)
  numbers = (5, 0, 3, 3, 2, 4, 1, 0)
  vectors = vectors_of(packer, numbers)
  packed = packer.pack(numbers, vectors)
  values = np.where(packed.mask, packed.weights[packed.index], 0)
  first_neuron = first_tensor = 0
  seen = []
  num_layers = len(packed.layer_kind)
  for b, (number, vector) in enumerate(zip(numbers, vectors, strict=True)):
    spec = packer.specs[number]
    layout = chunking.layout(spec, packer.options)
    members = rows_of(packed.networks, packed.order[b])
    layers = members[members < num_layers]
    assert len(members) == len(layout.layer_kind) + len(spec.skips)
    np.testing.assert_array_equal(packed.layer_kind[layers], layout.layer_kind)
    np.testing.assert_array_equal(
      packed.layer_level[layers, 0], layout.layer_level
    )
    chunks = [rows_of(packed.layers, layer) for layer in layers]
    for layer, rows in enumerate(chunks):
      mine = layout.layer == layer
      np.testing.assert_array_equal(
        values[rows], chunking.gather(layout, vector)[mine]
      )
      assert (packed.chunk_kind[rows] == layout.layer_kind[layer]).all()
      assert (packed.chunk_level[rows, 0] == layout.layer_level[layer]).all()
    rows = np.concatenate(chunks)
    for name in ("mask", "role", "places", "io", "chunk"):
      np.testing.assert_array_equal(
        getattr(packed, name)[rows], getattr(layout, name)
      )
    for name in ("own", "other"):
      part = getattr(layout, name)
      expected = np.where(part > 0, part + first_neuron, 0)
      np.testing.assert_array_equal(getattr(packed, name)[rows], expected)
    tensors = packed.tensor_of[packed.index[rows]] - first_tensor
    assert (tensors == layout.tensor)[layout.mask].all()
    fan_in = np.array([t.fan_in for t in spec.tensors])
    found = packed.scale[packed.index[rows]] ** 2
    expected = fan_in[layout.tensor]
    np.testing.assert_allclose(
      found[layout.mask], expected[layout.mask], rtol=1e-6
    )
    skips = members[members >= num_layers] - num_layers
    ends = packed.skip_level[skips]
    np.testing.assert_array_equal(
      ends[..., 0], np.array(spec.skips).reshape(-1, 2)
    )
    np.testing.assert_allclose(ends[..., 1], ends[..., 0] / _deepest(spec))
    behind = len(packed.index) + skips
    np.testing.assert_array_equal(
      rows_of(packed.chunk_networks, packed.order[b]),
      np.concatenate([rows, behind]),
    )
    first_neuron += layout.num_neurons
    first_tensor += len(spec.tensors)
    seen.append(rows)
  seen = np.concatenate(seen)
  assert len(set(seen.tolist())) == len(seen)  # No chunk has two owners.
  assert not np.delete(packed.mask, seen, axis=0).any()
  assert first_neuron < len(packed.neurons)
  assert first_tensor <= len(packed.tensors)
  largest = max(packed.places.max(), packed.io.max())
  assert largest < len(packed.positions)


def _deepest(spec):
  return max(spec.num_levels - 1, 1)


def test_relative_levels_end_at_one():
  packer = packer_of()
  packed = packer.template((1, 5))
  for level, relative in packed.layer_level:
    assert relative in (level / 2, level / _deepest(SPECS["transformer"]))
  assert packed.layer_level[:, 1].max() == 1


def test_one_spec_is_packed_without_padding():
  packer = packer_of(names=("mlp", "inr"))
  packed = packer.template((0, 0, 0))
  assert len(packed.scale) == 3 * SPECS["mlp"].num_weights
  assert packed.mask.any(axis=-1).all()
  assert all(g.mask.all() for g in (*packed.layers, *packed.networks))
  rounded = packer_of(names=("mlp", "inr"), exact=False).template((0, 0, 0))
  assert len(rounded.scale) == buckets.round_up(3 * SPECS["mlp"].num_weights)


def test_without_skips_there_are_none():
  assert len(packer_of(skips=False).template((4, 5)).skip_level) == 0
  assert len(packer_of().template((4, 5)).skip_level) > 0
  assert len(packer_of().template((0, 1)).skip_level) == 0


def test_equal_buckets_give_equal_shapes():
  packer = packer_of()
  one, other = packer.template((0, 1, 0)), packer.template((1, 0, 0))
  assert shapes_of(one) == shapes_of(other)
  assert shapes_of(one) != shapes_of(packer.template((0, 1, 5)))


def test_batches_of_several_devices_can_be_stacked():
  packer = packer_of()
  batches = [(0, 1, 2), (3, 4, 5), (0, 0, 0)]
  alone = [packer.template(numbers) for numbers in batches]
  assert len({str(shapes_of(t)) for t in alone}) == 3
  templates = packer.templates(batches)
  assert len({str(shapes_of(t)) for t in templates}) == 1
  stacked = jax.tree.map(lambda *x: np.stack(x), *templates)
  assert stacked.index.shape[0] == 3
  for numbers, template in zip(batches, templates, strict=True):
    vectors = vectors_of(packer, numbers)
    flat = packer.flat(numbers, vectors, len(template.scale))
    values = np.where(template.mask, flat[template.index], 0)
    for b, (number, vector) in enumerate(zip(numbers, vectors, strict=True)):
      layout = chunking.layout(packer.specs[number], packer.options)
      rows = rows_of(template.chunk_networks, template.order[b])
      rows = rows[: len(layout.index)]
      np.testing.assert_array_equal(
        values[rows], chunking.gather(layout, vector)
      )
      layers = rows_of(template.networks, template.order[b])
      layers = layers[: len(layout.layer_kind)]
      found = np.concatenate([rows_of(template.layers, r) for r in layers])
      np.testing.assert_array_equal(found, rows)


def test_batches_of_different_lengths_are_refused():
  with pytest.raises(ValueError, match=r"\[2, 1\]"):
    packer_of().templates([(0, 1), (2,)])
  with pytest.raises(ValueError, match="at least 1"):
    packer_of().templates([])


def test_a_vector_of_the_wrong_length_is_refused():
  packer = packer_of()
  vectors = vectors_of(packer, (0, 1))
  with pytest.raises(ValueError, match="mlp of .* got weights of shape"):
    packer.pack((0, 1), [vectors[0], vectors[1][:-1]])


def wild_packer(count=24):
  rng = np.random.default_rng(0)
  specs = []
  for _ in range(count):
    depth = int(rng.integers(1, 5))
    widths = rng.choice([4, 6, 8, 12], depth).tolist()
    specs.append(families.mlp((3, *widths, 2)))
  return packing.Packer(specs, OPTIONS["flat"])


def test_random_batches_of_a_mixed_zoo_have_few_shapes():
  packer = wild_packer()
  zoo = np.arange(len(packer.specs))
  sizes = packer.reserve(zoo, 8)
  rng = np.random.default_rng(1)
  own, shared = set(), set()
  for _ in range(40):
    numbers = rng.choice(zoo, 8, replace=False)
    own.add(str(shapes_of(packer.template(numbers))))
    shared.add(str(shapes_of(packer.template(numbers, sizes))))
  assert len(shared) <= 5 < 25 < len(own)


def test_room_is_for_a_typical_batch_not_for_the_largest():
  small, large = families.mlp((2, 4, 2)), families.mlp((2, 40, 40, 2))
  packer = packing.Packer([small, large], OPTIONS["flat"])
  zoo = np.array([0] * 99 + [1])
  sizes = packer.reserve(zoo, 16)
  assert sizes is not None
  assert 16 * small.num_weights <= sizes.weights < 8 * large.num_weights
  twice = packer.reserve(zoo, 16, copies=2)
  assert twice is not None
  assert 1.5 * sizes.weights <= twice.weights <= 3 * sizes.weights
  # What needs more room than that gets it.
  packed = packer.template((1,) * 16, sizes)
  assert len(packed.scale) >= 16 * large.num_weights


def test_a_zoo_of_one_spec_needs_no_reserve():
  assert packer_of().reserve(np.zeros(5, int), 4) is None
  assert packer_of(exact=False).reserve(np.zeros(5, int), 4) is not None
