"""Networks written into others, and conditioned on images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks import families, transfer
from sne_jax.networks.families import norm_statistics

jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": "0"}
)

SPEC = families.cnn((1, 6, 6), (3,), 3, dense=(5,), num_classes=4)
WIDER = families.cnn((1, 6, 6), (3,), 3, dense=(5,), num_classes=7)
RESNET = families.resnet((2, 6, 5), (3, 4), num_classes=3)


def weights_of(spec, seed=0):
  return families.random_weights(spec, np.random.default_rng(seed))


def test_the_classifier_alone_is_reset():
  weights = weights_of(SPEC)
  reset = jit(lambda w: transfer.reset_classifier(SPEC, w, jax.random.key(0)))
  found = reset(weights)
  old, new = SPEC.unflatten(weights), SPEC.unflatten(np.asarray(found))
  names = transfer.classifier(SPEC)
  assert names == ("dense1.weight", "dense1.bias")
  for name in old:
    same = (old[name] == new[name]).all()
    assert same == (name not in names), name
  assert np.abs(new["dense1.weight"]).max() <= 5**-0.5
  assert np.abs(new["dense1.weight"]).max() > 0.3


def test_a_network_is_carried_over_to_other_classes():
  weights = np.stack([weights_of(SPEC, seed) for seed in range(2)])
  new = transfer.classifier(WIDER)
  found = transfer.carry_over(SPEC, weights, WIDER, new=new)
  assert found.shape == (2, WIDER.num_weights)
  old, now = SPEC.unflatten(weights), WIDER.unflatten(found)
  np.testing.assert_array_equal(old["dense0.weight"], now["dense0.weight"])
  assert (now["dense1.weight"] == 0).all()
  same = transfer.carry_over(SPEC, weights, SPEC)
  np.testing.assert_array_equal(same, weights)


def test_a_template_that_does_not_fit_is_named():
  weights = weights_of(SPEC)
  with pytest.raises(ValueError, match=r"dense1.weight .* cannot be taken"):
    transfer.carry_over(SPEC, weights, WIDER)
  with pytest.raises(ValueError, match="where it is missing"):
    transfer.carry_over(SPEC, weights, RESNET)
  with pytest.raises(ValueError, match="got an array of shape"):
    transfer.carry_over(SPEC, weights[1:], SPEC)


IMAGES = np.random.default_rng(0).standard_normal((6, 2, 6, 5), np.float32)


@pytest.fixture(scope="module")
def update():
  """Conditions a network on the images."""
  return jit(lambda w, share: norm_statistics.update(RESNET, w, IMAGES, share))


def test_conditioning_moves_running_statistics_and_nothing_else(update):
  weights = weights_of(RESNET)
  found = jnp.asarray(weights)
  for _ in range(3):
    found = update(found, 0.1)
  whole = update(weights, 1.0)
  old, now, seen = (
    RESNET.unflatten(np.asarray(w)) for w in (weights, found, whole)
  )
  for t in RESNET.tensors:
    if t.kind in ("norm_mean", "norm_var"):
      expected = 0.9**3 * old[t.name] + (1 - 0.9**3) * seen[t.name]
      np.testing.assert_allclose(now[t.name], expected, atol=1e-5)
      assert np.abs(now[t.name] - old[t.name]).max() > 1e-3
    else:
      np.testing.assert_array_equal(now[t.name], old[t.name])


def test_conditioning_sees_the_images_of_the_batch(update):
  weights = weights_of(RESNET)
  found = RESNET.unflatten(np.asarray(update(weights, 1.0)))
  y = jax.lax.conv_general_dilated(
    IMAGES, RESNET.unflatten(weights)["stem.weight"], (1, 1), "SAME"
  )
  axes = (0, 2, 3)
  np.testing.assert_allclose(found["stem.norm.mean"], y.mean(axes), atol=1e-5)
  np.testing.assert_allclose(
    found["stem.norm.var"], y.var(axes, ddof=1), rtol=1e-4
  )


def test_statistics_of_a_batch_do_not_depend_on_old_ones(update):
  weights = weights_of(RESNET)
  found = update(weights, 1.0)
  np.testing.assert_allclose(update(found, 1.0), found, atol=1e-5)


def test_networks_without_batch_norm_stay_and_single_values_are_refused():
  weights = weights_of(SPEC)
  x = np.zeros((2, 1, 6, 6), np.float32)
  np.testing.assert_array_equal(
    norm_statistics.update(SPEC, weights, x), weights
  )
  tiny = families.resnet((1, 1, 1), (2,), num_classes=2)
  with pytest.raises(ValueError, match="one value per channel"):
    jax.eval_shape(
      lambda w: norm_statistics.update(tiny, w, np.zeros((1, 1, 1, 1))),
      weights_of(tiny),
    )
