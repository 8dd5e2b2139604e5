"""The reference that needs images: evaluate each network on a few.

Who has the data a network is meant for can run the network on some of it. The
accuracy on `n` images, which no network of the zoo was trained or tested on, is
a prediction of its test accuracy; it costs `n` forward passes per network and,
above all, needs labelled images. All networks of a zoo see the same ones.

Dimensions: `N` images, `M` networks, `P` weights of one.
"""

import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from experiments import options as options_lib
from experiments import zoos
from experiments.tasks import members
from sne_jax.networks import families
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo import image_tiles

TILE = 8
"""Networks that are run at a time."""


def make_run_fn(spec: NetworkSpec):
  """Returns the compiled `run(weights [M, P], pixels [N, ...]) -> [M, N]`.

  The classes that networks give to images with pixels in [-1, 1].
  """

  def run_one(pixels, weights):
    return jnp.argmax(
      families.run(spec, spec.unflatten(weights), pixels), axis=-1
    )

  def run(weights, pixels):
    return jax.vmap(functools.partial(run_one, pixels))(weights)

  return jax.jit(run)


def predictions(
  options: options_lib.Options, data: members.Data, counts: Sequence[int]
) -> tuple[dict[int, dict[str, np.ndarray]], list[dict[str, Any]]]:
  """Returns accuracies on a few images, and what they cost.

  Args:
    options: of the run; its zoos are named by flagfiles.
    data: the networks.
    counts: numbers of images.

  Returns:
    By number of images and by part (`val` and those tested on) accuracies
    `[M]`, of the parts whose zoos all have so many left; and for each number
    its cost per network: `images`, `seconds_per_network` and
    `flops_per_network` (of the compiled program; None where the compiler does
    not say), means over the networks of `test`.

  Raises:
    ValueError: no part has so many images left, or a zoo was not named by a
      flagfile.
  """
  run = options.run
  found = {
    source.name: source
    for text in filter(None, (run.zoo, run.test_zoos))
    for source in zoos.sources(text, run.data_dir)
  }
  spare = [found[name].spare_images() for name in data.names]
  left = {
    part: min(len(spare[zoo][0]) for zoo in np.unique(placed.zoo))
    for part, placed in data.members.items()
  }
  parts = ("val", *data.tests())
  for count in counts:
    few = {part: left[part] for part in parts if left[part] < count}
    if len(few) == len(parts):
      raise ValueError(
        f"image_counts asks for {count} images, but {max(few.values())} are"
        f" left of those of {', '.join(data.names)}; ask for fewer, or make the"
        " zoos with fewer --train_images"
      )
    if few:
      logging.warning(
        "fewer than %d images are left for %s", count, ", ".join(few)
      )
  right: dict[str, np.ndarray] = {}
  runs = functools.lru_cache(maxsize=4)(make_run_fn)
  for part in parts:
    networks, placed = data.parts[part], data.members[part]
    most = min(max(counts), left[part])
    right[part] = np.zeros((len(networks.numbers), most), bool)
    for zoo in np.unique(placed.zoo):
      for number in np.unique(networks.numbers[placed.zoo == zoo]):
        here = np.flatnonzero(
          (placed.zoo == zoo) & (networks.numbers == number)
        )
        spec = networks.specs[number]
        x, y = _images(spec, *spare[zoo], most)
        for first in range(0, len(here), TILE):
          rows = here[first : first + TILE]
          filled = np.resize(rows, TILE)  # One shape for all.
          weights = np.stack([networks.vectors[r] for r in filled])
          classes = np.asarray(runs(spec)(weights, x))
          right[part][rows] = classes[: len(rows)] == y
  accuracy = {
    n: {p: r[:, :n].mean(axis=1) for p, r in right.items() if left[p] >= n}
    for n in counts
  }
  known = [n for n in counts if left["test"] >= n]
  return accuracy, [_cost(data, spare, runs, n) for n in known]


def _images(spec: NetworkSpec, x, y, count: int):
  """Returns pixels as a network takes them, and labels; the first `count`."""
  pixels = x[:count].astype(np.float32) / 127.5 - 1.0
  shape = image_tiles.image_shape(spec)
  return pixels.reshape(count, *shape), np.asarray(y[:count])


def _cost(data: members.Data, spare, runs, count: int) -> dict[str, Any]:
  """Measures a forward pass on so many images, for the networks of `test`."""
  networks, placed = data.parts["test"], data.members["test"]
  seconds, flops, total = 0.0, 0.0, len(networks.numbers)
  for number in np.unique(networks.numbers):
    here = np.flatnonzero(networks.numbers == number)
    spec = networks.specs[number]
    x, _ = _images(spec, *spare[placed.zoo[here[0]]], count)
    weights = np.stack([networks.vectors[r] for r in np.resize(here, TILE)])
    compiled = runs(spec).lower(weights, x).compile()
    compiled(weights, x).block_until_ready()
    begun = time.perf_counter()
    compiled(weights, x).block_until_ready()
    share = len(here) / TILE / total
    seconds += (time.perf_counter() - begun) * share
    analysis = compiled.cost_analysis() or {}
    flops += analysis.get("flops", float("nan")) * share
  return {
    "images": count,
    "seconds_per_network": seconds,
    "flops_per_network": flops if np.isfinite(flops) else None,
  }
