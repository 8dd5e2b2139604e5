"""Continues training classifiers that are given, as a population.

A member takes the steps that it would take if it were made by
`generate.generate_image_zoo` with these settings; only where it begins is
given. So sampled networks, fresh ones and networks of a zoo can be compared at
equal steps. Images are in three parts: trained on, chosen by, reported on.

Dimensions: `S` networks of `P` weights, `K` epochs, `A` images.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo.classifiers import fit, images, labels, tiles
from sne_jax.zoo.store import partial

PARTS = ("validation", "test")
"""Images that networks are evaluated on."""


class ImageParts(NamedTuple):
  """A data set: images for training first, then validation, then test."""

  pixels: UInt8[np.ndarray, "A C H W"]
  labels: Int[np.ndarray, "A"]
  sizes: tuple[int, int, int]  # Of the three parts.
  num_classes: int


class Curves(NamedTuple):
  """What became of networks; the first of each axis `K + 1` is the start.

  Attributes:
    accuracy: [S, K + 1] by name of `PARTS`.
    loss: likewise.
    weights: [S, P] at the end.
  """

  accuracy: dict[str, np.ndarray]
  loss: dict[str, np.ndarray]
  weights: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneSettings(Checked):
  """How networks are trained: alike for all that are compared.

  Attributes:
    optimizer: sgd, momentum, adam or rmsprop.
    learning_rate: constant.
    weight_decay: times the weights, in the gradient.
    dropout: share of hidden activations set to 0.
    batch_size: images of a step.

  Raises:
    ValueError: a value is out of its range; the message names it.
  """

  optimizer: str = option("adam", choices=tuple(fit.OPTIMIZERS))
  learning_rate: float = option(1e-3, least=0)
  weight_decay: float = option(0.0, least=0)
  dropout: float = option(0.0, least=0, below=1)
  batch_size: int = option(32, least=1)


def image_parts(
  data: images.Images, used: int = 0, validation: int = 300
) -> ImageParts:
  """Sets images apart to choose by.

  They are training images that are left over, where `used` leaves any; else
  the first of the test images, which are then not reported on. Networks that
  were trained on the first `used` have seen neither.

  Args:
    data: the data set.
    used: training images that are trained on, from the first; 0: all.
    validation: images to choose by, at most.

  Raises:
    ValueError: there are too few images for three parts.
  """
  used = used or len(data.x_train)
  spare = data.x_train[used:][:validation]
  if used > len(data.x_train) or validation < 1:
    raise ValueError(
      f"cannot train on {used} of {len(data.x_train)} images and choose by"
      f" {validation}; choose by at least 1"
    )
  labels, x_test, y_test = data.y_train[used:], data.x_test, data.y_test
  if not len(spare):
    if len(x_test) <= validation:
      raise ValueError(
        f"all {used} training images are used, and {len(x_test)} test images"
        f" are too few to choose by {validation} of them and report on the"
        " others; use fewer validation images, or fewer training images"
      )
    spare, labels = x_test[:validation], y_test
    x_test, y_test = x_test[validation:], y_test[validation:]
  return ImageParts(
    np.concatenate([data.x_train[:used], spare, x_test]),
    np.concatenate([data.y_train[:used], labels[: len(spare)], y_test]),
    (used, len(spare), len(x_test)),
    data.num_classes,
  )


class Tuner:
  """Trains and evaluates networks of one spec on one data set.

  It holds the images on the devices, and the compiled programs; `slots`
  networks run at once.
  """

  def __init__(
    self,
    spec: NetworkSpec,
    data: ImageParts,
    settings: TuneSettings,
    slots: int = 10,
  ):
    """Puts the images where they are used.

    Raises:
      ValueError: the network does not take these images.
    """
    _check_images(spec, data)
    self.spec, self.settings, self.data = spec, settings, data
    self._devices = tuple(jax.local_devices())
    tile = tiles.tile_members(
      spec, settings.batch_size, self._devices[0].platform
    )
    self.slots = tiles.even_slots(slots, tile, len(self._devices))
    self._labels = data.labels.astype(np.int32)
    self._held = fit.hold(data.pixels, self._labels, self._devices)
    self._evaluate = fit.make_evaluate_fn(spec, self._devices)
    self._seen = partial.place(self._places(), self._devices)

  def score(
    self, weights: Float[Array | np.ndarray, "S P"], part: str = "validation"
  ) -> Float[np.ndarray, "S"]:
    """Returns the accuracy of networks; 0 where weights are not finite."""
    weights = np.asarray(weights, np.float32)
    accuracies = []
    for first in range(0, len(weights), self.slots):
      block = weights[first : first + self.slots]
      accuracy, _ = self._evaluated(self._tensors(block), (part,))[part]
      accuracies.append(accuracy[: len(block)])
    finite = np.isfinite(weights).all(axis=1)
    return np.where(finite, np.concatenate(accuracies), 0.0)

  def tune(
    self,
    weights: Float[Array | np.ndarray, "S P"],
    keys: UInt32[np.ndarray, "S 2"],
    epochs: int,
    told: Callable[[int], None] = lambda epoch: None,
    *,
    masks: Bool[np.ndarray, "S P"] | None = None,
    looks: Sequence[int] | None = None,
  ) -> Curves:
    """Trains networks, as many as there are slots or fewer.

    Args:
      weights: where they begin.
      keys: of `image_fit.member_keys`: the order of images, and dropout.
      epochs: `K`; 0 only evaluates.
      told: is called with the epochs that are done.
      masks: which weights are there: the others are 0, and stay so.
      looks: epochs after which networks are evaluated, so many columns instead
        of `K + 1`; None: after each.

    Raises:
      ValueError: more networks than slots, not a key for each, or masks of
        other networks.
    """
    weights = np.asarray(weights, np.float32)
    if masks is not None and masks.shape != weights.shape:
      raise ValueError(
        f"masks have shape {masks.shape}, and weights {weights.shape}; give a"
        " mask of this architecture for each network"
      )
    count = len(weights)
    if not 0 < count <= self.slots or len(keys) != count:
      raise ValueError(
        f"{count} networks and {len(keys)} keys for {self.slots} slots; give as"
        " many of both, and not more than slots"
      )
    hyper = self._hyper(keys[np.arange(self.slots) % count])
    view = fit.make_view_fn(self.data.sizes[0], self.data.num_classes)(
      hyper, jnp.asarray(self._labels[: self.data.sizes[0]])
    )
    view = jax.tree.map(np.asarray, view)
    mask = None if masks is None else self._tensors(masks)
    if masks is not None:
      weights = np.where(masks, weights, np.float32(0))
    state = fit.begin(self.settings.optimizer, self._tensors(weights), mask)
    state, view, hyper = partial.place((state, view, hyper), self._devices)
    epoch_fn = fit.make_epoch_fn(
      self.spec,
      self.settings.optimizer,
      num_train=self.data.sizes[0],
      num_classes=self.data.num_classes,
      batch_size=self.settings.batch_size,
      dropout=self.settings.dropout > 0,
      devices=self._devices,
    )
    looks = range(epochs + 1) if looks is None else looks
    rows = [self._evaluated(state.tensors)] if 0 in looks else []
    for epoch in range(epochs):
      state = epoch_fn(state, hyper, view, self._held, np.int32(epoch))
      if epoch + 1 in looks:
        rows.append(self._evaluated(state.tensors))
      told(epoch + 1)
    curve = lambda part, place: np.stack(
      [np.asarray(row[part][place][:count], np.float32) for row in rows], axis=1
    )
    ended = jax.tree.map(np.asarray, state.tensors)
    return Curves(
      {part: curve(part, 0) for part in PARTS},
      {part: curve(part, 1) for part in PARTS},
      self.spec.flatten(ended, np)[:count],
    )

  def fresh(
    self,
    keys: UInt32[np.ndarray, "S 2"],
    initializer: str,
    std: float = 0.02,
  ) -> Float[np.ndarray, "S P"]:
    """Draws networks as a zoo's are drawn; `std` where it is normal."""
    hyper = self._hyper(np.asarray(keys), std)
    return self.spec.flatten(fit.draw(self.spec, initializer, hyper), np)

  def _hyper(self, keys, std: float = 0.02) -> fit.Hyper:
    return fit.same_hyper(
      keys,
      self.data.sizes[0],
      learning_rate=self.settings.learning_rate,
      weight_decay=self.settings.weight_decay,
      dropout=self.settings.dropout,
      init_std=std,
    )

  def _tensors(self, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns networks as tensors; slots left over repeat the first ones."""
    filled = weights[np.arange(self.slots) % len(weights)]
    return {k: np.array(v) for k, v in self.spec.unflatten(filled).items()}

  def _evaluated(self, tensors, parts=PARTS) -> dict[str, tuple]:
    """Returns accuracy and loss `[slots]` on some parts."""
    results = {}
    for part in parts:
      metrics = self._evaluate(tensors, self._held, *self._seen[part])
      results[part] = (np.asarray(metrics.accuracy), np.asarray(metrics.loss))
    return results

  def _places(self) -> dict[str, tuple[np.ndarray, ...]]:
    """Returns places, labels and which are real, `[slots, E]`, by part."""
    first, *sizes = self.data.sizes
    found = {}
    for part, size in zip(PARTS, sizes, strict=True):
      found[part] = labels.places(
        self._labels, first, size, self.slots, max(sizes)
      )
      first += size
    return found


def _check_images(spec: NetworkSpec, data: ImageParts) -> None:
  """Raises `ValueError` unless a network takes the images and their classes."""
  shape, wanted = data.pixels.shape[1:], tiles.image_shape(spec)
  fits = math.prod(shape) == math.prod(wanted)
  if not fits or (len(wanted) == 3 and tuple(shape) != tuple(wanted)):
    raise ValueError(
      f"{spec.describe()} takes images of {'x'.join(map(str, wanted))}, and"
      f" these are of {'x'.join(map(str, shape))}; choose images of that shape"
      " (image_size and grayscale of the zoo's flagfile shape them)"
    )
