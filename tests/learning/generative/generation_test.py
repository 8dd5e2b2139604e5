"""Sampling networks: what is chosen, by what, and written how."""

import jax
import numpy as np
import pytest

from sne_jax.encoders import table
from sne_jax.encoders.tokens import sane_networks
from sne_jax.learning.generative import generation
from sne_jax.learning.selfsup import contrast, methods, pretraining, views
from sne_jax.networks import chunking, families, matching, standardise, symmetry

SPEC = families.mlp((3, 4, 2))
OPTIONS = generation.GenerationOptions(
  networks=3, bandwidths="0.1", candidates=12, rounds=3
)


def networks(count, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(count, SPEC.num_weights)).astype(np.float32)


def codec():
  return generation.weight_codec(SPEC, standardise.measure(SPEC, networks(8)))


def closeness(weights):
  """A score: how close networks are to all ones."""
  return -np.square(np.asarray(weights) - 1).mean(axis=1)


def draw(method, seed=0, anchors=None, **changes):
  anchors = networks(6) if anchors is None else anchors
  options = (
    OPTIONS
    if not changes
    else OPTIONS.__class__(**{**vars(OPTIONS), **changes})
  )
  own = codec()
  return generation.sample(
    jax.random.key(seed), method, own, own.encode(anchors), closeness, options
  )


def test_anchors_are_the_best_share():
  scores = [0.2, np.nan, 0.9, 0.5, 0.9, -np.inf, 0.1]
  np.testing.assert_array_equal(generation.best_share(scores, 0.5), [2, 4])
  np.testing.assert_array_equal(generation.best_share(scores, 0.01), [2])
  np.testing.assert_array_equal(
    generation.best_share(scores, 1.0), [2, 4, 3, 0, 6]
  )
  with pytest.raises(ValueError, match="no anchors: none of 2"):
    generation.best_share([np.nan, np.inf], 0.5)


def test_weights_are_codes_of_themselves():
  weights = networks(5, seed=1)
  own = codec()
  codes = own.encode(weights)
  assert codes.shape == (5, 6, 5)  # A neuron each, of 3 + 1 or 4 + 1.
  np.testing.assert_allclose(own.decode(codes), weights, atol=1e-6)
  assert abs(codes).mean() < 2


def test_without_noise_draws_are_anchors():
  weights = networks(1)
  found = draw("weights_kde", anchors=weights, bandwidths="0")
  np.testing.assert_allclose(
    found.weights, np.repeat(weights, 3, axis=0), atol=1e-6
  )
  for name in ("weights_kde", "weights_kde_coupled"):
    copies = draw(name, bandwidths="0")
    assert generation.nearest(copies.weights, networks(6)).max() < 1e-5
  mixed = draw("weights_kde", bandwidths="0", mode="token")
  assert generation.nearest(mixed.weights, networks(6)).min() > 0.5


def test_coupled_draws_have_one_noise_for_all_tokens():
  def noise(method, **options):
    found = draw(method, anchors=networks(1), bandwidths="0.1", **options)
    codes = codec().encode(found.weights)
    return np.asarray(codes - codec().encode(networks(1)))[:, :, :3]

  coupled = noise("weights_kde_coupled")
  np.testing.assert_allclose(coupled, coupled[:, :1] + 0 * coupled, atol=1e-5)
  own = noise("weights_kde")
  assert abs(own - own[:, :1]).max() > 0.05
  again = noise("weights_kde_coupled", mode="token")
  np.testing.assert_array_equal(coupled, again)


def test_choices_climb_the_score():
  drawn, kept, climbed = (
    draw(f"weights_{name}") for name in ("kde", "subsample", "bootstrap")
  )
  assert drawn.weights.shape == (3, SPEC.num_weights)
  assert drawn.scores.mean() < kept.scores.mean() < climbed.scores.mean()
  for found in (kept, climbed):
    assert (np.diff(found.scores) <= 0).all()
  for found in (drawn, kept, climbed):
    np.testing.assert_allclose(
      found.scores, closeness(found.weights), rtol=1e-5
    )
  again = draw("weights_bootstrap")
  np.testing.assert_array_equal(again.weights, climbed.weights)
  other = draw("weights_bootstrap", seed=1)
  assert (other.weights != climbed.weights).any()


