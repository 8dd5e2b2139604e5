"""Zoos of images as networks: each network is one image, pixel by pixel.

The task of the field: from the weights alone, say what the image shows. The
published sets of the kind (`sne_jax.zoo.public.inrs`) have the same layout:
`label` and `image` of every member, the same specs and coordinates.

Dimensions: `M` networks, `X` pixels, `C` channels.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import dense, layers, sine
from sne_jax.zoo.classifiers import images, tiles
from sne_jax.zoo.inrs import coordinates, image_options
from sne_jax.zoo.inrs import fit as inr_fit
from sne_jax.zoo.store import partial as partial_lib
from sne_jax.zoo.store import splits, store, writing

GENERATOR = "sne_jax.zoo.inrs.image_zoo"
SPLIT = "default"
"""Name of the split that `generate_image_inr_zoo` makes."""

PROPERTIES = {
  "label": "class of the image",
  "image": "number of the image in its part of the data set",
  "network": "shared by all networks of one image",
  "refit": "which network of its image, from 0 on",
  "part": "part of the data set that the image is of: train or test",
  "psnr": "peak signal-to-noise ratio of the image that it gives, in dB",
  "reconstruction_error": "mean squared error of the image that it gives",
  "steps": "training steps",
  "converged": "whether the wanted PSNR was reached",
}
"""Properties of the members, and what they are."""

CPU_BATCH = 512
"""Networks of a batch on a CPU; in tiles, so more would gain nothing."""


class Fits(NamedTuple):
  """The networks of a zoo, before they are fitted: `[M]` each."""

  is_test: np.ndarray
  image: np.ndarray
  refit: np.ndarray


def generate_image_inr_zoo(
  path: str | os.PathLike,
  options: image_options.ImageInrOptions,
  data: images.Images,
  *,
  dataset: str,
  progress: partial_lib.Progress | None = None,
) -> store.Zoo:
  """Fits a network to each image, or opens the zoo if it is there already.

  Properties: `PROPERTIES`. The test part of the split are the test images; the
  others are parted by image. A network whose error is not finite is kept, as
  not valid.

  The same options and images on the same kind and number of devices give the
  same bytes, whether the run was broken off and started again or not.

  Args:
    path: folder of the zoo.
    options: how networks are fitted.
    data: the images.
    dataset: their name, a part of the members' ids.
    progress: is told the networks that are done; the caller draws it.

  Returns:
    The zoo, opened.

  Raises:
    ZooError: another process generates here, or `path` or `<path>.partial`
      hold a zoo of other options, which the message names.
    ValueError: too few training images for the validation part.
  """
  fits = planned(options, data)
  spec = image_options.inr_spec(options, data.shape[0])
  part = np.where(fits.is_test, "test", "train")
  ids = [
    f"{dataset}-{where}-{image:06d}-{refit:02d}"
    for where, image, refit in zip(part, fits.image, fits.refit, strict=True)
  ]
  network = fits.image + np.where(fits.is_test, len(data.x_train), 0)
  label = np.where(
    fits.is_test,
    data.y_test[np.where(fits.is_test, fits.image, 0)],
    data.y_train[np.where(fits.is_test, 0, fits.image)],
  )
  parts = _split(options, ids, fits)

  def make(folder: str, batch: int) -> store.Zoo:
    fit = _fit_all(
      folder, options, data, fits, batch, progress or (lambda *_: None)
    )
    with np.errstate(divide="ignore"):
      psnr = 10 * np.log10(options.like.peak**2 / fit.error.astype(np.float64))
    values = {
      "label": label,
      "image": fits.image,
      "network": network,
      "refit": fits.refit,
      "part": part,
      "psnr": psnr.astype(np.float32),
      "reconstruction_error": fit.error,
      "steps": fit.steps,
      "converged": fit.error <= options.tolerance,
    }
    finite = np.isfinite(fit.weights).all(axis=1) & np.isfinite(fit.error)
    return writing.write_zoo(
      path,
      specs=[spec],
      weights=[fit.weights],
      ids=ids,
      valid=finite,
      properties={
        name: writing.Property(values[name], said)
        for name, said in PROPERTIES.items()
      },
      splits=parts,
      provenance=provenance | {"batch_members": batch},
      licence="CC0-1.0",
      staging=partial_lib.staging(folder),
    )

  provenance = _provenance(options, data, dataset)
  return partial_lib.make_zoo(
    path,
    provenance,
    batch_members=min(options.batch_members, len(ids)),
    find_batch_members=lambda: min(
      free_batch_members(options, data.shape), len(ids)
    ),
    make=make,
  )


def planned(
  options: image_options.ImageInrOptions, data: images.Images
) -> Fits:
  """Returns which networks there will be, in order."""
  train, test = len(data.x_train), len(data.x_test)
  image = np.repeat(np.arange(train), options.refits)
  refit = np.tile(np.arange(options.refits), train)
  return Fits(
    np.repeat([False, True], [len(image), test]),
    np.concatenate([image, np.arange(test)]),
    np.concatenate([refit, np.zeros(test, np.int64)]),
  )


def rendered(
  spec: spec_lib.NetworkSpec,
  weights: Float[np.ndarray, "M P"],
  height: int,
  width: int = 0,
) -> Float[np.ndarray, "M C H W"]:
  """Returns the images of networks, black at 0 and white at 1.

  Args:
    spec: of the networks; its offset tells which form they are of.
    weights: of them.
    height: of the images; any, for a network has no size of its own.
    width: of the images; 0: as their height.

  Raises:
    ValueError: networks that are no images.
  """
  form = form_of(spec)
  x = coordinates.coordinates(form, height, width)
  run = jax.jit(jax.vmap(lambda w: families.forward(spec, w, jnp.asarray(x))))
  values = np.concatenate(
    [np.asarray(run(weights[i : i + 64])) for i in range(0, len(weights), 64)]
  )
  values = values.reshape(len(weights), height, width or height, -1)
  low = image_options.FORMS[form].low
  return ((values - low) / (1 - low)).transpose(0, 3, 1, 2)


def is_image(spec: spec_lib.NetworkSpec) -> bool:
  """Returns whether networks give grey or colours at points of a plane."""
  ends = spec.tensors[0].shape[-1], spec.tensors[-1].shape[0]
  return spec.family == "inr" and ends[0] == 2 and ends[1] in (1, 3)


def form_of(spec: spec_lib.NetworkSpec) -> str:
  """Returns the form of networks that are images: `dws` or `nfn`.

  Raises:
    ValueError: they are no images, or of neither form.
  """
  offset = dict(spec.options).get("output_offset")
  for name, form in image_options.FORMS.items():
    if is_image(spec) and form.offset == offset:
      return name
  raise ValueError(
    f"{spec.describe()} is no image: networks of two coordinates and one or"
    " three outputs are, with 0.5 (dws) or 0 (nfn) added to the output"
  )


def free_batch_members(
  options: image_options.ImageInrOptions, shape: tuple[int, int, int]
) -> int:
  """Returns how many networks can be fitted together in the free memory.

  Takes a quarter of what is free; on a CPU no more than `CPU_BATCH`.
  """
  pixels = shape[1] * shape[2]
  spec = image_options.inr_spec(options, shape[0])
  each = 4 * (6 * options.hidden * options.layers * pixels)
  each += 32 * spec.num_weights
  devices = jax.local_devices()
  fitting = len(devices) * (partial_lib.free_bytes(devices) // 4 // each)
  is_cpu = devices[0].platform == "cpu"
  most = CPU_BATCH if is_cpu else 8192 * len(devices)
  return max(len(devices), min(most, fitting))


def _split(
  options: image_options.ImageInrOptions, ids: list[str], fits: Fits
) -> dict[str, Any]:
  """Returns the split: all networks of an image are in one part."""
  names = np.array(ids, str)
  seen = names[~fits.is_test]
  shares = {"train": 1 - options.validation_share}
  shares["val"] = options.validation_share
  try:
    parts = splits.random_split(
      seen, seed=options.seed, parts=shares, groups=fits.image[~fits.is_test]
    )
  except ValueError as error:
    raise ValueError(
      f"validation_share {options.validation_share:g} of"
      f" {len(np.unique(fits.image[~fits.is_test]))} training images leaves a"
      f" part empty ({error}); take more images, or another share"
    ) from error
  return {SPLIT: parts | {"test": names[fits.is_test]}}


def _provenance(options, data: images.Images, dataset: str) -> dict[str, Any]:
  """Returns what makes two zoos the same, as plain values."""
  values = dataclasses.asdict(options)
  del values["batch_members"]
  values |= {"dataset": dataset, "images": images.digest(data)}
  return {"generator": GENERATOR, "seed": options.seed, "options": values}


@functools.lru_cache(maxsize=4)
def fit_fns(
  options: image_options.ImageInrOptions,
  shape: tuple[int, int, int],
  devices: tuple[Any, ...],
) -> tuple[Callable, Callable, int]:
  """Returns the compiled functions that start and advance a batch.

  Returns:
    `start` and `advance` as of `inr_fit.make_fit_fn`, for signals `[S, X, C]`,
    and the networks of a tile: those that a device takes side by side.
  """
  spec = image_options.inr_spec(options, shape[0])
  points = coordinates.coordinates(options.form, *shape[1:])
  optimizer = optax.adam(options.learning_rate)
  tile = tiles.tile_members(spec, len(points), devices[0].platform)

  def activate(level, name, x, w0):
    if name == "sine":
      return sine.sine(w0 * x)
    return layers.activated(level, name, x, w0)

  def loss_fn(tensors, signal):
    image = dense.run_inputs_last(spec, tensors, points, activate=activate)
    return jnp.mean((image - signal) ** 2)

  @jax.jit
  def start(keys):
    draw = functools.partial(image_options.first_weights, spec, options.form)
    tensors = jax.vmap(draw)(keys)
    return inr_fit.FitState(tensors, jax.vmap(optimizer.init)(tensors))

  def steps(state, signal, count):
    def step(_, state):
      gradient = jax.grad(loss_fn)(state.tensors, signal)
      updates, inner = optimizer.update(gradient, state.optimizer)
      tensors: Any = optax.apply_updates(state.tensors, updates)
      return inr_fit.FitState(tensors, inner)

    state = jax.lax.fori_loop(0, count, step, state)
    return state, loss_fn(state.tensors, signal)

  mapped = tiles.over_members(
    steps, (tiles.OWN, tiles.OWN, tiles.ALL), devices, tile
  )
  return start, jax.jit(mapped), tile


def _fit_all(
  folder: str,
  options: image_options.ImageInrOptions,
  data: images.Images,
  fits: Fits,
  batch: int,
  progress: partial_lib.Progress,
) -> inr_fit.Fit:
  """Fits the batches that are not there yet; returns all networks."""
  total = len(fits.image)
  spec = image_options.inr_spec(options, data.shape[0])
  devices = tuple(jax.local_devices())
  start, advance, tile = fit_fns(options, data.shape, devices)
  sizes = inr_fit.batch_sizes(batch, len(devices))
  sizes = [tiles.even_slots(size, tile, len(devices)) for size in sizes]
  sizes = sorted(set(sizes), reverse=True)

  def fit(first: int, count: int) -> dict[str, np.ndarray]:
    some = Fits(*(column[first : first + count] for column in fits))
    chosen = np.where(
      some.is_test[:, None, None, None],
      data.x_test[np.where(some.is_test, some.image, 0)],
      data.x_train[np.where(some.is_test, 0, some.image)],
    )
    fitted = inr_fit.fit_batch(
      spec,
      start,
      advance,
      _keys(options.seed, some),
      image_options.signals(options, chosen),
      sizes=sizes,
      devices=devices,
      max_steps=options.max_steps,
      check_every=options.check_every,
      tolerance=options.tolerance,
      on_done=lambda done: progress(first + done, total, "fitting networks"),
    )
    return fitted._asdict()

  return inr_fit.in_parts(folder, total, batch, spec.num_weights, fit, progress)


def _keys(seed: int, some: Fits):
  """Returns the key of every network: of its image and refit alone."""
  root = jax.random.key(seed, impl="threefry2x32")

  def key(is_test, image, refit):
    folded = jax.random.fold_in(root, is_test)
    return jax.random.fold_in(jax.random.fold_in(folded, image), refit)

  return jax.vmap(key)(*(column.astype(np.uint32) for column in some))
