"""Losses of both autoencoders: views, masks, parts, and a short training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sne_jax.encoders.tokens import hyper_representation, sane, token_layers
from sne_jax.learning.selfsup import autoencoding, contrast, views
from sne_jax.networks import families, tokens

FAST = {"xla_backend_optimization_level": "0"}
SPEC = families.mlp((3, 6, 4, 2), "tanh")
LAYOUT = tokens.layout(SPEC, 4)
SIZE = 8
SANE = sane.SANE(
  sane.SANEOptions(
    token_size=4,
    width=4,
    hidden=8,
    blocks=1,
    heads=2,
    window=SIZE,
    projection=6,
  )
)
HYPER = hyper_representation.Autoencoder(
  hyper_representation.HyperRepresentationOptions(
    width=6, token_width=8, heads=2, blocks=1, feed_forward=8
  ),
  SPEC,
  token_layers.ProjectionOptions(layers=1, width=6, outputs=4),
)
WEIGHTS = np.random.default_rng(0).standard_normal((8, SPEC.num_weights))
WEIGHTS = WEIGHTS.astype(np.float32)
SAME = views.ViewOptions(permute=False)
MOVED = views.ViewOptions()


def windows_of(layout, size, second=MOVED):
  sample = autoencoding.make_window_sampler(layout, size, SAME, second)
  keys = jax.random.split(jax.random.key(0), len(WEIGHTS))
  return jax.jit(jax.vmap(sample), compiler_options=FAST)(keys, WEIGHTS)


def test_windows_show_the_same_place_of_two_views():
  batch = windows_of(LAYOUT, SIZE)
  whole = tokens.tokenise(LAYOUT, WEIGHTS)
  assert len({int(p[0, 0]) for p in batch.positions}) > 1  # Random windows.
  for b in range(len(WEIGHTS)):
    place = np.asarray(batch.positions[b, :, 0])
    np.testing.assert_array_equal(batch.first[b], whole[b, place])
    np.testing.assert_array_equal(batch.mask[b], LAYOUT.mask[place])
    np.testing.assert_array_equal(batch.positions[b], LAYOUT.positions[place])
  assert np.abs(batch.second - batch.first).max() > 0.1
  assert (np.asarray(batch.second)[~np.asarray(batch.mask)] == 0).all()
  still = windows_of(LAYOUT, SIZE, SAME)
  np.testing.assert_array_equal(still.first, still.second)


def test_networks_of_fewer_tokens_are_padded():
  size = len(LAYOUT) + 3
  batch = windows_of(LAYOUT, size)
  assert batch.first.shape == (8, size, 4)
  assert not np.asarray(batch.mask)[:, -3:].any()


def values_of(module, *args):
  shapes = jax.eval_shape(module.init, jax.random.key(0), *args)["params"]
  rng = np.random.default_rng(0)
  draw = lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), s.dtype)
  return jax.tree.map(draw, shapes)


def sane_values(batch):
  return values_of(SANE, batch.first, batch.positions)


def test_the_loss_of_sane_is_its_parts():
  batch = windows_of(LAYOUT, SIZE)
  values = sane_values(batch)

  def compare(values, batch):
    options = contrast.ContrastOptions(gamma=0.25)
    loss, parts = autoencoding.sane_loss(SANE, values, options, batch)
    apply = lambda x: SANE.apply({"params": values}, x, batch.positions)
    _, y, p = apply(batch.first)
    _, y2, p2 = apply(batch.second)
    error = contrast.masked_mse(y, batch.first, batch.mask)
    error = (error + contrast.masked_mse(y2, batch.second, batch.mask)) / 2
    return loss, parts, 0.25 * contrast.nt_xent(p, p2) + 0.75 * error

  loss, parts, expected = jax.jit(compare, compiler_options=FAST)(values, batch)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_allclose(
    loss, 0.25 * parts["contrast"] + 0.75 * parts["reconstruction"], rtol=1e-5
  )


def test_the_loss_of_hyper_representations_is_its_parts():
  values = values_of(HYPER, jnp.asarray(WEIGHTS))

  def run(values, first, second):
    options = contrast.ContrastOptions(gamma=0.5)
    plain = autoencoding.hyper_loss(HYPER, values, options, first, second)
    both = jnp.concatenate([first, second])
    y = HYPER.apply(
      {"params": values},
      HYPER.apply({"params": values}, both, method="encode"),
      method="decode",
    )
    return plain, jnp.mean((y - both) ** 2)

  (plain, parts), error = jax.jit(run, compiler_options=FAST)(
    values, WEIGHTS, WEIGHTS[:, ::-1]
  )
  np.testing.assert_allclose(parts["reconstruction"], error, rtol=1e-5)
  expected = 0.5 * (parts["contrast"] + parts["reconstruction"])
  np.testing.assert_allclose(plain, expected, rtol=1e-5)


def fall(loss, values, steps):
  """Loss before and after gradient steps."""
  tx = optax.adam(1e-2)

  @jax.jit
  def update(values, state):
    (_, parts), slope = jax.value_and_grad(loss, has_aux=True)(values)
    updates, state = tx.update(slope, state)
    return optax.apply_updates(values, updates), state, parts

  state, history = tx.init(values), []
  for _ in range(steps):
    values, state, parts = update(values, state)
    history.append(jax.device_get(parts))
  return history[0], history[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
  "name", ["sane", pytest.param("hyper", marks=pytest.mark.slow)]
)
def test_training_reconstructs_and_contrasts(name):
  options = contrast.ContrastOptions(gamma=0.3)
  if name == "sane":
    batch = windows_of(LAYOUT, SIZE)
    loss = lambda v: autoencoding.sane_loss(SANE, v, options, batch)
    values = sane_values(batch)
  else:
    first, second = jnp.asarray(WEIGHTS), jnp.asarray(WEIGHTS + 0.1)
    loss = lambda v: autoencoding.hyper_loss(HYPER, v, options, first, second)
    values = values_of(HYPER, first)
  first, last = fall(loss, values, 250)
  for part in ("contrast", "reconstruction"):
    assert last[part] < 0.8 * first[part], part
  assert last["explained"] > max(first["explained"], 0.1)
