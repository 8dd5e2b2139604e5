"""DWSNets: the authors' numbers, symmetry, and the span of a layer."""

import math
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.functionals import dws, feature_layers, features
from sne_jax.networks import families, symmetry
from tests.encoders import parity_torch

FAST = {"xla_backend_optimization_level": "0"}
FIXTURE = np.load(pathlib.Path(__file__).parents[2] / "fixtures/dws_model.npz")
PLAN = features.layout_of(families.mlp((2, 5, 4, 3, 1)), "dws")
MULTI = features.layout_of(families.mlp((3, 4, 3, 2)), "dws")


def given(prefix, depth):
  """Reads features of the authors' axis order, [B, in, out, F]."""
  return features.Features(
    tuple(np.swapaxes(FIXTURE[f"{prefix}/w{l}"], 1, 2) for l in range(depth)),
    tuple(FIXTURE[f"{prefix}/b{l}"] for l in range(depth)),
  )


def state(prefix):
  return {
    name.removeprefix(prefix): FIXTURE[name]
    for name in FIXTURE.files
    if name.startswith(prefix)
  }


def run(module, values, x):
  jitted = jax.jit(
    lambda p, x: module.apply({"params": p}, x), compiler_options=FAST
  )
  return jitted(values, x)


def close(found, expected):
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


def test_a_classifier_gives_the_authors_numbers():
  """Two layers, stored batch norm between, and the invariant layer."""
  case = "classifier_ds_mean_bn/param"
  options = dws.DWSOptions(reduction="mean", complete=False)
  first, last = dws.DWSLayer(PLAN, 4, options), dws.DWSLayer(PLAN, 4, options)
  x = run(
    first,
    parity_torch.dws_params_from_torch(state(f"{case}/layers.layers.0.")),
    given("in1", 4),
  )

  def normed(kind, number, value):
    part = state(f"{case}/layers.layers.1.{kind}_bn.{number}.")
    root = np.sqrt(part["running_var"] + 1e-5)
    value = (np.asarray(value) - part["running_mean"]) / root
    return np.maximum(value * part["weight"] + part["bias"], 0)

  x = features.Features(
    tuple(normed("weights", l, w) for l, w in enumerate(x.weights)),
    tuple(normed("biases", l, v) for l, v in enumerate(x.biases)),
  )
  numbers = {n.split(".")[2] for n in state(f"{case}/layers.")}
  assert numbers
  tail = next(
    n
    for n in ("4", "3", "2")
    if state(f"{case}/layers.layers.{n}.weight_to_weight")
  )
  x = run(
    last,
    parity_torch.dws_params_from_torch(state(f"{case}/layers.layers.{tail}.")),
    x,
  )
  x = jax.tree.map(lambda a: jnp.maximum(a, 0), x)
  head = {
    "layer": {
      "kernel": FIXTURE[f"{case}/clf.layer.0.weight"].T,
      "bias": FIXTURE[f"{case}/clf.layer.0.bias"],
    }
  }
  out = run(dws.InvariantLayer(PLAN, 3, "mean"), head, x)
  close(out, FIXTURE["classifier_ds_mean_bn/out"])


def size(module, plan, channels):
  x = plan.features(jnp.zeros((1, plan.spec.num_weights)))
  x = jax.tree.map(lambda a: jnp.zeros((*a.shape[:-1], channels)), x)
  found = jax.eval_shape(module.init, jax.random.key(0), x)
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize(
  ("inputs", "kind", "diagonal", "number"),
  [
    (2, "ds", False, 320586),
    (2, "ds", True, 226730),
    (2, "sab", False, 552650),
    (2, "sab", True, 458794),
    (1, "ds", False, 62640),
    (1, "ds", True, 44720),
    (1, "sab", False, 103600),
    (1, "sab", True, 85680),
  ],
)
def test_classifiers_have_the_authors_parameters(
  inputs, kind, diagonal, number
):
  """Five layers, batch norm between them, and the invariant layer."""
  width, outputs = {1: (16, 16), 2: (32, 10)}[inputs]
  plan = features.layout_of(families.inr((inputs, 32, 32, 1)), "dws")
  options = dws.DWSOptions(set_layer=kind, diagonal=diagonal)
  layer = dws.DWSLayer(plan, width, options)
  total = size(layer, plan, 1) + 4 * size(layer, plan, width)
  total += 4 * 6 * 2 * width  # Scale and shift of 6 tensors.
  total += size(dws.InvariantLayer(plan, outputs), plan, width)
  assert total == number


