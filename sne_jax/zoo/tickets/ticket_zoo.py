"""Zoos of winning tickets, found for whole populations; see design note 0018.

Dimensions: `M` networks of `P` weights, `S` of a part.
"""

import dataclasses
import functools
import os
from typing import Any

import numpy as np

from sne_jax.zoo.classifiers import generate, images
from sne_jax.zoo.store import masks as masks_lib
from sne_jax.zoo.store import partial, store, writing
from sne_jax.zoo.tickets import options as ticket_options
from sne_jax.zoo.tickets import pruning, trials

GENERATOR = "sne_jax.zoo.tickets"

WAYS = {
  "dense": "of all weights",
  "imp": "of the ticket of iterative magnitude pruning",
  "magnitude": "of the largest first weights",
  "random": "of weights drawn at random",
}
"""Masks that are compared, and what is trained then."""

_PARTS = {"validation": "validation images", "test": "test images"}

PROPERTIES = {
  "network": "number of the draw of first weights",
  "dataset": "images that it was trained on",
  "architecture": "name of the architecture",
  "sparsity": "share of the weights that the ticket leaves out",
  **{
    f"{way}_{part}_accuracy": f"accuracy on {seen} after a training {said}"
    for way, said in WAYS.items()
    for part, seen in _PARTS.items()
  },
}
"""Properties of the members, and what they are. Masks that are compared have
equal densities in every tensor."""


def generate_ticket_zoo(
  path: str | os.PathLike,
  options: ticket_options.TicketOptions,
  data: images.Images,
  *,
  dataset: str,
  progress: partial.Progress | None = None,
) -> store.Zoo:
  """Finds a ticket for each draw of first weights, or opens the zoo.

  The weights of a member are its first ones, `Zoo.masks` its ticket. A network
  whose training diverged is kept, as not valid.

  The same options and images on the same kind and number of devices give the
  same bytes, whether the run was broken off and started again or not.

  Args:
    path: folder of the zoo.
    options: how tickets are found.
    data: the images.
    dataset: their name, a part of the members' ids.
    progress: is told the trainings that are done; the caller draws it.

  Returns:
    The zoo, opened.

  Raises:
    ZooError: another process generates here, or `path` or `<path>.partial`
      hold a zoo of other options, which the message names.
    ValueError: the architecture cannot take the images, or there are too few
      networks for the split, or images for validation.
  """
  spec = trials.spec_of(options, data)
  trials.image_parts(options, data)  # Raises.
  pruning.places(spec)  # Raises.
  numbers = np.arange(options.num_networks)
  ids = [f"{dataset}-{options.seed}-{number:06d}" for number in numbers]
  parts = generate.split(options, ids, numbers)
  provenance = _provenance(options, data, dataset)

  def make(folder: str, batch: int) -> store.Zoo:
    found = _find_all(
      folder, options, data, batch, progress or (lambda *_: None)
    )
    accuracy = found["accuracy"]
    columns: dict[str, Any] = {
      "network": numbers,
      "dataset": np.full(len(ids), dataset),
      "architecture": np.full(len(ids), options.architecture),
      "sparsity": _sparsity(spec, found["masks"]),
    }
    names = list(PROPERTIES)[len(columns) :]
    flat = accuracy.reshape(len(ids), -1).T
    columns |= dict(zip(names, flat, strict=True))
    return writing.write_zoo(
      path,
      specs=[spec],
      weights=[found["weights"]],
      ids=ids,
      valid=found["finite"],
      properties={
        name: writing.Property(columns[name], said)
        for name, said in PROPERTIES.items()
      },
      splits=parts,
      provenance=provenance | {"batch_members": batch},
      licence="CC0-1.0",
      masks=masks_lib.Masks(found["masks"], spec.num_weights),
      staging=partial.staging(folder),
    )

  return partial.make_zoo(
    path,
    provenance,
    batch_members=min(options.batch_members, len(ids)),
    find_batch_members=lambda: min(
      generate.free_batch_members([spec], options.batch_size, data), len(ids)
    ),
    make=make,
  )


