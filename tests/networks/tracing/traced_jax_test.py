"""Flax modules, traced: what is found leaves their output alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sne_jax.networks import inference
from sne_jax.networks.tracing import traced_jax


class Block(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x):
    y = nn.Conv(self.width, (3, 3), use_bias=False)(x)
    y = nn.relu(nn.BatchNorm(use_running_average=True)(y))
    y = nn.GroupNorm(num_groups=2)(nn.Conv(self.width, (3, 3))(y))
    if x.shape[-1] != self.width:
      x = nn.Conv(self.width, (1, 1))(x)
    return nn.relu(x + y)


class Residual(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.max_pool(nn.Conv(6, (3, 3))(x), (2, 2), (2, 2))
    x = Block(8)(Block(6)(x))  # Named in the order of making: 1 is inside.
    x = nn.Conv(8, (3, 3), feature_group_count=8)(x)
    x = nn.Dense(7)(x.reshape(x.shape[0], -1))
    return nn.Dense(3)(nn.gelu(nn.LayerNorm()(x)))


class Transformer(nn.Module):
  @nn.compact
  def __call__(self, words):
    table = nn.Embed(11, 16)
    x = table(words)
    position = nn.initializers.normal(1.0)
    x = x + self.param("position", position, (1, words.shape[1], 16))
    y = nn.LayerNorm()(x)
    x = x + nn.MultiHeadDotProductAttention(4)(y, y)
    y = nn.LayerNorm()(x)
    x = x + nn.Dense(16)(nn.gelu(nn.Dense(24)(y)))
    return table.attend(nn.LayerNorm()(x)[:, 0])


CASES = {
  "residual": (Residual(), np.zeros((2, 8, 8, 3), np.float32)),
  "transformer": (Transformer(), np.zeros((2, 5), np.int32)),
}


def case(name):
  module, x = CASES[name]
  rng = np.random.default_rng(0)
  if x.dtype == np.float32:
    x = rng.standard_normal(x.shape, np.float32)
  else:
    x = rng.integers(0, 11, x.shape).astype(x.dtype)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  variables = jax.tree.map(
    lambda leaf: (
      0.1 + 0.5 * np.abs(rng.standard_normal(leaf.shape, np.float32))
    ),
    shapes,
  )
  variables["params"] = jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape, np.float32) / 2,
    shapes["params"],
  )
  return module, variables, x, rng


@pytest.mark.parametrize("name", CASES)
def test_a_flax_module(name):
  module, variables, x, rng = case(name)
  found = traced_jax.trace(module.apply, variables, x)
  tensors = traced_jax.named(variables)
  tree = jax.tree.structure(variables)

  def run(tensors, x):
    leaves = [tensors[k] for k in traced_jax.named(variables)]
    return module.apply(jax.tree.unflatten(tree, leaves), x)

  weights = found.gather(tensors)
  check = inference.permutation_check(found, weights, jax.jit(run), x, rng)
  assert check.change < 1e-4
  assert check.control is not None and check.control > 1e-2
  assert check.log_order > 20
  assert not found.guesses and not found.left_out
  assert not [t.name for t in found.spec.tensors if t.kind == "other"]
  back = found.scatter(weights, tensors)
  for key, value in tensors.items():
    assert back[key].tobytes() == value.tobytes(), key


def test_levels_skips_and_norms_of_a_flax_module():
  module, variables, x, _ = case("residual")
  spec = traced_jax.trace(module.apply, variables, x).spec
  mean = spec.tensor("batch_stats/Block_1/BatchNorm_0/mean")
  assert (mean.kind, mean.of) == ("norm_mean", "params/Block_1/Conv_0/kernel")
  assert spec.tensor("params/Block_1/GroupNorm_0/scale").of is None
  assert spec.skips == ((0, 3), (3, 6))
  stream = spec.tensor("params/Conv_0/kernel").axes[0]
  assert [f.size for f in stream] == [2, 3]
  assert stream == spec.tensor("params/Block_1/Conv_1/kernel").axes[0]
  rows, *_ = spec.tensor("params/Conv_1/kernel").axes
  flat = spec.tensor("params/Dense_0/kernel").axes[1]
  assert flat[0].size == 16 and flat[0].group is None and flat[1:] == rows


def test_heads_of_a_flax_module():
  module, variables, x, _ = case("transformer")
  spec = traced_jax.trace(module.apply, variables, x).spec
  own = "params/MultiHeadDotProductAttention_0"
  q, k, v = (
    spec.tensor(f"{own}/{part}/kernel") for part in ("query", "key", "value")
  )
  assert [t.kind[-1] for t in (q, k, v)] == ["q", "k", "v"]
  assert q.shape == (16, 16) and [f.size for f in q.axes[0]] == [4, 4]
  assert q.axes[0] == k.axes[0] != v.axes[0]
  assert v.axes[0][1].per == q.axes[0][0].group
  assert spec.tensor(f"{own}/out/kernel").axes[1] == v.axes[0]
  bias = spec.tensor(f"{own}/query/bias")
  assert (bias.kind, bias.shape) == ("attention_bias", (16,))
  assert spec.tensor("params/position").kind == "position"


@pytest.mark.parametrize(
  ("mix", "log_order"),
  [
    (jnp.tanh, np.log(720)),
    (lambda h: h + jnp.arange(6.0).reshape(1, 6), 0.0),
    (lambda h: jnp.cumsum(h, 1), 0.0),
    (lambda h: jnp.sort(h, 1), 0.0),
    (lambda h: h[:, ::-1], 0.0),
    (lambda h: h[:, np.array([1, 0, 2, 3, 4, 5])], 0.0),
    (lambda h: jnp.roll(h, 1, 1), 0.0),
    (lambda h: h * h.sum(1, keepdims=True), np.log(720)),
    (lambda h: jnp.concatenate([h[:, 3:], h[:, :3]], 1), 2 * np.log(6)),
    (lambda h: jax.nn.glu(h, 1).repeat(2, 1), None),
    (lambda h: jax.lax.scan(lambda c, r: (c + r, c), h[0], h)[1], 0.0),
  ],
  ids=map(str, range(11)),  # Functions have no names of their own.
)
def test_what_mixes_neurons(mix, log_order):
  def run(t, x):
    return mix(x @ t["first"].T) @ t["last"].T

  rng = np.random.default_rng(0)
  weights = {
    "first": rng.standard_normal((6, 4), np.float32),
    "last": rng.standard_normal((3, 6), np.float32),
  }
  x = rng.standard_normal((5, 4), np.float32)
  found = traced_jax.trace(run, weights, x)
  flat = found.gather(weights)
  check = inference.permutation_check(found, flat, run, x, rng, draws=6)
  assert check.change < 1e-4
  if log_order is not None:
    assert check.log_order == pytest.approx(log_order)


def test_what_has_no_part_is_listed():
  weights = {"a": np.ones((3, 2), np.float32), "b": np.ones(4, np.float32)}
  found = traced_jax.trace(lambda t, x: x @ t["a"].T, weights, np.ones((1, 2)))
  assert list(found.left_out) == ["b"]
  back = found.scatter(found.gather(weights), weights)
  np.testing.assert_array_equal(back["b"], weights["b"])
