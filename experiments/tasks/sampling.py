"""Networks sampled from a trained autoencoder, and fine-tuned.

The best training networks of the zoo, by their accuracy on validation images,
are anchors. Networks are drawn around their codes by each of the samplers, and
fine-tuned, beside networks from scratch, the anchors themselves, and anchors
that only went through the autoencoder: all by equal steps with equal settings,
on the data set of the zoo and on others. Every choice is made with validation
images; test images are only reported on.

Each part (a seed, a data set, a method) is kept when it is done, so a run that
was killed goes on behind the last one.

Dimensions: `M` networks of `P` weights, `E` anchors, `R` networks of a method.
"""

import collections
import dataclasses
import pathlib
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import make_zoo, sampling_report, zoos
from experiments import options as options_lib
from experiments.tasks import members
from sne_jax.learning import generation, pretraining, progress
from sne_jax.networks import families, spec, standardise, transfer
from sne_jax.zoo import fine_tune, image_fit, partial

SCRATCH, PROMPT, RECONSTRUCTED = "scratch", "prompt", "reconstructed"
BASELINES = (SCRATCH, PROMPT, RECONSTRUCTED)
"""Fresh networks; the best anchors; the same through the autoencoder."""

PARTS_FOLDER = "checkpoints"

OpenCodec = Callable[[str, spec.NetworkSpec], generation.Codec]


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

  spec: spec.NetworkSpec
  weights: np.ndarray
  scores: np.ndarray
  first: np.ndarray
  training: np.ndarray
  hyper: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
  """What all seeds share."""

  options: options_lib.Options
  tuners: dict[str, fine_tune.Tuner]  # By data set, the zoo's own first.
  anchors: Anchors
  codecs: dict[bool, generation.Codec]  # Of weights, and of the autoencoder.
  codes: dict[bool, np.ndarray]  # Of the anchors.

  @property
  def methods(self) -> tuple[str, ...]:
    """All that is compared."""
    return (*BASELINES, *self.options.sampling.names)

  @property
  def own(self) -> fine_tune.Tuner:
    """Of the zoo's own data set: by its validation images all is chosen."""
    return next(iter(self.tuners.values()))


def run(
  options: options_lib.Options, open_codec: OpenCodec | None = None
) -> dict[str, Any]:
  """Runs all seeds and writes the report.

  Args:
    options: of the run, whose work directory is claimed.
    open_codec: opens the trained autoencoder of a work directory.

  Returns:
    What `results.json` holds.

  Raises:
    ValueError: of `prepared`.
  """
  workdir = pathlib.Path(options.run.workdir)
  task = prepared(options, open_codec or opened_codec)
  found = []
  seeds = range(options.run.first_seed, options.run.first_seed + options.run.seeds)
  total = len(seeds) * len(task.tuners) * len(task.methods)
  total *= options.sampling.epochs
  done = 0
  with progress.Progress("fine-tuning") as shown:
    for seed in seeds:
      folder = workdir / f"seed{seed}" / PARTS_FOLDER
      folder.mkdir(parents=True, exist_ok=True)
      started = sampled(task, folder, seed)
      curves = {}
      for place, data_set in enumerate(task.tuners):
        curves[data_set] = {}
        for method in task.methods:

          def told(epoch, done=done, method=method):
            shown.update(done + epoch, total, f"seed {seed}, {method}")

          curves[data_set][method] = tuned(
            task, folder, seed, place, method, started[method], told
          )
          done += options.sampling.epochs
          shown.update(done, total, f"seed {seed}, {method}")
      found.append({"seed": seed, "sampled": started, "curves": curves})
  results = sampling_report.collect(task, found)
  sampling_report.write(workdir, options, results)
  return results


def prepared(options: options_lib.Options, open_codec: OpenCodec) -> Task:
  """Chooses anchors and codes them.

  Raises:
    ValueError: the zoo is not named by a flagfile, no network can be an anchor,
      the autoencoder is none or is not of these networks, or images do not fit.
  """
  sources = zoos.sources(options.run.zoo, options.run.data_dir)
  if len(sources) > 1 or not sources[0].arguments:
    raise ValueError(
      f"zoo is {options.run.zoo!r}, which does not say where its images are;"
      f" name one {zoos.SUFFIX} file of make_zoo.py to sample networks of"
    )
  source = sources[0]
  data = members.gathered(
    options.replaced(targets="epoch", loss="mse", target_scale="linear")
  )
  image, networks = source.options()
  names = dict.fromkeys((image.dataset, *options.sampling.data_sets))
  parts = {name: load_parts(options, image, networks, name) for name in names}
  anchors = chosen_anchors(options, data, parts[image.dataset], networks)
  settings = tune_settings(options, anchors, networks)
  tuners = {
    name: fine_tune.Tuner(
      target_spec(anchors, parts[name]),
      parts[name],
      settings,
      options.generation.networks,
    )
    for name in names
  }
  measured = standardise.measure(anchors.spec, anchors.training)
  codecs = {
    True: generation.weight_codec(anchors.spec, measured),
    False: open_codec(options.run.sample_from, anchors.spec),
  }
  codes = {
    on_weights: np.asarray(codec.encode(anchors.weights))
    for on_weights, codec in codecs.items()
  }
  return Task(options, tuners, anchors, codecs, codes)


