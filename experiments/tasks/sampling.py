"""Networks sampled from a trained autoencoder, and fine-tuned.

The best training networks of the zoo, by their accuracy on validation images,
are anchors. Networks are drawn around their codes by each of the samplers, and
fine-tuned, beside networks from scratch, the anchors themselves, and anchors
that only went through the autoencoder: all by equal steps with equal settings,
on the data set of the zoo and on others. Every choice is made with validation
images; test images are only reported on.

Each part (a seed, a data set, a method) is kept when it is done, so a run that
was killed resumes after the last one.

Dimensions: `P` weights, `R` networks of a method.
"""

import dataclasses
import hashlib
import json
import pathlib
import zlib
from typing import Any

import jax
import numpy as np

from experiments.cli import options as options_lib
from experiments.tasks import anchors as anchors_lib
from experiments.tasks import members, sampling_report, zoos
from sne_jax.learning.generative import generation
from sne_jax.learning.selfsup import pretraining
from sne_jax.learning.training import progress
from sne_jax.networks import spec as spec_lib
from sne_jax.networks import standardise, transfer
from sne_jax.zoo.classifiers import fine_tune, fit
from sne_jax.zoo.store import partial

SCRATCH, PROMPT, RECONSTRUCTED = "scratch", "prompt", "reconstructed"
BASELINES = (SCRATCH, PROMPT, RECONSTRUCTED)
"""Fresh networks; the best anchors; the same through the autoencoder."""

PARTS_FOLDER = "checkpoints"


@dataclasses.dataclass(frozen=True)
class Task:
  """What all seeds share."""

  options: options_lib.Options
  tuners: dict[str, fine_tune.Tuner]  # By data set, that of the zoo first.
  anchors: anchors_lib.Anchors
  codecs: dict[bool, generation.Codec]  # Of weights, and of the autoencoder.
  codes: dict[bool, np.ndarray]  # Of the anchors.
  checksums: dict[str, str]  # Checksums of zoo and autoencoder.

  @property
  def methods(self) -> tuple[str, ...]:
    """All that is compared."""
    return (*BASELINES, *self.options.sampling.names)

  @property
  def of_zoo(self) -> fine_tune.Tuner:
    """On the data set of the zoo: by its validation images all is chosen."""
    return next(iter(self.tuners.values()))


def run(task: Task) -> dict[str, Any]:
  """Runs all seeds and writes the report.

  Args:
    task: of options whose work directory is claimed.

  Returns:
    What `results.json` holds.
  """
  options = task.options
  workdir = pathlib.Path(options.run.workdir)
  epochs, first = options.sampling.epochs, options.run.first_seed
  total = options.run.seeds * len(task.tuners) * len(task.methods) * epochs
  done, seeds = 0, []
  with progress.Progress("fine-tuning") as shown:
    for seed in range(first, first + options.run.seeds):
      folder = workdir / f"seed{seed}" / PARTS_FOLDER
      folder.mkdir(parents=True, exist_ok=True)
      started = sampled(task, folder, seed)
      curves: dict[str, Any] = {name: {} for name in task.tuners}
      for place, data_set in enumerate(task.tuners):
        for method in task.methods:
          text = f"seed {seed}, {method}"

          def told(epoch, done=done, text=text):
            shown.update(done + epoch, total, text)

          curves[data_set][method] = tuned(
            task, folder, seed, place, method, started[method], told
          )
          done += epochs
          shown.update(done, total, text)
      seeds.append({"seed": seed, "sampled": started, "curves": curves})
  results = sampling_report.collect(task, seeds)
  sampling_report.write(workdir, options, results)
  return results


def prepared(options: options_lib.Options, autoencoder: str) -> Task:
  """Chooses anchors and codes them.

  Raises:
    ValueError: the zoo is not named by a flagfile, no network can be an anchor,
      the autoencoder is none or is not of these networks, or images do not fit.
  """
  source, *more = zoos.sources(options.run.zoo, options.run.data_dir)
  if more or not source.arguments:
    raise ValueError(
      f"zoo is {options.run.zoo!r}, which does not say where its images are;"
      f" name one {zoos.SUFFIX} file of make_zoo.py to sample networks of"
    )
  data = members.gathered(
    options.replaced(targets="epoch", loss="mse", target_scale="linear")
  )
  known = data.parts["train"].specs[0]
  model = opened(autoencoder)
  codec = codec_of(model, known, autoencoder)
  image, networks = source.options()
  names = dict.fromkeys((image.dataset, *options.sampling.data_sets))
  parts = {
    name: anchors_lib.load_parts(options, image, networks, name)
    for name in names
  }
  anchors = anchors_lib.chosen_anchors(
    options, data, parts[image.dataset], networks, codec.reference
  )
  settings = anchors_lib.tune_settings(options, anchors, networks)
  tuners = {
    name: fine_tune.Tuner(
      anchors_lib.target_spec(anchors, parts[name]),
      parts[name],
      settings,
      options.generation.networks,
    )
    for name in names
  }
  if anchors.spec.layout != known.layout:
    codec = codec_of(model, anchors.spec, autoencoder)
  measured = standardise.measure(anchors.spec, anchors.training)
  codecs = {
    True: generation.weight_codec(anchors.spec, measured),
    False: codec,
  }
  codes = {
    on_weights: np.asarray(codec.encode(anchors.weights))
    for on_weights, codec in codecs.items()
  }
  checksums = members.fingerprint(data)
  checksums["autoencoder"] = digest(model)
  return Task(options, tuners, anchors, codecs, codes, checksums)


