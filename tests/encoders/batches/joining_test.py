"""Packing is checked against the chunk layouts that it is made of."""

import jax
import numpy as np
import pytest

from sne_jax.encoders.batches import buckets, joining
from sne_jax.encoders.sne import options as sne_options
from sne_jax.encoders.sne import slots
from sne_jax.networks import chunking, families

SPECS = families.tiny_specs()
NAMES = ("inr", "mlp", "cnn_pool", "cnn_flat", "resnet", "transformer")
OPTIONS = {
  "flat": chunking.ChunkOptions.published(8),
  "neuron": chunking.ChunkOptions(
    chunk_size=16, linear_rule="neuron", conv_rule="neuron"
  ),
}


def packer_of(rule="flat", names=NAMES, **options):
  return slots.packer(
    [SPECS[n] for n in names],
    sne_options.SNEOptions(**options),
    OPTIONS[rule],
  )


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
  packer, by_neuron = packer_of(rule), packer_of(rule, index_features="neuron")
  by_chunk = packer_of(rule, layer_function="none")
  numbers = (5, 0, 3, 3, 2, 4, 1, 0)
  vectors = vectors_of(packer, numbers)
  packed = packer.pack(numbers, vectors)
  places = by_neuron.template(numbers).tables["chunks"]
  flat = by_chunk.template(numbers)
  weights, chunks, layers, skips = (
    packed.tables[t] for t in ("weights", "chunks", "layers", "skips")
  )
  values = np.where(
    chunks["mask"], packed.weights[chunks["index"].clip(max=packed.room - 1)], 0
  )
  first_neuron = first_tensor = 0
  seen = []
  num_layers = len(layers["real"])
  for b, (number, vector) in enumerate(zip(numbers, vectors, strict=True)):
    spec = packer.specs[number]
    layout = chunking.layout(spec, OPTIONS[rule])
    members = rows_of(packed.sets["networks"], packed.order["networks"][b])
    mine = members[members < num_layers]
    assert len(members) == len(layout.layer_kind) + len(spec.skips)
    np.testing.assert_array_equal(layers["kind"][mine], layout.layer_kind)
    np.testing.assert_array_equal(layers["level"][mine, 0], layout.layer_level)
    owned = [
      rows_of(packed.sets["layers"], packed.order["layers"][layer])
      for layer in mine
    ]
    for layer, rows in enumerate(owned):
      np.testing.assert_array_equal(
        values[rows], chunking.gather(layout, vector)[layout.layer == layer]
      )
      assert (chunks["kind"][rows] == layout.layer_kind[layer]).all()
      assert (chunks["level"][rows, 0] == layout.layer_level[layer]).all()
    rows = np.concatenate(owned)
    for name, expected in (
      ("mask", layout.mask),
      ("role", layout.role),
      ("number", layout.chunk),
      ("inputs", layout.io[..., 0]),
      ("outputs", layout.io[..., 1]),
    ):
      np.testing.assert_array_equal(chunks[name][rows], expected)
    for column, name in enumerate(("out", "in", "y", "x")):
      np.testing.assert_array_equal(
        places[name][rows], layout.places[..., column]
      )
    for name, part in (("neuron", layout.owner), ("other", layout.other)):
      expected = np.where(part > 0, part + first_neuron, 0)
      np.testing.assert_array_equal(chunks[name][rows], expected)
    index = chunks["index"][rows][layout.mask]
    tensors = weights["tensor"][index] - first_tensor
    np.testing.assert_array_equal(tensors, layout.tensor[layout.mask])
    fan_in = np.array([t.fan_in for t in spec.tensors])
    np.testing.assert_allclose(
      weights["scale"][index] ** 2, fan_in[tensors], rtol=1e-6
    )
    after = members[members >= num_layers] - num_layers
    ends = skips["level"][after]
    np.testing.assert_array_equal(
      ends[..., 0], np.array(spec.skips).reshape(-1, 2)
    )
    np.testing.assert_allclose(ends[..., 1], ends[..., 0] / _deepest(spec))
    np.testing.assert_array_equal(
      rows_of(flat.sets["networks"], flat.order["networks"][b]),
      np.concatenate([rows, len(chunks["real"]) + after]),
    )
    first_neuron += layout.num_neurons
    first_tensor += len(spec.tensors)
    seen.append(rows)
  seen = np.concatenate(seen)
  assert len(set(seen.tolist())) == len(seen)  # No chunk has two owners.
  assert not np.delete(chunks["mask"], seen, axis=0).any()
  real = packed.tables["neurons"]["real"]
  assert not real[0]
  assert real[1 : 1 + first_neuron].all()
  assert real.sum() == first_neuron
  assert packed.tables["tensors"]["real"].sum() == first_tensor
  positions = packed.tables["positions"]["number"]
  np.testing.assert_array_equal(positions, np.arange(len(positions)))
  assert max(chunks[n].max() for n in ("inputs", "outputs")) < len(positions)


