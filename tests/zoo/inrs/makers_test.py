"""Sine INRs of several makers: how each begins, and that each is its own."""

import numpy as np
import pytest

from sne_jax.networks import families
from sne_jax.zoo.inrs import generate, makers
from sne_jax.zoo.store import store

SPEC = families.inr((1, 40, 50, 1))
OPTIONS = generate.InrZooOptions(
  num_networks=12,
  makers="published,pytorch,flax",
  points=30,
  hidden=5,
  max_steps=40,
  check_every=10,
  tolerance=0.5,
  batch_members=12,
)


def bounds(maker):
  found = [a[makers.MAKERS.index(maker)] for a in makers.spreads(SPEC)]
  return [
    {name: float(t.ravel()[0]) for name, t in SPEC.unflatten(wide).items()}
    for wide in found
  ]


@pytest.mark.parametrize(
  ("maker", "expected"),
  [
    # Weight, bias of each layer; SIREN's hidden weights are sqrt(6 / n) / 30.
    ("published", (0.081650, 0, 0.012910, 0, 0.141421, 0)),
    ("sitzmann", (1.0, 1.0, 0.012910, 0.158114, 0.011547, 0.141421)),
    ("pytorch", (0.081650, 1.0, 0.012910, 0.158114, 0.141421, 0.141421)),
    ("keras", (0.081650, 0, 0.012910, 0, 0.342997, 0)),
    ("linear", (1.0, 1.0, 0.158114, 0.158114, 0.141421, 0.141421)),
  ],
)
def test_first_weights_are_as_wide_as_the_maker_says(maker, expected):
  uniform, normal = bounds(maker)
  np.testing.assert_allclose(list(uniform.values()), expected, rtol=1e-4)
  assert not any(normal.values())


def test_flax_draws_last_weights_from_a_cut_normal():
  uniform, normal = bounds("flax")
  assert uniform["layer2.weight"] == uniform["layer2.bias"] == 0
  assert normal["layer2.weight"] == pytest.approx(50**-0.5)


@pytest.mark.parametrize("text", ["torch", "keras,keras", ""])
def test_unknown_makers_are_named(text):
  with pytest.raises(ValueError, match="published, sitzmann, pytorch"):
    generate.InrZooOptions(makers=text)


def test_draws_depend_on_the_number_alone_and_vary():
  how = {
    **{"max_steps": 1000, "check_every": 25, "tolerance": 1e-4},
    **{"rate": 1e-3, "weight_decay": 1e-4},
  }
  few, many = (makers.draw(("keras", "flax"), 3, n, **how) for n in (5, 400))
  assert few.maker == many.maker[:5]
  np.testing.assert_array_equal(few.max_steps, many.max_steps[:5])
  assert set(many.maker) == {"keras", "flax"}
  assert 0.4 < np.mean(np.array(many.maker) == "keras") < 0.6
  assert set(many.optimizer) == set(makers.OPTIMIZERS)
  assert set(many.max_steps % 25) == {0}
  assert 100 <= many.max_steps.min() < 150 < 900 < many.max_steps.max() <= 1000
  assert 0.4 < np.mean(many.tolerance > 0) < 0.6


def test_a_zoo_says_who_made_each(tmp_path):
  zoo = generate.generate_inr_zoo(tmp_path / "zoo", OPTIONS)
  made = OPTIONS.varied
  assert made is not None
  np.testing.assert_array_equal(zoo.property("maker"), made.maker)
  np.testing.assert_array_equal(zoo.property("optimizer"), made.optimizer)
  steps = zoo.property("steps")
  early = zoo.property("reconstruction_error") <= made.tolerance
  assert ((steps == made.max_steps) | early).all()
  assert len(set(steps)) > 2
  # Biases that PyTorch draws hardly move in so few steps; others begin at 0.
  biases = zoo.specs[0].unflatten(zoo.weights())["layer0.bias"]
  torch = np.array(made.maker) == "pytorch"
  assert biases[torch].std() > 0.4
  assert biases[~torch].std() < 0.1
  # A split can leave makers out.
  chosen = zoo.select(where={"maker": ["published", "flax"]})
  assert set(zoo.property("maker")[chosen]) == {"published", "flax"}


def test_a_member_is_the_same_beside_others(tmp_path):
  alone = generate.dataclasses.replace(OPTIONS, num_networks=3)
  few = generate.generate_inr_zoo(tmp_path / "few", alone)
  other = generate.dataclasses.replace(alone, batch_members=1)
  apart = generate.generate_inr_zoo(tmp_path / "apart", other)
  np.testing.assert_allclose(few.weights(), apart.weights(), atol=1e-4)


def test_one_maker_is_the_zoo_of_before():
  options = generate.InrZooOptions(num_networks=3)
  assert options.varied is None
  assert "makers" not in generate._provenance(options, None)["options"]
  asked = generate._provenance(OPTIONS, None)["options"]
  assert asked["makers"] == OPTIONS.makers


def test_the_zoo_is_found_again(tmp_path):
  one = generate.generate_inr_zoo(
    tmp_path / "zoo", generate.dataclasses.replace(OPTIONS, num_networks=2)
  )
  assert store.Zoo.open(one.path).property("maker").dtype.kind == "U"
