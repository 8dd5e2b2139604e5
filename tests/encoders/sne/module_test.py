"""What SNE may see and what not: sets, batch mates, levels, skips, neurons."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.sne import module
from sne_jax.encoders.sne import options as sne_options
from sne_jax.networks import chunking, families, symmetry

TINY_SPECS = families.tiny_specs()
# Different families and depths, in one packed batch.
SPECS = {
  name: TINY_SPECS[name]
  for name in ("inr", "mlp", "cnn_bare", "cnn_flat", "cnn_flat_last")
} | {
  "resnet": families.resnet((1, 4, 4), (2,), num_classes=2),
  "transformer": families.transformer(
    (1, 4, 4), patch=2, dim=4, depth=1, heads=2, hidden=3, num_classes=2
  ),
}
ROWS = chunking.ChunkOptions(
  chunk_size=48,
  linear_rule="row",
  conv_rule="filter",
  bias_rule="append",
  norm_rule="concat",
)
# One chunk per neuron.
NEURON = chunking.ChunkOptions(
  chunk_size=64, linear_rule="neuron", conv_rule="neuron"
)
FLAT = chunking.ChunkOptions(
  chunk_size=16, linear_rule="flat", conv_rule="flat", embedding_rule="flat"
)
TINY = {
  "width": 8,
  "heads": 2,
  "chunk_blocks": 1,
  "layer_blocks": 1,
  "network_blocks": 1,
  "inducing_points": 2,
  "identifier_dim": 4,
  "feed_forward": 1,
}
PLAIN = TINY | {
  "chunk_function": "sab",
  "identifiers": "none",
  "index_features": "none",
}


def keys_of(seed):
  return jax.random.split(jax.random.key(seed))


def network(name):
  spec = SPECS[name]
  rng = np.random.default_rng(list(SPECS).index(name))
  return spec, families.random_weights(spec, rng)


def far(one, other):
  """Largest difference between codes."""
  return np.abs(one - other).max()


def moved(net, index):
  spec, weights = net
  return spec, weights[index]


# Sets of chunks, and chunks as sets.


def shuffle_within_chunks(spec, options, seed=0):
  """Permutes the weights inside every chunk."""
  layout = chunking.layout(spec, options)
  rng = np.random.default_rng(seed)
  index = np.arange(spec.num_weights)
  for places, mask in zip(layout.index, layout.mask, strict=True):
    index[places[mask]] = rng.permutation(places[mask])
  return index


def shuffle_chunks(spec, options, seed=0):
  """Permutes the chunks of every layer; only full ones, which stay whole."""
  layout = chunking.layout(spec, options)
  rng = np.random.default_rng(seed)
  index = np.arange(spec.num_weights)
  for layer in range(len(layout.layer_kind)):
    full = (layout.layer == layer) & layout.mask.all(axis=1)
    if full.any():
      index[layout.index[full]] = rng.permutation(layout.index[full])
  return index


@pytest.mark.parametrize(
  "index_features",
  [
    pytest.param(n, marks=() if n == "none" else pytest.mark.slow)
    for n in ("none", "neuron", "io", "chunk")
  ],
)
def test_without_index_features_chunks_and_layers_are_sets(
  make_encoder, index_features
):
  spec = SPECS["cnn_bare"]
  options = PLAIN | {"index_features": index_features}
  net = network("cnn_bare")
  chunks = moved(net, shuffle_chunks(spec, FLAT))
  within = moved(net, shuffle_within_chunks(spec, FLAT))
  codes = make_encoder([spec], FLAT, **options)(net, chunks, within)
  if index_features == "none":
    assert far(codes[0], codes[1]) < 1e-5
    assert far(codes[0], codes[2]) < 1e-5
  elif index_features == "chunk":
    assert far(codes[0], codes[1]) > 1e-4
    assert far(codes[0], codes[2]) < 1e-5
  else:
    assert far(codes[0], codes[1]) > 1e-4
    assert far(codes[0], codes[2]) > 1e-4


@pytest.mark.slow
def test_swapped_halves_are_the_same_set_but_not_the_same_sequence(
  make_encoder,
):
  # Flattened [1 2 3 4 5 6] and [4 5 6 1 2 3], in chunks of three.
  spec = families.mlp((2, 3), bias=False)
  options = chunking.ChunkOptions.published(3)
  one = spec, np.array([1, 2, 3, 4, 5, 6], np.float32)
  other = spec, np.array([4, 5, 6, 1, 2, 3], np.float32)
  for index_features, same in (("none", True), ("chunk", False)):
    encoder = make_encoder(
      [spec], options, **PLAIN | {"index_features": index_features}
    )
    codes = encoder(one, other)
    assert (far(codes[0], codes[1]) < 1e-5) == same


# Stages are written for one set, and mapped.


@pytest.mark.parametrize(
  "function",
  [
    *("product", "deepsets"),
    *(pytest.param(f, marks=pytest.mark.slow) for f in ("sab", "linear")),
  ],
)
def test_chunks_are_encoded_one_by_one(function):
  """By `nn.vmap`, by leading axes where there are some, and in a loop."""
  options = sne_options.SNEOptions(**TINY, chunk_function=function)
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  chunks = module.Chunk(
    values=draw(3, 5, 1),
    weights=draw(3, 5),
    mask=np.arange(5)[None, :] < np.array([5, 3, 1])[:, None],
    role=rng.integers(0, module.NUM_ROLES, (3, 5)),
    marks=draw(3, 5, 4),
    neuron=draw(3, 4),
    kind=np.array([0, 1, 0]),
    level=draw(3, 2),
  )
  chunks = jax.tree.map(jnp.asarray, chunks)
  encoder = module.ChunkEncoder(options)
  take = lambda n: jax.tree.map(lambda x: x[n], chunks)
  params = jax.jit(encoder.init)(jax.random.key(0), take(0))
  apply = jax.jit(encoder.apply)
  alone = [apply(params, take(n)) for n in range(3)]
  mapped = jax.jit(jax.vmap(encoder.apply, (None, 0)))(params, chunks)
  np.testing.assert_allclose(mapped, alone, rtol=1e-5, atol=1e-5)
  if function in ("sab", "deepsets"):
    together = apply(params, chunks)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
  assert far(alone[0], alone[1]) > 1e-3


# Batch mates and padding.

# Every chunk function, layer function, and deterministic identifier.
BATCHED = {
  "product": {"network_blocks": 0},
  "sab": PLAIN
  | {
    "index_features": "chunk",
    "layer_function": "isab",
    "network_function": "deepsets",
    "pad_mask": False,
    "form": "coded",
    "norm": "post",
  },
  "isab": {
    "chunk_function": "isab",
    "layer_function": "deepsets",
    "network_function": "isab",
    "index_features": "neuron",
  },
  "deepsets": {
    "chunk_function": "deepsets",
    "layer_function": "none",
    "weight_scale": "tensor",
    "identifiers": "none",
  },
  "linear": {
    "chunk_function": "linear",
    "layer_blocks": 0,
    "layer_seeds": 2,
    "encoding_combine": "concat",
  },
}


@pytest.mark.parametrize(
  "case",
  [
    pytest.param(c, marks=() if c == "linear" else pytest.mark.slow)
    for c in BATCHED
  ],
)
def test_a_code_depends_neither_on_batch_mates_nor_on_padding(
  make_encoder, case
):
  encoder = make_encoder(list(SPECS.values()), ROWS, **TINY | BATCHED[case])
  nets = [network(name) for name in SPECS]
  # Room for seven of the largest, so that all batches are one compilation.
  sizes = encoder.packer.sizes([(n,) * 7 for n in range(7)])
  together = encoder(*nets, sizes=sizes)
  gaps = [far(a, b) for a, b in itertools.combinations(together, 2)]
  assert min(gaps) > 1e-3
  turned = encoder(*nets[::-1], sizes=sizes)[::-1]
  np.testing.assert_allclose(turned, together, rtol=1e-5, atol=1e-5)
  for net, code in zip(nets, together, strict=True):
    alone = encoder(*[net] * 7, sizes=sizes)
    np.testing.assert_allclose(alone, [code] * 7, rtol=1e-5, atol=1e-5)
  assert encoder.num_traces == 1


@pytest.mark.slow
@pytest.mark.parametrize(
  "pad_mask", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_a_code_does_not_depend_on_the_room_given(make_encoder, pad_mask):
  options = TINY | BATCHED["deepsets"] | {"pad_mask": pad_mask}
  spec, net = SPECS["mlp"], network("mlp")
  encoder = make_encoder([spec], chunking.ChunkOptions.published(32), **options)
  sizes = encoder.packer.sizes([(0,) * 3])
  exact, padded = encoder.pack(net), encoder.pack(net, sizes=sizes)
  assert exact.room < padded.room
  np.testing.assert_allclose(encoder(net, sizes=sizes), encoder(net), atol=1e-5)
  # Longer chunks of the same weights: the padding of chunks is masked, or, in
  # the literal reading of the paper, counts as zeros.
  longer = make_encoder([spec], chunking.ChunkOptions.published(40), **options)
  assert (far(longer(net), encoder(net)) < 1e-5) == pad_mask


def test_equal_buckets_are_one_compilation(make_encoder):
  specs = [families.mlp((2, width, 2)) for width in (4, 5, 6, 7, 40)]
  encoder = make_encoder(specs, FLAT, **TINY | BATCHED["deepsets"])
  nets = [(s, np.ones(s.num_weights, np.float32)) for s in specs]
  encoder(*nets[:4])
  encoder(nets[3], nets[2], nets[2], nets[1])
  encoder(nets[2], nets[1], nets[0], nets[3])
  assert encoder.num_traces == 1
  encoder(*nets[1:])
  assert encoder.num_traces == 2


# Levels and skips.


@pytest.mark.slow
def test_layers_are_a_set_of_tensors_with_levels(make_encoder):
  spec = families.mlp((4, 4, 4, 4), bias=False)
  first, second, third = spec.tensors
  weights = families.random_weights(spec, np.random.default_rng(0))
  reordered = dataclasses.replace(spec, tensors=(third, first, second))
  parts = weights.reshape(3, 16)
  same = reordered, parts[[2, 0, 1]].reshape(-1)
  swapped = spec, parts[[1, 0, 2]].reshape(-1)
  specs = [spec, reordered]
  codes = make_encoder(specs, FLAT, **PLAIN)((spec, weights), same, swapped)
  assert far(codes[0], codes[1]) < 1e-5
  assert far(codes[0], codes[2]) > 1e-3
  blind = PLAIN | {"level_encoding": "none"}
  codes = make_encoder(specs, FLAT, **blind)((spec, weights), same, swapped)
  assert far(codes[0], codes[2]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
  ("layer_function", "skip_tokens"),
  [
    pytest.param("sab", True, marks=pytest.mark.slow),
    ("none", True),
    ("sab", False),
  ],
)
def test_residual_connections_are_visible(
  make_encoder, layer_function, skip_tokens
):
  spec = families.resnet((1, 4, 4), (2,), 2, num_classes=2)
  bare = dataclasses.replace(spec, skips=())
  moved_skip = dataclasses.replace(spec, skips=((0, 2), (0, 4)))
  weights = families.random_weights(spec, np.random.default_rng(0))
  # The first spec, which the parameters are made for, has no skips.
  encoder = make_encoder(
    [bare, spec, moved_skip],
    FLAT,
    **TINY,
    layer_function=layer_function,
    skip_tokens=skip_tokens,
  )
  codes = encoder((spec, weights), (bare, weights), (moved_skip, weights))
  for one, other in itertools.combinations(codes, 2):
    assert (far(one, other) > 1e-4) == skip_tokens


# Permutations of hidden neurons.


def orbits(encoder):
  """Codes of networks: as they are, permuted, and moved by two controls."""
  names = [n for n, spec in SPECS.items() if spec in encoder.packer.specs]
  nets = [network(name) for name in names]
  rng = np.random.default_rng(1)
  batch = list(nets)
  for move in (
    symmetry.draw_permutation,
    symmetry.draw_uncoupled,
    symmetry.draw_input_shuffle,
  ):
    batch += [moved(net, move(net[0], rng)) for net in nets]
  return names, encoder(*batch).reshape(4, len(nets), -1)


@pytest.mark.parametrize(
  "options",
  [
    pytest.param({"index_features": "none"}, marks=pytest.mark.slow),
    {"index_features": "io", "weight_scale": "tensor"},
    pytest.param(
      {
        "index_features": "io",
        "chunk_function": "sab",
        "value_features": "symlog",
      },
      marks=pytest.mark.slow,
    ),
  ],
  ids=lambda o: "-".join(o.values()),
)
def test_content_identifiers_are_exactly_invariant_and_see_the_pairing(
  make_encoder, options
):
  encoder = make_encoder(list(SPECS.values()), NEURON, **TINY, **options)
  names, (plain, permuted, uncoupled, shuffled) = orbits(encoder)
  # Sums in another order: some rounding more than within a batch.
  np.testing.assert_allclose(permuted, plain, atol=5e-5)
  for b, name in enumerate(names):
    assert far(uncoupled[b], plain[b]) > 1e-4, name
    assert far(shuffled[b], plain[b]) > 1e-4, name


@pytest.mark.parametrize(
  ("chunk_options", "options"),
  [
    pytest.param(NEURON, {"index_features": "neuron"}, marks=pytest.mark.slow),
    # Neurons that are cut in two, at a place that the permutation moves.
    (dataclasses.replace(NEURON, chunk_size=6), {"index_features": "io"}),
  ],
  ids=["neuron indices", "small chunks"],
)
def test_other_settings_are_not_exactly_invariant(
  make_encoder, chunk_options, options
):
  specs = [SPECS["mlp"], SPECS["inr"], SPECS["cnn_flat"]]
  encoder = make_encoder(specs, chunk_options, **TINY, **options)
  names, (plain, permuted, *_) = orbits(encoder)
  for b, name in enumerate(names):
    assert far(permuted[b], plain[b]) > 1e-4, name


@pytest.mark.slow
def test_without_identifiers_the_pairing_is_not_seen(make_encoder):
  specs = [SPECS["mlp"], SPECS["inr"]]
  encoder = make_encoder(specs, ROWS, **PLAIN | {"index_features": "io"})
  _, (plain, permuted, uncoupled, shuffled) = orbits(encoder)
  for codes in (permuted, uncoupled, shuffled):
    np.testing.assert_allclose(codes, plain, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("chunk_size", "invariant"),
  [(8, True), pytest.param(4, False, marks=pytest.mark.slow)],
)
def test_flat_chunks_are_invariant_only_if_no_row_is_cut(
  make_encoder, chunk_size, invariant
):
  spec = families.mlp((1, 8, 8, 1))
  options = chunking.ChunkOptions.published(chunk_size)
  encoder = make_encoder([spec], options, **PLAIN)
  rng = np.random.default_rng(0)
  net = spec, families.random_weights(spec, rng)
  codes = encoder(net, moved(net, symmetry.draw_permutation(spec, rng)))
  assert (far(codes[0], codes[1]) < 1e-5) == invariant


def test_random_identifiers_are_drawn_anew(make_encoder):
  options = TINY | {"identifiers": "random"}
  encoder = make_encoder([SPECS["mlp"]], NEURON, **options)
  first, second = keys_of(3)
  one = encoder(network("mlp"), rngs={"identifiers": jax.random.clone(first)})
  same = encoder(network("mlp"), rngs={"identifiers": first})
  other = encoder(network("mlp"), rngs={"identifiers": second})
  assert far(one, same) == 0
  assert far(one, other) > 1e-3
