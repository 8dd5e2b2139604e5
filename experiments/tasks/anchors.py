"""Anchors: the best training networks of a zoo, and what follows from them.

Dimensions: `M` training networks of `P` weights, `E` anchors.
"""

import collections
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from experiments.cli import options as options_lib
from experiments.tasks import members
from sne_jax.cli.commands import zoo as make_zoo
from sne_jax.learning.generative import generation
from sne_jax.networks import families, matching, transfer
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.classifiers import fine_tune


class Anchors(NamedTuple):
  """The best training networks, best first.

  Attributes:
    spec: of all of them.
    weights: [E, P], in one order of neurons if so asked.
    scores: [E], accuracy on validation images.
    first: places of the best snapshots of different networks.
    training: [M, P], all training networks of the spec, as they are.
    hyper: what the zoo says of them: name and value of its properties.
  """

  spec: spec_lib.NetworkSpec
  weights: np.ndarray
  scores: np.ndarray
  first: np.ndarray
  training: np.ndarray
  hyper: dict[str, Any]


def load_parts(options, image, networks, name: str) -> fine_tune.ImageParts:
  """Returns a data set in the form of the zoo's images, in three parts."""
  every = make_zoo.load_images(
    dataclasses.replace(image, dataset=name, train_images=0), networks
  )
  return fine_tune.image_parts(
    every, image.train_images, options.sampling.validation_images
  )


def chosen_anchors(
  options: options_lib.Options,
  data: members.Data,
  parts: fine_tune.ImageParts,
  networks,
  reference: np.ndarray | None = None,
) -> Anchors:
  """Returns the best training networks by accuracy on validation images.

  Where the zoo has several architectures (activations), they are those of the
  one that most of the best are of. They are put in the order of neurons of a
  reference, or of the best of them.

  Raises:
    ValueError: no training network works.
  """
  train, rows = data.parts["train"], data.members["train"].row
  scores = np.full(len(rows), np.nan)
  slots = options.generation.networks
  settings = fine_tune.TuneSettings(batch_size=networks.batch_size)
  for number, one in enumerate(train.specs):
    here = np.flatnonzero(np.asarray(train.numbers) == number)
    if not len(here):
      continue
    weights = np.stack([train.vectors[int(row)] for row in here])
    finite = np.isfinite(weights).all(axis=1)
    tuner = fine_tune.Tuner(one, parts, settings, slots)
    scores[here] = np.where(finite, tuner.score(weights), np.nan)
  best = generation.best_share(scores, options.generation.anchors)
  counts = collections.Counter(np.asarray(train.numbers)[best].tolist())
  number = counts.most_common(1)[0][0]
  best = best[np.asarray(train.numbers)[best] == number]
  one = train.specs[number]
  weights = np.stack([train.vectors[int(row)] for row in best])
  if options.sampling.align:
    first = weights[0] if reference is None else reference
    weights = matching.align_all(one, first, weights)
  same = np.flatnonzero(np.asarray(train.numbers) == number)
  clusters = data.clusters("train")[best]
  first = np.unique(clusters, return_index=True)[1]
  return Anchors(
    one,
    weights.astype(np.float32),
    scores[best],
    np.sort(first),
    np.stack([train.vectors[int(row)] for row in same]),
    {
      name: data.zoos[0].property(name)[rows[best]]
      for name in (
        *("optimizer", "initializer", "learning_rate", "weight_decay"),
        *("init_std", "architecture", "activation"),
      )
    },
  )


def tune_settings(
  options, anchors: Anchors, networks
) -> fine_tune.TuneSettings:
  """Returns how networks are trained: as most of the anchors were."""
  return fine_tune.TuneSettings(
    optimizer=most(anchors.hyper["optimizer"]),
    learning_rate=float(np.median(anchors.hyper["learning_rate"])),
    weight_decay=float(np.median(anchors.hyper["weight_decay"])),
    batch_size=networks.batch_size,
  )


def target_spec(
  anchors: Anchors, parts: fine_tune.ImageParts
) -> spec_lib.NetworkSpec:
  """Returns the architecture that is fine-tuned on a data set.

  Raises:
    ValueError: it is of other classes, and cannot be built anew.
  """
  spec = anchors.spec
  classes = spec.tensor(transfer.classifier(spec)[0]).shape[0]
  if classes == parts.num_classes:
    return spec
  build = lambda count: families.architecture(
    most(anchors.hyper["architecture"]),
    parts.pixels.shape[1:],
    count,
    most(anchors.hyper["activation"]),
  )
  try:
    other, again = build(parts.num_classes), build(classes)
  except (ValueError, StopIteration):
    other = again = None
  if other is None or again != spec:
    raise ValueError(
      f"{spec.describe()} has {classes} classes, these images have"
      f" {parts.num_classes}, and the network cannot be built anew; choose"
      " images of as many classes"
    )
  return other


def most(words) -> str:
  """Returns the most frequent word; of equals the first."""
  return collections.Counter(np.asarray(words).tolist()).most_common(1)[0][0]