def opened_codec(workdir: str, one: spec.NetworkSpec) -> generation.Codec:
  """Returns the codec of the autoencoder that a run has trained.

  Args:
    workdir: of `run.py --pretrain`, or the folder of one of its seeds.
    one: of the networks.

  Raises:
    ValueError: there is no trained autoencoder, or it is of other networks.
  """
  folder = pathlib.Path(workdir)
  if not (folder / pretraining.FILE).exists():
    folder = min(folder.glob(f"seed*/{pretraining.FILE}"), default=folder / "_")
    folder = folder.parent
  if not (folder / pretraining.FILE).exists():
    raise ValueError(
      f"{workdir} is no work directory of an autoencoder (no seed of it has a"
      f" {pretraining.FILE}); name that of a run of run.py"
      " --pretrain=sane or --pretrain=hyper_representation"
    )
  model = pretraining.Pretrained.load(folder)
  try:
    return generation.trained_codec(model, one)
  except ValueError as error:
    raise ValueError(f"{workdir}: {error}") from error


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
) -> Anchors:
  """Returns the best training networks by accuracy on validation images.

  Where the zoo has several architectures (activations), they are those of the
  one that most of the best are of.

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
    weights = np.stack([train.vectors[row] for row in here])
    finite = np.isfinite(weights).all(axis=1)
    tuner = fine_tune.Tuner(one, parts, settings, slots)
    scores[here] = np.where(finite, tuner.score(weights), np.nan)
  best = generation.best_share(scores, options.generation.anchors)
  counts = collections.Counter(np.asarray(train.numbers)[best].tolist())
  number = counts.most_common(1)[0][0]
  best = best[np.asarray(train.numbers)[best] == number]
  one = train.specs[number]
  weights = np.stack([train.vectors[row] for row in best])
  if options.sampling.align:
    weights = generation.aligned(one, weights[0], weights)
  same = np.flatnonzero(np.asarray(train.numbers) == number)
  clusters = data.clusters("train")[best]
  first = np.unique(clusters, return_index=True)[1]
  return Anchors(
    one,
    weights.astype(np.float32),
    scores[best],
    np.sort(first),
    np.stack([train.vectors[row] for row in same]),
    {
      name: data.zoos[0].property(name)[rows[best]]
      for name in (
        *("optimizer", "initializer", "learning_rate", "weight_decay"),
        *("init_std", "architecture", "activation"),
      )
    },
  )


def tune_settings(options, anchors: Anchors, networks) -> fine_tune.TuneSettings:
  """Returns how networks are trained: as most of the anchors were."""
  rate = options.sampling.learning_rate
  return fine_tune.TuneSettings(
    optimizer=most(anchors.hyper["optimizer"]),
    learning_rate=rate or float(np.median(anchors.hyper["learning_rate"])),
    weight_decay=float(np.median(anchors.hyper["weight_decay"])),
    batch_size=networks.batch_size,
  )


def target_spec(
  anchors: Anchors, parts: fine_tune.ImageParts
) -> spec.NetworkSpec:
  """Returns the architecture that is fine-tuned on a data set.

  Raises:
    ValueError: it is of other classes, and cannot be built anew.
  """
  own = anchors.spec
  classes = own.tensor(transfer.classifier(own)[0]).shape[0]
  if classes == parts.num_classes:
    return own
  build = lambda count: families.architecture(
    most(anchors.hyper["architecture"]),
    image_fit.image_shape(own),
    count,
    most(anchors.hyper["activation"]),
  )
  try:
    found, again = build(parts.num_classes), build(classes)
  except (ValueError, StopIteration):
    found = again = None
  if found is None or again != own:
    raise ValueError(
      f"{own.describe()} has {classes} classes, these images have"
      f" {parts.num_classes}, and the network cannot be built anew; choose"
      " images of as many classes"
    )
  return found


def most(words) -> str:
  """Returns the most frequent word; of equals the first."""
  return collections.Counter(np.asarray(words).tolist()).most_common(1)[0][0]


def sampled(
  task: Task, folder: pathlib.Path, seed: int
) -> dict[str, dict[str, np.ndarray]]:
  """Returns by method where its networks begin: weights, scores, bandwidth.

  Those of fine-tuning on other data sets are of the same weights.
  """
  options, anchors = task.options, task.anchors
  count = options.generation.networks
  score = scorer(task, seed)
  best = anchors.first[:count]
  best = best[np.arange(count) % len(best)]

  def make(method: str) -> dict[str, np.ndarray]:
    if method == SCRATCH:
      weights, bandwidth = scratch(task, task.own, seed), np.nan
    elif method == PROMPT:
      weights, bandwidth = anchors.weights[best], np.nan
    elif method == RECONSTRUCTED:
      weights = task.codecs[False].decode(task.codes[False][best])
      bandwidth = 0.0
    else:
      on_weights = generation.parse(method)[0]
      found = generation.sample(
        jax.random.fold_in(jax.random.key(seed), zlib.crc32(method.encode())),
        method,
        task.codecs[on_weights],
        task.codes[on_weights],
        score,
        options.generation,
      )
      weights, bandwidth = found.weights, found.bandwidth
    return {
      "weights": conditioned(task, np.asarray(weights, np.float32), seed),
      "scores": np.asarray(score(weights), np.float64),
      "bandwidth": np.array([bandwidth], np.float64),
    }

  shapes = {
    "weights": (count, anchors.spec.num_weights),
    "scores": (count,),
    "bandwidth": (1,),
  }
  return {
    method: partial.part(
      str(folder), place, shapes, lambda method=method: make(method)
    )[0]
    for place, method in enumerate(task.methods)
  }


def scorer(task: Task, seed: int) -> Callable[[np.ndarray], np.ndarray]:
  """Returns the accuracy of networks on validation images of the zoo's data."""
  return lambda weights: task.own.score(conditioned(task, weights, seed))


