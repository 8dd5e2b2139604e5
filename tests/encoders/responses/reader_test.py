"""SNE with responses: begins as without, and is exact in any batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders import table
from sne_jax.encoders.responses import features
from sne_jax.encoders.sne import options as sne_options
from sne_jax.learning.data.pipeline import Batch
from sne_jax.learning.objectives import invariance
from sne_jax.learning.objectives.model import PropertyModel
from sne_jax.networks import chunking, families, symmetry

SPECS = families.tiny_specs()
NAMES = ("mlp", "cnn_bare")
SLOW = pytest.mark.slow
SMALL = {
  **{"width": 8, "heads": 2, "layer_blocks": 1, "network_blocks": 1},
  **{"identifier_dim": 4, "response_inputs": 4, "response_width": 8},
}
CHUNKS = {
  "linear_rule": "neuron",
  "conv_rule": "neuron",
  "chunk_size": 0,
}


@functools.cache
def encoder(**changes):
  """An encoder, measured on all of the networks, and random parameters."""
  options = sne_options.SNEOptions(**SMALL | changes)
  specs = [SPECS[name] for name in NAMES]
  rng = np.random.default_rng(0)
  weights = [families.random_weights(spec, rng) for spec in specs]
  row = table.ENCODERS["sne"]
  measured = row.measure(options, list(zip(specs, weights, strict=True)))
  chunks = chunking.resolved(chunking.ChunkOptions(**CHUNKS), specs)
  measured["chunk_options"] = dataclasses.asdict(chunks)
  built = row.build(options, measured)
  packer = built.make_packer(specs)
  batch = packer.pack(np.arange(len(specs)), weights)
  params = jax.jit(built.module.init)(jax.random.key(0), batch)
  apply = jax.jit(built.module.apply)

  def codes(params, numbers, vectors):
    return np.asarray(apply(params, packer.pack(np.array(numbers), vectors)))

  return codes, params, specs, weights


def moved(params, rng):
  """Parameters of which none is 0, so that every branch is read."""
  noise = lambda x: 0.2 * rng.standard_normal(x.shape).astype(np.float32)
  draw = lambda x: jnp.asarray(x + noise(x))
  return jax.tree.map(draw, params)


@pytest.mark.parametrize(
  "responses", [pytest.param("outputs", marks=SLOW), "hidden"]
)
def test_it_begins_as_the_encoder_without(responses):
  codes, params, specs, weights = encoder(responses=responses)
  bare, bare_params, _, _ = encoder()
  numbers = range(len(specs))
  mine = codes(params, numbers, weights)
  np.testing.assert_allclose(
    mine, bare(bare_params, numbers, weights), rtol=1e-5, atol=1e-5
  )
  other = codes(moved(params, np.random.default_rng(0)), numbers, weights)
  assert np.abs(other - mine).max() > 0.1


@pytest.mark.parametrize(
  "order",
  [
    pytest.param("invariant", marks=SLOW),
    pytest.param("both", marks=SLOW),
    "pooled",
  ],
)
def test_codes_are_those_alone_and_keep_the_symmetry(order):
  codes, params, specs, weights = encoder(
    responses="hidden", response_order=order
  )
  rng = np.random.default_rng(1)
  params = moved(params, rng)
  together = codes(params, range(len(specs)), weights)
  for place, spec in enumerate(specs):
    alone = codes(params, [place], [weights[place]])[0]
    np.testing.assert_allclose(alone, together[place], rtol=1e-3, atol=1e-4)
    permuted = weights[place][symmetry.draw_permutation(spec, rng)]
    again = codes(params, [place], [permuted])[0]
    np.testing.assert_allclose(again, alone, rtol=1e-3, atol=2e-4)
    shuffled = rng.permutation(weights[place])
    assert np.abs(codes(params, [place], [shuffled])[0] - alone).max() > 1e-2


def test_invariant_features_do_not_name_classes():
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.standard_normal((2, 4, 5)), jnp.float32)
  mixture = jnp.asarray(rng.standard_normal((4, 3)), jnp.float32)
  order = rng.permutation(5)
  got = features.spread(logits, mixture)
  np.testing.assert_allclose(
    features.spread(logits[..., order], mixture), got, rtol=1e-4, atol=1e-5
  )
  assert np.abs(features.spread(logits[:, ::-1], mixture) - got).max() > 0.1
  named = features.values(logits, 5, classes=True)
  other = features.values(logits[..., order], 5, classes=True)
  assert np.abs(named - other).max() > 0.1


def test_levels_answer_alike_whatever_their_number_of_units():
  """Every unit twice: the products between inputs are the same."""
  rng = np.random.default_rng(0)
  after = jnp.asarray(rng.standard_normal((1, 3, 2, 4)), jnp.float32)
  mask = jnp.ones((1, 3), bool)
  mixture = jnp.asarray(rng.standard_normal((4, 3)), jnp.float32)
  once = features.level(after, mask, mixture)
  twice = features.level(
    jnp.concatenate([after, after], 1), jnp.ones((1, 6), bool), mixture
  )
  np.testing.assert_allclose(twice, once, rtol=1e-4)
  padded = features.level(
    jnp.concatenate([after, 9 + after], 1),
    jnp.array([[True] * 3 + [False] * 3]),
    mixture,
  )
  np.testing.assert_allclose(padded, once, rtol=1e-4)


def unknown(spec):
  """The same network, of which nothing tells how it is run."""
  return dataclasses.replace(spec, family="traced", options=())


def built(trained_on, example, options=None):
  """An encoder measured on some networks; shapes of its parameters, by one."""
  options = options or sne_options.SNEOptions(**SMALL | {"responses": "hidden"})
  row = table.ENCODERS["sne"]
  rng = np.random.default_rng(0)
  networks = [(s, families.random_weights(s, rng)) for s in trained_on]
  measured = row.measure(options, networks)
  chunks = chunking.resolved(chunking.ChunkOptions(**CHUNKS), trained_on)
  measured["chunk_options"] = dataclasses.asdict(chunks)
  encoder = row.build(options, measured)
  zeros = np.zeros(example.num_weights, np.float32)
  packed = encoder.make_packer([example]).pack((0,), [zeros])
  shapes = jax.eval_shape(encoder.module.init, jax.random.key(0), packed)
  return encoder, shapes, measured


@pytest.mark.parametrize(
  "trained_on",
  ["cnn_bare", *(pytest.param(name, marks=SLOW) for name in ("inr", None))],
)
def test_families_that_training_never_had_are_encoded(trained_on):
  known = SPECS[trained_on] if trained_on else unknown(SPECS["mlp"])
  encoder, shapes, _ = built([known], known)
  rng = np.random.default_rng(0)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  params = moved(zeros, rng)
  names = ("mlp", "inr", "cnn_bare", "transformer_bare")
  specs = [*(SPECS[name] for name in names), unknown(SPECS["cnn_bare"])]
  packer = encoder.make_packer(specs)
  weights = [families.random_weights(spec, rng) for spec in specs]
  batch = packer.pack(np.arange(len(specs)), weights)
  codes = jax.jit(encoder.module.apply)(params, batch)
  assert len(codes) == len(specs) and np.isfinite(codes).all()


def test_parameters_do_not_depend_on_the_example():
  specs = [SPECS["cnn_bare"], unknown(SPECS["mlp"])]
  shapes, other = (built(specs, spec)[1] for spec in specs)
  assert shapes == other


def test_what_is_said_of_networks_without_answers():
  cnn, lost = SPECS["cnn_bare"], unknown(SPECS["cnn_bare"])
  remark = table.ENCODERS["sne"].remark
  reads = sne_options.SNEOptions(**SMALL | {"responses": "outputs"})
  drops = dataclasses.replace(reads, response_drop=0.1)
  only_run, also_not = (
    built(specs, cnn)[2] for specs in ([cnn], [cnn, unknown(SPECS["mlp"])])
  )
  assert remark(reads, only_run, cnn, False) == ""
  assert remark(sne_options.SNEOptions(), {}, lost, True) == ""
  with pytest.raises(ValueError, match="--response_drop=0.1"):
    remark(reads, only_run, lost, False)
  for options, measured in ((drops, only_run), (reads, also_not)):
    assert "weights alone" in remark(options, measured, lost, False)
  assert "part by part" in remark(drops, only_run, cnn, True)


@pytest.mark.slow
def test_each_reader_has_its_own_inputs_and_error():
  """What one learns does not depend on the other, but units and weights do."""
  options = sne_options.SNEOptions(
    **SMALL | {"responses": "outputs", "response_readers": 2}
  )
  spec = SPECS["mlp"]
  encoder, shapes, _ = built([spec], spec, options)
  rng = np.random.default_rng(0)
  params = moved(
    jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes), rng
  )
  weights = [families.random_weights(spec, rng) for _ in range(2)]
  batch = encoder.make_packer([spec]).pack((0, 0), weights)
  net = encoder.module
  each = jax.jit(lambda p: net.apply(p, batch, method="of_each_reader"))
  mean = jax.jit(lambda p: net.apply(p, batch))(params)
  readers = each(params)
  np.testing.assert_allclose(mean, readers.mean(axis=0), rtol=1e-4, atol=1e-5)
  assert np.abs(readers[0] - readers[1]).max() > 1e-2
  model = PropertyModel(net, num_targets=1)
  whole = jax.jit(model.init)(jax.random.key(0), batch)
  whole = moved(whole, rng)
  targets = jnp.asarray([[0.3], [0.8]])
  options = invariance.InvarianceOptions(invariance_weight=0.0)
  loss = invariance.make_loss(model, "bce", options)
  data = Batch(batch, targets)
  gradient = jax.jit(jax.grad(lambda p: loss(p, data, jax.random.key(0))[0]))

  def of_first(params):
    read = gradient(params)["params"]["encoder"]["responses"]
    return read["readers_0"], read["probes"]["vectors"][:4]

  before = of_first(whole)
  other = jax.tree.map(lambda x: x, whole)
  read = other["params"]["encoder"]["responses"]
  read["readers_1"] = moved(read["readers_1"], rng)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
    of_first(other),
    before,
  )
  read["readers_0"] = moved(read["readers_0"], rng)
  changed = of_first(other)[1] - before[1]
  assert np.abs(changed).max() > 1e-6