def _deepest(spec):
  return max(spec.num_levels - 1, 1)


def test_relative_levels_end_at_one():
  packer = packer_of()
  packed = packer.template((1, 5))
  level = packed.tables["layers"]["level"]
  level = level[packed.tables["layers"]["real"]]
  for number, relative in level:
    assert relative in (number / 2, number / _deepest(SPECS["transformer"]))
  assert level[:, 1].max() == 1


def test_one_spec_is_packed_without_padding():
  packer = packer_of(names=("mlp", "inr"))
  packed = packer.template((0, 0, 0))
  assert packed.room == 3 * SPECS["mlp"].num_weights
  for name, table in packed.tables.items():
    if name != "positions":  # Neurons have a row for "none".
      assert table["real"].sum() == len(table["real"]) - (name == "neurons")
  assert all(g.mask.all() for sets in packed.sets.values() for g in sets)
  rounded = packer.template((0, 0, 0), packer.sizes([(0, 0, 0)]))
  assert rounded.room == buckets.round_up(3 * SPECS["mlp"].num_weights)


def test_without_skips_there_are_none():
  assert "skips" not in packer_of(skip_tokens=False).template((4, 5)).tables
  assert len(packer_of().template((4, 5)).tables["skips"]["level"]) > 0
  assert len(packer_of().template((0, 1)).tables["skips"]["level"]) == 0


def test_columns_are_those_that_the_options_ask_for():
  table = packer_of(
    index_features="none", identifiers="none", chunk_function="sab"
  ).template((0, 1))
  assert not {"neuron", "other", "inputs", "out"} & set(table.tables["chunks"])
  assert "neurons" not in table.tables


def test_specs_of_one_layout_are_one_architecture():
  spec = families.mlp((2, 4, 1))
  other = families.mlp((2, 4, 1), "tanh")

  def describe(spec):
    count = 1 + ("tanh" in spec.activations)
    table = {"number": np.arange(count)}
    return {"weights": {"x": np.ones(spec.num_weights)}, "own": table}

  one = joining.Packer([spec, other], describe)
  assert one.reserve(np.array([0, 1]), 2) is None
  assert one.template((0, 1)).room == 2 * spec.num_weights
  two = joining.Packer([spec, other], describe, seen_as=lambda spec: spec)
  assert two.reserve(np.array([0, 1]), 2) is not None
  assert two.template((0, 1)).room > 2 * spec.num_weights


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
  assert stacked.tables["chunks"]["index"].shape[0] == 3
  for numbers, template in zip(batches, templates, strict=True):
    vectors = vectors_of(packer, numbers)
    flat = packer.flat(numbers, vectors, template.room)
    chunks = template.tables["chunks"]
    index = chunks["index"].clip(max=template.room - 1)
    values = np.where(chunks["mask"], flat[index], 0)
    for b, (number, vector) in enumerate(zip(numbers, vectors, strict=True)):
      layout = chunking.layout(packer.specs[number], OPTIONS["flat"])
      order = template.order
      layers = rows_of(template.sets["networks"], order["networks"][b])
      layers = layers[: len(layout.layer_kind)]
      rows = np.concatenate(
        [rows_of(template.sets["layers"], order["layers"][r]) for r in layers]
      )
      np.testing.assert_array_equal(
        values[rows], chunking.gather(layout, vector)
      )


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
  return slots.packer(specs, sne_options.SNEOptions(), OPTIONS["flat"])


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
  packer = slots.packer(
    [small, large], sne_options.SNEOptions(), OPTIONS["flat"]
  )
  zoo = np.array([0] * 99 + [1])
  sizes = packer.reserve(zoo, 16)
  assert sizes is not None
  room = dict(sizes)["weights", 0]
  assert 16 * small.num_weights <= room < 8 * large.num_weights
  twice = packer.reserve(zoo, 16, copies=2)
  assert twice is not None
  assert 1.5 * room <= dict(twice)["weights", 0] <= 3 * room
  # What needs more room than that gets it.
  packed = packer.template((1,) * 16, sizes)
  assert packed.room >= 16 * large.num_weights


def test_a_zoo_of_one_spec_needs_no_reserve():
  assert packer_of().reserve(np.zeros(5, int), 4) is None
