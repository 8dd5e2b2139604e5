"""SANE: the authors' numbers and counts, masks, windows, bad input."""

import dataclasses
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.tokens import sane, sane_coder, sane_networks
from sne_jax.networks import families, tokens, windows
from tests.encoders import parity_torch

FAST = {"xla_backend_optimization_level": "0"}
FIXTURE = np.load(pathlib.Path(__file__).parents[2] / "fixtures/sane.npz")
OPTIONS = sane.SANEOptions(
  token_size=10,
  width=6,
  hidden=16,
  blocks=2,
  heads=4,
  window=5,
  table_tokens=40,
  table_layers=10,
  table_rows=8,
)
MODEL = sane.SANE(OPTIONS)
SPEC = families.mlp((3, 4, 3, 2))


def params(case):
  prefix = f"{case}/param/"
  names = [n for n in FIXTURE.files if n.startswith(prefix)]
  found = {n.removeprefix(prefix): FIXTURE[n] for n in names}
  return jax.tree.map(jnp.asarray, parity_torch.params_from_torch(found))


def run(module, values, *args, **named):
  """Applies a module, compiled; what is given by name is closed over."""
  apply = lambda v, *a: module.apply({"params": v}, *a, **named)
  return jax.jit(apply, compiler_options=FAST)(values, *args)


PARAMS = params("ae")
X, POSITIONS = FIXTURE["ae/in_x"], FIXTURE["ae/in_pos"]


