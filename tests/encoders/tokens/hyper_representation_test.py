"""Hyper-representations: the authors' numbers and counts, every option."""

import dataclasses
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.tokens import hyper_representation as hyper
from sne_jax.encoders.tokens import token_layers
from sne_jax.networks import families
from tests.encoders import parity_torch

FAST = {"xla_backend_optimization_level": "0"}
FIXTURE = np.load(
  pathlib.Path(__file__).parents[2] / "fixtures/hyper_representation.npz"
)
SPEC = families.mlp((3, 4, 2), "tanh")
OPTIONS = hyper.HyperRepresentationOptions(
  width=5, token_width=12, heads=3, blocks=2, feed_forward=14
)
FLAT = dataclasses.replace(OPTIONS, compression="flatten")


def params(case):
  prefix = f"{case}/param/"
  names = [n for n in FIXTURE.files if n.startswith(prefix)]
  found = {n.removeprefix(prefix): FIXTURE[n] for n in names}
  return jax.tree.map(jnp.asarray, parity_torch.params_from_torch(found))


def run(module, values, *args, **named):
  """Applies a module, compiled; what is given by name is closed over."""
  apply = lambda v, *a: module.apply({"params": v}, *a, **named)
  return jax.jit(apply, compiler_options=FAST)(values, *args)


def shapes_of(tree):
  return jax.tree.map(lambda x: tuple(x.shape), tree)


CASES = {
  "norm": (hyper.Norm(), "in/x", "out"),
  "block": (hyper.TokenBlock(4, 24), "in/x", "out"),
  "block_nonorm": (hyper.TokenBlock(4, 24, norm=False), "in/x", "out"),
  "encoder_token": (hyper.Encoder(OPTIONS, SPEC), "in/w", "out_z"),
  "encoder_flat": (hyper.Encoder(FLAT, SPEC), "in/w", "out_z"),
  "decoder": (hyper.Decoder(OPTIONS, SPEC), "in/z", "out_w"),
}


@pytest.mark.parametrize("case", CASES)
def test_modules_give_the_authors_numbers(case):
  module, given, name = CASES[case]
  x, values = FIXTURE[given], params(case)
  found = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
  assert shapes_of(found) == shapes_of(values)
  out = run(module, values, x)
  np.testing.assert_allclose(
    out, FIXTURE[f"{case}/{name}"], atol=1e-5, rtol=1e-5
  )


def test_tokens_are_the_authors():
  values = params("encoder_token")["token_embeddings"]
  module = hyper.Tokeniser(SPEC, "neuron", 12)
  out = run(module, values, FIXTURE["in/w"])
  np.testing.assert_allclose(out, FIXTURE["encoder_token/tokens"], atol=1e-5)


def test_the_norm_by_hand():
  module = hyper.Norm()
  x = jnp.array([[1.0, 2.0, 3.0, 6.0]])
  values = {"alpha": jnp.ones(4), "bias": jnp.zeros(4)}
  out = module.apply({"params": values}, x)
  np.testing.assert_allclose(
    out, [[-0.925820, -0.462910, 0, 1.388730]], atol=1e-5
  )


def test_the_head_is_the_authors():
  """As in training: by the statistics of the batch."""
  options = token_layers.ProjectionOptions(layers=2, width=7, outputs=4)
  head = token_layers.ProjectionHead(options)
  unused = ("num_batches_tracked", "running_mean", "running_var")
  values = {
    name: {leaf: x for leaf, x in part.items() if leaf not in unused}
    for name, part in params("head").items()
  }
  out = run(head, values, FIXTURE["in/z_head"])
  np.testing.assert_allclose(out, FIXTURE["head/out_train"], atol=1e-5)


TETRIS = families.mlp((16, 5, 4), "tanh", bias=False)
SMALL = families.architecture("schuerholt", (1, 28, 28))
UNTERTHINER = families.architecture("arch1", (1, 28, 28))


@pytest.mark.parametrize(
  ("spec", "sizes", "head", "counts"),
  [
    (TETRIS, (2, 256, 4, 512, 50), (3, 50, 20), (1075762, 1179413, 9010)),
    (TETRIS, (2, 256, 4, 900, 50), (3, 50, 20), (1473850, 1577501, 9010)),
    (SMALL, (2, 800, 4, 900, 700), (4, 400, 50), (8868900, 35221310, 784950)),
    (SMALL, (4, 800, 2, 1000, 700), (4, 400, 50), (17525500, 43877910, 784950)),
    (
      UNTERTHINER,
      (4, 512, 4, 1000, 1200),
      (4, 400, 50),
      (9123408, 44169949, 984950),
    ),
  ],
)
def test_parameters_are_as_many_as_the_authors(spec, sizes, head, counts):
  names = ("blocks", "token_width", "heads", "feed_forward", "width")
  options = hyper.HyperRepresentationOptions(
    **dict(zip(names, sizes, strict=True))
  )
  layers, width, outputs = head
  module = hyper.Autoencoder(
    options,
    spec,
    token_layers.ProjectionOptions(layers=layers, width=width, outputs=outputs),
  )
  x = jnp.zeros((2, spec.num_weights))
  found = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
  for name, count in zip(
    ("encoder", "decoder", "projection_head"), counts, strict=True
  ):
    leaves = jax.tree.leaves(found[name])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == count
  table = found["encoder"]["position_embeddings"]["embedding"]
  other = found["decoder"]["position_embeddings"]["embedding"]
  assert table.shape[0] == other.shape[0] + 1  # The compression token's.


@pytest.mark.parametrize(
  "changes",
  [
    {"compression": "flatten"},
    {"tokens": "weight"},
    {"tokens": "neuron_in_out"},
  ],
  ids=str,
)
def test_every_option_has_its_shapes(changes):
  options = dataclasses.replace(OPTIONS, **changes)
  head = token_layers.ProjectionOptions(layers=1, width=6, outputs=3)
  module = hyper.Autoencoder(options, SPEC, head)
  x = jnp.zeros((2, SPEC.num_weights))
  z, y, p = jax.eval_shape(
    lambda key: module.init_with_output(key, x)[0], jax.random.key(0)
  )
  assert (z.shape, y.shape, p.shape) == ((2, 5), x.shape, (2, 3))


@pytest.mark.slow
def test_dropout_is_off_unless_training():
  module, values = hyper.Encoder(OPTIONS, SPEC), params("encoder_token")
  x = FIXTURE["in/w"]

  def train(seed):
    key = jax.random.key(seed)
    return run(module, values, x, deterministic=False, rngs={"dropout": key})

  assert np.abs(train(0) - train(1)).max() > 1e-3
  out = run(module, values, x)
  np.testing.assert_allclose(out, FIXTURE["encoder_token/out_z"], atol=1e-5)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"token_width": 10, "heads": 3}, "multiple of heads 3"),
    ({"tokens": "layer"}, "tokens is 'layer'"),
    ({"compression": "max"}, "compression is 'max'"),
    ({"blocks": -1}, "blocks is -1"),
    ({"attention_dropout": 1.0}, "attention_dropout is 1.0"),
  ],
)
def test_wrong_options_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    hyper.HyperRepresentationOptions(**changes)
