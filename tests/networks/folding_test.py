import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks import families, folding
from sne_jax.networks import spec as spec_lib

jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": "0"}
)

RESNET = families.tiny_specs()["resnet"]


def weights_of(spec, seed=0):
  return families.random_weights(spec, np.random.default_rng(seed))


def drop(spec, kinds):
  kept = tuple(t for t in spec.tensors if t.kind not in kinds)
  return dataclasses.replace(spec, tensors=kept)


def test_folded_resnet_is_the_same_function():
  folded, fold = folding.fold_norms(RESNET)
  assert not any(t.kind.startswith("norm") for t in folded.tensors)
  weights = weights_of(RESNET)
  x = np.random.default_rng(1).standard_normal((4, 2, 11, 10), np.float32)
  new = fold(weights)
  assert isinstance(new, np.ndarray)
  assert new.dtype == np.float32
  assert new.shape == (folded.num_weights,)
  run = jit(lambda w: families.forward(RESNET, w, x))
  run_folded = jit(lambda w: families.forward(folded, w, x))
  y = run(weights)
  np.testing.assert_allclose(run_folded(new), y, atol=1e-5)
  # Every norm tensor reaches the folded weights.
  for t, start in zip(RESNET.tensors, RESNET.offsets, strict=True):
    if t.kind.startswith("norm"):
      other = weights.copy()
      other[start : start + t.size] += 0.5
      assert np.abs(run_folded(fold(other)) - y).max() > 1e-3, t.name


def test_folding_maps_over_networks_and_differentiates():
  folded, fold = folding.fold_norms(RESNET)
  many = np.stack([weights_of(RESNET, seed) for seed in range(2)])
  np.testing.assert_array_equal(fold(many)[1], fold(many[1]))
  np.testing.assert_allclose(jit(jax.vmap(fold))(many), fold(many), atol=1e-6)
  gradient = jit(jax.grad(lambda w: jnp.square(fold(w)).sum()))(many[0])
  assert np.isfinite(gradient).all()
  assert (np.asarray(gradient) != 0).all()
  assert folded.num_weights < RESNET.num_weights


def test_bias_takes_the_place_of_the_norm():
  folded, _ = folding.fold_norms(RESNET)
  names = [t.name for t in folded.tensors]
  assert names[:4] == [
    "stem.weight",
    "stem.bias",
    "block0.conv1.weight",
    "block0.conv1.bias",
  ]
  bias = folded.tensor("block1.shortcut.bias")
  weight = RESNET.tensor("block1.shortcut.weight")
  assert (bias.kind, bias.of) == ("conv_bias", weight.name)
  assert (bias.level, bias.branch) == (weight.level, 1)
  assert bias.axes == weight.axes[:1]
  assert folded.skips == RESNET.skips
  assert folded.activations == RESNET.activations
  again, fold = folding.fold_norms(folded)
  assert again == folded
  weights = weights_of(folded)
  np.testing.assert_array_equal(fold(weights), weights)


def test_fold_into_a_bias_by_hand():
  axis = spec_lib.plain_axis(1, "n")
  vector = functools.partial(
    spec_lib.TensorSpec, shape=(1,), level=0, axes=(axis,), of="a.weight"
  )
  spec = spec_lib.NetworkSpec(
    family="unknown",
    tensors=(
      spec_lib.TensorSpec(
        "a.weight", "linear_weight", (1, 1), 0, (axis, axis[:0] + axis)
      ),
      vector("a.bias", "linear_bias"),
      vector("mean", "norm_mean"),
      vector("var", "norm_var"),
      vector("scale", "norm_scale"),
      vector("shift", "norm_shift"),
    ),
    options=(("norm_eps", 0.25),),
  )
  folded, fold = folding.fold_norms(spec)
  assert [t.name for t in folded.tensors] == ["a.weight", "a.bias"]
  new = fold(np.array([2.0, 5.0, 1.0, 3.75, 6.0, 0.5], np.float32))
  # Scale 6 / sqrt(3.75 + 0.25) = 3; bias (5 - 1) 3 + 0.5.
  np.testing.assert_allclose(new, [6.0, 12.5])
  plain, fold = folding.fold_norms(drop(spec, {"norm_scale", "norm_shift"}))
  assert plain == folded
  np.testing.assert_allclose(
    fold(np.array([2.0, 5.0, 1.0, 3.75], np.float32)), [1.0, 2.0]
  )


def test_layer_norms_stay():
  spec = families.tiny_specs()["transformer"]
  folded, _ = folding.fold_norms(spec)
  assert folded == spec


def test_norms_without_statistics_are_refused():
  with pytest.raises(ValueError, match="running mean and variance"):
    folding.fold_norms(drop(RESNET, {"norm_var"}))


def test_taken_names_are_refused():
  stem = RESNET.tensors[0]
  taken = dataclasses.replace(RESNET.tensors[1], name="stem.bias", kind="other")
  spec = dataclasses.replace(
    RESNET,
    tensors=(stem, dataclasses.replace(taken, of=None)) + RESNET.tensors[1:],
  )
  with pytest.raises(ValueError, match="taken"):
    folding.fold_norms(spec)
