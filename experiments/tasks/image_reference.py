"""The reference that needs images: evaluate each network on a few.

Who has the data a network is meant for can run the network on some of it. The
accuracy on `n` images, which no network of the zoo was trained or tested on, is
a prediction of its test accuracy; it costs `n` forward passes per network and,
above all, needs labelled images. All networks of a zoo see the same ones.

Dimensions: `N` images, `M` networks, `P` weights of one.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from experiments.cli import options as options_lib
from experiments.tasks import members, zoos
from sne_jax.networks import families
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo.classifiers import tiles

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
  parts = ("val", *data.tests())
  sources = {
    source.name: source
    for text in filter(None, (options.run.zoo, options.run.test_zoos))
    for source in zoos.sources(text, options.run.data_dir)
  }
  spare = [sources[name].spare_images() for name in data.names]
  left = {
    part: min(len(spare[zoo][0]) for zoo in np.unique(data.members[part].zoo))
    for part in parts
  }
  _check_counts(counts, left, data.names)
  runs = functools.lru_cache(maxsize=4)(make_run_fn)
  right = {
    part: _right(data, part, spare, runs, min(max(counts), left[part]))
    for part in parts
  }
  accuracy = {
    n: {p: r[:, :n].mean(axis=1) for p, r in right.items() if left[p] >= n}
    for n in counts
  }
  known = [n for n in counts if left["test"] >= n]
  return accuracy, [_cost(data, spare, runs, n) for n in known]


def _check_counts(
  counts: Sequence[int], left: Mapping[str, int], names: Sequence[str]
) -> None:
  """Warns of parts with fewer images left; raises where all have fewer."""
  for count in counts:
    few = [part for part in left if left[part] < count]
    if len(few) == len(left):
      raise ValueError(
        f"image_counts asks for {count} images, but {max(left.values())} are"
        f" left of those of {', '.join(names)}; ask for fewer, or make the zoos"
        " with fewer --train_images"
      )
    if few:
      logging.warning(
        "fewer than %d images are left for %s", count, ", ".join(few)
      )


def _right(data: members.Data, part: str, spare, runs, count: int):
  """Returns `[M, count]`: which images the networks of a part classify."""
  networks, zoo_of = data.parts[part], data.members[part].zoo
  right = np.zeros((len(networks.numbers), count), bool)
  kinds = np.stack([zoo_of, networks.numbers], axis=1)
  for zoo, number in np.unique(kinds, axis=0):
    here = np.flatnonzero((kinds == (zoo, number)).all(axis=1))
    spec = networks.specs[number]
    x, y = _images(spec, *spare[zoo], count)
    for first in range(0, len(here), TILE):
      rows = here[first : first + TILE]
      filled = np.resize(rows, TILE)  # One shape for all.
      weights = np.stack([networks.vectors[row] for row in filled])
      classes = np.asarray(runs(spec)(weights, x))
      right[rows] = classes[: len(rows)] == y
  return right


def _images(spec: NetworkSpec, x, y, count: int):
  """Returns pixels as a network takes them, and labels; the first `count`."""
  pixels = x[:count].astype(np.float32) / 127.5 - 1.0
  shape = tiles.image_shape(spec)
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
