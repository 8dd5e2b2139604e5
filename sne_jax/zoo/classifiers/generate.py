"""Zoos of image classifiers, trained as populations; see design note 0003.

Dimensions: `M` networks, `K` snapshots of each, `S` networks trained
together, `P` weights of a network, `N` training images, `D` pixels.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sne_jax import room
from sne_jax.zoo.classifiers import (
  draws,
  fit,
  images,
  labels,
  properties,
  ranges,
  tiles,
)
from sne_jax.zoo.classifiers import options as image_options
from sne_jax.zoo.classifiers.options import MAKERS
from sne_jax.zoo.store import correct, partial, splits, store, writing

GENERATOR = "sne_jax.zoo.generate"  # As zoos of before say it.
SPLIT = "default"
"""Name of the split that `generate_image_zoo` makes."""

CPU_MEMBERS = 12
"""Members of a batch for each device of a CPU: the fastest on two cores. A
number of many divisors, which tiles of any size fill almost evenly."""

_METRICS = ("train_accuracy", "train_loss", "test_accuracy", "test_loss")


class Batch(NamedTuple):
  """Networks that are trained together: one spec, one optimiser."""

  spec: int
  optimizer: str
  members: np.ndarray  # Their numbers.
  slots: int  # Places for them: one number for all batches of a group.


def generate_image_zoo(
  path: str | os.PathLike,
  options: image_options.ImageZooOptions,
  data: images.Images,
  *,
  dataset: str,
  progress: partial.Progress | None = None,
) -> store.Zoo:
  """Generates a zoo of image classifiers, or opens it if it is there already.

  A member is a snapshot of a network. A snapshot whose weights or losses are
  not finite is kept, as not valid. Its properties are in `image_properties`.

  The same options and images on the same kind and number of devices give the
  same bytes, whether the run was broken off and started again or not.
  Finished batches are in `<path>.partial` until the zoo is complete.

  Args:
    path: folder of the zoo.
    options: what to generate.
    data: the images.
    dataset: their name, a property of the members.
    progress: is told the epochs that are done, of all networks together; the
      caller draws it.

  Returns:
    The zoo, opened.

  Raises:
    ZooError: another process generates here, or `path` or `<path>.partial`
      hold a zoo of other options, which the message names.
    ValueError: an architecture cannot take the images, or there are too few
      networks for the split.
  """
  networks = draws.draw_networks(options, data.shape, data.num_classes)
  ids, numbers, epochs = _snapshots(options, dataset)
  provenance = _provenance(options, data, dataset)
  parts = split(options, ids, numbers)

  def make(folder: str, batch_members: int) -> store.Zoo:
    results = _train_all(
      folder,
      options,
      data,
      networks,
      list(batches(networks, batch_members)),
      progress or (lambda *_: None),
    )
    weights, metrics, packed, rows = results
    classes = data.y_test[: labels.num_labels(options.eval_images, data)]
    table = dict(zip(_METRICS, metrics.reshape(-1, 4).T, strict=True))
    spec_numbers = networks.spec[numbers]
    valid: Any = np.isfinite(metrics.reshape(-1, 4)).all(axis=1)
    for number in range(len(networks.specs)):
      here = spec_numbers == number
      finite: Any = np.isfinite(weights[number]).all(axis=1)
      valid[here] &= finite[rows[here]]
    columns = properties.columns(networks, dataset, numbers, epochs)
    columns |= table | {
      "generalization_gap": table["train_accuracy"] - table["test_accuracy"]
    }
    return writing.write_zoo(
      path,
      specs=networks.specs,
      weights=weights,
      ids=ids,
      spec_numbers=spec_numbers,
      rows=rows,
      valid=valid,
      properties={
        name: writing.Property(columns[name], description)
        for name, description in properties.PROPERTIES.items()
        if name in columns
      },
      splits=parts,
      provenance=provenance | {"batch_members": batch_members},
      licence="CC0-1.0",
      right=correct.Correct(
        packed.reshape(len(ids), -1), classes.astype(np.uint8)
      ),
      staging=partial.staging(folder),
    )

  return partial.make_zoo(
    path,
    provenance,
    batch_members=options.batch_members,
    find_batch_members=lambda: free_batch_members(
      networks.specs, options.batch_size, data
    ),
    make=make,
    size=room.of_zoo(
      len(ids),
      max(spec.num_weights for spec in networks.specs),
      len(properties.PROPERTIES) + 2,
    ),
  )


def batches(networks: draws.Networks, batch_members: int) -> Iterator[Batch]:
  """Yields the batches of a zoo: about even parts of each static group."""
  groups: dict[tuple[int, str], list[int]] = {}
  for number, optimizer in enumerate(networks.optimizer):
    key = (int(networks.spec[number]), optimizer)
    groups.setdefault(key, []).append(number)
  for (spec, optimizer), members in groups.items():
    count = math.ceil(len(members) / batch_members)
    slots = math.ceil(len(members) / count)
    for part in np.array_split(np.array(members), count):
      yield Batch(spec, optimizer, part, slots)


def free_batch_members(
  specs: Sequence, batch_size: int, data: images.Images
) -> int:
  """Returns how many networks can be trained together in the free memory.

  Takes half of what is free, for the largest architecture; on a CPU no more
  than `CPU_MEMBERS` for each device, beyond which nothing is gained.
  """
  devices = jax.local_devices()
  platform = devices[0].platform
  free = partial.free_bytes(devices) // 2 - data.x_train.nbytes
  most = CPU_MEMBERS if platform == "cpu" else 8192
  images_each = 16 * len(data.x_train)  # Order, subset and labels.
  members = most  # For each device.
  for spec in specs:
    # Forward and back; a CPU holds only the activations of a tile.
    step = 2 * tiles.activation_bytes(spec, batch_size)
    each = 24 * spec.num_weights + images_each
    tile = tiles.tile_members(spec, batch_size, platform)
    if tile < most:
      free_here, spent = free - step * tile, each
    else:
      free_here, spent = free, each + step
    members = min(members, max(0, free_here) // spent)
  return max(1, members * len(devices))


def _snapshots(options, dataset: str):
  """Returns ids, network numbers and epochs of all members, in order."""
  epochs = options.epochs
  ids = [
    f"{dataset}-{options.seed}-{n:06d}-epoch-{epoch:03d}"
    for n in range(options.num_networks)
    for epoch in epochs
  ]
  numbers = np.repeat(np.arange(options.num_networks), len(epochs))
  return ids, numbers, np.tile(epochs, options.num_networks)


def split(options, ids, numbers) -> dict[str, Any]:
  """Returns the split: all snapshots of a network are in one part."""
  shares = {"val": options.validation_share, "test": options.test_share}
  shares = {part: share for part, share in shares.items() if share}
  shares = {"train": 1.0 - sum(shares.values())} | shares
  try:
    parts = splits.random_split(
      ids, seed=options.seed, parts=shares, groups=numbers
    )
  except ValueError as error:
    raise ValueError(
      f"validation_share {options.validation_share:g} and test_share"
      f" {options.test_share:g} of num_networks {options.num_networks} leave a"
      f" part empty ({error}); train more networks, or set these shares larger,"
      " or to 0 for no such part"
    ) from error
  return {SPLIT: parts}


def _provenance(options, data: images.Images, dataset: str) -> dict[str, Any]:
  """Returns what makes two zoos the same, as plain values."""
  values = dataclasses.asdict(options)
  del values["batch_members"]
  if options.makers == image_options.PUBLISHED:  # As zoos of before say it.
    del values["makers"]
  values |= {"dataset": dataset, "images": images.digest(data)}
  return {"generator": GENERATOR, "seed": options.seed, "options": values}


def _train_all(folder, options, data, networks, all_batches, progress):
  """Trains the batches that are not there yet.

  Returns:
    For each spec the weights of its members `[N, P]`; metrics `[M, K, 4]`;
    which test images are classified rightly `[M, K, W]`, packed; the row of
    every member in its weights `[M * K]`.
  """
  epochs = options.epochs
  kept, total = len(epochs), options.num_networks * max(1, epochs[-1])
  trainer = _Trainer(options, data, networks)
  sizes = np.bincount(networks.spec, minlength=len(networks.specs))
  weights = [
    np.empty((size * kept, spec.num_weights), np.float32)
    for size, spec in zip(sizes, networks.specs, strict=True)
  ]
  metrics = np.empty((options.num_networks, kept, 4), np.float32)
  width = math.ceil(labels.num_labels(options.eval_images, data) / 8)
  packed = np.empty((options.num_networks, kept, width), np.uint8)
  order = np.empty(options.num_networks, np.int64)  # Place within its spec.
  for spec in range(len(networks.specs)):
    order[networks.spec == spec] = np.arange(sizes[spec])
  rows = order[:, None] * kept + np.arange(kept)
  done = 0
  for number, batch in enumerate(all_batches):
    size = len(batch.members)
    num_weights = networks.specs[batch.spec].num_weights

    def told(epoch, done=done, size=size):
      progress(done + size * epoch, total, "epochs of all networks")

    part, there = partial.part(
      folder,
      number,
      {
        "weights": (size, kept, num_weights),
        "metrics": (size, kept, 4),
        "correct": (size, kept, width),
      },
      functools.partial(trainer.train, batch, told),
    )
    done += size * max(1, epochs[-1])
    if there:
      progress(done, total, "batch was there already")
    weights[batch.spec][rows[batch.members]] = part["weights"]
    metrics[batch.members] = part["metrics"]
    packed[batch.members] = part["correct"]
  return weights, metrics, packed, rows.reshape(-1)


class _Trainer:
  """Trains batches; holds the images on the devices."""

  def __init__(self, options, data: images.Images, networks):
    """Puts the images where they are used."""
    self._options = options
    self._networks = networks
    self._classes = data.num_classes
    self._num_train = len(data.x_train)
    self._num_labels = labels.num_labels(options.eval_images, data)
    self._devices = tuple(jax.local_devices())
    pixels = np.concatenate([data.x_train, data.x_test])
    classes = np.concatenate([data.y_train, data.y_test])
    self._labels = classes.astype(np.int32)
    self._data = fit.hold(pixels, self._labels, self._devices)
    self._view = fit.make_view_fn(self._num_train, self._classes)

  def train(self, batch: Batch, told) -> dict[str, np.ndarray]:
    """Trains a batch.

    Returns:
      Weights `[S, K, P]`, metrics `[S, K, 4]`, and which test images are
      classified rightly `[S, K, W]`, packed.
    """
    spec = self._networks.specs[batch.spec]
    count = len(batch.members)
    tile = tiles.tile_members(
      spec, self._options.batch_size, self._devices[0].platform
    )
    size = tiles.even_slots(batch.slots, tile, len(self._devices))
    # Places that are left over repeat the first member.
    members = np.concatenate(
      [batch.members, np.full(size - count, batch.members[0])]
    )
    epoch_fn = fit.make_epoch_fn(
      spec,
      batch.optimizer,
      num_train=self._num_train,
      num_classes=self._classes,
      batch_size=self._options.batch_size,
      dropout=ranges.highest("dropout", self._options.dropout) > 0,
      devices=self._devices,
    )
    evaluate = fit.make_evaluate_fn(spec, self._devices)
    hyper = self._hyper(members)
    # Drawn on one device: cutting these over several would gain nothing.
    tensors = self._start(spec, hyper, members)
    view = self._view(hyper, jnp.asarray(self._labels[: self._num_train]))
    view = jax.tree.map(np.asarray, view)
    state = fit.begin(batch.optimizer, tensors)
    seen = self._places(view, np.asarray(hyper.num_images))
    state, view, hyper, seen = partial.place(
      (state, view, hyper, seen), self._devices
    )
    kept, metrics, packed = [], [], []
    epochs = self._options.epochs
    for epoch in range(epochs[-1] + 1):
      if epoch in epochs:
        tensors = jax.tree.map(np.asarray, state.tensors)
        kept.append(spec.flatten(tensors, np)[:count])
        results = [evaluate(state.tensors, self._data, *s) for s in seen]
        rows = [np.asarray(row) for part in results for row in part[:2]]
        metrics.append(np.stack(rows, axis=-1)[:count].astype(np.float32))
        right = np.asarray(results[1].correct)[:count, : self._num_labels]
        packed.append(np.packbits(right, axis=-1))
      if epoch < epochs[-1]:
        state = epoch_fn(state, hyper, view, self._data, np.int32(epoch))
        jax.block_until_ready(state)
      told(min(epoch + 1, max(1, epochs[-1])))
    return {
      "weights": np.stack(kept, axis=1),
      "metrics": np.stack(metrics, axis=1),
      "correct": np.stack(packed, axis=1),
    }

  def _hyper(self, members: np.ndarray) -> fit.Hyper:
    numbers = {
      name: values[members].astype(np.float32)
      for name, values in self._networks.numbers.items()
    }
    fraction = numbers.pop("train_fraction")
    seen = np.maximum(1, np.rint(fraction * self._num_train)).astype(np.int32)
    keys = fit.member_keys(self._options.seed, members)
    return fit.Hyper(key=keys, num_images=seen, **numbers)

  def _start(self, spec, hyper, members) -> dict[str, np.ndarray]:
    """Returns first weights, each by its own initialiser, as tensors."""
    ways = [
      (self._networks.initializer[n], MAKERS[self._networks.maker[n]][1])
      for n in members
    ]
    drawn = {
      way: fit.draw(spec, way[0], hyper, way[1]) for way in dict.fromkeys(ways)
    }

    def join(*arrays):
      joined = np.array(arrays[0])
      for way, array in zip(drawn, arrays, strict=True):
        same = np.array([other == way for other in ways])
        joined[same] = array[same]
      return joined

    return jax.tree.map(join, *drawn.values())

  def _places(self, view: fit.View, num_images: np.ndarray):
    """Returns what to evaluate on: of the training part, and of the test.

    Each is places, labels and which are real, `[S, E]`, of one size.
    """
    train = min(self._options.eval_images or self._num_train, self._num_train)
    test = labels.places(
      self._labels, self._num_train, self._num_labels, len(num_images), train
    )
    chosen = np.zeros_like(test[0])
    chosen[:, :train] = view.subset[:, :train]
    seen = np.minimum(num_images, train)[:, None] > np.arange(chosen.shape[1])
    wanted = np.take_along_axis(np.asarray(view.labels), chosen, axis=1)
    return [(chosen, wanted, seen), test]
