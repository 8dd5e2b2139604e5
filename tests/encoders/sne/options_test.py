"""Every switch of SNE works, and what does not go together is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.sne import options as sne_options
from sne_jax.networks import chunking, families, symmetry

SPECS = (
  families.mlp((2, 3, 2)),
  families.resnet((1, 4, 4), (2,), num_classes=2),
)
CHUNKS = chunking.ChunkOptions(
  chunk_size=20, linear_rule="neuron", conv_rule="neuron"
)
TINY = {
  "width": 8,
  "heads": 2,
  "chunk_blocks": 1,
  "layer_blocks": 1,
  "network_blocks": 1,
  "inducing_points": 2,
  "identifier_dim": 4,
  "feed_forward": 1,
}
# Where the layer and network stages do not matter: they compile fast.
LIGHT = TINY | {"layer_function": "none", "network_function": "deepsets"}
CHOICES = {
  field.name: field.metadata["choices"]
  for field in dataclasses.fields(sne_options.SNEOptions)
  if field.metadata.get("choices")
}
FLAGS = ("level_again", "skip_tokens", "fan_in_scale", "pad_mask")


def row(number):
  """A choice of every switch; five rows have every value of each."""
  # No product of none: identifiers are two values ahead.
  chosen = {
    name: values[(number + 2 * (name == "identifiers")) % len(values)]
    for name, values in CHOICES.items()
  }
  chosen |= {
    flag: (number + place) % 2 == 0 for place, flag in enumerate(FLAGS)
  }
  chosen["dropout"] = 0.1 * (number == 1)
  chosen["chunk_tile"] = 3 * (number == 2)
  chosen["layer_seeds"] = 1 + (chosen["layer_function"] == "isab")
  return TINY | chosen


def networks():
  rng = np.random.default_rng(0)
  return [(spec, families.random_weights(spec, rng)) for spec in SPECS]


def keys_of(seed):
  keys = jax.random.split(jax.random.key(seed))
  return dict(zip(("identifiers", "dropout"), keys, strict=True))


def test_five_rows_have_every_choice():
  rows = [row(number) for number in range(5)]
  for name, values in CHOICES.items():
    assert {r[name] for r in rows} == set(values), name
  for flag in FLAGS:
    assert {r[flag] for r in rows} == {False, True}


@pytest.mark.parametrize(
  "number",
  [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 3, 4))],
)
def test_every_choice_runs_and_has_finite_gradients(make_encoder, number):
  encoder = make_encoder(SPECS, CHUNKS, **row(number))
  value, gradient = encoder.loss_and_gradient(*networks(), **keys_of(1))
  assert np.isfinite(value)
  assert value > 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.isfinite(leaf).all(), path


@pytest.mark.slow
def test_initial_codes_differ_and_are_of_moderate_size(make_encoder):
  encoder = make_encoder(SPECS, CHUNKS, **TINY)
  packed = encoder.pack(*networks())
  codes, _ = jax.jit(encoder.module.init_with_output)(
    {"params": jax.random.key(0)}, packed
  )
  assert codes.shape == (2, 8)
  assert codes.dtype == jnp.float32
  assert 1e-3 < np.abs(codes[0] - codes[1]).max() < 10


@pytest.mark.slow
def test_bfloat16_is_close_to_float32(make_encoder):
  for function in ("product", "sab"):
    options = LIGHT | {"chunk_function": function}
    full = make_encoder(SPECS, CHUNKS, **options)(*networks())
    half = make_encoder(SPECS, CHUNKS, **options, compute_dtype="bfloat16")(
      *networks()
    )
    assert half.dtype == np.float32
    gap = np.abs(half - full).max()
    assert 1e-5 < gap < 0.1


@pytest.mark.slow
def test_tiles_of_chunks_change_nothing(make_encoder):
  for function in ("product", "sab"):
    options = LIGHT | {"chunk_function": function}
    whole = make_encoder(SPECS, CHUNKS, **options)
    tiled = make_encoder(SPECS, CHUNKS, **options, chunk_tile=3)
    one, other = (e.loss_and_gradient(*networks()) for e in (whole, tiled))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
      one,
      other,
    )


@pytest.mark.slow
def test_dropout_is_for_training_only(make_encoder):
  encoder = make_encoder(
    SPECS, CHUNKS, **LIGHT | {"chunk_function": "sab"}, dropout=0.5
  )
  first, second = (
    encoder.loss_and_gradient(*networks(), **keys_of(seed))[0]
    for seed in (0, 1)
  )
  assert abs(first - second) > 1e-3
  np.testing.assert_array_equal(encoder(*networks()), encoder(*networks()))


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({name: "other"}, (name, "'other'", "choose one of", values[0]))
    for name, values in CHOICES.items()
  ]
  + [
    ({name: value}, (name, str(value), "must be"))
    for name, value in {
      "width": 0,
      "heads": 0,
      "feed_forward": 0,
      "layer_seeds": 0,
      "inducing_points": 0,
      "identifier_dim": 0,
      "chunk_blocks": -1,
      "layer_blocks": -1,
      "network_blocks": -1,
      "chunk_tile": -1,
      "dropout": 1.0,
    }.items()
  ]
  + [
    ({"width": 10, "heads": 4}, ("width 10", "heads 4", "choose", "12")),
    (
      {"chunk_function": "product", "identifiers": "none"},
      ("product", "identifiers is none", "content", "sab"),
    ),
    (
      {"layer_seeds": 2, "layer_function": "deepsets"},
      ("layer_seeds is 2", "deepsets", "sab"),
    ),
    (
      {"layer_seeds": 2, "layer_function": "none"},
      ("layer_seeds is 2", "layer_function none", "isab"),
    ),
  ],
  ids=lambda value: (
    "-".join(map(str, value.values())) if isinstance(value, dict) else ""
  ),
)
def test_what_does_not_go_together_is_refused(options, words):
  with pytest.raises(ValueError) as raised:  # noqa: PT011
    sne_options.SNEOptions(**options)
  for word in words:
    assert word in str(raised.value)


def test_options_are_plain_values_that_flags_can_carry():
  for field in dataclasses.fields(sne_options.SNEOptions):
    assert field.type in (int, float, bool, str)
    assert type(field.default) is field.type
    assert field.name in (sne_options.SNEOptions.__doc__ or "")


def test_the_default_is_exactly_invariant(make_encoder):
  """True permutations leave the codes alone, and shuffles do not."""
  specs = (
    families.mlp((3, 40, 24, 2)),
    families.cnn((1, 6, 6), (4, 5), num_classes=3, head="flatten"),
    families.transformer(
      (1, 4, 4), patch=2, dim=8, depth=1, heads=2, hidden=9, num_classes=2
    ),
  )
  encoder = make_encoder(specs, chunking.ChunkOptions())
  rng = np.random.default_rng(0)
  own = [(spec, families.random_weights(spec, rng)) for spec in specs]
  permuted = [(s, w[symmetry.draw_permutation(s, rng)]) for s, w in own]
  shuffled = [(s, w[symmetry.draw_uncoupled(s, rng)]) for s, w in own]
  codes, same, other = (encoder(*nets) for nets in (own, permuted, shuffled))
  spread = codes.std(axis=0).mean()
  assert np.abs(same - codes).max() < 1e-3 * spread
  assert (np.abs(other - codes).max(axis=1) > 1e-2 * spread).all()
