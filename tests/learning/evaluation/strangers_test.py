"""Strangers are told from networks of the training, and intervals widen."""

import dataclasses
import math

import numpy as np
import pytest

from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import (
  calibration,
  conformal,
  newcomers,
  strangers,
  traits,
)
from sne_jax.networks import families, scales

SPEC = families.mlp((6, 10, 1), "relu")


def trained(count, seed, maker="a"):
  """Networks with a direction in their first layer, as training leaves one.

  What is to be predicted is its size. Makers differ in their biases.
  """
  rng = np.random.default_rng(seed)
  vectors, sizes = [], rng.uniform(1, 3, count)
  for size in sizes:
    tensors = SPEC.unflatten(
      rng.normal(size=SPEC.num_weights).astype(np.float32) * 0.3
    )
    first = np.outer(rng.normal(size=10), rng.normal(size=6))
    tensors["layer0.weight"] = tensors["layer0.weight"] + size * first / 2
    tensors["layer0.bias"] = tensors["layer0.bias"] * (1 if maker == "a" else 9)
    vectors.append(SPEC.flatten(tensors, np).astype(np.float32))
  return Networks(
    *((SPEC,), np.zeros(count, int), vectors, sizes[:, None], ("size",)),
    makers=np.full(count, maker),
  )


def run(networks):
  """A model: the size of the first layer, off by a little; a code of two."""
  weights = np.stack(networks.vectors)
  first = SPEC.unflatten(weights)["layer0.weight"]
  size = np.sqrt((first**2).mean(axis=(1, 2)))
  return size[:, None] * 1.9, np.stack([size, weights[:, -1]], axis=1)


@pytest.fixture(scope="module")
def made():
  return newcomers.measure(trained(200, 0), trained(200, 1), run)


def unlike(made, networks):
  sample = newcomers.sample_of(networks.pairs(), run(networks)[1])
  return made.known.unlike(sample)


def changed(networks, change):
  return dataclasses.replace(
    networks, vectors=[change(np.array(v)) for v in networks.vectors]
  )


def test_one_in_twenty_of_ours_is_called_unlike(made):
  shares = [np.mean(unlike(made, trained(60, n)) > 1) for n in range(2, 8)]
  assert np.mean(shares) < 0.1
  p = made.known.own_p(unlike(made, trained(200, 9)))
  assert 0.35 < np.median(p) < 0.65
  assert np.mean(p <= 0.2) == pytest.approx(0.2, abs=0.12)


def test_what_was_never_trained_is_unlike(made):
  rng = np.random.default_rng(0)
  test = trained(60, 2)
  shuffled = changed(test, lambda v: traits.shuffled(SPEC, v, rng))
  assert np.mean(unlike(made, shuffled) > 1) > 0.9
  # The view that is about training sees it by itself.
  seen = [
    strangers.views(
      made.known.looks, newcomers.sample_of(n.pairs(), run(n)[1])
    )[0][:, strangers.VIEWS.index("training")]
    for n in (test, shuffled)
  ]
  assert np.median(seen[1]) > np.quantile(seen[0], 0.95)
  # By their entries alone nobody could tell: each tensor has its own.
  before, after = test.vectors[0], shuffled.vectors[0]
  assert not np.array_equal(before, after)
  np.testing.assert_array_equal(np.sort(before[:60]), np.sort(after[:60]))


def test_a_weight_that_is_always_small_and_now_large_is_seen(made):
  def moved(vector):
    vector[-1] += 30
    return vector

  assert (unlike(made, changed(trained(20, 2), moved)) > 1).all()


def test_a_newcomer_is_judged_by_makers_left_out():
  train, val = (
    Networks.merged([trained(60, n), trained(40, n + 1, "b")]) for n in (0, 10)
  )
  made = newcomers.measure(train, val, run)
  known = made.known
  assert len(known.newcomers) == 100 and len(known.own) == 100
  # To those who know one maker, the networks of the other are strange.
  assert np.median(known.newcomers) > 3 * np.median(known.own)
  far = np.array([np.median(known.newcomers)])
  assert known.own_p(far) < 0.05 < known.newcomer_p(far)
  # Where there is one maker, there is nothing to cross.
  alone = newcomers.measure(trained(50, 0), trained(30, 1), run).known
  assert not len(alone.newcomers)
  np.testing.assert_array_equal(alone.own_p(far), alone.newcomer_p(far))


