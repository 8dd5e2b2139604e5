"""Views: symmetry kept, noise and erasing by their statistics."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.learning.selfsup import views
from sne_jax.networks import families, symmetry

FAST = {"xla_backend_optimization_level": "0"}
FIXTURE = np.load(
  pathlib.Path(__file__).parents[2] / "fixtures/hyper_representation.npz"
)
SPEC = families.mlp((3, 8, 7, 2), "tanh")
ONES = jnp.ones(SPEC.num_weights)
OFF = {"permute": False}


def draw(options, weights, count=400, spec=SPEC):
  """Views of one network."""
  sample = views.make_view_sampler(spec, views.ViewOptions(**options))
  many = jax.vmap(sample, in_axes=(0, None))
  keys = jax.random.split(jax.random.key(1), count)
  found = jax.jit(many, compiler_options=FAST)(keys, weights)
  return np.asarray(found)


def test_permuted_views_are_the_same_function():
  rng = np.random.default_rng(0)
  weights = jnp.asarray(families.random_weights(SPEC, rng))
  x = rng.standard_normal((5, 3), np.float32)
  found = draw({}, weights, 4)
  assert len(np.unique(found[:, 0])) > 1
  forward = jax.jit(
    lambda w: families.forward(SPEC, w, x), compiler_options=FAST
  )
  for view in found:
    assert (np.sort(view) == np.sort(weights)).all()
    np.testing.assert_allclose(forward(view), forward(weights), atol=1e-5)


def test_permutations_are_the_authors():
  for case, spec in (
    ("perm_mlp", families.mlp((3, 4, 2), "tanh")),
    (
      "perm_cnn",
      families.cnn(
        (1, 4, 4),
        (3, 2),
        2,
        dense=(4,),
        num_classes=3,
        head="flatten",
        activation="tanh",
      ),
    ),
  ):
    if case == "perm_mlp":
      element = {"n1": FIXTURE["perm_mlp/index"]}
    else:
      layers = (0, 2, 5)
      element = {
        f"n{n}": FIXTURE[f"perm_cnn/index_layer_{layer}"]
        for n, layer in enumerate(layers, 1)
      }
    index = symmetry.permutation_from(spec, element)
    before = FIXTURE[f"{case}/vector_before"]
    np.testing.assert_array_equal(
      before[index], FIXTURE[f"{case}/vector_after"]
    )
    forward = jax.jit(
      lambda w, x, s=spec: families.forward(s, w, x), compiler_options=FAST
    )
    out = forward(before[index], FIXTURE[f"{case}/x"])
    np.testing.assert_allclose(out, FIXTURE[f"{case}/function"], atol=1e-5)
  np.testing.assert_array_equal(
    symmetry.permutation_from(
      families.mlp((3, 4, 2)), {"n1": FIXTURE["perm_mlp/index"]}
    ),
    FIXTURE["perm_mlp/vector_index"],
  )


def test_noise_has_its_deviation_and_zeros_stay():
  weights = ONES.at[0].set(0.0).at[1].set(10.0)
  found = draw({"relative_noise": 0.1, **OFF}, weights)
  assert (found[:, 0] == 0).all()
  assert abs(found[:, 1].std() - 1.0) < 0.2
  assert abs(found[:, 2].std() - 0.1) < 0.02


def test_erasing_takes_its_share():
  options = {"erase": 0.5, **OFF}
  found = draw(options, ONES, 2000)
  gone = found == 0
  often = gone.any(1).mean()
  assert abs(often - 0.5) < 3 * (0.25 / 2000) ** 0.5
  shares = gone[gone.any(1)].mean(1)
  assert shares.max() < 0.33
  blocks = np.diff(np.pad(gone, ((0, 0), (1, 1))).astype(int)) == 1
  assert abs(shares.mean() - 0.166) < 0.02
  assert blocks.sum(1).max() == 1  # One contiguous block.
  assert gone[:, 0].any() and gone[:, -1].any()
  assert (draw({"erase": 0.0, **OFF}, ONES, 3) == 1).all()


def test_views_are_independent():
  gone = draw({"erase": 0.5, **OFF}, ONES, 500) == 0
  one, other = gone[:250].any(1), gone[250:].any(1)
  assert 0.15 < (one & other).mean() < 0.35
  assert (np.asarray(ONES) == 1).all()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"relative_noise": -1.0}, "relative_noise is -1.0; must be at least 0"),
    ({"erase": 1.5}, "erase is 1.5; must be at least 0 and at most 1"),
    ({"erase_low": 0.5}, "erase_low is 0.5, above erase_high 0.33"),
  ],
)
def test_wrong_options_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    views.ViewOptions(**changes)
