"""Networks written into others, and conditioned on images."""

import functools

import jax
import numpy as np
import pytest

from sne_jax.networks import families, transfer

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
