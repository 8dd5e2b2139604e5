"""Classifiers of several makers: how each begins, and that others stay."""

import dataclasses

import numpy as np
import pytest

from sne_jax.networks import families
from sne_jax.zoo.classifiers import draws, generate
from sne_jax.zoo.classifiers import options as image_options
from tests.zoo.classifiers import generate_test

OPTIONS = dataclasses.replace(
  generate_test.TINY,
  num_networks=16,
  makers="published,pytorch,keras,flax",
  initializer="orthogonal",
  snapshots="0",
  train_fraction="1",
  batch_members=16,
)


def test_networks_begin_as_their_makers_say(tmp_path):
  zoo = generate_test.make(tmp_path / "zoo", OPTIONS)
  maker = zoo.property("maker")
  assert set(maker) == set(image_options.MAKERS)
  tensors = zoo.specs[0].unflatten(zoo.weights())
  weight, bias = tensors["layer0.weight"], tensors["layer0.bias"]
  fan_out, fan_in = weight.shape[1:]
  for name, wide in (
    ("pytorch", fan_in**-0.5),
    ("keras", (6 / (fan_in + fan_out)) ** 0.5),
  ):
    largest = np.abs(weight[maker == name]).max()
    assert 0.95 * wide < largest <= wide, name
  assert weight[maker == "flax"].std() == pytest.approx(fan_in**-0.5, rel=0.1)
  # Biases are drawn by PyTorch alone, as wide as its weights.
  largest = np.abs(bias[maker == "pytorch"]).max()
  assert 0.8 * fan_in**-0.5 < largest <= fan_in**-0.5
  assert not bias[maker != "pytorch"].any()
  initializer = zoo.property("initializer")
  assert set(initializer[maker == "published"]) == {"orthogonal"}
  assert set(initializer[maker == "flax"]) == {"lecun_normal"}


def test_makers_change_no_other_draw():
  one, several = (
    draws.draw_networks(options, (1, 8, 8), 10)
    for options in (dataclasses.replace(OPTIONS, makers="published"), OPTIONS)
  )
  assert one.optimizer == several.optimizer
  for name, values in one.numbers.items():
    np.testing.assert_array_equal(values, several.numbers[name])
  assert set(one.maker) == {"published"}


def test_one_maker_is_the_zoo_of_before():
  data = generate_test.digits()
  origin = [
    generate._provenance(options, data, "digits")["options"]
    for options in (generate_test.TINY, OPTIONS)
  ]
  assert "makers" not in origin[0]
  assert origin[1]["makers"] == OPTIONS.makers


def test_unknown_ways_of_biases_and_makers_are_named():
  with pytest.raises(ValueError, match="makers must be of published, pytorch"):
    dataclasses.replace(OPTIONS, makers="torch")
  with pytest.raises(ValueError, match="known are constant, fan_in_uniform"):
    families.init(
      families.mlp((2, 2)), generate_test.jax.random.key(0), biases="drawn"
    )
