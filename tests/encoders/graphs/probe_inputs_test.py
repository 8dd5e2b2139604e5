"""Probes: networks are run as they are, and features follow their neurons."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders import table
from sne_jax.encoders.graphs import graph_batches, probe_inputs
from sne_jax.networks import families, symmetry

FAST = {"xla_backend_optimization_level": "0"}
INR = families.inr((2, 4, 3, 1), w0=20.0)
MLP = families.mlp((3, 5, 2, 4, 2), ("tanh", "silu", "sine"))
BARE = families.mlp((1, 6, 3), "relu", bias=False)
FLAT = families.mlp((2, 2))
SPECS = (INR, MLP, BARE, FLAT)
CNN = families.cnn((1, 6, 6), (3,), num_classes=2)
NAMES = ("neural_graph", "neural_graph_transformer")
SMALL = {
  "neural_graph": {"width": 8, "layers": 2},
  "neural_graph_transformer": {
    **{"width": 8, "edge_width": 4, "attention_width": 4, "node_hidden": 8},
    **{"edge_hidden": 8, "heads": 2, "layers": 2},
  },
}


def packed(specs, weights):
  packer = graph_batches.packer(SPECS, 1, dense=False, num_probes=2)
  numbers = [SPECS.index(spec) for spec in specs]
  return packer.pack(numbers, weights)


def answered(batch, inputs):
  run = jax.jit(
    lambda inputs: probe_inputs.answers(batch, inputs), compiler_options=FAST
  )
  return np.asarray(run(jnp.asarray(inputs)))


def test_answers_are_those_of_the_networks():
  """Of a mixed batch with padding, against the families' own pass."""
  rng = np.random.default_rng(0)
  specs = (*SPECS, INR)
  weights = [families.random_weights(spec, rng) for spec in specs]
  inputs = rng.uniform(-1, 1, (6, 3)).astype(np.float32)
  batch = packed(specs, weights)
  found = answered(batch, inputs)
  network = batch.tables["nodes"]["network"]
  for number, (spec, vector) in enumerate(zip(specs, weights, strict=True)):
    seen: list[Any] = [inputs[:, : spec.tensors[0].shape[1]]]
    outputs = families.run(
      spec,
      spec.unflatten(vector),
      seen[0],
      lambda level, x, seen=seen: (seen.append(x), x)[1],
    )
    expected = np.concatenate([*seen, outputs], axis=1)
    np.testing.assert_allclose(found[network == number], expected.T, atol=1e-5)


def test_answers_by_hand():
  spec = families.inr((2, 3, 1), w0=30.0, output_offset=0.5)
  rng = np.random.default_rng(0)
  w1, b1 = rng.normal(size=(3, 2)) / 30, rng.normal(size=3) / 30
  w2, b2 = rng.normal(size=(1, 3)), rng.normal(size=1)
  inputs = rng.uniform(-1, 1, (4, 2))
  hidden = np.sin(30 * (inputs @ w1.T + b1))
  expected = np.concatenate(
    [inputs, hidden, hidden @ w2.T + b2 + 0.5], axis=1
  ).T
  weights = np.concatenate([w1.ravel(), b1, w2.ravel(), b2])
  packer = graph_batches.packer((spec,), 1, dense=False, num_probes=4)
  batch = packer.pack([0], [weights.astype(np.float32)])
  found = answered(batch, inputs.astype(np.float32))
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_permuted_units_have_permuted_answers():
  rng = np.random.default_rng(1)
  weights = families.random_weights(MLP, rng)
  order = {"n1": np.array([3, 0, 4, 1, 2]), "n2": np.array([1, 0])}
  moved = weights[symmetry.permutation_from(MLP, order)]
  inputs = rng.uniform(-1, 1, (6, 3)).astype(np.float32)
  found = [answered(packed((MLP,), [w]), inputs) for w in (weights, moved)]
  rows = np.array([0, 1, 2, 6, 3, 7, 4, 5, 9, 8, *range(10, 16)])
  np.testing.assert_allclose(found[1], found[0][rows], atol=1e-5)
  assert np.abs(found[1] - found[0])[3:10].min(axis=1).max() > 1e-3


