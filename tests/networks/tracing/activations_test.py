"""Activations of specs that were found, and what may move because of them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks import augment, families, inference
from sne_jax.networks.tracing import activations, traced_jax

WIDTHS = (3, 6, 5, 2)
X = np.random.default_rng(0).standard_normal((4, 7, 3), np.float32)


def layer(variables, number, x):
  own = variables[str(number)]
  return x @ own["kernel"] + own["bias"][None, None, :]


def plain(act, between=lambda x: x):
  def run(variables, x):
    x = between(act(layer(variables, 0, x)))
    return layer(variables, 2, act(layer(variables, 1, x))).mean(axis=1)

  return run


def normed(x):
  return x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True) + 0.1)


RELU = jax.nn.relu
LEAKY = jax.nn.leaky_relu
MOVES = {
  # What runs, the activations found, and groups of signs and of scales.
  "relu": (plain(RELU), ("relu", "relu", "none"), 0, 2),
  "maximum": (plain(lambda x: jnp.maximum(x, 0)), ("relu",) * 2, 0, 2),
  "leaky_relu": (plain(LEAKY), ("leaky_relu",) * 2, 0, 2),
  "tanh": (plain(jnp.tanh), ("tanh", "tanh", "none"), 2, 0),
  "sine": (plain(lambda x: jnp.sin(30 * x)), ("sine", "sine", "none"), 2, 0),
  "silu": (plain(jax.nn.silu), ("silu", "silu", "none"), 0, 0),
  "relu, shared by all": (
    plain(RELU, lambda x: x[:, ::1] * 2),
    ("relu",),
    0,
    2,
  ),
  # From here on something stands between that may not be overlooked.
  "maximum over places": (
    plain(RELU, lambda x: x.max(axis=1, keepdims=True)),
    ("relu", "relu", "none"),
    0,
    2,
  ),
  "maximum over places, odd": (
    plain(jnp.tanh, lambda x: x.max(axis=1, keepdims=True)),
    ("unknown", "tanh", "none"),
    1,
    0,
  ),
  "norm without vectors": (plain(RELU, normed), ("unknown", "relu"), 0, 1),
  "a constant added": (plain(RELU, lambda x: x + 1.0), ("unknown",), 0, 1),
  "gate": (plain(jnp.tanh, lambda x: x * x), ("unknown", "tanh"), 1, 0),
  "two activations": (
    plain(jnp.tanh, jax.nn.relu),
    ("unknown", "tanh", "none"),
    1,
    0,
  ),
  "mean of neurons": (
    plain(jnp.tanh, lambda x: x + x.mean(axis=-1, keepdims=True)),
    ("unknown", "tanh"),
    1,
    0,
  ),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_a_trace_allows_keeps_the_function(name):
  run, names, signs, scales = MOVES[name]
  rng = np.random.default_rng(1)
  variables = {
    str(n): {
      "kernel": rng.standard_normal((i, o), np.float32),
      "bias": rng.standard_normal(o, np.float32),
    }
    for n, (i, o) in enumerate(zip(WIDTHS, WIDTHS[1:], strict=False))
  }
  found = traced_jax.trace(run, variables, X)
  spec = found.spec
  assert spec.activations[: len(names)] == names
  assert len(augment.sign_groups(spec)) == signs
  assert len(augment.scale_groups(spec)) == scales
  assert augment.is_known(spec) == ("unknown" not in names)
  tensors = traced_jax.named(variables)
  weights = found.gather(tensors)
  before = np.asarray(run(variables, X))
  for factor in (augment.draw_signs(spec, rng), augment.draw_scales(spec, rng)):
    moved = found.scatter(weights * factor)
    tree = {
      n: {part: moved[f"{n}/{part}"] for part in own}
      for n, own in variables.items()
    }
    after = np.asarray(run(tree, X))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def shapes(*widths):
  pairs = enumerate(zip(widths, widths[1:], strict=False))
  return {
    name: shape
    for n, (i, o) in pairs
    for name, shape in ((f"{n}.weight", (o, i)), (f"{n}.bias", (o,)))
  }


def test_an_override_says_the_activation():
  own = shapes(3, 6, 5, 2)
  found = inference.infer(own, framework="torch")
  assert found.spec.activations == ()
  assert not augment.is_known(found.spec)
  said = {"activation": "relu"}
  found = inference.infer(own, framework="torch", override=said)
  assert found.spec.activations == ("relu", "relu", "none")
  assert len(augment.scale_groups(found.spec)) == 2
  with pytest.raises(ValueError, match=r"activation is 'rlu'; choose one of"):
    inference.infer(own, framework="torch", override={"activation": "rlu"})


def test_an_activation_that_is_assumed():
  spec = inference.infer(shapes(3, 6, 5, 2), framework="torch").spec
  tanh = augment.assumed(spec, "tanh")
  assert tanh.activations == ("tanh", "tanh", "none")
  assert len(augment.sign_groups(tanh)) == 2
  known = families.mlp((3, 6, 2), "relu")
  assert augment.assumed(known, "tanh") == known
  assert augment.assumed(spec, "") == spec


def test_phases_of_unknown_frequency_stay():
  spec = inference.infer(
    shapes(1, 6, 2), framework="torch", override={"activation": "sine"}
  ).spec
  assert len(augment.sign_groups(spec)) == 1
  assert augment.shift_groups(spec) == ()
  assert len(augment.shift_groups(families.inr((1, 6, 2)))) == 1


@pytest.mark.parametrize(
  ("layers", "name"),
  [
    ([("Dense", "relu"), ("Dense", "relu"), ("Dense", "softmax")], "relu"),
    ([("Dense", None), ("ReLU", None), ("Dense", "linear")], "relu"),
    ([("Dense", "relu"), ("Dense", "tanh"), ("Dense", "linear")], ""),
    ([("Dense", "relu"), ("LayerNormalization", None), ("Dense", None)], ""),
  ],
)
def test_what_a_keras_configuration_states(layers, name):
  config = [
    {"class_name": kind, "config": {"activation": act}} for kind, act in layers
  ]
  metadata = {"config": json.dumps({"config": {"layers": config}})}
  assert activations.stated("keras", metadata) == name
