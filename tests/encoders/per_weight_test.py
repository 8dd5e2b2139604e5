"""Values of weights move along with the neurons: in float64, to 1e-10."""

import json

import jax
import numpy as np
import pytest

from sne_jax.encoders import table
from sne_jax.networks import families, symmetry

INR = families.inr((2, 6, 5, 1))
CNN = families.cnn(
  (1, 5, 5), (3,), 2, dense=(4,), num_classes=2, head="flatten"
)
FAST = {"xla_backend_optimization_level": "0"}
SMALL = {
  "sne": {"width": 8, "identifier_dim": 8},
  "nfn_np": {"channels": 4, "layers": 2},
  "nfn_hnp": {"channels": 4, "layers": 2, "fourier": 3},
  "nft": {"channels": 4, "heads": 2, "blocks": 1},
  "dws": {"channels": 4, "layers": 1},
  "neural_graph": {"width": 8, "layers": 2},
  "gmn": {"width": 8, "layers": 3, "undirected": True},
}
CHUNKS = {"chunk_size": 128, "linear_rule": "neuron", "conv_rule": "neuron"}


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def built(name, spec, weights, **changes):
  """Returns a packer of float64, and the compiled function of its batches."""
  row = table.row(name)
  options = row.options(**(SMALL[name] | changes))
  if name == "sne":  # All of it, not its parameters alone, in float64.
    object.__setattr__(options, "compute_dtype", "float64")
  measured = row.measure(options, [(spec, w) for w in weights])
  measured = json.loads(json.dumps(measured)) | {"chunk_options": CHUNKS}
  packer = row.build(options, measured).make_packer((spec,))
  module = row.per_weight(options, measured)

  def pack(rows):
    batch = packer.pack([0] * len(rows), list(rows))
    return batch._replace(weights=batch.weights.astype(np.float64))

  def apply(params, batch):
    rngs = {"identifiers": jax.random.key(1)}
    return module.apply(params, batch, rngs=rngs)

  params = drawn(module, pack(weights))
  return pack, params, jax.jit(apply, compiler_options=FAST)


def values_of(name, spec, weights, *moved, **changes):
  """Returns values `[B, P]` of networks, and of moved ones."""
  pack, params, apply = built(name, spec, weights, **changes)
  outcomes = []
  for rows in (weights, *moved):
    values = apply(params, pack(rows))
    assert values.shape == (weights.size, 1)
    assert values.dtype == np.float64
    outcomes.append(np.asarray(values).reshape(weights.shape))
  return outcomes


def drawn(module, batch):
  """Draws parameters in float64; none are zero."""
  keys = {"params": jax.random.key(0), "identifiers": jax.random.key(1)}
  shapes = jax.eval_shape(module.init, keys, batch)
  rng = np.random.default_rng(0)
  spread = lambda x: x.shape[0] ** -0.5 if x.ndim > 1 else 0.3
  return jax.tree.map(lambda x: spread(x) * rng.normal(size=x.shape), shapes)


def networks_of(spec, count=2):
  rng = np.random.default_rng(0)
  rows = [families.random_weights(spec, rng) for _ in range(count)]
  return np.stack(rows).astype(np.float64)


DRAWS = (symmetry.draw_permutation, symmetry.draw_input_shuffle)


def compared(name, spec, **changes):
  """Returns how far values of moved networks are from moved values.

  First moved as neurons are, then without regard to them.
  """
  weights = networks_of(spec)
  orders = [draw(spec, np.random.default_rng(3)) for draw in DRAWS]
  moved = [weights[:, order] for order in orders]
  assert all((m != weights).any() for m in moved)
  values, *of_moved = values_of(name, spec, weights, *moved, **changes)
  size = np.abs(values).max()
  assert np.ptp(values, axis=1).min() > 1e-2 * size
  return [
    np.abs(of - values[:, order]).max() / size
    for of, order in zip(of_moved, orders, strict=True)
  ]


CASES = [
  *[(name, INR, {}) for name in SMALL],
  ("sne", CNN, {}),
  ("neural_graph", CNN, {"reverse": False}),
  ("gmn", CNN, {"undirected": False}),
  ("nfn_hnp", CNN, {}),
  ("sne", INR, {"responses": "outputs", "response_inputs": 3}),
  ("sne", INR, {"chunk_function": "sab", "weight_scale": "tensor"}),
]


def test_every_encoder_of_weights_in_and_weights_out_has_a_case():
  has = {n for n, row in table.ENCODERS.items() if row.per_weight is not None}
  assert has == set(SMALL)


@pytest.mark.parametrize(
  ("name", "spec", "changes"),
  [
    pytest.param(
      *case, marks=pytest.mark.slow if n > 5 or case[0] == "nfn_np" else ()
    )
    for n, case in enumerate(CASES)
  ],
)
def test_values_move_with_the_neurons(name, spec, changes):
  permuted, shuffled = compared(name, spec, **changes)
  assert permuted < 1e-10
  assert shuffled > 1e-4


@pytest.mark.slow
def test_random_identifiers_do_not():
  assert compared("sne", INR, identifiers="random")[0] > 1e-3


READ = ("weight", "chunk", "own", "other", "marks", "network", "place")


@pytest.mark.slow
def test_sne_reads_all_that_is_said_of_a_weight():
  weights = networks_of(INR)
  pack, params, apply = built("sne", INR, weights)
  batch = pack(weights)
  values = apply(params, batch)
  for name in READ:
    without = jax.tree.map(np.copy, params)
    for array in without["params"][name].values():
      array *= 0
    assert np.abs(apply(without, batch) - values).max() > 1e-3, name
