"""Logit Invariance: the loss, and what is measured of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sne_jax import predictor
from sne_jax.encoders.sne import options as sne_options
from sne_jax.learning.data import pipeline
from sne_jax.learning.objectives import invariance
from sne_jax.learning.training import loop, program
from sne_jax.networks import families, symmetry

SPEC = families.inr(widths=(1, 4, 4, 1))
key = lambda: jax.random.key(0)


def describe(**sne):
  options = sne_options.SNEOptions(
    **{
      "width": 8,
      "heads": 2,
      "layer_function": "deepsets",
      "network_function": "deepsets",
      "identifier_dim": 4,
    }
    | sne
  )
  return {
    "encoder": "sne",
    "encoder_options": vars(options),
    "chunk_options": {
      "chunk_size": 6,
      "linear_rule": "neuron",
      "conv_rule": "neuron",
    },
    "global_scale": 0.1,
    "place_scales": [],
    "head": {"hidden_width": 8},
    "targets": ["frequency"],
    "loss": "mse",
    "target_mean": [0.0],
    "target_spread": [1.0],
    "max_level": 2,
  }


def build(**sne):
  description = describe(**sne)
  encoder = program.build_encoder(description)
  net = program.build_model(description, encoder)
  params = jax.jit(lambda: program.init_params(net, encoder, SPEC, 0))()
  return description, encoder, net, params


def vectors(count):
  rng = np.random.default_rng(0)
  return [families.random_weights(SPEC, rng) for _ in range(count)]


def batch(encoder, first, second):
  packer = encoder.make_packer((SPEC,))
  count = len(first)
  packed = packer.pack((0,) * (2 * count), [*first, *second])
  return pipeline.Batch(packed, np.zeros((count, 1), np.float32))


@pytest.mark.slow
def test_the_regulariser_is_zero_only_where_outputs_agree():
  _, encoder, net, params = build(index_features="neuron")
  options = invariance.InvarianceOptions(invariance_weight=2.0)
  loss = jax.jit(invariance.make_loss(net, "mse", options))
  first = vectors(2)
  rng = np.random.default_rng(1)
  moved = [w[symmetry.draw_permutation(SPEC, rng)] for w in first]
  same, metrics = loss(params, batch(encoder, first, first), key())
  assert metrics["invariance"] == pytest.approx(0, abs=1e-9)
  assert same == pytest.approx(float(metrics["task"]), rel=1e-5)
  _, metrics = loss(params, batch(encoder, first, moved), key())
  assert metrics["invariance"] > 1e-7


class Given:
  """A model whose logits, and codes, are what it is given."""

  def apply(self, params, packed, deterministic, rngs):
    return packed + params, packed


def test_without_the_regulariser_nothing_is_compared():
  given = pipeline.Batch(jnp.ones((2, 1)), np.zeros((2, 1)))
  loss = invariance.make_loss(Given(), "mse", invariance.InvarianceOptions())
  total, metrics = jax.jit(loss)(0.0, given, key())
  assert set(metrics) == {"task"}
  assert total == metrics["task"] == 1


def test_classes_have_the_regulariser_on_all_logits():
  # Two networks and their moved copies, K = 3; probabilities in eighths.
  logits = jnp.log(jnp.array([[1.0, 2, 5], [5.0, 2, 1]]))
  change = jnp.array([[1.0, 2.0, 2.0], [0.0, 1.0, 0.0]])
  given = pipeline.Batch(
    jnp.concatenate([logits, logits + change]),
    np.array([[2.0], [1.0]], np.float32),
  )
  options = invariance.InvarianceOptions(invariance_weight=2.0)
  loss = jax.jit(invariance.make_loss(Given(), "classes", options))
  total, metrics = loss(0.0, given, key())
  assert metrics["invariance"] == pytest.approx((9 + 1) / 2 / 2)
  assert metrics["task"] == pytest.approx(-np.log([5 / 8, 2 / 8]).mean())
  # The task is that of the moved copies too.
  moved = jax.nn.log_softmax(logits + change)
  other = -(moved[0, 2] + moved[1, 1]) / 2
  both = (float(metrics["task"]) + float(other)) / 2
  assert total == pytest.approx(both + 2 * 2.5)


@pytest.mark.slow
def test_the_regulariser_teaches_invariance():
  description, encoder, net, params = build(index_features="neuron")
  rng = np.random.default_rng(0)
  train = vectors(64)
  # Not a function of single weights, and the same for permuted networks.
  targets = np.array([[np.abs(w).mean()] for w in train])
  targets = (targets - targets.mean()) / targets.std()
  networks = pipeline.Networks((SPEC,), np.zeros(64, int), train, targets)
  unseen = [(SPEC, families.random_weights(SPEC, rng)) for _ in range(16)]
  ratios = []
  for beta in (0.0, 3.0):
    options = invariance.InvarianceOptions(invariance_weight=beta)
    batch_fn = pipeline.Pipeline(
      networks,
      encoder.make_packer((SPEC,)),
      pipeline.DataOptions(batch_size=16),
      seed=0,
      pairs=beta > 0,
    )
    tx = optax.adam(1e-2)
    update = loop.make_update_fn(invariance.make_loss(net, "mse", options), tx)
    state = loop.init_state(params, tx, jax.random.key(0))
    for step in range(200):
      flat = jax.tree.map(lambda x: x[0], batch_fn(step))
      state, _ = update(state, flat)
    model = predictor.Predictor(description, state.params)
    report = invariance.measure(model.logits, unseen, 3, draws=4, seed=0)
    ratios.append(report["true permutation"]["ratio"])
  assert ratios[0] > 1e-3
  assert ratios[1] < 0.5 * ratios[0]


def test_networks_that_a_move_leaves_alone_do_not_count():
  linear = families.mlp((3, 2))
  rng = np.random.default_rng(0)
  nets = [(linear, families.random_weights(linear, rng)) for _ in range(4)]
  total = lambda nets: np.array([[w[0] + 2 * w[3]] for _, w in nets])
  report = invariance.measure(total, nets, 100, draws=1, seed=0)
  for move in invariance.MOVES:
    assert np.isnan(report[move]["error"])
  # Half of the networks move, and only they are averaged.
  wide = [(SPEC, w) for w in vectors(4)]
  report = invariance.measure(total, wide, 2, draws=3, seed=0)
  alone = report["true permutation"]["error"]
  assert alone > 0
  report = invariance.measure(total, [*wide, *nets], 2, draws=3, seed=0)
  both = report["true permutation"]["error"]
  assert both > 0.3 * alone


@pytest.mark.slow
def test_an_invariant_encoder_measures_so_and_sees_false_symmetries():
  description, _, _, params = build(identifiers="content")
  model = predictor.Predictor(description, params)
  networks = [(SPEC, w) for w in vectors(6)]
  report = invariance.measure(model.logits, networks, 3, draws=2, seed=0)
  assert report["true permutation"]["ratio"] < 1e-8
  assert report["shuffled inputs of neurons"]["ratio"] > 1e-6
  description, _, _, params = build(index_features="neuron")
  model = predictor.Predictor(description, params)
  report = invariance.measure(model.logits, networks, 3, draws=2, seed=0)
  assert report["true permutation"]["ratio"] > 1e-6, "the control"


def test_shuffled_chunks_are_whole_chunks():
  rng = np.random.default_rng(0)
  index = invariance.chunk_shuffle(SPEC, 4, rng)
  assert sorted(index) == list(range(SPEC.num_weights))
  start = SPEC.offsets[SPEC.index("layer1.weight")]
  block = index[start : start + 16].reshape(4, 4)
  assert (np.diff(block, axis=1) == 1).all()
  assert (block[:, 0] != start + np.arange(0, 16, 4)).any()


def test_options_are_checked():
  with pytest.raises(ValueError, match="invariance_weight is -1"):
    invariance.InvarianceOptions(invariance_weight=-1.0)
