"""From zoo folders to networks with targets, in parts.

The parts `train`, `val` and `test` are of the zoos that a run is about, put
together; a further zoo gives a part of its own to be tested on.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.cli import options as options_lib
from experiments.tasks import zoos
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import classes
from sne_jax.zoo.classifiers import properties
from sne_jax.zoo.inrs import generate
from sne_jax.zoo.store import splits, store, writing

NETWORK = "network"
"""The property that snapshots of one network share."""

PARTS = ("train", "val", "test")
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
    number = np.array(row)
    for z in np.unique(zoo):
      own = zoo == z
      if NETWORK in self.zoos[z].properties:
        number[own] = self.zoos[z].property(NETWORK)[row[own]]
    pairs = np.stack([zoo, number], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)

  def sizes(self) -> dict[str, int]:
    """Returns the number of members of every part."""
    return {part: len(found.row) for part, found in self.members.items()}

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
  own = zoos.sources(run.zoo, run.data_dir)
  others = ()
  if run.test_zoos:
    others = zoos.sources(run.test_zoos, run.data_dir)
    twice = {s.name for s in own} & {s.name for s in others}
    if twice:
      raise ValueError(
        f"{min(twice)} is in zoo and in test_zoos; its test part is tested on"
        " anyway"
      )
  found = loaded(options, (*own, *others))
  return assembled(
    options, [found[s.name] for s in own], [found[s.name] for s in others]
  )


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
  known = properties.PROPERTIES

  def read(source):
    zoo = zoos.opened(source, options.zoo)
    return load(options, zoo, source.name)

  there = [s for s in sources if s.is_there or not s.arguments]
  left = [s for s in sources if s not in there]
  found = {source.name: read(source) for source in there}
  for name in target_names(options.run) if left else ():
    if name not in known:
      raise ValueError(
        f"target {name!r} will be no property of the zoo of {left[0].word};"
        f" choose of {', '.join(known)}"
      )
  return found | {source.name: read(source) for source in left}


def assembled(
  options: options_lib.Options, own: Sequence[Data], others: Sequence[Data]
) -> Data:
  """Returns the networks of a run whose zoos are loaded; see `joined`.

  Raises:
    ValueError: of `learning.classes`.
  """
  data = joined(own, others)
  return classified(data) if options.run.loss == classes.LOSS else data


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
  split = _split(zoo, run)
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
  values = np.stack([_target(zoo, n, used, run) for n in target_names(run)], -1)
  if run.train_share < 1:
    count = max(2, round(run.train_share * len(members["train"])))
    order = np.random.default_rng(run.split_seed).permutation(members["train"])
    members["train"] = np.sort(order[:count])
  specs = np.asarray(zoo.members["spec"])
  parts = {
    part: Networks(
      zoo.specs,
      specs[rows],
      zoo.vectors(rows),
      values[rows],
      target_labels(run),
    )
    for part, rows in members.items()
  }
  placed = {p: Members(np.zeros(len(r), int), r) for p, r in members.items()}
  return Data((zoo,), (name,), parts, placed)


def joined(own: Sequence[Data], others: Sequence[Data] = ()) -> Data:
  """Puts zoos together, and adds the test parts of others.

  Args:
    own: of `load`, one zoo each: their parts become one. Where there are
      several, the test part of each is a part of its own besides.
    others: likewise; each test part becomes a part of its own.
  """
  every = [*own, *others]
  parts: dict[str, Networks] = {}
  members: dict[str, Members] = {}

  def add(part, places, of):
    parts[part] = Networks.merged([every[p].parts[of] for p in places])
    rows = [every[p].members[of].row for p in places]
    zoo = np.repeat(places, [len(r) for r in rows])
    members[part] = Members(zoo, np.concatenate(rows))

  for part in PARTS:
    add(part, list(range(len(own))), part)
  for place in range(0 if len(own) > 1 else len(own), len(every)):
    add(part_of(every[place].names[0]), [place], "test")
  return Data(
    tuple(d.zoos[0] for d in every),
    tuple(d.names[0] for d in every),
    parts,
    members,
  )


def classified(data: Data) -> Data:
  """Numbers the classes of the target, which are those of the training part.

  Raises:
    ValueError: of `learning.classes`.
  """
  parts = {
    part: networks.targets[:, 0] for part, networks in data.parts.items()
  }
  names = classes.names_of(parts["train"])
  numbers = {p: classes.numbers(names, v, p) for p, v in parts.items()}
  classified = {
    part: dataclasses.replace(
      networks, targets=numbers[part][:, None], classes=names
    )
    for part, networks in data.parts.items()
  }
  return dataclasses.replace(data, parts=classified, classes=names)


def resplit(data: Data, seed: int) -> Data:
  """Draws the parts of a run's own zoo anew, whole networks at a time.

  The parts keep about their sizes. Those of further zoos stay as they are.

  Raises:
    ValueError: the run has several zoos of its own, or a further one has
      networks that began as those of its own.
  """
  made = [
    (zoo.provenance.get("generator"), zoo.provenance.get("seed"))
    for zoo in data.zoos
  ]
  for name, other in zip(data.names[1:], made[1:], strict=True):
    if None not in other and other == made[0]:
      raise ValueError(
        f"{name} was made with the same seed as {data.names[0]} ({other[1]}):"
        " their networks of equal number begin alike, and a split that is drawn"
        " anew parts them; make it with another --seed, or drop resplit"
      )
  own = [np.unique(data.members[part].zoo).tolist() for part in PARTS]
  if own != [[0]] * len(PARTS):
    raise ValueError(
      f"each seed is to draw its own split, but the run is about several zoos"
      f" ({', '.join(data.names)}); name one by --zoo, or drop resplit"
    )
  rows = np.concatenate([data.members[part].row for part in PARTS])
  pool = Networks.merged([data.parts[part] for part in PARTS])
  clusters = rows
  if NETWORK in data.zoos[0].properties:
    clusters = data.zoos[0].property(NETWORK)[rows]
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


def fingerprint(data: Data) -> dict[str, str]:
  """Returns checksums of the zoos' files and of the members of every part."""
  digest = hashlib.sha256()
  for zoo in data.zoos:
    digest.update(_checksums(zoo).encode())
  return {"networks": digest.hexdigest()} | {
    f"{part} members": hashlib.sha256(
      "\n".join(
        data.zoos[z].members["id"][r] for z, r in zip(*m, strict=True)
      ).encode()
    ).hexdigest()
    for part, m in data.members.items()
  }


