"""Draws the hyper-parameters of a zoo's networks.

What a network is depends on the seed and its number alone, by raw random words
that no version of numpy changes.

Dimensions: `M` networks.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.classifiers import ranges
from sne_jax.zoo.classifiers.fit import OPTIMIZERS
from sne_jax.zoo.classifiers.options import (
  INITIALIZERS,
  MAKERS,
  NUMBERS,
  PUBLISHED,
  ImageZooOptions,
)

_WORDS = ("architecture", "activation", "optimizer", "initializer", *NUMBERS)
_LATER = ("makers",)  # Drawn behind the words of before, which stay.


class Networks(NamedTuple):
  """The networks of a zoo before they are trained."""

  specs: tuple[spec_lib.NetworkSpec, ...]  # All different.
  spec: Int[np.ndarray, "M"]  # Place in `specs`.
  architecture: list[str]
  activation: list[str]  # "drawn" where every layer has its own.
  optimizer: list[str]
  initializer: list[str]
  maker: list[str]
  numbers: dict[str, Float[np.ndarray, "M"]]  # By the name of the option.


def draw_networks(
  options: ImageZooOptions, image_shape: tuple[int, ...], num_classes: int
) -> Networks:
  """Draws all networks of a zoo.

  Raises:
    ValueError: an architecture cannot take the images.
  """
  count = options.num_networks
  share = np.stack(
    [_shares((options.seed, n), len(_WORDS + _LATER)) for n in range(count)]
  )
  share = dict(zip(_WORDS + _LATER, share.T, strict=True))

  def chosen(name, known):
    words = ranges.words(name, getattr(options, name), known)
    return ranges.chosen(words, share[name])

  architecture = chosen("architecture", families.ARCHITECTURES)
  activation = chosen("activation", tuple(families.ACTIVATIONS))
  optimizer = chosen("optimizer", tuple(OPTIMIZERS))
  makers = chosen("makers", tuple(MAKERS))
  initializer = [
    own if maker == PUBLISHED else MAKERS[maker][0]
    for own, maker in zip(
      chosen("initializer", INITIALIZERS), makers, strict=True
    )
  ]
  specs: dict[spec_lib.NetworkSpec, int] = {}
  known: dict[tuple, spec_lib.NetworkSpec] = {}
  place = []
  for n, name in enumerate(architecture):
    draws = ()
    if name == "wild_park":
      # Networks of one architecture are trained by one program.
      group = n // options.members_per_architecture
      draws = tuple(_shares((options.seed, group, 1), families.NUM_DRAWS))
      optimizer[n] = optimizer[group * options.members_per_architecture]
      activation[n] = "drawn"
    key = (name, activation[n], draws)
    if key not in known:
      known[key] = families.architecture(
        name,
        image_shape,
        num_classes,
        "relu" if draws else activation[n],
        draws,
      )
    place.append(specs.setdefault(known[key], len(specs)))
  numbers = {
    name: ranges.draw(name, getattr(options, name), share[name])
    for name in NUMBERS
  }
  return Networks(
    tuple(specs),
    np.array(place),
    architecture,
    activation,
    optimizer,
    initializer,
    makers,
    numbers,
  )


def _shares(seed: tuple[int, ...], count: int) -> np.ndarray:
  """Returns numbers in [0, 1)."""
  words = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)
  return (words >> np.uint64(11)) * 2.0**-53
