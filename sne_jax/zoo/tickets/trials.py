"""Trainings from first weights, with masks: in rounds, and to compare masks.

Dimensions: `N` networks of `P` weights, `B` images.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.classifiers import fine_tune, fit, images, tiles
from sne_jax.zoo.tickets import options as ticket_options
from sne_jax.zoo.tickets import pruning

_COMPARED = 5
"""Folded into a network's key, beside those of `classifiers.fit`."""

_BLOCK = 200
"""Images whose gradients are taken at a time."""


class Trained(NamedTuple):
  """Networks at the end of their training."""

  weights: Float[np.ndarray, "N P"]
  validation: Float[np.ndarray, "N"]  # Accuracies.
  test: Float[np.ndarray, "N"]


class Trials:
  """Trains networks of one architecture with masks, by one compiled program.

  Attributes:
    spec: of the networks.
    slots: networks that are trained together.
  """

  def __init__(
    self,
    options: ticket_options.TicketOptions,
    data: images.Images,
    slots: int,
  ):
    """Puts the images where they are used.

    Raises:
      ValueError: the architecture cannot take the images, or there are too few
        for validation.
    """
    self._options = options
    self.spec = spec_of(options, data)
    self._data = image_parts(options, data)
    self._tuner = fine_tune.Tuner(
      self.spec, self._data, options.settings, slots
    )
    self.slots = self._tuner.slots

  def first_weights(
    self, numbers: Int[np.ndarray, "N"]
  ) -> Float[np.ndarray, "N P"]:
    """Draws the first weights of networks, by their numbers alone."""
    keys = fit.member_keys(self._options.seed, self._filled(numbers))
    drawn = self._tuner.fresh(keys, self._options.initializer)
    return drawn[: len(numbers)]

  def train(
    self,
    weights: Float[np.ndarray, "N P"],
    masks: Bool[np.ndarray, "..."],
    numbers: Int[np.ndarray, "N"],
    *,
    compared: bool = False,
    told: Callable[[int], None] = lambda done: None,
  ) -> Trained:
    """Trains networks from first weights, those that masks leave out being 0.

    Args:
      weights: first weights.
      masks: of them, `[N, P]`.
      numbers: of the networks: the order of images follows from seed and
        number.
      compared: whether in the order that is kept for comparisons, which no
        round of pruning sees.
      told: is called with the networks that are done.

    Raises:
      ValueError: masks of another architecture.
    """
    pruning.check(self.spec, masks)
    if len(masks) != len(weights):
      raise ValueError(
        f"there are {len(weights)} networks and {len(masks)} masks; give one"
        " mask for each"
      )
    keys = fit.member_keys(self._options.seed, np.asarray(numbers))
    if compared:
      keys = _folded(keys)
    epochs, parts = self._options.epochs, []
    for first in range(0, len(weights), self.slots):
      part = slice(first, first + self.slots)
      curves = self._tuner.tune(
        *(weights[part], keys[part], epochs),
        masks=masks[part],
        looks=(epochs,),
      )
      validation, test = (curves.accuracy[p][:, -1] for p in fine_tune.PARTS)
      parts.append(Trained(curves.weights, validation, test))
      told(min(first + self.slots, len(weights)))
    return Trained(*map(np.concatenate, zip(*parts, strict=True)))

  def sensitivity(
    self, weights: Float[np.ndarray, "N P"]
  ) -> Float[np.ndarray, "N P"]:
    """Returns `|g w|` of networks, `g` the gradient over the training images.

    References:
      Lee et al., SNIP: Single-shot Network Pruning based on Connection
      Sensitivity, ICLR 2019, arXiv:1810.02340.
    """
    count = self._data.sizes[0]
    x = self._data.pixels[:count].astype(np.float32) / 127.5 - 1.0
    x = x.reshape(count, *tiles.image_shape(self.spec))
    y, total = self._data.labels[:count], np.zeros(weights.shape)
    for first in range(0, count, _BLOCK):
      part = slice(first, first + _BLOCK)
      total += np.asarray(_gradients(self.spec, weights, x[part], y[part]))
    return np.abs(total / count * weights)

  def _filled(self, numbers: np.ndarray) -> np.ndarray:
    """Returns as many numbers as there are slots: one program for all."""
    size = max(self.slots, len(numbers))
    return np.asarray(numbers)[np.arange(size) % len(numbers)]


def spec_of(
  options: ticket_options.TicketOptions, data: images.Images
) -> spec_lib.NetworkSpec:
  """Returns the architecture for these images."""
  return families.architecture(
    *(options.architecture, data.shape, data.num_classes),
    activation=options.activation,
  )


def image_parts(
  options: ticket_options.TicketOptions, data: images.Images
) -> fine_tune.ImageParts:
  """Returns images for training, validation, and test.

  Raises:
    ValueError: too few are left for training.
  """
  used = len(data.x_train) - options.validation_images
  if used < 1:
    raise ValueError(
      f"validation_images is {options.validation_images}, and there are"
      f" {len(data.x_train)} training images; set fewer apart"
    )
  return fine_tune.image_parts(data, used, options.validation_images)


@functools.partial(jax.jit, static_argnums=0)
def _gradients(spec, weights, x, y):
  """Returns gradients `[N, P]` of the cross-entropy, summed over images."""

  def loss(row):
    logits = jax.nn.log_softmax(families.forward(spec, row, x))
    return -jnp.take_along_axis(logits, y[:, None], axis=1).sum()

  return jax.lax.map(jax.grad(loss), weights, batch_size=8)


def _folded(keys: UInt32[np.ndarray, "N 2"]) -> UInt32[np.ndarray, "N 2"]:
  def fold(raw):
    key = jax.random.wrap_key_data(raw, impl="threefry2x32")
    return jax.random.key_data(jax.random.fold_in(key, _COMPARED))

  return np.asarray(jax.vmap(fold)(keys))
