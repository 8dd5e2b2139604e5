"""Maps from answers to codes, and answers beside weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.responses import codes as codes_lib
from tests.encoders.responses import reader_test

APART = {
  "responses": "hidden",
  "response_order": "pooled",
  "response_source": "noise",
  "response_map": "additive",
  "response_join": "apart",
  "response_dropout": 0.5,
}


def test_curves_add_up():
  """What a number adds does not depend on the others."""
  curves = codes_lib.Curves()
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((2, 3)), jnp.float32)
  params = curves.init(jax.random.key(0), x)
  whole = curves.apply(params, x)
  changed = curves.apply(params, x.at[:, 1].add(1.0))
  where = np.abs(changed - whole).max(axis=0) > 1e-3
  first, own, last = np.split(where, 3)
  assert own.any() and not first.any() and not last.any()
  assert np.abs(whole).max() <= 1


@pytest.mark.slow
def test_apart_a_code_is_the_mean_of_that_of_weights_and_of_answers():
  codes, params, specs, weights = reader_test.encoder(**APART)
  bare, _, _, _ = reader_test.encoder()
  params = reader_test.moved(params, np.random.default_rng(0))
  of_weights = {
    "params": {k: v for k, v in params["params"].items() if k != "responses"}
  }
  numbers = range(len(specs))
  alone = bare(of_weights, numbers, weights)
  both = codes(params, numbers, weights)
  answers = 2 * both - alone
  other = jax.tree.map(lambda x: x, params)
  other["params"]["responses"] = jax.tree.map(
    lambda x: 0 * x, other["params"]["responses"]
  )
  np.testing.assert_allclose(
    2 * codes(other, numbers, weights), alone, rtol=1e-4, atol=1e-5
  )
  assert np.abs(answers).max() > 1e-2
  for place in numbers:
    one = codes(params, [place], [weights[place]])
    np.testing.assert_allclose(one[0], both[place], rtol=1e-3, atol=1e-4)


def test_apart_networks_that_cannot_be_run_have_the_code_of_their_weights():
  spec = reader_test.SPECS["mlp"]
  options = reader_test.sne_options.SNEOptions(**reader_test.SMALL | APART)
  encoder, shapes, _ = reader_test.built([spec], spec, options)
  rng = np.random.default_rng(0)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  params = reader_test.moved(zeros, rng)
  specs = [spec, reader_test.unknown(spec)]
  weights = reader_test.families.random_weights(spec, rng)
  packer = encoder.make_packer(specs)
  batch = packer.pack(np.arange(2), [weights, weights])
  net = encoder.module
  each = jax.jit(lambda p: net.apply(p, batch, method="of_each_reader"))(params)
  np.testing.assert_allclose(each[0, 0], each[0, 1], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(each[1, 1], each[0, 1], rtol=1e-6)
  assert np.abs(each[1, 0] - each[0, 0]).max() > 1e-2
