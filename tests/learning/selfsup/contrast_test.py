"""Losses without labels: the authors' numbers, and cases worked by hand."""

import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.learning.selfsup import contrast

FAST = {"xla_backend_optimization_level": "0"}
FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures"
HYPER = np.load(FIXTURES / "hyper_representation.npz")
SANE = np.load(FIXTURES / "sane.npz")
FIRST = np.array([[1, 0, 2], [0, 1, -1], [2, 1, 0]], np.float32)
SECOND = np.array([[1, 1, 1], [0, 2, -1], [1, 0, 1]], np.float32)
ALL = np.ones((1, 1), bool)


def compiled(function):
  """The function, compiled; what is given by name is closed over."""

  def run(*args, **named):
    own = lambda *args: function(*args, **named)
    return jax.jit(own, compiler_options=FAST)(*args)

  return run


ours = types.SimpleNamespace(
  **{
    name: compiled(getattr(contrast, name))
    for name in (
      *("nt_xent", "positive", "positive_reference", "masked_mse"),
      *("explained", "contrast"),
    )
  }
)


@pytest.mark.parametrize(
  ("temperature", "expected", "reference"),
  [(0.1, 1.381280, 10.555556), (1.0, 1.236223, 0.105556)],
)
def test_contrast_by_hand(temperature, expected, reference):
  found = ours.nt_xent(FIRST, SECOND, temperature=temperature)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  found = ours.positive_reference(FIRST, SECOND, temperature=temperature)
  np.testing.assert_allclose(found, reference, rtol=1e-5)
  cosine = [3 / 15**0.5, 3 / 10**0.5, 2 / 10**0.5]
  found = ours.positive(FIRST, SECOND, temperature=temperature)
  np.testing.assert_allclose(found, -np.mean(cosine) / temperature, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_contrast_is_the_authors(temperature):
  pair = HYPER["loss/p_i"], HYPER["loss/p_j"]
  for name, function in (
    ("ntxent", ours.nt_xent),
    ("positive", ours.positive_reference),
  ):
    found = function(*pair, temperature=temperature)
    expected = HYPER[f"loss/{name}_T{temperature}"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_totals_are_the_authors():
  pair = HYPER["loss/p_i"], HYPER["loss/p_j"]
  y, t = HYPER["loss/y"], HYPER["loss/t"]
  own = ours.nt_xent(*pair, temperature=0.1)
  error = ours.masked_mse(y, t, ALL)
  found = [contrast.total(0.3, own, error), own, error]
  np.testing.assert_allclose(
    found, HYPER["loss/gamma0.3_T0.1_total_contrast_recon"], rtol=1e-5
  )
  y, t, mask = (SANE[f"loss/{name}"] for name in "ytm")
  own = ours.nt_xent(SANE["loss/zp_i"], SANE["loss/zp_j"], temperature=0.1)
  error = ours.masked_mse(y, t, mask, over="all")
  np.testing.assert_allclose(own, SANE["loss/ntxent_T0.1"], rtol=1e-5)
  np.testing.assert_allclose(error, SANE["loss/masked_mse"], rtol=1e-5)
  np.testing.assert_allclose(
    contrast.total(0.05, own, error), SANE["loss/total_gamma0.05"], rtol=1e-5
  )


def test_contrast_knows_pairs_and_scale():
  rng = np.random.default_rng(0)
  first, second = rng.standard_normal((2, 5, 4)).astype(np.float32)
  plain = ours.nt_xent(first, second)
  scaled = ours.nt_xent(first * np.arange(1, 6)[:, None], second)
  np.testing.assert_allclose(scaled, plain, rtol=1e-5)
  slope = jax.jit(jax.grad(contrast.nt_xent), compiler_options=FAST)
  assert np.isfinite(np.asarray(slope(first, second))).all()
  pairs = ours.nt_xent(first, first)
  assert pairs < plain < ours.nt_xent(first, -first)
  assert ours.nt_xent(first[:1], second[:1]) == pytest.approx(0, abs=1e-6)


def test_zeros_have_finite_gradients():
  zeros = jnp.zeros((3, 4))
  for name in ("nt_xent", "positive", "positive_reference"):
    options = contrast.ContrastOptions(contrast=name)
    loss = lambda x, o=options: contrast.contrast(o, x, jnp.ones((3, 4)))
    slope = jax.jit(jax.grad(loss), compiler_options=FAST)
    assert np.isfinite(slope(zeros)).all()


def test_positive_attracts_and_its_reference_does_not():
  for function, attracts in (
    (ours.positive, True),
    (ours.positive_reference, False),
  ):
    together = function(FIRST, FIRST)
    apart = function(FIRST[:1], np.array([[2, 0, -1]], np.float32))
    assert (together < apart) == attracts


def test_masked_errors_by_hand():
  mask = np.array([[True, True, False], [True, False, False]])
  target = np.array([[1.0, 2, 0], [3, 0, 0]], np.float32)
  prediction = np.array([[2.0, 2, 9], [1, 9, np.nan]], np.float32)
  found = ours.masked_mse(prediction, target, mask)
  np.testing.assert_allclose(found, (1 + 0 + 4) / 3)
  found = ours.masked_mse(prediction, target, mask, over="all")
  np.testing.assert_allclose(found, 5 / 6)
  # More padding changes what is divided by all, and nothing else.
  grow = lambda x: np.pad(x, ((0, 0), (0, 4)))
  wide = [grow(x) for x in (prediction, target, mask)]
  np.testing.assert_allclose(ours.masked_mse(*wide), 5 / 3)
  np.testing.assert_allclose(ours.masked_mse(*wide, over="all"), 5 / 14)
  assert ours.masked_mse(target, target, mask) == 0
  slope = jax.jit(jax.grad(contrast.masked_mse), compiler_options=FAST)
  assert np.isfinite(slope(prediction, target, mask)).all()


def test_the_ends_of_gamma_leave_the_other_out():
  nan, one = jnp.float32(np.nan), jnp.float32(1.0)
  assert contrast.total(0.0, nan, one) == 1
  assert contrast.total(1.0, one, nan) == 1
  assert np.isnan(contrast.total(0.5, nan, one))


def test_explained_by_hand():
  target = np.array([[1.0, 3.0]], np.float32)
  mean = np.array([[2.0, 2.0]], np.float32)
  found = ours.explained(target + 0.5, target, ALL, mean)
  np.testing.assert_allclose(found, 1 - 0.25)
  assert ours.explained(mean, target, ALL, mean) == 0


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"gamma": 1.5}, "gamma is 1.5; must be at least 0 and at most 1"),
    ({"temperature": 0.0}, "temperature is 0.0; must be above 0"),
    ({"contrast": "triplet"}, "contrast is 'triplet'; choose one of nt_xent"),
    ({"over": "none"}, "over is 'none'; choose one of real, all"),
  ],
)
def test_wrong_options_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    contrast.ContrastOptions(**changes)
