"""Models that a program holds, beside what their files and names say."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx

from sne_jax.learning.data import inputs, models

RNG = np.random.default_rng(0)


class Linen(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Dense(4)(x))
    return nn.Dense(2)(x)


def same(found, arrays):
  """Whether weights are those arrays, in this order, stored `[in, out]`."""
  spec, weights = found
  assert [t.kind for t in spec.tensors] == ["linear_weight", "linear_bias"] * 2
  for part, array in zip(spec.unflatten(weights).values(), arrays, strict=True):
    turned = np.asarray(array).T if np.ndim(array) == 2 else array
    np.testing.assert_array_equal(part, turned)
  return True


def test_variables_of_linen():
  given = Linen().init(jax.random.key(0), np.ones((1, 3)))
  layers = [given["params"][f"Dense_{n}"] for n in range(2)]
  arrays = [layer[name] for layer in layers for name in ("kernel", "bias")]
  assert inputs.is_one(given)
  assert same(inputs.network_of(given), arrays)


def test_a_module_of_nnx():
  class Module(nnx.Module):
    def __init__(self, rngs):
      self.a = nnx.Linear(3, 4, rngs=rngs)
      self.b = nnx.Linear(4, 2, rngs=rngs)
      self.dropout = nnx.Dropout(0.5, rngs=rngs)  # Holds a key, no weight.

    def __call__(self, x):
      return self.b(self.dropout(nnx.relu(self.a(x))))

  model = Module(nnx.Rngs(0))
  layers = (model.a, model.b)
  arrays = [np.asarray(v[...]) for l in layers for v in (l.kernel, l.bias)]
  [found] = inputs.networks_of(model)
  assert same(found, arrays)


def test_what_is_no_model_is_none():
  for given in ({}, {"a": np.ones(2)}, [1], "name", (1, 2), None):
    assert not models.kind_of(given) and not models.is_traceable(given)


def test_a_model_of_keras(monkeypatch):
  monkeypatch.setenv("KERAS_BACKEND", "jax")
  keras = pytest.importorskip("keras")
  layers = keras.layers
  model = keras.Sequential(
    [layers.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]
  )
  found = inputs.network_of(model)
  assert same(found, [np.asarray(v) for v in model.weights])
  assert found[0].activations[0] == "tanh"


def test_a_module_of_torch_by_names_and_by_trace():
  torch = pytest.importorskip("torch")
  model = torch.nn.Sequential(
    torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
  )
  arrays = [p.detach().numpy() for p in model.parameters()]
  named = inputs.network_of(model)
  [traced] = inputs.networks_of((model, torch.ones(1, 3)))
  for spec, weights in (named, traced):
    np.testing.assert_array_equal(
      weights, np.concatenate([a.ravel() for a in arrays])
    )
    assert spec.groups
  assert traced[0].activations[0] == "tanh"
  several = inputs.networks_of([model, (model, torch.ones(1, 3))])
  assert [spec for spec, _ in several] == [named[0], traced[0]]
  broken = torch.nn.Linear(3, 4)
  with pytest.raises(ValueError, match="network: torch cannot trace Linear"):
    inputs.network_of((broken, torch.ones(1, 5)))
