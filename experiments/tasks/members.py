"""From zoo folders to networks with targets, in parts.

The parts `train`, `val` and `test` are of the zoos that a run is about, put
together; a further zoo gives a part of its own to be tested on.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.cli import options as options_lib
from experiments.tasks import parts as parts_lib
from experiments.tasks import zoos
from sne_jax.cli import config
from sne_jax.learning.data.dataset import MAKER, Networks
from sne_jax.learning.evaluation import classes
from sne_jax.zoo.store import reading, splits, store

NETWORK, PARTS = parts_lib.NETWORK, parts_lib.PARTS
LAST = "last"
"""What `--snapshots` says for the last epoch of a zoo."""


class Members(NamedTuple):
  """Members of several zoos: `[M]` each."""

  zoo: np.ndarray  # Place in `Data.zoos`.
  row: np.ndarray  # Row in that zoo.


@dataclasses.dataclass(frozen=True)
class Data:
  """The networks of a run, by part, and what they came from."""

  zoos: tuple[store.Zoo, ...]
  names: tuple[str, ...]  # Of the zoos.
  parts: dict[str, Networks]
  members: dict[str, Members]
  classes: tuple[str, ...] = ()  # Of the target; its numbers are places here.

  def property(self, part: str, name: str) -> np.ndarray:
    """Returns a property `[M]` of a part's members; of all its zoos."""
    columns = [zoo.property(name) for zoo in self.zoos]
    zoo, row = self.members[part]
    return np.array([columns[z][r] for z, r in zip(zoo, row, strict=True)])

  def clusters(self, part: str) -> np.ndarray:
    """Returns numbers `[M]` that snapshots of one network share."""
    zoo, row = self.members[part]
    numbers = [_network_numbers(zoo) for zoo in self.zoos]
    number = [numbers[z][r] for z, r in zip(zoo, row, strict=True)]
    pairs = np.stack([zoo, number], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)

  def sizes(self) -> dict[str, int]:
    """Returns the number of members of every part."""
    return {part: len(placed.row) for part, placed in self.members.items()}

  def tests(self) -> tuple[str, ...]:
    """Returns the names of the parts to be tested on, `test` first."""
    return tuple(p for p in self.parts if p not in ("train", "val"))


def part_of(name: str) -> str:
  """Returns the part that a further zoo is."""
  return f"test on {name}"


def gathered(options: options_lib.Options) -> Data:
  """Returns the networks of a run: of all its zoos, made where they are not.

  Raises:
    ZooError, ValueError: of `loaded`, or of `learning.classes`.
  """
  run = options.run
  trained = zoos.sources(run.zoo, run.data_dir)
  tested = zoos.sources(run.test_zoos, run.data_dir) if run.test_zoos else ()
  twice = {s.name for s in trained} & {s.name for s in tested}
  if twice:
    raise ValueError(
      f"{min(twice)} is in zoo and in test_zoos; its test part is tested on"
      " anyway"
    )
  by_name = loaded(options, (*trained, *tested))
  parts = ([by_name[s.name] for s in some] for some in (trained, tested))
  return assembled(options, *parts)


def loaded(
  options: options_lib.Options, sources: Sequence[zoos.Source]
) -> dict[str, Data]:
  """Returns the three parts of each zoo, by name.

  Those that are there are looked at first: whatever is wrong with them is said
  before another is made.

  Raises:
    ZooError, ValueError: of `zoos.opened` and `load`, or a zoo that is to be
      made will not have a target.
  """

  def read(source):
    zoo = zoos.opened(source, options.zoo)
    return load(options, zoo, source.name)

  there = [s for s in sources if s.is_there or not s.arguments]
  missing = [s for s in sources if s not in there]
  by_name = {source.name: read(source) for source in there}
  for source in missing:
    for name in options.run.target_names:
      if name not in source.properties():
        raise ValueError(
          f"target {name!r} will be no property of the zoo of {source.word};"
          f" choose of {', '.join(source.properties())}"
        )
  return by_name | {source.name: read(source) for source in missing}


