"""Networks in memory with what is to be predicted of them.

They are made in one call: from files and a table, from a zoo, or from networks
that a program holds.

Dimensions: `N` networks, `P` weights of one, `T` targets.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.learning.data import inputs, labelled, tables
from sne_jax.learning.evaluation import classes
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo.store.store import Zoo

NETWORK = "network"
"""The property that snapshots of one network share."""

MAKER = "maker"
"""The property, or column, that says who made a network."""


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
  """Networks of any specs in memory, with their targets.

  Attributes:
    specs: the architectures.
    numbers: int [N], the spec of each network.
    vectors: N vectors [P].
    targets: [N, T], float64; or text [N, 1], the class of each.
    target_names: of the T targets; empty where nobody has named them.
    classes: the names of the classes whose numbers the targets are; empty for
      targets that are no classes, or still text.
    names: of the networks, such as paths; empty where they have none.
    clusters: int [N], equal for networks whose errors are not independent,
      such as snapshots of one training. None: all are independent.
    makers: [N], who made each, such as a framework whose defaults it has. A
      training with several knows how unlike the networks of a newcomer are.
      None: nobody knows.
  """

  specs: tuple[NetworkSpec, ...]
  numbers: np.ndarray
  vectors: Sequence[np.ndarray]
  targets: np.ndarray
  target_names: tuple[str, ...] = ()
  classes: tuple[str, ...] = ()
  names: tuple[str, ...] = ()
  clusters: np.ndarray | None = None
  makers: np.ndarray | None = None

  @classmethod
  def of(
    cls,
    networks: Any,
    targets: Any = None,
    *,
    names: Sequence[str] = (),
  ) -> "Networks":
    """Collects networks that a program holds, or the files of some.

    Args:
      networks: `(spec, weights [P])`, state_dicts, or paths of files, also
        mixed; see `inputs.network_of`. `Networks` keep what is not given.
      targets: numbers `[N]` or `[N, T]`, a mapping of columns `[N]` by name, or
        a data frame; text `[N]` for classes. None: no targets.
      names: what errors call the networks; paths are their own names.

    Raises:
      ValueError: there are no networks, one is none, or targets are not as many
        as networks, missing, or text among numbers.
    """
    if isinstance(networks, cls):
      return networks._with(targets, tuple(names))
    networks = [networks] if inputs.is_one(networks) else list(networks)
    pairs = inputs.networks_of(networks)
    if not names and all(isinstance(n, (str, os.PathLike)) for n in networks):
      names = [os.fspath(n) for n in networks]
    if names and len(names) != len(pairs):
      raise ValueError(f"{len(pairs)} networks, but {len(names)} names")
    return cls._collected(pairs, tables.columns_of(targets), tuple(names))

  @classmethod
  def from_zoo(
    cls,
    zoo: Zoo | str | os.PathLike,
    targets: str | Sequence[str],
    *,
    split: str = "default",
    part: str = "train",
  ) -> "Networks":
    """Returns the valid members of a part of a zoo's split.

    Snapshots of one network, where the zoo has the property `network`, are a
    cluster; `maker` says who made each.

    Args:
      zoo: a zoo, or its folder.
      targets: the properties to predict, by name.
      split: name of the split.
      part: train, val or test.

    Raises:
      ZooError: no such zoo, split, part or property.
      ValueError: a target is missing, or text among several targets.
    """
    zoo = zoo if isinstance(zoo, Zoo) else Zoo.open(zoo)
    rows = zoo.select(split=split, part=part)
    targets = [targets] if isinstance(targets, str) else list(targets)
    columns = {name: zoo.property(name)[rows] for name in targets}
    names = tuple(str(name) for name in zoo.members["id"][rows])
    values, labels = tables.values_of(columns, len(rows), names)
    specs, numbers = _used(zoo.specs, np.asarray(zoo.members["spec"])[rows])
    clusters = None
    if NETWORK in zoo.properties:
      networks = zoo.property(NETWORK)[rows]
      clusters = np.unique(networks, return_inverse=True)[1].reshape(-1)
    makers = zoo.property(MAKER)[rows] if MAKER in zoo.properties else None
    return cls(
      *(specs, numbers, zoo.vectors(rows), values, labels),
      names=names,
      clusters=clusters,
      makers=makers,
    )

  @classmethod
  def from_files(
    cls,
    folder: str | os.PathLike,
    table: Any,
    targets: str | Sequence[str] | None = None,
    *,
    files: str = labelled.FILE,
    group: str = labelled.GROUP,
    override: Mapping[str, Any] | None = None,
    skip_unreadable: bool = False,
  ) -> "Networks":
    """Reads the files that a table names, and their targets.

    Args:
      folder: of the checkpoints, and folders below; files of any format.
      table: a CSV or Parquet file, a data frame, or a mapping of columns. It
        has one row for each network; files that it does not name are left.
      targets: names of the columns to predict; None: all but `files` and
        `group`.
      files: name of the column of files: paths in the folder, or names of
        files, with or without their ending.
      group: name of the column that says which networks are kin, such as
        snapshots of one training: a cluster. Where there is none, names of
        files say it (`labelled.relatives`).
      override: settles what names and shapes of tensors do not, for all files
        alike; see `networks.inference.override`.
      skip_unreadable: leave out files that cannot be read, whatever is wrong
        with them, each with a warning that says it.

    Raises:
      CheckpointError: a file cannot be read.
      ValueError: no such column, a name without a file, or as `of`; or every
        file was left out.
    """
    given = labelled.read(folder, table, files=files, group=group)
    wanted = [targets] if isinstance(targets, str) else targets
    wanted = list(given.columns) if wanted is None else wanted
    columns = given.chosen(wanted)
    paths = given.paths
    pairs, kept = inputs.networks_of_files(paths, override, skip_unreadable)
    chosen = {name: values[kept] for name, values in columns.items()}
    names = tuple(paths[row] for row in kept)
    networks = cls._collected(pairs, chosen, names)
    if given.groups is None:
      return networks
    clusters = labelled.numbered(given.groups[kept])
    return dataclasses.replace(networks, clusters=clusters)

  @classmethod
  def merged(cls, parts: Sequence["Networks"]) -> "Networks":
    """Returns the networks of all parts, each spec once.

    Networks of two parts are never of one cluster.

    Raises:
      ValueError: there are no parts, or their targets or classes differ.
    """
    if not parts:
      raise ValueError("there are no parts to merge; give at least one")
    for part in parts:
      for what in ("labels", "classes"):
        first, other = (getattr(p, what) for p in (parts[0], part))
        if first != other:
          raise ValueError(
            f"the {what} of two parts are {first} and {other}; merge parts with"
            " the same"
          )
    specs = tuple(dict.fromkeys(spec for part in parts for spec in part.specs))
    place = {spec: number for number, spec in enumerate(specs)}
    return cls(
      specs,
      np.concatenate(
        [np.array([place[s] for s in p.specs])[p.numbers] for p in parts]
      ),
      [vector for part in parts for vector in part.vectors],
      np.concatenate([part.targets for part in parts]),
      parts[0].target_names,
      parts[0].classes,
      names=sum((part.names for part in parts), ())
      if all(part.names for part in parts)
      else (),
      clusters=_joined_clusters(parts),
      makers=_joined_makers(parts),
    )

  @classmethod
  def _collected(cls, pairs, columns, names) -> "Networks":
    """Returns `(spec, weights)` with columns as targets."""
    values, labels = tables.values_of(columns, len(pairs), names)
    specs = tuple(dict.fromkeys(spec for spec, _ in pairs))
    place = {spec: number for number, spec in enumerate(specs)}
    numbers = np.array([place[spec] for spec, _ in pairs])
    vectors = [
      inputs.vector_of(spec, weights, names[n] if names else f"network {n}")
      for n, (spec, weights) in enumerate(pairs)
    ]
    return cls(specs, numbers, vectors, values, labels, names=names)

  def _with(self, targets: Any, names: tuple[str, ...]) -> "Networks":
    """Returns these networks with other targets or names, where given."""
    if names and len(names) != len(self):
      raise ValueError(f"{len(self)} networks, but {len(names)} names")
    networks = dataclasses.replace(self, names=names or self.names)
    if targets is None:
      return networks
    values, labels = tables.values_of(
      tables.columns_of(targets), len(self), networks.names
    )
    return dataclasses.replace(
      networks, targets=values, target_names=labels, classes=()
    )

  def __len__(self) -> int:
    """Number of networks."""
    return len(self.numbers)

  @property
  def labels(self) -> tuple[str, ...]:
    """The names of the targets; numbers where nobody has named them."""
    count = self.targets.shape[1]
    numbered = ("target",) if count == 1 else range(count)
    return self.target_names or tuple(
      name if isinstance(name, str) else f"target {name}" for name in numbered
    )

  def pairs(self) -> list[tuple[NetworkSpec, np.ndarray]]:
    """Returns `(spec, weights [P])` of every network."""
    return [
      (self.specs[n], np.asarray(v))
      for n, v in zip(self.numbers, self.vectors, strict=True)
    ]

  def take(self, rows: Sequence[int] | np.ndarray) -> "Networks":
    """Returns some of the networks, by their places.

    Specs that none of them uses are left out, so `numbers` count anew: a packer
    of all specs takes `numbers[rows]`, not those of the part.
    """
    rows = np.asarray(rows, int)
    specs, numbers = _used(self.specs, self.numbers[rows])
    return dataclasses.replace(
      self,
      specs=specs,
      numbers=numbers,
      vectors=[self.vectors[row] for row in rows],
      targets=self.targets[rows],
      names=tuple(self.names[row] for row in rows) if self.names else (),
      clusters=None if self.clusters is None else self.clusters[rows],
      makers=None if self.makers is None else self.makers[rows],
    )

  def split(self, *shares: float, seed: int = 0) -> list["Networks"]:
    """Splits them at random, for training, validation and test.

    Clusters stay whole.

    Args:
      *shares: of all networks, above 0, that each part gets; what is left is
        the last part.
      seed: of the draw.

    Raises:
      ValueError: shares sum to 1 or more, or a part would be empty.
    """
    if not shares or min(shares) <= 0 or sum(shares) >= 1:
      raise ValueError(
        f"shares are {shares}; give one or more above 0 whose sum is below 1"
      )
    clusters = np.arange(len(self)) if self.clusters is None else self.clusters
    known = np.unique(clusters)
    order = np.random.default_rng(seed).permutation(known)
    ends = np.round(np.cumsum(shares) * len(order)).astype(int)
    parts = np.split(order, ends)
    if not all(map(len, parts)):
      raise ValueError(
        f"{len(order)} networks are too few for the shares {shares}"
      )
    return [self.take(np.flatnonzero(np.isin(clusters, p))) for p in parts]

  def classified(self, names: Sequence[str]) -> "Networks":
    """Returns networks whose classes are numbers: places in `names`.

    Raises:
      ValueError: a network is of another class, or targets are no classes.
    """
    names = tuple(names)
    if names and self.classes == names:
      return self
    numbers = classes.numbers(names, self.class_names())[:, None]
    return dataclasses.replace(self, targets=numbers, classes=names)

  def class_names(self) -> np.ndarray:
    """Returns the class of each network as text `[N]`; of integers, theirs.

    Raises:
      ValueError: targets are no classes.
    """
    if self.classes:
      return np.array(self.classes)[self.targets[:, 0].astype(int)]
    if self.targets.shape[1] == 1:
      values = self.targets[:, 0]
      if values.dtype.kind == "U":
        return values
      if (values == np.round(values)).all():
        return values.astype(int).astype(str)
    raise ValueError(
      f"{', '.join(self.labels)}: numbers, and loss is {classes.LOSS}; give"
      " one column of text or of integers, or another loss"
    )


def _used(specs, numbers) -> tuple[tuple[NetworkSpec, ...], np.ndarray]:
  """Returns the specs that are used, and their numbers among these."""
  used, numbers = np.unique(numbers, return_inverse=True)
  return tuple(specs[number] for number in used), numbers.reshape(-1)


def _joined_clusters(parts: Sequence[Networks]) -> np.ndarray | None:
  """Returns the clusters of all parts; None where no part has any."""
  if all(part.clusters is None for part in parts):
    return None
  clusters, first = [], 0
  for part in parts:
    each = np.arange(len(part)) if part.clusters is None else part.clusters
    numbers = np.unique(each, return_inverse=True)[1].reshape(-1)
    clusters.append(first + numbers)
    first += len(np.unique(numbers))
  return np.concatenate(clusters)


def _joined_makers(parts: Sequence[Networks]) -> np.ndarray | None:
  """Returns the makers of all parts; None where one does not know its own."""
  makers = [part.makers for part in parts if part.makers is not None]
  return np.concatenate(makers) if len(makers) == len(parts) else None