def test_batch_norm_is_that_of_training_without_memory():
  """As of a library's batch norm, in the mode of training."""
  rng = np.random.default_rng(0)
  x = rng.normal(3, 2, (5, 4, 3, 2)).astype(np.float32)
  values = {"scale": np.array([2.0, 0.5]), "bias": np.array([1.0, -1.0])}
  found = feature_layers.BatchNorm().apply({"params": values}, jnp.asarray(x))
  theirs = nn.BatchNorm(use_running_average=False, epsilon=1e-5)
  expected, _ = theirs.apply({"params": values}, x, mutable=["batch_stats"])
  close(found, expected)
  np.testing.assert_allclose(
    np.mean(found, axis=(0, 1, 2)), values["bias"], atol=1e-5
  )
  alone = feature_layers.BatchNorm().apply(
    {"params": values}, jnp.asarray(x[:1])
  )
  assert np.abs(alone - found[:1]).max() > 0.01


def test_batch_norm_stands_between_layers():
  """A scale and a shift of every feature of every tensor, as in the counts."""
  found = [
    size(
      dws.Equivariant(dws.DWSOptions(norm=norm, layers=2, channels=4), PLAN),
      *(PLAN, 1),
    )
    for norm in ("none", "batch")
  ]
  assert found[1] - found[0] == 2 * len(PLAN) * 2 * 4


@pytest.mark.parametrize(
  ("set_layer", "diagonal", "how", "norm"),
  [("ds", False, "max", "layer"), ("ds", True, "mean", "batch")],
)
def test_layers_are_equivariant(set_layer, diagonal, how, norm):
  """In float64: permuted networks give permuted outputs."""
  with jax.enable_x64(True):
    options = dws.DWSOptions(
      *(),
      set_layer=set_layer,
      diagonal=diagonal,
      reduction=how,
      norm=norm,
      channels=3,
    )
    module = dws.Equivariant(options, MULTI)
    spec, rng = MULTI.spec, np.random.default_rng(0)
    rows = rng.standard_normal((2, spec.num_weights))
    shapes = jax.eval_shape(
      module.init, jax.random.key(0), MULTI.features(jnp.asarray(rows))
    )
    values = jax.tree.map(
      lambda s: jnp.asarray(rng.standard_normal(s.shape)), shapes
    )
    apply = jax.jit(
      lambda rows: MULTI.flat(module.apply(values, MULTI.features(rows))),
      compiler_options=FAST,
    )
    out = apply(rows)
    assert out.shape == (*rows.shape, 3)
    index = drawn(symmetry.draw_permutation, spec, rng)
    np.testing.assert_allclose(
      apply(rows[:, index]), out[:, index], atol=1e-10 * np.abs(out).max()
    )
    index = drawn(symmetry.draw_uncoupled, spec, rng)
    assert np.abs(apply(rows[:, index]) - out[:, index]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
  ("widths", "complete", "rank"),
  [
    ((2, 3, 3, 1), True, 75),
    ((2, 3, 3, 2), False, 111),
    ((2, 3, 3, 2), True, 114),
  ],
)
def test_layers_span_the_equivariant_maps(widths, complete, rank):
  with jax.enable_x64(True):
    spec = families.mlp(widths)
    plan = features.layout_of(spec, "dws")
    options = dws.DWSOptions(reduction="mean", complete=complete)
    module = dws.DWSLayer(plan, 1, options)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((spec.num_weights,) * 2)
    shapes = jax.eval_shape(
      module.init, jax.random.key(0), plan.features(jnp.asarray(rows))
    )
    values = jax.tree.map(lambda s: np.zeros(s.shape), shapes)

    def apply(values):
      return plan.flat(module.apply(values, plan.features(jnp.asarray(rows))))

    slopes = jax.jit(jax.jacrev(apply), compiler_options=FAST)(values)
    kernels = [
      slope.reshape(spec.num_weights**2, -1)
      for path, slope in jax.tree_util.tree_leaves_with_path(slopes)
      if path[-1].key == "kernel"
    ]
    assert np.linalg.matrix_rank(np.concatenate(kernels, axis=1)) == rank


def test_what_cannot_be_read_is_said():
  for spec, words in (
    (families.mlp((3, 4, 2)), "2 layers"),
    (families.cnn((1, 5, 5), (3, 3), 2), "convolutions"),
  ):
    with pytest.raises(ValueError, match=words) as error:
      dws.layout_of(spec)
    for part in ("dws", spec.describe(), "stat_pool"):
      assert part in str(error.value)


def drawn(draw, spec, rng):
  """Draws an index that moves something."""
  index = draw(spec, rng)
  while (index == np.arange(len(index))).all():
    index = draw(spec, rng)
  return index