def load(
  options: options_lib.Options, zoo: store.Zoo, name: str = "zoo"
) -> Data:
  """Returns the three parts of one zoo.

  Targets that are classes are still text (see `classified`).

  Raises:
    ZooError: the zoo lacks a property or split.
    ValueError: it has too few members for the split, or other ones in it than
      asked for, or a target is not of the kind that the loss needs.
  """
  run = options.run
  split = parts_lib.split_of(zoo, run)
  members = {part: np.asarray(split.get(part, ()), np.int64) for part in PARTS}
  members = {p: r[_kept(zoo, run, r)] for p, r in members.items()}
  for part, rows in members.items():
    if len(rows) < 2:
      raise ValueError(
        f"split {run.split!r} of {zoo.path} has {len(rows)} valid members in"
        f" its part {part!r}; at least 2 are needed: choose another --split"
        + (" or other --snapshots" if run.snapshots else "")
      )
  used = np.concatenate(list(members.values()))
  values = np.stack([_target(zoo, n, used, run) for n in run.target_names], -1)
  if run.train_share < 1:
    count = max(2, round(run.train_share * len(members["train"])))
    order = np.random.default_rng(run.split_seed).permutation(members["train"])
    members["train"] = np.sort(order[:count])
  specs, labels = np.asarray(zoo.members["spec"]), target_labels(run)
  parts, placed = {}, {}
  makers = zoo.property(MAKER) if MAKER in zoo.properties else None
  for part, rows in members.items():
    parts[part] = Networks(
      *(zoo.specs, specs[rows], zoo.vectors(rows), values[rows], labels),
      makers=None if makers is None else makers[rows],
    )
    placed[part] = Members(np.zeros(len(rows), int), rows)
  return Data((zoo,), (name,), parts, placed)


def assembled(
  options: options_lib.Options, trained: Sequence[Data], tested: Sequence[Data]
) -> Data:
  """Puts zoos together, and adds the test parts of others.

  Args:
    options: of the run.
    trained: of `load`, one zoo each: their parts become one. Where there are
      several, the test part of each is a further part besides.
    tested: likewise; each test part becomes a further part.

  Raises:
    ValueError: of `learning.classes`.
  """
  every = [*trained, *tested]
  parts: dict[str, Networks] = {}
  members: dict[str, Members] = {}

  def add(part, places, of):
    parts[part] = Networks.merged([every[p].parts[of] for p in places])
    rows = [every[p].members[of].row for p in places]
    zoo = np.repeat(places, [len(r) for r in rows])
    members[part] = Members(zoo, np.concatenate(rows))

  for part in PARTS:
    add(part, list(range(len(trained))), part)
  for place in range(0 if len(trained) > 1 else len(trained), len(every)):
    add(part_of(every[place].names[0]), [place], "test")
  data = Data(
    tuple(d.zoos[0] for d in every),
    tuple(d.names[0] for d in every),
    parts,
    members,
  )
  return _classified(data) if options.run.loss == classes.LOSS else data


def _classified(data: Data) -> Data:
  """Numbers the classes of the target, which are those of the training part.

  Raises:
    ValueError: of `learning.classes`.
  """
  names = classes.names_of(data.parts["train"].targets[:, 0])
  parts = {}
  for part, networks in data.parts.items():
    numbers = classes.numbers(names, networks.targets[:, 0], part)
    parts[part] = dataclasses.replace(
      networks, targets=numbers[:, None], classes=names
    )
  return dataclasses.replace(data, parts=parts, classes=names)


def resplit(data: Data, seed: int) -> Data:
  """Draws the parts of the zoo trained on anew, whole networks at a time.

  The parts keep about their sizes. Those of further zoos stay as they are.

  Raises:
    ValueError: several zoos are trained on, or a further one has networks that
      began as those of the first.
  """
  origins = [
    (zoo.provenance.get("generator"), zoo.provenance.get("seed"))
    for zoo in data.zoos
  ]
  for name, other in zip(data.names[1:], origins[1:], strict=True):
    if None not in other and other == origins[0]:
      raise ValueError(
        f"{name} was made with the same seed as {data.names[0]} ({other[1]}):"
        " their networks of equal number begin alike, and a split that is drawn"
        " anew parts them; make it with another --seed, or drop resplit"
      )
  if any(data.members[part].zoo.any() for part in PARTS):
    raise ValueError(
      f"each seed is to draw its own split, but the run is about several zoos"
      f" ({', '.join(data.names)}); name one by --zoo, or drop resplit"
    )
  rows = np.concatenate([data.members[part].row for part in PARTS])
  pool = Networks.merged([data.parts[part] for part in PARTS])
  clusters = _network_numbers(data.zoos[0])[rows]
  ids = data.zoos[0].members["id"][rows]
  sizes = {part: len(data.members[part].row) for part in PARTS}
  drawn = splits.random_split(ids, seed=seed, parts=sizes, groups=clusters)
  place = {name: number for number, name in enumerate(ids)}
  parts, members = dict(data.parts), dict(data.members)
  for part in PARTS:
    chosen = np.array([place[name] for name in drawn[part]])
    parts[part] = pool.take(chosen)
    members[part] = Members(np.zeros(len(chosen), int), rows[chosen])
  return dataclasses.replace(data, parts=parts, members=members)