def random_masks(
  spec, kept: np.ndarray, seed: int, numbers: np.ndarray
) -> np.ndarray:
  """Draws a mask for each network, by seed and number alone.

  Args:
    spec: of the networks.
    kept: weights of each tensor that are kept `[N, L]`.
    seed: of the zoo.
    numbers: of the networks `[N]`.
  """
  words = [
    np.random.PCG64(np.random.SeedSequence((seed, int(n), 2))) for n in numbers
  ]
  drawn = np.stack([w.random_raw(spec.num_weights) for w in words])
  scores = (drawn >> np.uint64(11)).astype(np.float64)  # Exact in 53 bits.
  return pruning.best(spec, scores, kept)


def _sparsity(spec, packed: np.ndarray) -> np.ndarray:
  masks = masks_lib.Masks(packed, spec.num_weights).rows(range(len(packed)))
  return 1 - masks[:, pruning.prunable(spec)].mean(axis=1)


def _provenance(options, data: images.Images, dataset: str) -> dict[str, Any]:
  """Returns what makes two zoos the same, as plain values."""
  values = dataclasses.asdict(options)
  del values["batch_members"]
  values |= {"dataset": dataset, "images": images.digest(data)}
  return {"generator": GENERATOR, "seed": options.seed, "options": values}


def _find_all(
  folder: str,
  options: ticket_options.TicketOptions,
  data: images.Images,
  batch: int,
  progress: partial.Progress,
) -> dict[str, np.ndarray]:
  """Finds the parts that are not there yet; returns arrays of all networks."""
  trainings = len(options.densities) + len(WAYS)
  count, parts = options.num_networks, []
  work = trials.Trials(options, data, batch)
  size = work.spec.num_weights
  for first in range(0, count, batch):
    numbers = np.arange(first, min(first + batch, count))
    shapes: dict[str, tuple[int, ...]] = {
      "weights": (len(numbers), size),
      "masks": (len(numbers), -(-size // 8)),
      "accuracy": (len(numbers), len(WAYS), len(_PARTS)),
      "finite": (len(numbers),),
    }

    def told(done, first=first, numbers=numbers):
      progress(
        trainings * first + done * len(numbers),
        trainings * count,
        "trainings of all networks",
      )

    part, there = partial.part(
      *(folder, first, shapes),
      functools.partial(_find, options, work, numbers, told),
    )
    if there:
      told(trainings)
    parts.append(part)
  return {
    name: np.concatenate([part[name] for part in parts]) for name in parts[0]
  }


def _find(
  options: ticket_options.TicketOptions,
  work: trials.Trials,
  numbers: np.ndarray,
  told,
) -> dict[str, np.ndarray]:
  """Finds the tickets of some networks, and trains what they are beside."""
  spec = work.spec
  first = work.first_weights(numbers)
  masks = every = np.ones(first.shape, bool)
  finite = np.ones(len(first), bool)
  for done, density in enumerate(options.densities, start=1):
    trained = work.train(first, masks, numbers)
    finite &= np.asarray(np.isfinite(trained.weights).all(axis=1))
    masks = pruning.next_masks(
      spec, trained.weights, masks, density, options.scope
    )
    told(done)
  kept, rows = pruning.kept(spec, masks), []
  compared = {
    "dense": every,
    "imp": masks,
    "magnitude": pruning.best(spec, np.abs(first), kept),
    "random": random_masks(spec, kept, options.seed, numbers),
  }
  for way in WAYS:
    trained = work.train(first, compared[way], numbers, compared=True)
    finite &= np.asarray(np.isfinite(trained.weights).all(axis=1))
    rows.append(np.stack([trained.validation, trained.test], axis=-1))
    told(len(options.densities) + len(rows))
  return {
    "weights": first,
    "masks": np.packbits(masks, axis=-1),
    "accuracy": np.stack(rows, axis=1).astype(np.float32),
    "finite": finite,
  }