def codec_of(
  model: pretraining.Pretrained, one: spec_lib.NetworkSpec, workdir: str
) -> generation.Codec:
  """Returns the codec of an autoencoder, for networks of a spec.

  Raises:
    ValueError: it is of other networks.
  """
  try:
    return generation.trained_codec(model, one)
  except ValueError as error:
    raise ValueError(f"{workdir}: {error}") from error


def opened(workdir: str) -> pretraining.Pretrained:
  """Returns the autoencoder of the first seed that a run has trained.

  Args:
    workdir: of `run.py --pretrain`, or the folder of one of its seeds.

  Raises:
    ValueError: there is none.
  """
  root = pathlib.Path(workdir)
  for folder in (root, *sorted(root.glob("seed*"))):
    if (folder / pretraining.FILE).exists():
      return pretraining.Pretrained.load(folder)
  raise ValueError(
    f"{workdir} is no work directory of an autoencoder (no seed of it has a"
    f" {pretraining.FILE}); name that of a run of run.py --pretrain=sane or"
    " --pretrain=hyper_representation"
  )


def digest(model: pretraining.Pretrained) -> str:
  """Returns a checksum of an autoencoder: its description and parameters."""
  text = json.dumps(model.description, sort_keys=True)
  checksum = hashlib.sha256(text.encode())
  for leaf in jax.tree.leaves(model.params):
    checksum.update(np.ascontiguousarray(leaf).tobytes())
  return checksum.hexdigest()


def sampled(
  task: Task, folder: pathlib.Path, seed: int
) -> dict[str, dict[str, np.ndarray]]:
  """Returns by method where its networks begin: weights, scores, bandwidth.

  Those of fine-tuning on other data sets are of the same weights.
  """
  options, anchors = task.options, task.anchors
  count = options.generation.networks
  score = task.of_zoo.score
  best = anchors.first[:count]
  best = best[np.arange(count) % len(best)]

  def make(method: str) -> dict[str, np.ndarray]:
    if method == SCRATCH:
      weights, bandwidth = scratch(task, task.of_zoo, seed), np.nan
    elif method == PROMPT:
      weights, bandwidth = anchors.weights[best], np.nan
    elif method == RECONSTRUCTED:
      weights = task.codecs[False].decode(task.codes[False][best])
      bandwidth = 0.0
    else:
      on_weights = generation.parse(method)[0]
      drawn = generation.sample(
        jax.random.fold_in(jax.random.key(seed), zlib.crc32(method.encode())),
        method,
        task.codecs[on_weights],
        task.codes[on_weights],
        score,
        options.generation,
      )
      weights, bandwidth = drawn.weights, drawn.bandwidth
    return {
      "weights": np.asarray(weights, np.float32),
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


def scratch(task: Task, tuner: fine_tune.Tuner, seed: int) -> np.ndarray:
  """Returns fresh networks, drawn as most of the anchors were."""
  hyper = task.anchors.hyper
  return tuner.fresh(
    keys_of(task, seed),
    anchors_lib.most(hyper["initializer"]),
    float(np.median(hyper["init_std"])),
  )


def keys_of(task: Task, seed: int) -> np.ndarray:
  """Returns a key for each network; the same for all methods."""
  numbers = np.arange(task.options.generation.networks)
  return fit.member_keys(seed, numbers)


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
    weights = begun(task, tuner, method, start["weights"], seed)
    return tuner.tune(weights, keys_of(task, seed), epochs, told).accuracy

  shape = (task.options.generation.networks, epochs + 1)
  methods = task.methods
  number = (place + 1) * len(methods) + methods.index(method)
  shapes = {part: shape for part in fine_tune.PARTS}
  return partial.part(str(folder), number, shapes, make)[0]


def begun(task, tuner, method: str, weights, seed: int):
  """Returns networks as they begin on a data set: perhaps a new last layer."""
  spec, other = task.anchors.spec, tuner.spec
  if method == SCRATCH:
    return scratch(task, tuner, seed)
  if other == spec:
    return weights
  new = transfer.classifier(other)
  carried = np.asarray(transfer.carry_over(spec, weights, other, new=new))
  keys = jax.random.split(jax.random.key(seed), len(carried))
  return np.stack(
    [
      np.asarray(transfer.reset_classifier(other, w, key))
      for w, key in zip(carried, keys, strict=True)
    ]
  )
