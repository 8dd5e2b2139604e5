"""Which members of a zoo a run trains on, chooses by, and is tested on."""

from collections.abc import Mapping

import numpy as np

from experiments.cli.run_options import RunOptions
from sne_jax.learning.data import folders
from sne_jax.zoo.inrs import generate
from sne_jax.zoo.store import splits, store, writing

NETWORK = "network"
"""The property that snapshots of one network share."""

PARTS = splits.PARTS


def split_of(zoo: store.Zoo, run: RunOptions) -> dict[str, np.ndarray]:
  """Returns the split of a run, drawn where the zoo has none of that name.

  Zoos of somebody else keep theirs; of those that runs make, it must be the one
  that the options ask for.

  Raises:
    ValueError: another split has that name, or there are too few members.
  """
  origin = zoo.provenance.get("generator")
  is_sine, is_own = origin == generate.GENERATOR, origin == folders.GENERATOR
  given = is_sine and (zoo.provenance.get("options") or {}).get("split")
  if run.split in zoo.splits and (given or not (is_sine or is_own)):
    return zoo.split(run.split)  # Somebody's; the sizes are not ours to say.
  valid = np.flatnonzero(zoo.members["valid"])
  sizes = _sizes(run, is_own)
  if sum(sizes.values()) > len(valid):
    remedy = "" if is_own else " or make a larger zoo (--zoo_num_networks)"
    raise ValueError(
      f"{zoo.path} has {len(valid)} valid members, but train_members,"
      f" validation_members and test_members ask for {sum(sizes.values())};"
      f" ask for fewer{remedy}"
    )
  ids = zoo.members["id"]
  groups = None
  if NETWORK in zoo.properties:  # Its snapshots stay together.
    groups = zoo.property(NETWORK)[valid]
  parts = splits.random_split(
    ids[valid], seed=run.split_seed, parts=sizes, groups=groups
  )
  if run.split not in zoo.splits:
    writing.add_split(zoo.path, run.split, parts)
    zoo = store.Zoo.open(zoo.path, verify=False)
  split = zoo.split(run.split)
  if any(set(ids[split.get(p, [])]) != set(parts[p]) for p in parts):
    there = ", ".join(f"{len(rows)} {part}" for part, rows in split.items())
    raise ValueError(
      f"split {run.split!r} of {zoo.path} has {there} members, and not those"
      f" that split_seed, train_members, validation_members and test_members"
      " ask for; name another with --split, and it will be drawn"
    )
  return split


def _sizes(run: RunOptions, is_own: bool) -> Mapping[str, int | float]:
  """Returns the size of every part: of own networks shares, unless told."""
  names = ("train_members", "validation_members", "test_members")
  sizes = {
    part: getattr(run, name) for part, name in zip(PARTS, names, strict=True)
  }
  fields = RunOptions.__dataclass_fields__
  if is_own and all(getattr(run, n) == fields[n].default for n in names):
    return folders.SHARES
  return sizes
