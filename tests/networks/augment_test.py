import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks import augment, families

jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": "0"}
)

SPECS = {
  "inr": families.inr((1, 8, 7, 1)),
  "tanh": families.mlp((3, 6, 5, 2), "tanh"),
  "relu": families.mlp((3, 6, 5, 2), ("relu", "leaky_relu"), bias=False),
  "cnn_tanh": families.cnn(
    (1, 8, 8), (3, 4), dense=(5,), num_classes=2, activation="tanh"
  ),
  "cnn_relu": families.cnn(
    (1, 12, 12), (3, 4), pools=2, num_classes=2, head="flatten"
  ),
}


def case(spec, seed=0):
  """Weights of a network, and its function of them on fixed inputs."""
  rng = np.random.default_rng(seed)
  shape = dict(spec.options).get("image_shape", (spec.tensors[0].shape[-1],))
  x = rng.standard_normal((20, *shape), np.float32)
  weights = families.random_weights(spec, rng)
  return weights, jit(lambda w: families.forward(spec, w, x))


def difference(run, a, b):
  return float(jnp.abs(run(a) - run(b)).max())


def pretend(spec, activation):
  """The same spec, whose hidden activations are claimed to be another."""
  claimed = (activation,) * (spec.num_levels - 1) + ("none",)
  return dataclasses.replace(spec, activations=claimed)


@pytest.mark.parametrize("name", ["inr", "tanh", "cnn_tanh"])
def test_signs_keep_the_function(name):
  spec = SPECS[name]
  assert augment.sign_groups(spec) == tuple(spec.groups)
  weights, run = case(spec)
  rng = np.random.default_rng(1)
  for _ in range(4):
    factor = augment.draw_signs(spec, rng)
    assert factor.dtype == np.float32
    assert set(factor) == {-1.0, 1.0}
    assert difference(run, weights, weights * factor) < 1e-5


def test_signs_by_hand():
  spec = families.mlp((2, 2, 1), "tanh")
  factor = augment.signs_from(spec, {"n1": np.array([1.0, -1.0])}, np)
  np.testing.assert_array_equal(factor, [1, 1, -1, -1, 1, -1, 1, -1, 1])


def test_sign_probability():
  spec = SPECS["inr"]
  rng = np.random.default_rng(0)
  assert (augment.draw_signs(spec, rng, probability=0.0) == 1).all()
  all_signs = {"n1": -np.ones(8), "n2": -np.ones(7)}
  np.testing.assert_array_equal(
    augment.draw_signs(spec, rng, probability=1.0),
    augment.signs_from(spec, all_signs, np),
  )


@pytest.mark.parametrize("name", ["relu", "cnn_relu"])
def test_scales_keep_the_function(name):
  spec = SPECS[name]
  assert augment.scale_groups(spec) == tuple(spec.groups)
  weights, run = case(spec)
  rng = np.random.default_rng(1)
  factor = augment.draw_scales(spec, rng, 0.5, 2.0)
  assert factor.dtype == np.float32
  assert factor.min() < 0.7
  assert factor.max() > 1.4
  assert difference(run, weights, weights * factor) < 1e-5


@pytest.mark.parametrize("max_shift", [1, 4])
def test_pi_shifts_keep_the_function(max_shift):
  spec = SPECS["inr"]
  weights, run = case(spec)
  rng = np.random.default_rng(1)
  factor, offset = augment.draw_pi_shifts(spec, rng, max_shift)
  assert (factor == -1).any()
  biases = spec.unflatten(offset)
  assert np.abs(biases["layer0.bias"]).max() > 3 / 30
  assert not biases["layer1.weight"].any()
  # The sine's argument grows to k pi, and float32 rounds it accordingly.
  assert difference(run, weights, weights * factor + offset) < 1e-5 * max_shift
  assert difference(run, weights, weights + offset) > 1e-2
  assert difference(run, weights, weights * factor) > 1e-2