def identities(data: Data, parts: Sequence[str]) -> set[str]:
  """Returns what tells the networks of some parts from all others.

  Snapshots of one network are one.
  """
  digests = [
    hashlib.sha256(_checksums(zoo).encode()).hexdigest()[:12]
    for zoo in data.zoos
  ]
  names = [
    zoo.property(NETWORK) if NETWORK in zoo.properties else zoo.members["id"]
    for zoo in data.zoos
  ]
  return {
    f"{digests[z]}/{names[z][r]}"
    for part in parts
    for z, r in zip(*data.members[part], strict=True)
  }


def target_names(run: options_lib.RunOptions) -> tuple[str, ...]:
  """Returns the properties to predict."""
  return run.target_names


def target_labels(run: options_lib.RunOptions) -> tuple[str, ...]:
  """Returns what is predicted, as reports call it: logarithms say so."""
  lead = "log10 " if run.target_scale == "log" else ""
  return tuple(lead + name for name in target_names(run))


def _checksums(zoo: store.Zoo) -> str:
  """Returns the checksums of a zoo's files, end to end."""
  index = json.loads((pathlib.Path(zoo.path) / "zoo.json").read_text())
  entries = [*(entry["weights"] for entry in index["specs"])]
  entries.append(index["members"])
  return "".join(e["sha256"] for e in entries)


def _kept(zoo: store.Zoo, run, rows: np.ndarray) -> np.ndarray:
  """Returns which members are of the snapshots that the run is about."""
  if not run.snapshots:
    return np.ones(len(rows), bool)
  epochs = np.asarray(zoo.property("epoch"))
  wanted = run.snapshots
  if wanted == LAST:
    return epochs[rows] == epochs.max()
  return np.isin(epochs[rows], [int(word) for word in wanted.split(",")])


def _target(
  zoo: store.Zoo, name: str, used: np.ndarray, run: options_lib.RunOptions
) -> np.ndarray:
  """Returns a property `[M]` as it is predicted; that of `used` must be there.

  Numbers as they are or their logarithms; classes as text.
  """
  values = zoo.property(name)
  is_text = values.dtype.kind not in "fib"
  if run.loss == classes.LOSS:
    if not is_text:
      raise ValueError(
        f"target {name!r} of {zoo.path} is a number, and loss is {run.loss};"
        " choose a property that is text, or --loss=mse"
      )
    return values
  if is_text:
    raise ValueError(
      f"target {name!r} of {zoo.path} is text; choose a property of numbers, or"
      f" --loss={classes.LOSS}"
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
  if run.target_scale == "log":
    return _logarithm(zoo, name, values, used)
  return values


def _logarithm(zoo: store.Zoo, name: str, values, used) -> np.ndarray:
  """Returns the logarithm `[M]` to base 10; nan where nobody asks for it."""
  wrong = used[values[used] <= 0]
  if wrong.size:
    first = zoo.members["id"][wrong[0]]
    raise ValueError(
      f"target_scale is log, but target {name!r} of {zoo.path} is"
      f" {values[wrong[0]]:g} for {str(first)!r} ({wrong.size} members are not"
      " above 0); use --target_scale=linear"
    )
  return np.log10(values, where=values > 0, out=np.full(len(values), np.nan))


def _split(zoo: store.Zoo, run: options_lib.RunOptions):
  """Returns the split of a run, drawn where the zoo has none of that name."""
  own = zoo.provenance.get("generator") == generate.GENERATOR
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
      f"{zoo.path} has {len(valid)} valid members, but train_members,"
      f" validation_members and test_members ask for {sum(sizes.values())};"
      " ask for fewer or make a larger zoo (--zoo_num_networks)"
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
  found = zoo.split(run.split)
  if any(set(ids[found.get(p, [])]) != set(parts[p]) for p in parts):
    there = ", ".join(f"{len(rows)} {part}" for part, rows in found.items())
    raise ValueError(
      f"split {run.split!r} of {zoo.path} has {there} members, and not those"
      f" that split_seed, train_members, validation_members and test_members"
      " ask for; name another with --split, and it will be drawn"
    )
  return found