class Built:
  """An encoder with probes of random parameters, in float64."""

  def __init__(self, name, specs, number=5):
    options = table.row(name).options(**SMALL[name], probes=number)
    rng = np.random.default_rng(7)
    networks = [(s, families.random_weights(s, rng)) for s in specs]
    measured = table.measure(name, options, networks)
    encoder = table.build(name, dataclasses.asdict(options), {}, measured)
    self.module, self.packer = encoder.module, encoder.make_packer(specs)
    self.specs = specs
    batch = self.pack(networks)
    shapes = jax.eval_shape(self.module.init, jax.random.key(0), batch)
    self.params = jax.tree.map(
      lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.5), shapes
    )
    self._apply = jax.jit(
      lambda p, b: self.module.apply(p, b, True), compiler_options=FAST
    )

  def pack(self, networks):
    numbers = [self.specs.index(s) for s, _ in networks]
    batch = self.packer.pack(numbers, [w for _, w in networks])
    return batch._replace(weights=np.asarray(batch.weights, np.float64))

  def __call__(self, networks):
    return np.asarray(self._apply(self.params, self.pack(networks)))


@pytest.fixture
def float64():
  with jax.enable_x64(True):
    yield


@pytest.mark.parametrize("name", NAMES)
def test_codes_with_probes_keep_the_symmetry(name, float64):
  """And do not depend on company, whatever its depth and width."""
  specs = (INR, MLP)
  encode = Built(name, specs)
  rng = np.random.default_rng(0)
  networks = [(s, families.random_weights(s, rng)) for s in specs]
  codes = encode(networks)
  size = np.abs(codes).max()
  for draw, close in (
    (symmetry.draw_permutation, True),
    (symmetry.draw_uncoupled, False),
  ):
    moved = encode([(s, w[draw(s, rng)]) for s, w in networks])
    change = np.abs(moved - codes).max(axis=1)
    assert (change < 1e-10 * size).all() if close else change.min() > 1e-5
  for network, code in zip(networks, codes, strict=True):
    np.testing.assert_allclose(encode([network])[0], code, atol=1e-10 * size)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_probes(name, float64):
  encode = Built(name, (INR,))
  rng = np.random.default_rng(0)
  batch = encode.pack([(INR, families.random_weights(INR, rng))])

  def loss(params):
    return jnp.sum(jnp.square(jnp.asarray(encode.module.apply(params, batch))))

  slope = jax.jit(jax.grad(loss), compiler_options=FAST)(encode.params)
  found = slope["params"]["featuriser"]["probed"]["probes"]
  assert found.shape == (5, 2)
  assert np.isfinite(found).all()
  assert (np.abs(found) > 1e-8).all()


def test_probes_tell_activations_apart(float64):
  """The same weights are another network: not of the same code any more."""
  other = families.mlp((3, 5, 2, 4, 2), ("tanh", "relu", "sine"))
  rng = np.random.default_rng(0)
  weights = families.random_weights(MLP, rng)
  encode = Built("neural_graph", (MLP, other))
  codes = encode([(MLP, weights), (other, weights)])
  assert np.abs(codes[0] - codes[1]).max() > 1e-3
  blind = Built("neural_graph", (MLP, other), 0)
  codes = blind([(MLP, weights), (other, weights)])
  np.testing.assert_array_equal(codes[0], codes[1])


def test_probes_begin_in_the_unit_cube():
  module = probe_inputs.ProbeFeatures(64, 4, 2, 2)
  batch = packed((INR,), [np.zeros(INR.num_weights, np.float32)])
  init = jax.jit(lambda key: module.init(key, batch)["params"]["probes"])
  values = init(jax.random.key(0))
  assert values.shape == (64, 2)
  assert -1 <= values.min() < -0.9
  assert 0.9 < values.max() <= 1
  assert abs(values.mean()) < 0.2


@pytest.mark.parametrize("name", NAMES)
def test_networks_that_cannot_be_run_are_refused(name):
  """While measuring, and where a trained encoder meets one."""
  row = table.row(name)
  options = row.options(**SMALL[name], probes=3)
  given = [(s, np.ones(s.num_weights, np.float32)) for s in (INR, CNN)]
  with pytest.raises(ValueError, match="probes is 3, but cnn of") as error:
    table.measure(name, options, given)
  assert "\n" not in str(error.value)
  measured = table.measure(name, options, given[:1])
  encoder = table.build(name, dataclasses.asdict(options), {}, measured)
  with pytest.raises(ValueError, match="only the families mlp and inr"):
    encoder.make_packer((INR, CNN))
  with pytest.raises(ValueError, match="does not say its activations"):
    encoder.make_packer((INR.layout,))
  with pytest.raises(ValueError, match="probes is -1"):
    row.options(probes=-1)