def test_p_values_count_those_that_are_as_unlike():
  usual = np.array([1.0, 2.0, 3.0, 4.0])
  found = strangers.p_values(np.array([0.0, 3.0, 3.5, 9.0]), usual)
  np.testing.assert_allclose(found, [1.0, 0.6, 0.4, 0.2])


def test_intervals_widen_with_errors_on_strangers(made):
  errors = np.linspace(0.01, 1, 100)
  known = (np.linspace(0, 9, 400), np.linspace(0, 9, 400) ** 2)
  asked = np.array([0.5, 1.0, 2.0, 5.0, 8.9, 9.5, np.nan])
  found = conformal.localised(asked, errors, known, 0.9)
  half = conformal.half_width(errors, 0.9)
  np.testing.assert_array_equal(found[[0, 1, 6]], half)
  assert half < found[2] < found[3] < found[4] < 82
  # About as unlike: the quantile of the neighbours' errors.
  assert found[3] == pytest.approx(5.0**2, rel=0.25)
  assert found[5] == math.inf
  # Of strangers that are no harder, intervals do not shrink.
  easy = conformal.localised(asked, errors, (known[0], 0 * known[1]), 0.9)
  np.testing.assert_array_equal(easy[:5], half)
  none = conformal.localised(asked, errors, (np.zeros(0),) * 2, 0.9)
  assert np.isinf(none[2:6]).all() and (none[:2] == half).all()


def test_strangers_are_held_or_promised_nothing(made):
  val = trained(60, 1)
  errors = np.abs(run(val)[0] - val.targets)[:, 0]
  known = calibration.Calibration({"size": np.sort(errors)}, made=made)
  test, sizes = trained(60, 2), np.full(len(scales.PLACES), 0.5)
  for share in (0.0, 0.3, 0.7, 40.0):
    other = newcomers.disturbed(test, share, sizes, np.random.default_rng(5))
    predictions, codes = run(other)
    far, _, newcomer = known.measured(other.pairs(), codes)
    width = known.widths(("size",), 0.9, far, newcomer)
    held = np.abs(predictions - test.targets) <= width
    assert held.mean() > 0.85, share
    assert np.isinf(width).mean() > 0.9 if share == 40 else held.mean() < 1.01
  plain = known._replace(made=None)
  assert np.unique(plain.widths(("size",), 0.9, far, newcomer)).size == 1


def test_what_is_known_is_written_and_read(made):
  found = newcomers.read(made.content())
  networks = trained(5, 3)
  np.testing.assert_array_equal(unlike(found, networks), unlike(made, networks))
  np.testing.assert_array_equal(found.errors, made.errors)
  whole = made.content()
  for content in (b"", b"PK\x05\x06" + 18 * b"\0", whole[:-40]):
    with pytest.raises((KeyError, ValueError)):
      newcomers.read(content)


def test_traits_ignore_the_order_of_neurons_and_see_what_is_missing():
  network = trained(1, 0).vectors[0]
  order = np.random.default_rng(0).permutation(10)
  tensors = SPEC.unflatten(network)
  for name, axis in (
    ("layer0.weight", 0),
    ("layer0.bias", 0),
    ("layer1.weight", 1),
  ):
    tensors[name] = np.take(tensors[name], order, axis)
  moved = SPEC.flatten(tensors, np)
  found = traits.of_networks([(SPEC, network), (SPEC, moved)])
  np.testing.assert_allclose(found[0], found[1], atol=1e-6)
  per_tensor = found[0].reshape(len(scales.PLACES), -1)
  seen = np.isfinite(per_tensor).all(axis=1)
  assert seen.sum() == len(SPEC.tensors)
  assert np.isnan(per_tensor[~seen]).all()
  parts = traits.of_networks([(SPEC, SPEC.unflatten(network))])
  np.testing.assert_array_equal(parts[0], found[0])