def close(found, name):
  np.testing.assert_allclose(found, FIXTURE[name], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def embed():
  def apply(x, p, real):
    z = MODEL.apply({"params": PARAMS}, x, p, real, method="encode")
    return jnp.mean(z, axis=1, where=None if real is None else real[..., None])

  return jax.jit(apply, compiler_options=FAST)


def test_the_autoencoder_gives_the_authors_numbers(embed):
  apply = jax.jit(MODEL.apply, compiler_options=FAST)
  z, y, projection = apply({"params": PARAMS}, X, POSITIONS)
  close(z, "ae/out_z")
  close(y, "ae/out_y")
  close(projection, "ae/out_projection")
  assert (projection >= 0).all()
  close(embed(X, POSITIONS, None), "ae/out_embedding")
  x, positions = FIXTURE["tokens_d10_bn/tokens"], FIXTURE["tokens_d10_bn/pos"]
  close(embed(x[None], positions[None], None), "ae/full_embedding")
  both = lambda m, x, p: m.decode(m.encode(x, p), p)
  apply = jax.jit(
    lambda x, p: MODEL.apply({"params": PARAMS}, x, p, method=both),
    compiler_options=FAST,
  )
  close(apply(x[None], positions[None]), "ae/full_y")


def test_parts_give_the_authors_numbers():
  out = run(sane.WindowBlock(4), params("block"), FIXTURE["in/x"])
  close(out, "block/out")
  options = dataclasses.replace(OPTIONS, width=6, window=5)
  out = run(sane.Projection(options), params("head"), FIXTURE["in/z"])
  close(out, "head/out")


PUBLISHED_CNN = sane.SANEOptions(
  token_size=289, width=128, hidden=1024, blocks=8, heads=8, window=64
)
PUBLISHED_RESNET18 = sane.SANEOptions(
  **{"token_size": 288, "width": 128, "hidden": 2048, "blocks": 8, "heads": 16},
  **{"window": 256, "table_tokens": 55000, "table_layers": 100},
  table_rows=550,
)


@pytest.mark.parametrize(
  ("options", "total", "matrices"),
  [
    (PUBLISHED_CNN, 202539421, 202504068),
    (PUBLISHED_RESNET18, 865050012, 864979844),
  ],
)
def test_parameters_are_as_many_as_the_authors(options, total, matrices):
  x = jax.ShapeDtypeStruct((2, options.window, options.token_size), jnp.float32)
  positions = jax.ShapeDtypeStruct((2, options.window, 3), jnp.int32)
  module = sane.SANE(options)
  out, found = jax.eval_shape(
    module.init_with_output, jax.random.key(0), x, positions
  )
  leaves = jax.tree.leaves(found["params"])
  sizes = [(math.prod(leaf.shape), leaf.ndim) for leaf in leaves]
  assert sum(size for size, _ in sizes) == total
  assert sum(size for size, ndim in sizes if ndim > 1) == matrices
  assert [sum((n > 1) == big for _, n in sizes) for big in (True, False)] == [
    *(73, 40)
  ]
  window = options.window
  assert [o.shape for o in out] == [
    *((2, window, 128), (2, window, options.token_size), (2, 30))
  ]


@pytest.mark.slow
def test_first_values_are_as_published():
  init = jax.jit(MODEL.init, compiler_options=FAST)
  found = init(jax.random.key(0), X, POSITIONS)["params"]
  block = found["transformer_encoder"]["transformer_0"]
  assert 0.015 < np.std(block["mlp"]["c_fc"]["kernel"]) < 0.025
  # Into the residual stream: smaller by the root of twice the blocks.
  assert 0.0075 < np.std(block["mlp"]["c_proj"]["kernel"]) < 0.0125
  assert 0.015 < np.std(found["pe"]["pe1"]["embedding"]) < 0.025
  assert (found["tokenizer"]["bias"] == 0).all()


def test_padding_never_changes_an_embedding(embed):
  padded = np.concatenate([X, 1e3 * np.ones((2, 3, 10), np.float32)], axis=1)
  positions = np.concatenate([POSITIONS, np.zeros((2, 3, 3), np.int32)], axis=1)
  real = np.broadcast_to(np.arange(8) < 5, (2, 8))
  close(embed(padded, positions, real), "ae/out_embedding")
  plain = embed(padded, positions, None)  # The control.
  assert np.abs(plain - FIXTURE["ae/out_embedding"]).max() > 1e-2


def test_samples_do_not_see_each_other_but_tokens_do():
  encode = jax.jit(
    lambda x: MODEL.apply({"params": PARAMS}, x, POSITIONS, method="encode"),
    compiler_options=FAST,
  )
  other = X.copy()
  other[1] += 1
  z, changed = np.asarray(encode(X)), np.asarray(encode(other))
  np.testing.assert_array_equal(z[0], changed[0])
  other = X.copy()
  other[0, 2] += 1
  assert np.abs(np.asarray(encode(other))[0, 0] - z[0, 0]).max() > 1e-4


@pytest.fixture(scope="module")
def small():
  """A small model for a network, random parameters, and two networks."""
  layout = tokens.layout(SPEC)
  size = layout.token_size
  options = dataclasses.replace(OPTIONS, token_size=size, blocks=1)
  module = sane.SANE(options)
  x = jnp.zeros((1, 5, size))
  shapes = jax.eval_shape(
    module.init, jax.random.key(0), x, jnp.zeros((1, 5, 3), int)
  )["params"]
  rng = np.random.default_rng(0)
  values = jax.tree.map(
    lambda s: jnp.asarray(rng.standard_normal(s.shape, np.float32) / 2),
    shapes,
  )
  weights = rng.standard_normal((2, SPEC.num_weights), np.float32)
  return module, values, layout, weights


@pytest.mark.slow
def test_whole_networks_by_windows(small):
  module, values, layout, weights = small
  whole = windows.tile(len(layout), len(layout))
  apply = lambda tiling, w: sane_networks.encode(
    module, values, layout, tiling, w
  )
  z = jax.jit(lambda w: apply(whole, w), compiler_options=FAST)(weights)
  x = tokens.tokenise(layout, weights)
  positions = np.broadcast_to(layout.positions, (2, *layout.positions.shape))
  direct = run(module, values, x, positions, method="encode")
  np.testing.assert_allclose(z, direct, atol=1e-4)
  # Windows: each token's latent is that of its own window.
  tiling = windows.tile(len(layout), 3, 1)
  found = jax.jit(lambda w: apply(tiling, w), compiler_options=FAST)(weights)
  for row, column in zip(*np.nonzero(tiling.content), strict=True):
    token = tiling.index[row, column]
    if row != 1:
      continue
    near = tiling.index[row]
    own = run(module, values, x[:, near], positions[:, near], method="encode")
    np.testing.assert_allclose(found[:, token], own[:, column], atol=1e-4)
  decode = jax.jit(
    lambda z: sane_networks.decode(module, values, layout, tiling, z),
    compiler_options=FAST,
  )
  assert decode(found).shape == weights.shape


def test_bad_input_is_one_clear_line(small):
  module, values, layout, weights = small
  tiling = windows.tile(len(layout), 3)
  encode = lambda m: sane_networks.encode(m, values, layout, tiling, weights)
  less = dataclasses.replace(module.options, table_tokens=8)
  with pytest.raises(ValueError, match="table of token positions has 8"):
    encode(sane.SANE(less))
  other = dataclasses.replace(module.options, token_size=4)
  with pytest.raises(ValueError, match="token_size is 4"):
    encode(sane.SANE(other))
  with pytest.raises(ValueError, match="reads windows of 5 tokens, got 7"):
    sane.Projection(module.options).apply({}, jnp.zeros((1, 7, 6)))
  with pytest.raises(ValueError, match="multiple of heads 3"):
    sane.SANEOptions(hidden=16, heads=3)
  with pytest.raises(ValueError, match="table_rows is 0"):
    sane.SANEOptions(table_rows=0)
  with pytest.raises(ValueError, match="spare is -1"):
    sane_coder.SANECoderOptions(spare=-1.0)
  with pytest.raises(ValueError, match="halo is -1"):
    sane_coder.SANECoderOptions(halo=-1)


def test_the_coder_refuses_networks_beyond_its_tables():
  rng = np.random.default_rng(0)
  larger = families.mlp((3, 9, 3, 2))
  networks = [(SPEC, families.random_weights(SPEC, rng))]
  for spare, passes in ((0.0, False), (2.0, True)):
    options = sane_coder.SANECoderOptions(spare=spare, token_size=7)
    measured = sane_coder.measure(options, networks)
    encoder = sane_coder.build(options, measured=measured)
    if passes:
      encoder.make_packer((SPEC, larger))
    else:
      with pytest.raises(ValueError, match="table of token positions"):
        encoder.make_packer((SPEC, larger))


def test_codes_of_the_table_are_means_of_latents():
  """Windows, packing and normalisation, against the model itself."""
  rng = np.random.default_rng(0)
  networks = [(SPEC, families.random_weights(SPEC, rng)) for _ in range(3)]
  options = sane_coder.SANECoderOptions(
    width=4, hidden=8, heads=2, blocks=1, window=3, halo=1
  )
  measured = sane_coder.measure(options, networks)
  measured["place_scales"] = [1.0] * len(measured["place_scales"])
  encoder = sane_coder.build(options, measured)
  batch = encoder.make_packer((SPEC,)).pack([0] * 3, [w for _, w in networks])
  init = jax.jit(encoder.module.init, compiler_options=FAST)
  values = init(jax.random.key(0), batch)["params"]
  codes = run(encoder.module, values, batch)
  layout = tokens.layout(SPEC)
  roots = np.repeat(
    [t.fan_in**0.5 for t in SPEC.tensors], [t.size for t in SPEC.tensors]
  ).astype(np.float32)
  encode = lambda w: sane_networks.encode(
    sane.SANE(encoder.module.options),
    values["body"],
    layout,
    windows.tile(len(layout), 3, 1),
    w,
  )
  z = jax.jit(encode, compiler_options=FAST)(
    np.stack([w for _, w in networks]) * roots
  )
  np.testing.assert_allclose(codes, sane_networks.embed(z), atol=1e-6)
