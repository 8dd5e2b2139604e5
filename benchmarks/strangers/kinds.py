"""Kinds of networks that a model is tried on, of sines and of digits.

Each function gives `Networks` by what they are called in the table: those of
the zoo, those of makers left out, and those that nobody should be sure of.
"""

import csv
import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from sne_jax.learning.data import inputs
from sne_jax.learning.data.dataset import Networks
from sne_jax.networks import noise
from sne_jax.zoo.classifiers import generate as classifiers
from sne_jax.zoo.classifiers import images
from sne_jax.zoo.classifiers import options as image_options
from sne_jax.zoo.inrs import fit as inr_fit
from sne_jax.zoo.inrs import generate, makers
from sne_jax.zoo.store import splits, store, writing

MAKERS = ("published", "pytorch", "keras", "flax")
SINES = generate.InrZooOptions(
  num_networks=600, points=128, max_steps=600, makers=",".join(MAKERS)
)
DIGITS = image_options.ImageZooOptions(
  num_networks=300,
  makers=",".join(MAKERS),
  activation="relu",
  initializer="glorot_normal,he_normal,normal",
  learning_rate="log:2e-4:2e-2",
  label_noise="0,0,0,0,1",
  snapshots="0,1,4,12",
  batch_size=32,
  validation_share=0.2,
  test_share=0.25,
)
PARTS = {"train": 400, "val": 100, "test": 100}
IMAGES = images.ImageOptions(image_size=16, train_images=1000)
DAMAGED = 0.3  # Share of the weights that are set to 0.


def of_zoo(zoo: Any, rows: np.ndarray, target: str) -> Networks:
  """Returns members of a zoo."""
  specs, numbers = np.unique(zoo.members["spec"][rows], return_inverse=True)
  network = (
    zoo.property("network")[rows] if "network" in zoo.properties else None
  )
  return Networks(
    *(tuple(zoo.specs[n] for n in specs), numbers.reshape(-1)),
    *(zoo.vectors(rows), zoo.property(target)[rows][:, None], (target,)),
    clusters=network,
    makers=zoo.property("maker")[rows] if "maker" in zoo.properties else None,
  )


def from_files(folder: pathlib.Path, predictor: Any) -> Networks:
  """Returns networks of `benchmarks.strangers.pytorch`, as a model reads them.

  What names of tensors leave open, a model's own training settles.
  """
  with (folder / "labels.csv").open(newline="") as file:
    (_, target), *rows = csv.reader(file)
  paths = [folder / name for name, _ in rows]
  pairs = inputs.networks_of(paths, familiar=predictor.known.is_familiar)
  labels = {target: [float(value) for _, value in rows]}
  return Networks.of(pairs, labels, names=[str(path) for path in paths])


def damaged(networks: Networks, seed: int) -> Networks:
  """Returns networks some of whose weights are lost."""
  rng = np.random.default_rng(seed)
  return dataclasses.replace(
    networks, vectors=[noise.mask(v, DAMAGED, rng) for v in networks.vectors]
  )


def sines_zoo(folder: pathlib.Path, seed: int) -> store.Zoo:
  """Returns the zoo of `SINES`, made where it is missing, with its split."""
  options = dataclasses.replace(SINES, seed=2 * seed)
  zoo = generate.generate_inr_zoo(folder / "sines", options)
  if generate.SPLIT in zoo.splits:
    return zoo
  ids = [str(name) for name in zoo.members["id"]]
  parts = splits.random_split(ids, seed=options.seed, parts=PARTS)
  writing.add_split(zoo.path, generate.SPLIT, parts)
  return store.Zoo.open(zoo.path)


def sines(folder: pathlib.Path, seed: int) -> dict[str, Networks]:
  """Returns sine networks of other kinds than `SINES`, made where missing."""
  few = {"num_networks": 40, "seed": 2 * seed + 1}
  other = dataclasses.replace(SINES, **few)
  made = {
    "sitzmann's first weights": dataclasses.replace(other, makers="sitzmann"),
    "other signals (amplitudes 0 to 10)": dataclasses.replace(
      other, variant="dws"
    ),
    "other architecture (24 wide)": dataclasses.replace(other, hidden=24),
  }
  found = {}
  for place, (name, options) in enumerate(made.items()):
    zoo = generate.generate_inr_zoo(folder / f"sines{place}", options)
    found[name] = of_zoo(zoo, zoo.select(), "frequency")
  untrained, noisy = _senseless(dataclasses.replace(SINES, **few))
  return found | {"untrained": untrained, "trained on noise": noisy}


def _senseless(options: generate.InrZooOptions) -> tuple[Networks, Networks]:
  """Returns networks before training, and those of noise in place of waves.

  What they are to be predicted as is no property of theirs: nan.
  """
  spec, varied = generate.inr_spec(options), options.varied
  assert varied is not None
  start, advance = generate.fit_fns(options)
  keys = jax.random.split(jax.random.key(options.seed), options.num_networks)
  shape = (options.num_networks, options.num_points)
  rng = np.random.default_rng(options.seed)
  targets = rng.standard_normal(shape, np.float32)
  fitted = inr_fit.fit_batch(
    *(spec, start, advance, (keys, varied.hyper), targets),
    sizes=[options.num_networks],
    devices=jax.local_devices(),
    max_steps=600,
    check_every=600,
    tolerance=0.0,
    on_done=lambda done: None,
  )
  first = start((keys, varied.hyper)).tensors
  drawn = spec.flatten(jax.tree.map(np.asarray, first), np)

  def unknown(weights: np.ndarray) -> Networks:
    numbers, nothing = (
      np.zeros(len(weights), int),
      np.full(len(weights), np.nan),
    )
    return Networks(
      *((spec,), numbers, list(weights), nothing[:, None], ("frequency",))
    )

  return unknown(np.asarray(drawn)), unknown(fitted.weights)


def digits_zoo(folder: pathlib.Path, seed: int) -> Any:
  """Returns the zoo of `DIGITS`, made where it is missing."""
  options = dataclasses.replace(DIGITS, seed=2 * seed)
  data = images.load_images(IMAGES)
  return classifiers.generate_image_zoo(
    folder / "digits", options, data, dataset="digits"
  )


def digits(folder: pathlib.Path, seed: int) -> dict[str, Networks]:
  """Returns classifiers of other kinds than `DIGITS`, made where missing."""
  few = dataclasses.replace(
    *(DIGITS,),
    num_networks=30,
    seed=2 * seed + 1,
    label_noise="0",
    snapshots="1,4,12",
  )
  turned = dataclasses.replace(IMAGES, dataset="digits_rotated")
  found = {}
  for name, file, options, data in (
    ("other data set (rotated)", "rotated", few, turned),
    (
      "other architecture (arch2)",
      "arch2",
      dataclasses.replace(few, architecture="arch2"),
      IMAGES,
    ),
  ):
    zoo = classifiers.generate_image_zoo(
      *(folder / file, options, images.load_images(data)), dataset=data.dataset
    )
    found[name] = of_zoo(zoo, zoo.select(), "test_accuracy")
  return found


def makers_of(zoo: Any) -> tuple[str, ...]:
  """Returns the makers of a zoo, in the order of `makers.MAKERS`."""
  here = set(zoo.property("maker"))
  return tuple(name for name in makers.MAKERS if name in here)
