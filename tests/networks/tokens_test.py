"""SANE tokens: the authors' numbers, exact inverses, bad input."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks import families, symmetry, tokens
from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import parts

FIXTURE = np.load(pathlib.Path(__file__).parents[1] / "fixtures/sane.npz")
LARGE = families.cnn(
  (3, 32, 32), (16, 32, 15), 3, pools=2, dense=(20,), head="flatten"
)
TINY = families.tiny_specs()


def plain(size):
  return spec_lib.plain_axis(size)


def checkpoint_spec():
  """The network of the fixture, under its names."""
  conv1 = parts.convolution("conv1", plain(4), plain(1), 3, 0)
  norms = [
    parts.vector(f"bn1.{name}", f"norm_{kind}", plain(4), 0, conv1[0])
    for name, kind in (
      ("weight", "scale"),
      ("bias", "shift"),
      ("running_mean", "mean"),
      ("running_var", "var"),
    )
  ]
  conv2 = parts.convolution("conv2", plain(3), plain(4), 2, 1, bias=False)
  dense = [
    *parts.linear("fc1", plain(5), plain(12), 2),
    *parts.linear("fc2", plain(2), plain(5), 3),
  ]
  tensors = (*conv1, *norms, *conv2, *dense)
  return spec_lib.NetworkSpec("unknown", tensors)


def read(spec, prefix):
  """The vector of a checkpoint of the fixture."""
  found = {t.name: FIXTURE[f"{prefix}/{t.name}"] for t in spec.tensors}
  return spec.flatten(found, np)


SPEC = checkpoint_spec()


@pytest.mark.parametrize("batch_norms", [True, False])
@pytest.mark.parametrize("size", [10, 7, 0])
def test_tokens_are_the_authors(size, batch_norms):
  case = f"tokens_d{size}_{'bn' if batch_norms else 'nobn'}"
  # Their discovery misses the layer without bias, and finds 13.
  layout = tokens.layout(SPEC, size or 13, batch_norms)
  found = tokens.tokenise(layout, read(SPEC, "checkpoint"))
  np.testing.assert_array_equal(found, FIXTURE[f"{case}/tokens"])
  np.testing.assert_array_equal(layout.mask, FIXTURE[f"{case}/mask"])
  np.testing.assert_array_equal(layout.positions, FIXTURE[f"{case}/pos"])


def test_the_worked_example():
  spec = spec_lib.NetworkSpec(
    "unknown",
    (
      *parts.linear("fc0", plain(2), plain(3), 0),
      *parts.linear("fc1", plain(2), plain(2), 1, bias=False),
    ),
  )
  weights = np.array([0, 1, 2, 3, 4, 5, 10, 11, 20, 21, 22, 23], np.float32)
  layout = tokens.layout(spec, 3)
  np.testing.assert_array_equal(
    tokens.tokenise(layout, weights),
    [[0, 1, 2], [10, 0, 0], [3, 4, 5], [11, 0, 0], [20, 21, 0], [22, 23, 0]],
  )
  assert layout.mask.sum(1).tolist() == [3, 1, 3, 1, 2, 2]
  np.testing.assert_array_equal(
    layout.positions,
    [[0, 0, 0], [1, 0, 0], [2, 0, 1], [3, 0, 1], [4, 1, 0], [5, 1, 1]],
  )
  np.testing.assert_array_equal(layout.positions, FIXTURE["worked/pos"])


def test_tokens_are_written_into_a_template():
  layout = tokens.layout(SPEC, 10)
  found = tokens.detokenise(layout, FIXTURE["detokenise/tokens"])
  np.testing.assert_array_equal(found, read(SPEC, "detokenise/checkpoint"))
  # Without batch norms these come from the template, and nothing else does.
  layout = tokens.layout(SPEC, 10, False)
  template = -1 - np.arange(SPEC.num_weights, dtype=np.float32)
  found = tokens.detokenise(
    layout, np.zeros(layout.index.shape, np.float32), template
  )
  norms = [t.kind.startswith("norm") for t in SPEC.tensors]
  norm = np.repeat(norms, [t.size for t in SPEC.tensors])
  np.testing.assert_array_equal(found, np.where(norm, template, 0))


@pytest.mark.parametrize("size", [0, 1, 5])
@pytest.mark.parametrize("name", TINY)
def test_round_trip_is_exact_for_every_family(name, size):
  spec = TINY[name]
  layout = tokens.layout(spec, size)
  rng = np.random.default_rng(0)
  weights = rng.standard_normal((2, spec.num_weights), np.float32)
  found = tokens.tokenise(layout, weights)
  assert found.shape == (2, *layout.index.shape)
  assert (found[:, ~layout.mask] == 0).all()
  garbage = np.where(layout.mask, found, np.float32(7))
  np.testing.assert_array_equal(tokens.detokenise(layout, garbage), weights)
  assert layout.mask.sum() == spec.num_weights  # No weight is in two tokens.
  assert (np.diff(layout.positions[:, 1]) >= 0).all()


@pytest.mark.parametrize(
  ("size", "count", "place", "position"),
  [
    (289, 93, [0, 15, 16, 92], [[0, 0], [0, 15], [1, 0], [4, 9]]),
    (100, 155, [16, 17, 18, 21], [[1, 0], [1, 0], [1, 1], [1, 2]]),
  ],
)
def test_the_large_cnn(size, count, place, position):
  layout = tokens.layout(LARGE, size)
  assert (len(layout), layout.mask.sum()) == (count, 10853)
  np.testing.assert_array_equal(layout.positions[place, 1:], position)
  assert layout.positions[:, 0].tolist() == list(range(count))
  weights = np.random.default_rng(0).standard_normal(10853).astype(np.float32)
  found = tokens.detokenise(layout, tokens.tokenise(layout, weights))
  np.testing.assert_array_equal(found, weights)


@pytest.mark.parametrize(
  ("classes", "batch_norms", "count", "size"),
  [
    (10, True, 53524, 11183562),
    pytest.param(100, True, 53704, 11229732, marks=pytest.mark.slow),
    pytest.param(200, False, 39504, 11261832, marks=pytest.mark.slow),
  ],
)
def test_resnet18(classes, batch_norms, count, size):
  spec = families.resnet(
    (3, 32, 32), (64, 128, 256, 512), 2, num_classes=classes
  )
  layout = tokens.layout.__wrapped__(spec, 288, batch_norms)  # Not kept.
  assert (len(layout), layout.mask.sum()) == (count, size)
  assert len(layout.layers) == (81 if batch_norms else 21)
  assert layout.tables <= (55000, 100, 550)
  weights = np.arange(spec.num_weights, dtype=np.float32)
  found = tokens.detokenise(layout, tokens.tokenise(layout, weights), -weights)
  held = layout.inverse >= 0
  np.testing.assert_array_equal(found, np.where(held, weights, -weights))
  assert held.sum() == size


def test_token_size_is_found_among_layers_without_bias_too():
  spec = spec_lib.NetworkSpec(
    "unknown",
    (
      *parts.convolution("conv", plain(2), plain(3), 3, 0, bias=False),
      *parts.linear("fc", plain(2), plain(4), 1),
    ),
  )
  assert tokens.largest_row(spec) == 27
  assert tokens.layout(spec).token_size == 27


def test_tokens_are_differentiable_and_the_same_on_the_device():
  layout = tokens.layout(TINY["resnet"], 5)
  spec = layout.spec
  rng = np.random.default_rng(0)
  weights = rng.standard_normal(spec.num_weights).astype(np.float32)
  found = tokens.tokenise(layout, jnp.asarray(weights))
  assert isinstance(found, jax.Array)
  np.testing.assert_array_equal(found, tokens.tokenise(layout, weights))
  slope = jax.grad(lambda w: jnp.sum(tokens.tokenise(layout, w) ** 2))
  np.testing.assert_allclose(slope(jnp.asarray(weights)), 2 * weights)


def test_a_permutation_moves_rows_and_keeps_positions():
  spec = TINY["mlp"]
  layout = tokens.layout(spec)
  weights = np.arange(spec.num_weights, dtype=np.float32)
  order = np.array([1, 0, 2, 3, 4, 5])
  index = symmetry.permutation_from(spec, {"n1": order})
  found = tokens.tokenise(layout, weights[index])
  rows = tokens.tokenise(layout, weights)
  np.testing.assert_array_equal(found[:6], rows[order])
  assert (found[6:11] != rows[6:11]).any()  # Their inputs are in new order.


def test_layers_of_weights():
  found = tokens.layer_of(SPEC, False)
  counts = json.loads(json.dumps(np.bincount(found + 1).tolist()))
  assert counts == [16, 40, 48, 65, 12]  # The batch norm is in none.
  assert np.unique(tokens.layer_of(SPEC)).tolist() == list(range(7))


def test_padding_a_layout():
  layout = tokens.layout(TINY["mlp"])
  padded = tokens.pad(layout, 20)
  assert len(padded) == 20 and not padded.mask[len(layout) :].any()
  weights = np.ones(TINY["mlp"].num_weights, np.float32)
  found = tokens.tokenise(padded, weights)
  np.testing.assert_array_equal(tokens.detokenise(padded, found), weights)


def test_bad_input_is_one_clear_line():
  spec = TINY["mlp"]
  layout = tokens.layout(spec)
  with pytest.raises(ValueError, match="token_size must be at least 1"):
    tokens.layout(spec, -1)
  tokens.check_positions(layout, (13, 3, 6))
  for tables, name in (
    ((12, 3, 6), "token"),
    ((13, 2, 6), "layer"),
    ((13, 3, 5), "row"),
  ):
    with pytest.raises(ValueError, match=f"table of {name} positions") as error:
      tokens.check_positions(layout, tables)
    assert "(13, 3, 6)" in str(error.value) and "\n" not in str(error.value)
  with pytest.raises(ValueError, match="more than the 12 of the window"):
    tokens.pad(layout, 12)
  with pytest.raises(ValueError, match="13 tokens of 7 entries"):
    tokens.detokenise(layout, np.zeros((12, 7), np.float32))
  with pytest.raises(ValueError, match="does not fit"):
    tokens.detokenise(
      layout, np.zeros((13, 7), np.float32), np.zeros(3, np.float32)
    )
  bare = tokens.layout(SPEC, 10, False)
  with pytest.raises(ValueError, match="give a template"):
    tokens.detokenise(bare, np.zeros(bare.index.shape, np.float32))
  with pytest.raises(ValueError, match="71 weights"):
    tokens.tokenise(layout, np.zeros(3, np.float32))