def flagged(names: Sequence[str], zoos: Sequence[Any]) -> list[str]:
  """Returns how many members of each zoo are flagged, of those where some are.

  Args:
    names: of the zoos.
    zoos: the zoos.
  """
  lines = []
  for name, zoo in zip(names, zoos, strict=True):
    for what, column in (
      ("not valid", "valid"),
      ("not converged", "converged"),
    ):
      values = zoo.members.get(column)
      if values is None or values.dtype != bool or values.all():
        continue
      count = int(np.sum(~values))
      lines.append(f"{count} members of {name} are flagged as {what}.")
  return lines


def fingerprint(data: Data) -> dict[str, str]:
  """Returns checksums of the zoos' files and of the members of every part."""
  sums = {"networks": _digest("".join(map(_checksums, data.zoos)))}
  for part, placed in data.members.items():
    ids = (data.zoos[z].members["id"][r] for z, r in zip(*placed, strict=True))
    sums[f"{part} members"] = _digest("\n".join(ids))
  return sums


def identities(data: Data, parts: Sequence[str]) -> set[str]:
  """Returns what tells the networks of some parts from all others.

  Snapshots of one network are one.
  """
  digests = [_digest(_checksums(zoo))[:12] for zoo in data.zoos]
  names = [
    zoo.property(NETWORK) if NETWORK in zoo.properties else zoo.members["id"]
    for zoo in data.zoos
  ]
  return {
    f"{digests[z]}/{names[z][r]}"
    for part in parts
    for z, r in zip(*data.members[part], strict=True)
  }


def target_labels(run: options_lib.RunOptions) -> tuple[str, ...]:
  """Returns what is predicted, as reports call it: logarithms say so."""
  lead = "log10 " if run.target_scale == "log" else ""
  return tuple(lead + name for name in run.target_names)


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def _checksums(zoo: store.Zoo) -> str:
  """Concatenates the checksums of a zoo's files."""
  index = reading.read_index(zoo.path, zoo.path)
  entries = [*(entry["weights"] for entry in index["specs"])]
  entries.append(index["members"])
  return "".join(e["sha256"] for e in entries)


def _network_numbers(zoo: store.Zoo) -> np.ndarray:
  """Returns for every member a number that snapshots of one network share."""
  if NETWORK in zoo.properties:
    return zoo.property(NETWORK)
  return np.arange(len(zoo.members["id"]))


def _kept(zoo: store.Zoo, run, rows: np.ndarray) -> np.ndarray:
  """Returns which members are of the snapshots that the run is about."""
  if not run.snapshots:
    return np.ones(len(rows), bool)
  epochs = np.asarray(zoo.property("epoch"))
  if run.snapshots == LAST:
    return epochs[rows] == epochs.max()
  return np.isin(epochs[rows], [int(n) for n in config.words(run.snapshots)])


def _target(
  zoo: store.Zoo, name: str, used: np.ndarray, run: options_lib.RunOptions
) -> np.ndarray:
  """Returns a property `[M]` as it is predicted; that of `used` must be there.

  Numbers as they are or their logarithms; classes as text.
  """
  values = zoo.property(name)
  if run.loss == classes.LOSS and values.dtype.kind in "ib":
    return values.astype(np.int64).astype(str)  # Whole numbers are classes.
  is_text = values.dtype.kind not in "fib"
  if is_text != (run.loss == classes.LOSS):
    raise ValueError(
      f"target {name!r} of {zoo.path} is {'text' if is_text else 'a number'},"
      f" and loss is {run.loss}; choose another target, or"
      f" --loss={classes.LOSS if is_text else 'mse'}"
    )
  if is_text:
    return values
  values = np.asarray(values, np.float64)
  missing = used[~np.isfinite(values[used])]
  if missing.size:
    first = zoo.members["id"][missing[0]]
    raise ValueError(
      f"target {name!r} of {zoo.path} is missing for {missing.size} members of"
      f" the split (first: {str(first)!r}); leave them out of the split, or"
      " choose another target"
    )
  if run.target_scale == "linear":
    return values
  wrong = used[values[used] <= 0]
  if wrong.size:
    first = zoo.members["id"][wrong[0]]
    raise ValueError(
      f"target_scale is log, but target {name!r} of {zoo.path} is"
      f" {values[wrong[0]]:g} for {str(first)!r} ({wrong.size} members are not"
      " above 0); use --target_scale=linear"
    )
  return np.log10(values, where=values > 0, out=np.full(len(values), np.nan))
