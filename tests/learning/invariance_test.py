"""Logit Invariance: the loss, and what is measured of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax import predictor
from sne_jax.encoders import sne_options
from sne_jax.learning import invariance, pipeline
from sne_jax.networks import families, symmetry

SPEC = families.inr(widths=(1, 4, 4, 1))
key = lambda: jax.random.key(0)


def describe(**sne):
  options = sne_options.SNEOptions(
    **{
      "width": 8,
      "heads": 2,
      "layer_blocks": 1,
      "network_blocks": 1,
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
  encoder = predictor.build_encoder(description)
  net = predictor.build_model(description, encoder)
  params = jax.jit(lambda: predictor.init_params(net, encoder, SPEC, 0))()
  return description, encoder, net, params


def vectors(count):
  rng = np.random.default_rng(0)
  return [families.random_weights(SPEC, rng) for _ in range(count)]


def batch(encoder, first, second):
  packer = encoder.make_packer((SPEC,))
  count = len(first)
  packed = packer.pack((0,) * (2 * count), [*first, *second])
  return pipeline.Batch(
    packed, np.zeros((count, 1), np.float32), np.ones(count, np.float32)
  )


@pytest.mark.parametrize("target", ["logit", "code"])
def test_the_regulariser_is_zero_only_where_outputs_agree(target):
  _, encoder, net, params = build(index_features="neuron")
  options = invariance.InvarianceOptions(
    invariance_weight=2.0, invariance_target=target
  )
  loss = jax.jit(invariance.make_loss(net, "mse", options))
  first = vectors(2)
  rng = np.random.default_rng(1)
  moved = [w[symmetry.draw_permutation(SPEC, rng)] for w in first]
  same, found = loss(params, batch(encoder, first, first), key())
  assert found["invariance"] == pytest.approx(0, abs=1e-9)
  assert same == pytest.approx(float(found["task"]), rel=1e-5)
  _, found = loss(params, batch(encoder, first, moved), key())
  assert found["invariance"] > 1e-7


def test_stopping_the_gradient_changes_the_gradient_not_the_loss():
  _, encoder, net, params = build(index_features="neuron")
  first = vectors(2)
  rng = np.random.default_rng(1)
  moved = [w[symmetry.draw_permutation(SPEC, rng)] for w in first]
  given = batch(encoder, first, moved)
  values, grads = [], []
  for stop in (False, True):
    options = invariance.InvarianceOptions(
      invariance_weight=1.0, invariance_stop_gradient=stop
    )
    loss = invariance.make_loss(net, "mse", options)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, _), grad = step(params, given, key())
    values.append(float(value))
    grads.append(jnp.concatenate([x.ravel() for x in jax.tree.leaves(grad)]))
  assert values[0] == pytest.approx(values[1], rel=1e-6)
  assert float(jnp.abs(grads[0] - grads[1]).max()) > 1e-7


def test_the_device_moves_the_second_half_only():
  _, encoder, net, params = build(index_features="neuron")
  options = invariance.InvarianceOptions(invariance_weight=1.0)
  sampler = symmetry.make_permutation_sampler(SPEC)
  loss = jax.jit(invariance.make_loss(net, "mse", options, sampler=sampler))
  first = vectors(2)
  given = batch(encoder, first, first)
  _, found = loss(params, given, key())
  assert found["invariance"] > 1e-7
  plain = jax.jit(invariance.make_loss(net, "mse", options))
  assert found["task"] == pytest.approx(
    float(plain(params, given, key())[1]["task"]), rel=1e-5
  )


def test_an_invariant_encoder_measures_so_and_sees_false_symmetries():
  description, _, _, params = build(identifiers="content")
  found = predictor.Predictor(description, params)
  networks = [(SPEC, w) for w in vectors(6)]
  report = invariance.measure(found.logits, networks, 3, draws=2, seed=0)
  assert report["true permutation"]["ratio"] < 1e-8
  assert report["shuffled inputs of neurons"]["ratio"] > 1e-6
  description, _, _, params = build(index_features="neuron")
  found = predictor.Predictor(description, params)
  report = invariance.measure(found.logits, networks, 3, draws=2, seed=0)
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
  with pytest.raises(ValueError, match="choose logit or code"):
    invariance.InvarianceOptions(invariance_target="pixel")
