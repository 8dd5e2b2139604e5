"""Named classifiers of the published zoos, for images of any size.

- `arch1`: the small CNN zoo (Unterthiner et al. 2020, arXiv:2002.11448): three
  convolutions of 16 channels, 3 x 3, stride 2; average; linear.
- `arch2`: three convolutions with max-pooling, flattened, two linear layers.
- `schuerholt`: the small CNN of the Model Zoo dataset (Schuerholt et al. 2022,
  arXiv:2209.14764): 2,464 weights for 28 x 28 in grey.
- `wild_park`: of the CNN Wild Park (Kofinas et al. 2024, arXiv:2403.12143):
  depth, channels, kernels, activations and skips are drawn.
- `mlp`: two hidden layers of 32.
- `residual`: five convolutions of 16 channels with two skips.
- `vit`: a transformer of two blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import (
  convolutional,
  dense,
  parts,
  vision_transformer,
)

Draws = Iterator[float]
"""Numbers in [0, 1), from which what varies is drawn, in a fixed order."""

WILD_PARK_LAYERS = (2, 3, 4, 5)
WILD_PARK_CHANNELS = (4, 8, 16, 32)
WILD_PARK_KERNELS = (3, 5, 7)
WILD_PARK_ACTIVATIONS = (
  "relu",
  "gelu",
  "tanh",
  "sigmoid",
  "leaky_relu",
  "none",
)


def architecture(
  name: str,
  image_shape: Sequence[int],
  num_classes: int = 10,
  activation: str = "relu",
  draws: Sequence[float] = (),
) -> spec_lib.NetworkSpec:
  """Describes a named classifier.

  Args:
    name: one of `ARCHITECTURES`.
    image_shape: channels, height, width.
    num_classes: outputs.
    activation: of all hidden layers; wild_park draws its own.
    draws: what varies; at least `NUM_DRAWS` numbers for wild_park.

  Raises:
    ValueError: unknown name, or the images are too small for it.
  """
  parts.choice("architecture", name, ARCHITECTURES)
  shape = parts.image(image_shape)
  try:
    if callable(builder := _BUILDERS[name]):
      return builder(shape, num_classes, activation, iter(draws))
    return convolutional.cnn(
      shape, num_classes=num_classes, activation=activation, **builder
    )
  except ValueError as error:
    raise ValueError(
      f"architecture {name!r} cannot take images of {shape[1]}x{shape[2]}:"
      f" {error}"
    ) from error


def _wild_park(image, classes, activation, draws: Draws):
  del activation

  def one_of(choices):
    return choices[int(next(draws) * len(choices))]

  depth = one_of(WILD_PARK_LAYERS)
  channels = [one_of(WILD_PARK_CHANNELS) for _ in range(depth)]
  kernels = [one_of(WILD_PARK_KERNELS) for _ in range(depth)]
  names = [one_of(WILD_PARK_ACTIVATIONS) for _ in range(depth)]
  # None, or any layer that is two or more before; the first two have none.
  skips = [one_of((-1, *range(level - 1))) for level in range(depth)]
  return convolutional.cnn(
    image,
    channels,
    kernels=kernels,
    paddings=[kernel // 2 for kernel in kernels],
    num_classes=classes,
    activation=names,
    skips=skips,
  )


def _mlp(image, classes, activation, draws):
  del draws
  inputs = image[0] * image[1] * image[2]
  return dense.mlp((inputs, 32, 32, classes), activation)


def _vit(image, classes, activation, draws):
  del draws
  return vision_transformer.transformer(
    image,
    patch=2 if min(image[1:]) < 14 else 4,
    dim=16,
    heads=2,
    hidden=32,
    num_classes=classes,
    activation=activation,
  )


_BUILDERS: dict[str, dict[str, Any] | Callable[..., spec_lib.NetworkSpec]] = {
  "arch1": {"channels": (16, 16, 16), "strides": 2},
  "arch2": {
    "channels": (8, 16, 16),
    "paddings": 1,
    "pools": 2,
    "dense": (32,),
    "head": "flatten",
  },
  "schuerholt": {
    "channels": (8, 6, 4),
    "kernels": (5, 5, 2),
    "pools": (2, 2, 1),
    "dense": (20,),
    "head": "flatten",
    "pool_before_activation": True,
  },
  "wild_park": _wild_park,
  "mlp": _mlp,
  "residual": {
    "channels": (16,) * 5,
    "strides": (2, 1, 1, 1, 1),  # Only the first halves the image.
    "paddings": 1,
    "skips": (-1, -1, 0, -1, 2),
  },
  "vit": _vit,
}
"""Options of `cnn`, or a function of image, classes, activation and draws."""

ARCHITECTURES = tuple(_BUILDERS)
"""Names that `architecture` knows."""

NUM_DRAWS = 1 + 4 * max(WILD_PARK_LAYERS)
"""Numbers that a draw of wild_park takes at most."""
