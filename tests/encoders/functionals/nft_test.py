"""The neural functional transformer: the authors' numbers, and symmetry."""

import math
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.functionals import (
  feature_layers,
  features,
  nft,
  perceiver,
)
from sne_jax.networks import families, symmetry
from tests.encoders import parity_torch

FAST = {"xla_backend_optimization_level": "0"}
FIXTURE = np.load(pathlib.Path(__file__).parents[2] / "fixtures/nft.npz")
SPEC = families.mlp((3, 5, 4, 2))
CNN = families.cnn((1, 5, 5), (3,), 2, num_classes=2, head="flatten")
PLAN = features.layout_of(SPEC, "nft")


def given(prefix):
  """Reads features of the authors' axis order, [B, c, out, in]."""
  return features.Features(
    tuple(np.moveaxis(FIXTURE[f"{prefix}/w{l}"], 1, -1) for l in range(3)),
    tuple(np.moveaxis(FIXTURE[f"{prefix}/b{l}"], 1, -1) for l in range(3)),
  )


def params(case):
  prefix = f"{case}/param/"
  found = {}
  for name in FIXTURE.files:
    if name.startswith(prefix):
      short = name.removeprefix(prefix)
      for outer in ("net.1.", "model."):
        short = short.removeprefix(outer).replace(f".{outer}", ".")
      found[short] = FIXTURE[name]
  return parity_torch.params_from_torch(found)


def run(module, values, x):
  jitted = jax.jit(
    lambda p, x: module.apply({"params": p}, x), compiler_options=FAST
  )
  return jitted(values, x)


MODULES = {
  "attn": nft.WeightSpaceAttention(PLAN, 8, 2),
  "attn_noneuron": nft.WeightSpaceAttention(PLAN, 8, 2, neurons_attend=False),
  "attn_noglobal": nft.WeightSpaceAttention(PLAN, 8, 2, tensors_attend=False),
  "attn_unshared": nft.WeightSpaceAttention(PLAN, 8, 4, share=False),
  "simple_ln": feature_layers.SimpleNorm(),
  "block": nft.NFTBlock(PLAN, 8, 2),
  "learned_pos": feature_layers.LearnedPositions(PLAN),
}


@pytest.mark.parametrize("case", MODULES)
def test_layers_give_the_authors_numbers(case):
  found = run(MODULES[case], params(case), given("mlp/in8"))
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(given(f"{case}/out")), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


def test_encodings_give_the_authors_numbers():
  x = jax.tree.map(jnp.asarray, given("mlp/in1"))
  table = FIXTURE["gauss/param/_B"]
  for found, case in (
    (feature_layers.fourier(PLAN, x, table), "gauss"),
    (
      feature_layers.io_sinusoidal(PLAN, x, bands=3, levels=True),
      "io_sin",
    ),
  ):
    for a, b in zip(
      jax.tree.leaves(found), jax.tree.leaves(given(f"{case}/out")), strict=True
    ):
      np.testing.assert_allclose(a, b, atol=2e-5)


def test_tokens_are_the_authors():
  found = PLAN.flat(jax.tree.map(jnp.asarray, given("mlp/in8")))
  np.testing.assert_array_equal(found, FIXTURE["flatten/out"])


class Classifier(nn.Module):
  """Pooling with a head, and before it maybe a block, as in the fixtures."""

  blocks: int = 0
  has_block: bool = False
  outputs: int = 0
  mean: bool = False

  @nn.compact
  def __call__(self, x):
    if self.has_block:
      x = nft.NFTBlock(PLAN, 8, 2, name="0")(x)
    x = perceiver.Pooling(4, 12, 8, self.blocks, 2, name="pool")(PLAN.flat(x))
    if not (self.outputs or self.has_block or self.mean):
      return x
    x = x.mean(axis=1)
    if self.outputs:
      x = nn.LayerNorm(epsilon=1e-5, name="to_logits_1")(x)
      x = nn.Dense(self.outputs, name="to_logits_2")(x)
    return x


@pytest.mark.parametrize(
  ("case", "module"),
  [
    ("pool_latents", Classifier()),
    ("pool_mean", Classifier(mean=True)),
    ("pool_classifier", Classifier(blocks=2, outputs=3)),
    ("block_then_pool", Classifier(has_block=True)),
  ],
)
def test_pooling_gives_the_authors_numbers(case, module):
  found = params(case)
  if case == "block_then_pool":
    found = {"0": found["0"], "pool": found["1"]}
  else:
    heads = {k: found.pop(k) for k in list(found) if k.startswith("to_logits")}
    found = {"pool": found} | heads
  out = run(module, found, given("mlp/in8"))
  np.testing.assert_allclose(out, FIXTURE[f"{case}/out"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
  ("module", "number"),
  [
    (lambda p: nft.WeightSpaceAttention(p, 64, 8), 12480),
    (lambda p: nft.NFTBlock(p, 256, 4, factor=4), 3356928),
  ],
)
def test_parameters_are_as_many_as_the_authors(module, number):
  spec = families.inr((2, 32, 32, 1))
  plan = features.layout_of(spec, "nft")
  module = module(plan)
  x = jax.eval_shape(plan.features, jnp.zeros((1, spec.num_weights)))
  x = jax.tree.map(lambda a: jnp.zeros((*a.shape[:-1], module.channels)), x)
  found = jax.eval_shape(module.init, jax.random.key(0), x)
  total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))
  assert total == number


def test_pooling_has_the_authors_parameters():
  tokens = jnp.zeros((1, 5, 256))
  found = jax.eval_shape(
    perceiver.Pooling(16, 256).init, jax.random.key(0), tokens
  )
  total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))
  assert total == 1056768


@pytest.mark.parametrize(
  "spec",
  [pytest.param(SPEC, marks=pytest.mark.slow), CNN],
  ids=["mlp", "flat cnn"],
)
def test_the_equivariant_part_is_equivariant(spec):
  """In float64: permuted networks give permuted outputs."""
  with jax.enable_x64(True):
    plan = features.layout_of(spec, "nft")
    options = nft.NFTOptions(channels=4, heads=2, blocks=1)
    module = nft.Equivariant(options, plan)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2, spec.num_weights))
    shapes = jax.eval_shape(
      module.init, jax.random.key(0), plan.features(jnp.asarray(rows))
    )
    values = jax.tree.map(
      lambda s: jnp.asarray(rng.standard_normal(s.shape)), shapes
    )
    apply = jax.jit(
      lambda rows: plan.flat(module.apply(values, plan.features(rows))),
      compiler_options=FAST,
    )
    out = apply(rows)
    assert out.shape == (*rows.shape, 4)
    index = drawn(symmetry.draw_permutation, spec, rng)
    np.testing.assert_allclose(apply(rows[:, index]), out[:, index], atol=1e-10)
    index = drawn(symmetry.draw_uncoupled, spec, rng)
    assert np.abs(apply(rows[:, index]) - out[:, index]).max() > 1e-3


def drawn(draw, spec, rng):
  """Draws an index that moves something."""
  index = draw(spec, rng)
  while (index == np.arange(len(index))).all():
    index = draw(spec, rng)
  return index
