"""From a zoo folder to networks with targets, split in three."""

import dataclasses
import hashlib
import json
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


def load(options: options_lib.Options, zoo: store.Zoo) -> Data:
  """Returns the three parts of a zoo that a run is about.

  Raises:
    ZooError: the zoo lacks a property or split.
    ValueError: it has too few members for the split, or other ones in it than
      asked for, or a target is no number.
  """
  run = options.run
  split = _split(zoo, run)
  members = {part: np.asarray(split.get(part, ()), np.int64) for part in PARTS}
  for part, rows in members.items():
    if len(rows) < 2:
      raise ValueError(
        f"split {run.split!r} of {zoo.path} has {len(rows)} valid members in"
        f" its part {part!r}; at least 2 are needed: choose another --split"
      )
  used = np.concatenate(list(members.values()))
  values = np.stack(
    [_target(zoo, name, used) for name in target_names(run)], -1
  )
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


def open_zoo(options: options_lib.Options) -> store.Zoo:
  """Opens the zoo of a run, or makes it.

  Raises:
    ZooError: it is damaged, or was made with other options.
  """
  path = pathlib.Path(options.run.zoo)
  if path.is_dir() and any(path.iterdir()):
    zoo = store.Zoo.open(path)
    if zoo.provenance.get("generator") != inr.GENERATOR:
      return zoo  # Somebody else's: the options of our generator do not apply.
  with progress.Progress("making the zoo") as shown:
    return inr.generate_inr_zoo(path, options.zoo, progress=shown.update)


def fingerprint(data: Data) -> dict[str, str]:
  """Returns checksums of the zoo's files and of the members of every part."""
  index = json.loads((pathlib.Path(data.zoo.path) / "zoo.json").read_text())
  entries = [*(entry["weights"] for entry in index["specs"]), index["members"]]
  zoo = hashlib.sha256("".join(e["sha256"] for e in entries).encode())
  return {"networks": zoo.hexdigest()} | {
    f"{part} members": hashlib.sha256(
      "\n".join(data.zoo.members["id"][rows]).encode()
    ).hexdigest()
    for part, rows in data.members.items()
  }


def target_names(run: options_lib.RunOptions) -> tuple[str, ...]:
  """Returns the properties to predict."""
  return tuple(n.strip() for n in run.targets.split(",") if n.strip())


def _target(zoo: store.Zoo, name: str, used: np.ndarray) -> np.ndarray:
  """Returns a property `[M]` as numbers; those of `used` must be finite."""
  values = zoo.property(name)
  if values.dtype.kind not in "fib":
    raise ValueError(
      f"target {name!r} of {zoo.path} is text; choose a property of numbers"
    )
  values = np.asarray(values, np.float64)
  missing = used[~np.isfinite(values[used])]
  if missing.size:
    first = zoo.members["id"][missing[0]]
    raise ValueError(
      f"target {name!r} of {zoo.path} is missing for {missing.size} members of"
      f" the split (first: {str(first)!r}); leave them out of the split, or"
      " choose another target"
    )
  return values


def _split(zoo: store.Zoo, run: options_lib.RunOptions):
  """Returns the split of a run, drawn where the zoo has none of that name."""
  own = zoo.provenance.get("generator") == inr.GENERATOR
  given = own and (zoo.provenance.get("options") or {}).get("split")
  if run.split in zoo.splits and (given or not own):
    return zoo.split(run.split)  # Somebody's; the sizes are not ours to say.
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
  ids = zoo.members["id"]
  parts = splits.random_split(ids[valid], seed=run.split_seed, parts=sizes)
  if run.split not in zoo.splits:
    writing.add_split(zoo.path, run.split, parts)
    zoo = store.Zoo.open(zoo.path, verify=False)
  found = zoo.split(run.split)
  if any(set(ids[found.get(p, [])]) != set(parts[p]) for p in parts):
    there = ", ".join(f"{len(rows)} {part}" for part, rows in found.items())
    raise ValueError(
      f"split {run.split!r} of {run.zoo} has {there} members, and not those"
      f" that split_seed, train_members, validation_members and test_members"
      " ask for; name another with --split, and it will be drawn"
    )
  return found