def test_the_bandwidth_is_the_best_by_score():
  ones = np.ones((2, SPEC.num_weights), np.float32)
  found = draw("weights_kde", anchors=ones, bandwidths="3,0.01,1")
  assert found.bandwidth == 0.01
  far = draw("weights_subsample", anchors=-9 * ones, bandwidths="0.01,3")
  assert far.bandwidth == 3  # Only much noise gets any nearer.


def test_the_control_knows_no_anchor():
  one = draw("gauss", anchors=networks(4, seed=1))
  two = draw("gauss", anchors=networks(4, seed=2))
  np.testing.assert_array_equal(one.weights, two.weights)
  assert one.weights.std() > 4


def test_alignment_undoes_permutations():
  weights = networks(1)[0]
  rng = np.random.default_rng(3)
  index = symmetry.draw_permutation(SPEC, rng)
  assert not np.array_equal(weights[index], weights)
  found = matching.align_all(SPEC, weights, np.stack([weights, weights[index]]))
  np.testing.assert_array_equal(found, [weights, weights])


def trained(kind, encoder, **changes):
  """An autoencoder with its first parameters."""
  description = pretraining.describe(
    kind,
    SPEC,
    networks(6),
    encoder=encoder,
    chunk=chunking.ChunkOptions.published(4),
    view=views.ViewOptions(),
    losses=contrast.ContrastOptions(),
    options=methods.PretrainOptions(**changes),
  )
  method = methods.build(description)
  if method.reconstruct is None:
    return pretraining.Pretrained(description, None)
  params = method.init(0)
  # Codes of first parameters hardly differ.
  params = jax.tree.map(lambda x: 10 * x, params)
  return pretraining.Pretrained(description, params)


@pytest.mark.slow
@pytest.mark.parametrize(
  "kind",
  ["sane", pytest.param("hyper_representation", marks=pytest.mark.slow)],
)
def test_codes_of_an_autoencoder_become_networks(kind, monkeypatch):
  # Two blocks, one not full.
  monkeypatch.setattr(methods, "AT_ONCE", 4)
  sizes = {
    "sane": {"width": 3, "hidden": 8, "blocks": 1, "heads": 2, "window": 4},
    "hyper_representation": {
      **{"width": 5, "token_width": 8, "blocks": 1, "heads": 2},
      "feed_forward": 8,
    },
  }[kind]
  sizes |= {"halo": 1} if kind == "sane" else {}
  model = trained(kind, table.row(kind).options(**sizes), align=True)
  own = generation.trained_codec(model, SPEC)
  weights = networks(6, seed=2)
  codes = own.encode(weights)
  assert codes.shape == (6, *((6, 3) if kind == "sane" else (1, 5)))
  np.testing.assert_array_equal(own.reference, networks(6)[0])
  method = model.method

  @jax.jit
  def reconstructed(params, x):
    if method.layout is None:
      return method.module.apply({"params": params}, x)[1]
    assert method.tiling is not None
    where = (method.module, params, method.layout, method.tiling)
    return sane_networks.decode(*where, sane_networks.encode(*where, x))

  wanted = model.restore(
    np.asarray(reconstructed(model.params, model.prepare(weights)))
  )
  np.testing.assert_allclose(own.decode(codes), wanted, rtol=1e-4, atol=1e-5)
  assert np.abs(own.decode(codes[::-1]) - wanted).max() > 1e-3
  other = families.mlp((3, 5, 2))
  with pytest.raises(ValueError, match="the autoencoder is of"):
    generation.trained_codec(model, other)


def test_what_has_no_decoder_is_refused():
  row = table.row("sne")
  model = trained("sne", row.options(width=8, heads=2))
  with pytest.raises(ValueError, match="sne has no decoder"):
    generation.trained_codec(model, SPEC)


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({"networks": 0}, "networks"),
    ({"anchors": 0.0}, "anchors is 0.0"),
    ({"candidates": 2, "networks": 3}, "candidates is 2"),
    ({"mode": "x"}, "mode is 'x'"),
    ({"bandwidths": "0.1,-1"}, "bandwidths"),
    ({"gauss_deviation": 0.0}, "gauss_deviation"),
  ],
)
def test_wrong_options_are_named(changes, match):
  with pytest.raises(ValueError, match=match):
    generation.GenerationOptions(**changes)


@pytest.mark.parametrize("name", ["x", "gauss_coupled", "kde_weights"])
def test_unknown_samplers_are_named(name):
  with pytest.raises(ValueError, match=f"unknown sampler '{name}'"):
    generation.parse(name)
