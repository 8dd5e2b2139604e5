"""Test images that the members of a zoo are labelled with, few or many.

A zoo is made with the labels of the first `eval_images` test images. It can be
labelled with more later: its stored networks are evaluated, no weight changes.

Dimensions: `M` members, `S` evaluated together, `T` images, `E` places.
"""

import math
import os
import shutil
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, UInt8

from sne_jax import errors
from sne_jax.zoo.classifiers import fit, images, tiles
from sne_jax.zoo.store import correct, lock, partial, reading, store, writing

MEMBERS = 128
"""Members that are evaluated together, and lost when a run is broken off."""


class LabelImages(NamedTuple):
  """Images that no network was trained on, in the order they are used in."""

  pixels: UInt8[np.ndarray, "T C H W"]
  classes: Int[np.ndarray, "T"]
  spare: int  # So many of them, the last, are for training by the data set.


def num_labels(eval_images: int, data: images.Images) -> int:
  """Returns how many test images a zoo is labelled with when it is made."""
  return min(eval_images or len(data.x_test), len(data.x_test))


def label_images(
  every: images.Images, num_train: int, count: int
) -> LabelImages:
  """Returns images to label with: `count`, or all there are.

  The test images come first. Where they are too few, the images for training
  that no network has seen follow, the last one first.

  Args:
    every: the whole data set.
    num_train: of its images for training, those that networks have seen.
    count: how many.
  """
  test = min(count, len(every.x_test))
  spare = min(count - test, len(every.x_train) - num_train)
  last = slice(len(every.x_train) - spare, None)
  return LabelImages(
    np.concatenate([every.x_test[:test], every.x_train[last][::-1]]),
    np.concatenate([every.y_test[:test], every.y_train[last][::-1]]),
    spare,
  )


def places(
  labels: Int[np.ndarray, "A"],
  first: int,
  count: int,
  size: int,
  width: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns what `fit.make_evaluate_fn` takes to evaluate all on one stretch.

  Args:
    labels: of all images that are held.
    first: place of the first image.
    count: of images.
    size: `S`.
    width: `E`, at least; it becomes a multiple of `fit.BLOCK`.

  Returns:
    Places, labels and which of them are real, each `[S, E]`.
  """
  width = fit.BLOCK * math.ceil(max(count, width) / fit.BLOCK)
  chosen = np.full(width, first, np.int32)
  chosen[:count] += np.arange(count, dtype=np.int32)
  rows = (chosen, labels[chosen], np.arange(width) < count)
  where, wanted, real = (np.tile(row, (size, 1)) for row in rows)
  return where, wanted, real


def relabel(
  path: str | os.PathLike,
  used: images.Images,
  every: images.Images,
  least: int,
  *,
  progress: partial.Progress | None = None,
) -> store.Zoo:
  """Labels a zoo with at least so many test images, if the data set has them.

  Its bits, `test_accuracy`, `test_loss` and `generalization_gap` are written
  anew; where there are no more images than it was made with, only its bits,
  if it had none. Weights and splits stay. What was evaluated before a kill is
  in `<path>.labels`, and is not evaluated again.

  Args:
    path: folder of the zoo.
    used: the images that it was made on.
    every: the whole data set, of which `used` has the first of each part.
    least: images to label with.
    progress: is told the members that are done.

  Returns:
    The zoo, opened.

  Raises:
    ZooError: it was made on other images, or another process is at work here.
  """
  path = os.path.abspath(path)
  zoo = store.Zoo.open(path)
  made_with = zoo.provenance.get("options") or {}
  same = np.array_equal(every.x_test[: len(used.x_test)], used.x_test)
  if not same or made_with.get("images") != images.digest(used):
    raise errors.fault(
      path,
      reading.INDEX_FILE,
      "was made on other images than these",
      "give the options of its images as it was made with",
    )
  before = num_labels(made_with["eval_images"], used)
  chosen = label_images(every, len(used.x_train), max(before, least))
  count = len(chosen.classes)
  if zoo.correct is not None and len(zoo.correct.classes) >= count:
    return zoo
  folder = f"{path}.labels"
  index = reading.read_index(path, path)
  plan = {
    "generator": "sne_jax.zoo.labels",
    "options": {
      "networks": [entry["weights"]["sha256"] for entry in index["specs"]],
      "images": images.digest(every),
      "label_images": count,
    },
  }
  with lock.folder_lock(folder):
    size = partial.begin(folder, plan, 0, lambda: MEMBERS)
    right, loss = _evaluated(folder, zoo, chosen, size, progress)
    values: dict[str, Any] = {}
    if count > before:
      accuracy = right.mean(axis=1, dtype=np.float32)
      gap = zoo.property("train_accuracy") - accuracy
      values = {"test_accuracy": accuracy, "test_loss": loss}
      values |= {"generalization_gap": gap}
    bits = correct.Correct.of(right, chosen.classes)
    zoo = writing.relabel(path, bits, values)
    shutil.rmtree(folder)
  return zoo


def _evaluated(folder: str, zoo: store.Zoo, chosen: LabelImages, size, told):
  """Returns which images members classify `[M, T]`, and their loss `[M]`."""
  devices = tuple(jax.local_devices())
  labels = chosen.classes.astype(np.int32)
  count, width = len(labels), math.ceil(len(labels) / 8)
  held = fit.hold(chosen.pixels, labels, devices)
  right = np.empty((len(zoo), count), bool)
  loss = np.empty(len(zoo), np.float32)
  number = done = 0
  for spec_number, spec in enumerate(zoo.specs):
    mine = np.flatnonzero(zoo.members["spec"] == spec_number)
    tile = tiles.tile_members(spec, fit.BLOCK, devices[0].platform)
    slots = tiles.even_slots(min(size, len(mine)), tile, len(devices))
    seen = partial.place(places(labels, 0, count, slots), devices)
    for first in range(0, len(mine), size):
      members = mine[first : first + size]

      def evaluate(members=members, spec=spec, slots=slots, seen=seen):
        weights = np.stack(zoo.vectors(np.resize(members, slots)))
        tensors = partial.place(dict(spec.unflatten(weights)), devices)
        found = fit.make_evaluate_fn(spec, devices)(tensors, held, *seen)
        bits = np.asarray(found.correct)[: len(members), :count]
        return {
          "correct": np.packbits(bits, axis=-1),
          "loss": np.asarray(found.loss)[: len(members)],
        }

      shapes = {"correct": (len(members), width), "loss": (len(members),)}
      part, _ = partial.part(folder, number, shapes, evaluate)
      bits = np.unpackbits(part["correct"], axis=-1, count=count)
      right[members], loss[members] = bits, part["loss"]
      number, done = number + 1, done + len(members)
      if told is not None:
        told(done, len(zoo), "members labelled")
  return right, loss
