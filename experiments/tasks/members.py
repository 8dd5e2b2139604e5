"""From a zoo folder to networks with targets, split in three."""

import dataclasses
import pathlib

import numpy as np

from experiments import options as options_lib
from sne_jax.learning import pipeline, progress
from sne_jax.zoo import inr, splits, store, writing

PARTS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Data:
  """The networks of a run, by part, and what they came from."""

  zoo: store.Zoo
  parts: dict[str, pipeline.Networks]
  members: dict[str, np.ndarray]


def load(options: options_lib.Options) -> Data:
  """Opens the zoo of a run, or makes it, and returns its three parts.

  Raises:
    ZooError: the zoo is damaged, or lacks a property or split.
    ValueError: it has too few members for the split.
  """
  run = options.run
  zoo = _open_or_make(options)
  split = _split(zoo, run)
  names = target_names(run)
  values = np.stack(
    [np.asarray(zoo.property(name), np.float64) for name in names], axis=-1
  )
  members = {part: np.asarray(split[part]) for part in PARTS}
  if run.train_share < 1:
    count = max(2, round(run.train_share * len(members["train"])))
    order = np.random.default_rng(run.split_seed).permutation(members["train"])
    members["train"] = np.sort(order[:count])
  specs = np.asarray(zoo.members["spec"])
  parts = {
    part: pipeline.Networks(
      zoo.specs, specs[rows], zoo.vectors(rows), values[rows]
    )
    for part, rows in members.items()
  }
  return Data(zoo, parts, members)


def target_names(run: options_lib.RunOptions) -> tuple[str, ...]:
  """Returns the properties to predict."""
  return tuple(n.strip() for n in run.targets.split(",") if n.strip())


def _open_or_make(options: options_lib.Options) -> store.Zoo:
  path = pathlib.Path(options.run.zoo)
  if (path / "zoo.json").exists():
    zoo = store.Zoo.open(path)
    if zoo.provenance.get("generator") != inr.GENERATOR:
      return zoo  # Somebody else's: the options of our generator do not apply.
  with progress.Progress("making the zoo") as shown:
    return inr.generate_inr_zoo(path, options.zoo, progress=shown.update)


def _split(zoo: store.Zoo, run: options_lib.RunOptions):
  if run.split in zoo.splits:
    return zoo.split(run.split)
  valid = np.flatnonzero(zoo.members["valid"])
  sizes = {
    "train": run.train_members,
    "val": run.validation_members,
    "test": run.test_members,
  }
  if sum(sizes.values()) > len(valid):
    raise ValueError(
      f"{run.zoo} has {len(valid)} valid members, but train_members,"
      f" validation_members and test_members ask for {sum(sizes.values())};"
      " ask for fewer or make a larger zoo (--zoo_num_networks)"
    )
  parts = splits.random_split(
    zoo.members["id"][valid], seed=run.split_seed, parts=sizes
  )
  writing.add_split(zoo.path, run.split, parts)
  return store.Zoo.open(zoo.path, verify=False).split(run.split)