def conditioned(task: Task, weights: np.ndarray, seed: int) -> np.ndarray:
  """Returns networks with batch norm statistics of validation images."""
  train, validation, _ = task.own.data.sizes
  return np.asarray(
    fine_tune.condition(
      task.anchors.spec,
      weights,
      task.own.data.pixels[train : train + validation],
      jax.random.key(seed),
      iterations=task.options.sampling.conditioning,
    ),
    np.float32,
  )


def scratch(task: Task, tuner: fine_tune.Tuner, seed: int) -> np.ndarray:
  """Returns fresh networks, drawn as most of the anchors were."""
  hyper = task.anchors.hyper
  return tuner.fresh(
    keys_of(task, seed),
    most(hyper["initializer"]),
    float(np.median(hyper["init_std"])),
  )


def keys_of(task: Task, seed: int) -> np.ndarray:
  """Returns a key for each network; the same for all methods."""
  numbers = np.arange(task.options.generation.networks)
  return image_fit.member_keys(seed, numbers)


def tuned(
  task: Task,
  folder: pathlib.Path,
  seed: int,
  place: int,
  method: str,
  start: dict[str, np.ndarray],
  told,
) -> dict[str, np.ndarray]:
  """Fine-tunes the networks of a method on a data set, or reads how it went.

  Returns:
    Accuracy `[R, epochs + 1]` by name of `fine_tune.PARTS`.
  """
  tuner = list(task.tuners.values())[place]
  epochs = task.options.sampling.epochs

  def make():
    weights = begun(task, tuner, place, method, start["weights"], seed)
    found = tuner.tune(weights, keys_of(task, seed), epochs, told)
    return found.accuracy

  shape = (task.options.generation.networks, epochs + 1)
  methods = task.methods
  number = (place + 1) * len(methods) + methods.index(method)
  shapes = dict.fromkeys(fine_tune.PARTS, shape)
  return partial.part(str(folder), number, shapes, make)[0]


def begun(task, tuner, place: int, method: str, weights, seed: int):
  """Returns networks as they begin on a data set: perhaps a new last layer."""
  own, other = task.anchors.spec, tuner.spec
  if method == SCRATCH:
    return scratch(task, tuner, seed)
  reset = other != own or (place and task.options.sampling.reset_classifier)
  if not reset:
    return weights
  new = transfer.classifier(other) if other != own else ()
  carried = np.asarray(transfer.carry_over(own, weights, other, new=new))
  keys = jax.random.split(jax.random.key(seed), len(carried))
  return np.stack(
    [
      np.asarray(transfer.reset_classifier(other, w, key))
      for w, key in zip(carried, keys, strict=True)
    ]
  )
