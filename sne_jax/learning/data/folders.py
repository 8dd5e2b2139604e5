"""Converts a folder of networks and their table into a zoo, once.

The zoo has every column of the table as a property, the groups as the property
`network`, and a split `default` that keeps groups whole. It depends on files
and rows, not on their order. A conversion that was stopped resumes.

Dimensions: `N` networks.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from sne_jax import digests, errors, room
from sne_jax.checkpoints import foreign
from sne_jax.checkpoints.formats import shards
from sne_jax.learning.data import inputs, labelled, tables
from sne_jax.learning.data.dataset import NETWORK
from sne_jax.zoo.public import conversion, listing
from sne_jax.zoo.public import source as source_lib
from sne_jax.zoo.store import partial, reading, splits, store

GENERATOR = __name__
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
"""Of all networks, by part of the split `default`."""

LEAST = 2
"""Networks that every part needs."""

PUBLISHED = source_lib.Published(
  title="Networks of a folder",
  reference="",
  url="",
  licence="unknown",
  protocol="Split `default`: 70/15/15, all networks of a group in one part.",
)


def zoo_of_files(
  folder: str | os.PathLike,
  table: Any,
  out: str | os.PathLike,
  *,
  targets: str | Sequence[str] = (),
  loss: str = "mse",
  files: str = labelled.FILE,
  group: str = labelled.GROUP,
  override: Mapping[str, Any] | None = None,
  skip_unreadable: bool = False,
  progress: partial.Progress | None = None,
) -> store.Zoo:
  """Converts networks that a table names into a zoo, or opens it.

  What is wrong with the table is said before any network is read. A zoo of
  other networks, or another table, is refused.

  Args:
    folder: of the checkpoints, and folders below; files of any format.
    table: as for `Networks.from_files`.
    out: folder of the zoo.
    targets: columns that are going to be predicted, and are checked for it.
    loss: with which.
    files: as for `Networks.from_files`.
    group: likewise.
    override: likewise.
    skip_unreadable: leave out files that cannot be read, each with a warning;
      the zoo's provenance lists them.
    progress: is told the networks that are read.

  Returns:
    The zoo, opened.

  Raises:
    ValueError: table and folder, or the targets, do not go together, or the
      networks are too few for three parts.
    ZooError: a file cannot be read, or `out` holds something else.
  """
  given = labelled.read(folder, table, files=files, group=group)
  wanted = [targets] if isinstance(targets, str) else list(targets)
  given.check_targets(wanted, loss)
  taken = (*reading.OWN_COLUMNS, NETWORK)
  for name in filter(taken.__contains__, wanted):
    raise ValueError(
      f"target {name!r} has a name that zoos use themselves"
      f" ({', '.join(taken)}); rename the column"
    )
  order = sorted(range(len(given.ids)), key=lambda n: _natural(given.ids[n]))
  ids = [given.ids[n] for n in order]
  paths = [given.paths[n] for n in order]
  groups = None
  if given.groups is not None:
    groups = labelled.numbered(given.groups)[order]
  drawn(ids, groups)  # Raises.
  columns = _properties(given, taken, order)
  descriptions = dict.fromkeys(columns, "column of the table")
  if groups is not None:
    columns[NETWORK] = groups
    how = "names of the files" if given.named else f"column {group!r}"
    descriptions[NETWORK] = f"number of the group, by the {how}"

  def read(number: int) -> source_lib.Network:
    return _read(paths[number], override, skip_unreadable)

  def split(kept: np.ndarray) -> source_lib.Splits:
    some = None if groups is None else groups[kept]
    return {"default": drawn(np.array(ids)[kept].tolist(), some)}

  zoo = conversion.convert(
    out,
    source_lib.Source(
      generator=GENERATOR,
      published=PUBLISHED,
      options={
        "files": listing.digest(
          [(n, _content(p)) for n, p in zip(ids, paths, strict=True)]
        ),
        "table": listing.digest(
          [(name, values.tolist()) for name, values in sorted(columns.items())]
        ),
        "override": json.dumps(override, sort_keys=True) if override else "",
      },
      ids=ids,
      read=read,
      columns=columns,
      descriptions=descriptions,
      splits=split,
      facts={
        "folder": os.path.abspath(folder),
        "not in the table": len(given.others),
        "groups": 0 if groups is None else len(np.unique(groups)),
        "groups by names": given.named,
      },
    ),
    progress=progress,
  )
  _check_left_out(zoo, skip_unreadable)
  return zoo


def drawn(
  ids: Sequence[str],
  groups: np.ndarray | None,
  *,
  seed: int = 0,
  parts: Mapping[str, int | float] = SHARES,
) -> dict[str, np.ndarray]:
  """Returns the ids of each part of a split; no group is parted.

  Args:
    ids: of the networks `[N]`.
    groups: of each `[N]`; None: all are independent.
    seed: of the draw.
    parts: as of `splits.random_split`.

  Raises:
    ValueError: some part would have fewer than `LEAST` networks.
  """
  of = ""
  if groups is not None:
    of = f" in {len(np.unique(groups))} groups, which stay whole,"
  asked = {part: size for part, size in parts.items() if size}
  try:
    chosen = splits.random_split(ids, seed=seed, parts=asked, groups=groups)
  except ValueError:
    chosen = {}
  sizes = {part: len(chosen.get(part, ())) for part in parts}
  if min(sizes.values()) < LEAST:
    raise ValueError(
      f"{len(ids)} networks{of} are too few for the parts {', '.join(parts)},"
      f" of which each needs {LEAST}; give more (20 suffice where each is by"
      " itself)"
    )
  return chosen


def remarks(zoo: store.Zoo) -> list[str]:
  """Returns what a report is to say of how a zoo was made; [] of others."""
  facts = zoo.provenance
  if facts.get("generator") != GENERATOR:
    return []
  lines = []
  if facts["groups by names"]:
    lines.append(
      f"By the names of their files, the networks are of {facts['groups']}"
      " trainings, and those of one training are in one part. A column"
      f" `{labelled.GROUP}` of the table would say so itself."
    )
  elif facts["groups"]:
    lines.append(f"Networks of a group ({facts['groups']}) are in one part.")
  else:
    lines.append(
      "Every network counts as independent: the table has no column"
      f" `{labelled.GROUP}`, and the files' names show no kin."
    )
  if facts["not in the table"]:
    lines.append(
      f"{facts['not in the table']} checkpoints of the folder are not in the"
      " table, and take no part."
    )
  for entry in facts["left_out"]:
    names = ", ".join(entry["names"])
    more = " and others" if entry["count"] > len(entry["names"]) else ""
    lines.append(
      f"**{entry['count']} left out**: {names}{more}: {entry['reason']}."
    )
  return lines


def _natural(name: str) -> tuple:
  """Sorts numbers in names as numbers; of equal ones, by the name."""
  return foreign.natural(name), name


def _properties(
  given: labelled.Labelled, taken: Sequence[str], order: Sequence[int]
) -> dict[str, Any]:
  """Returns the columns of a table as a zoo holds them."""
  left = [name for name in given.columns if name in taken]
  if left:
    logging.warning(
      "column %s of the table is left out: zoos use that name themselves;"
      " rename it to keep it",
      " and ".join(left),
    )
  columns = {}
  for name, values in given.columns.items():
    if name in left:
      continue
    if values.dtype.kind not in "fiub":
      cells = ["" if tables.is_missing(v) else str(v) for v in values]
      values = np.array(cells, str)
    columns[name] = values[order]
  return columns


def _read(path: str, override, skip_unreadable: bool) -> source_lib.Network:
  """Reads one network; leaves it out where that is chosen.

  Raises:
    ZooError: it cannot be read.
    source_lib.LeftOut: the same, and it is to be left out.
  """
  try:
    spec, weights = inputs.network_of(path, path, override=override)
    return source_lib.Network(spec, inputs.vector_of(spec, weights, path))
  except Exception as error:
    if room.shortage(error) in room.OF_FILES:
      raise
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__} "
    why = " ".join(f"{kind}{error}".split()).removeprefix(f"{path}: ")
    if skip_unreadable:
      logging.warning("left out: %s: %s", path, why)
      raise source_lib.LeftOut(why[:300]) from error
    raise errors.ZooError(
      f"{path}: {why}; or leave out what cannot be read: --skip_unreadable"
      " (skip_unreadable=True)"
    ) from error


def _content(path: str) -> str:
  """Returns a checksum of a checkpoint: a file, its shards, or a folder."""
  if os.path.isdir(path):
    inside = [
      os.path.join(where, name)
      for where, _, names in os.walk(path)
      for name in names
    ]
  else:
    beside = shards.names(path) if path.endswith(shards.SUFFIX) else ()
    inside = [path, *(os.path.join(os.path.dirname(path), n) for n in beside)]
  return listing.digest(
    (os.path.relpath(file, path), digests.of_file(file))
    for file in sorted(filter(os.path.isfile, inside))
  )


def _check_left_out(zoo: store.Zoo, skip_unreadable: bool) -> None:
  """Says what a zoo lacks; refuses that where it was not chosen.

  Raises:
    ValueError: it lacks some, and they were not to be left out.
  """
  lacking = [
    (name, entry["reason"])
    for entry in zoo.provenance["left_out"]
    for name in entry["names"]
  ]
  if not lacking:
    return
  count = sum(entry["count"] for entry in zoo.provenance["left_out"])
  if not skip_unreadable:
    raise ValueError(
      f"{zoo.path} was made without {count} files that could not be read"
      f" (first: {lacking[0][0]}); use it so by --skip_unreadable"
      " (skip_unreadable=True), or mend them and choose another folder"
    )
  logging.warning("%d files were left out: %s", count, _listed(lacking))


def _listed(lacking: Sequence[tuple[str, str]]) -> str:
  return "; ".join(f"{name} ({why})" for name, why in lacking)