def test_pi_shifts_by_hand():
  spec = families.inr((1, 1, 1), w0=10.0)
  for seed in range(20):
    rng = np.random.default_rng(seed)
    factor, offset = augment.draw_pi_shifts(spec, rng, 1)
    k = round(offset[1] * 10 / math.pi)
    assert k in (-1, 0, 1)
    np.testing.assert_allclose(offset, [0, k * math.pi / 10, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(factor, [1, 1, -1 if k else 1, 1])


def test_wrong_activations_change_the_function():
  rng = np.random.default_rng(2)
  weights, run = case(SPECS["relu"])
  wrong = augment.draw_signs(pretend(SPECS["relu"], "tanh"), rng)
  assert difference(run, weights, weights * wrong) > 1e-2
  weights, run = case(SPECS["tanh"])
  wrong = augment.draw_scales(pretend(SPECS["tanh"], "relu"), rng)
  assert difference(run, weights, weights * wrong) > 1e-2
  factor, offset = augment.draw_pi_shifts(
    pretend(SPECS["tanh"], "sine"), rng, 3
  )
  assert difference(run, weights, weights * factor + offset) > 1e-2


def test_signs_do_not_pass_max_pooling():
  pooled = families.cnn(
    (1, 8, 8), (3, 4), pools=(2, 1), num_classes=2, activation="tanh"
  )
  assert augment.sign_groups(pooled) == ("n2",)
  weights, run = case(pooled)
  signs = {"n2": np.array([1.0, -1.0, 1.0, -1.0])}
  good = augment.signs_from(pooled, signs, np)
  assert difference(run, weights, weights * good) < 1e-5
  options = dict(pooled.options) | {"pools": (1, 1)}
  claimed = dataclasses.replace(pooled, options=tuple(options.items()))
  signs = {"n1": np.array([1.0, -1.0, -1.0])}
  wrong = augment.signs_from(claimed, signs, np)
  assert difference(run, weights, weights * wrong) > 1e-2


def test_groups_that_do_not_qualify():
  tiny = families.tiny_specs()
  for name in ("resnet", "transformer", "mlp", "cnn_pool"):
    assert augment.sign_groups(tiny[name]) == (), name
  for name in ("resnet", "transformer", "inr", "cnn_flat"):
    assert augment.scale_groups(tiny[name]) == (), name
  relu = families.transformer((1, 4, 4), 4, dim=8, depth=1, activation="relu")
  assert augment.scale_groups(relu) == ("block0.hidden",)
  weights, run = case(relu)
  factor = augment.draw_scales(relu, np.random.default_rng(0))
  assert (factor != 1).any()
  assert difference(run, weights, weights * factor) < 1e-5
  silent = dataclasses.replace(SPECS["tanh"], activations=())
  assert augment.sign_groups(silent) == ()
  assert augment.shift_groups(families.inr(bias=False)) == ()
  with pytest.raises(ValueError, match="may not change"):
    augment.signs_from(SPECS["relu"], {"n1": np.ones(6)}, np)
  with pytest.raises(ValueError, match="has 6 neurons"):
    augment.signs_from(SPECS["tanh"], {"n1": np.ones(5)}, np)
  with pytest.raises(ValueError, match="low"):
    augment.draw_scales(SPECS["relu"], np.random.default_rng(0), 0.0, 1.0)


@pytest.mark.parametrize("to", [np.asarray, jnp.asarray])
def test_zoom_and_translate_move_the_signal(to):
  spec = families.inr((2, 8, 7, 1))
  rng = np.random.default_rng(0)
  weights = to(families.random_weights(spec, rng))
  x = rng.uniform(-1, 1, (20, 2)).astype(np.float32)
  shift = np.array([0.2, -0.3], np.float32)
  zoomed = augment.zoom(spec, weights, 1.3)
  moved = augment.translate(spec, weights, to(shift))
  assert type(zoomed) is type(moved) is type(weights)
  assert zoomed.dtype == moved.dtype == np.float32
  forward = jit(functools.partial(families.forward, spec))
  new, old = forward(zoomed, x), forward(weights, 1.3 * x)
  np.testing.assert_allclose(new, old, atol=1e-5)
  new, old = forward(moved, x), forward(weights, x + shift[None])
  np.testing.assert_allclose(new, old, atol=1e-5)
  assert np.abs(forward(moved, x) - forward(weights, x)).max() > 1e-2
  many = augment.translate(spec, weights[None], to(shift))
  np.testing.assert_array_equal(many[0], moved)


@pytest.mark.parametrize("to", [np.asarray, jnp.asarray])
def test_rotate_turns_the_signal(to):
  spec = families.inr((2, 8, 7, 1))
  rng = np.random.default_rng(0)
  weights = to(families.random_weights(spec, rng))
  x = rng.uniform(-1, 1, (20, 2)).astype(np.float32)
  turned = augment.rotate(spec, weights, math.pi / 2)
  assert type(turned) is type(weights)
  assert turned.dtype == np.float32
  forward = jit(functools.partial(families.forward, spec))
  quarter = np.stack([-x[:, 1], x[:, 0]], axis=1)  # From x towards y.
  new, old = forward(turned, x), forward(weights, quarter)
  np.testing.assert_allclose(new, old, atol=1e-5)
  assert np.abs(new - forward(weights, -quarter)).max() > 1e-2
  back = augment.rotate(spec, turned[None], -math.pi / 2)[0]
  np.testing.assert_allclose(back, weights, atol=1e-6)
  with pytest.raises(ValueError, match="has 1 inputs"):
    augment.rotate(SPECS["inr"], np.zeros(SPECS["inr"].num_weights), 1.0)


def test_zoom_and_translate_need_a_coordinate_network():
  spec = SPECS["cnn_relu"]
  with pytest.raises(ValueError, match="dense"):
    augment.zoom(spec, np.zeros(spec.num_weights), 2.0)
  spec = families.inr(bias=False)
  with pytest.raises(ValueError, match="bias"):
    augment.translate(spec, np.zeros(spec.num_weights), np.zeros(1))
