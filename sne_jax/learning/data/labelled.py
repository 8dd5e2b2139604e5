"""A folder of networks and a table: which file each row is of, who are kin.

Files of one training are not independent: a split keeps them in one part. A
column of the table says which are of one group; where there is none, names of
files do, such as `run3_epoch10.pt` and `run3_epoch20.pt`.

Dimensions: `N` networks, rows of the table.
"""

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from sne_jax import checkpoints
from sne_jax.learning.data import tables

FILE, GROUP = "file", "group"
"""The columns of files and of groups, unless others are named."""

_SNAPSHOT = re.compile(
  r"(?:^|(?<=/)|[-_. ])"
  r"(?:(?:epoch|ep|step|iteration|iter)[-_=. ]?\d+"
  r"|(?:ckpt|checkpoint|snapshot)[-_=. ]?\d*|best|last|final)$",
  re.IGNORECASE,
)
"""What the end of a file's name says of when in a training it was written."""


class Labelled(NamedTuple):
  """Networks that a table names, not read yet.

  Attributes:
    paths: `[N]`, of the files.
    ids: `[N]`, the same within the folder, with slashes.
    columns: `[N]` by name: all of the table but files and groups.
    groups: text `[N]`, equal for networks that must stay together; None: all
      are independent.
    named: whether the names of the files say so, and no column.
    others: checkpoints of the folder that the table does not name.
  """

  paths: list[str]
  ids: list[str]
  columns: dict[str, np.ndarray]
  groups: np.ndarray | None
  named: bool
  others: list[str]

  def chosen(self, targets: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns some of the columns.

    Raises:
      ValueError: there is no such column.
    """
    for name in targets:
      if name not in self.columns:
        raise ValueError(
          f"the table has no column {name!r} to predict; it has"
          f" {', '.join(self.columns) or 'none besides the files'}"
        )
    return {name: self.columns[name] for name in targets}

  def check_targets(self, targets: Sequence[str], loss: str) -> None:
    """Refuses targets that cannot be learned, before anything is read.

    Args:
      targets: names of columns.
      loss: as of `fit`.

    Raises:
      ValueError: no such column, or a cell is missing, or text in a column of
        numbers; text for a loss of numbers; or all values are equal.
    """
    values, _ = tables.values_of(self.chosen(targets), len(self.ids), self.ids)
    classes = loss == "classes"
    for name, column in zip(targets, values.T, strict=True):
      if values.dtype.kind == "U" and not classes:
        raise ValueError(
          f"target {name!r} is text (first: {str(column[0])!r}), and loss is"
          f" {loss}; name a column of numbers, or use loss=classes"
        )
      if len(np.unique(column)) < 2:
        what = "of one class" if classes else "equal"
        raise ValueError(
          f"all {len(column)} values of target {name!r} are {what}"
          f" ({str(column[0])!r}), so there is nothing to learn; name a column"
          " that varies"
        )


def read(
  folder: str | os.PathLike,
  table: Any,
  *,
  files: str = FILE,
  group: str = GROUP,
) -> Labelled:
  """Finds the file of each row, and which networks are of one group.

  Args:
    folder: of the checkpoints, and folders below.
    table: a CSV or Parquet file, a data frame, or a mapping of columns.
    files: name of the column of files: paths in the folder, or names of files,
      with or without their ending.
    group: name of the column of groups, if there is one.

  Raises:
    ValueError: no such folder, column or file, a row without a file or a group,
      or a network that is named twice.
  """
  columns = tables.columns_of(table, files)
  if files not in columns:
    raise ValueError(
      f"the table has no column {files!r}; it has {', '.join(columns)}; name"
      " the one of the files (files=, --file_column)"
    )
  if group != GROUP and group not in columns:
    raise ValueError(
      f"the table has no column {group!r}; it has {', '.join(columns)}"
    )
  for name in filter(columns.__contains__, (files, group)):
    for row, cell in enumerate(columns[name]):
      if tables.is_missing(cell):
        what = "file" if name == files else "group"
        raise ValueError(
          f"the table names no {what} in row {row} (column {name!r}); leave"
          " that row out" + ("" if name == files else ", or name its group")
        )
  names = [str(name) for name in columns.pop(files)]
  if not names:
    raise ValueError("the table has no rows; give one for each network")
  for name, values in columns.items():
    if values.shape != (len(names),):
      raise ValueError(
        f"column {name!r} of the table has shape {values.shape}, but there are"
        f" {len(names)} networks; give one value for each"
      )
  found = checkpoints.find(folder)
  paths = _paths(os.fspath(folder), found, names)
  ids = [os.path.relpath(p, folder).replace(os.sep, "/") for p in paths]
  groups = columns.pop(group).astype(str) if group in columns else None
  named = groups is None
  if named:
    groups = relatives(ids)
  others = sorted(set(found) - set(paths))
  if others:
    logging.info(
      "%d of %d checkpoints in %s are not in the table, and are left alone"
      " (first: %s)",
      *(len(others), len(found), os.fspath(folder), others[0]),
    )
  return Labelled(
    *(paths, ids, columns, groups, named and groups is not None, others)
  )


def relatives(ids: Sequence[str]) -> np.ndarray | None:
  """Returns of which training each file is, as text `[N]`, by its name.

  What says when it was written (`epoch10`, `step=500`, `best`) is left out of
  the name, and the ending. None where no two names are then equal.
  """
  keys = []
  for name in ids:
    key, before = os.path.splitext(name)[0], None
    while key != before:
      before, key = key, _SNAPSHOT.sub("", key)
    keys.append(key.rstrip("/"))
  if len(set(keys)) == len(keys):
    return None
  twice = next(n for n, key in enumerate(keys) if keys.count(key) > 1)
  logging.info(
    "by their names, the %d files are of %d trainings, and those of one stay"
    " together (such as %s, of %r); a column %r of the table would say so"
    " itself",
    *(len(keys), len(set(keys)), ids[twice], keys[twice], GROUP),
  )
  return np.array(keys)


def numbered(groups: np.ndarray) -> np.ndarray:
  """Returns groups as numbers int `[N]`, in the order of their names."""
  return np.unique(groups, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _paths(
  folder: str, found: Sequence[str], wanted: Sequence[str]
) -> list[str]:
  """Returns the file of each name.

  Raises:
    ValueError: one has none, or several have its name; or a name is twice.
  """
  known: dict[str, set[str]] = {}
  for path in found:
    inside, base = os.path.relpath(path, folder), os.path.basename(path)
    for name in (inside, base):
      for key in (name, os.path.splitext(name)[0]):
        known.setdefault(key, set()).add(path)
  missing = [name for name in wanted if os.path.normpath(name) not in known]
  if missing:
    raise ValueError(
      f"the table names {missing[0]!r}, and {folder} holds no such checkpoint"
      f" ({len(missing)} of {len(wanted)} are missing); leave them out"
    )
  each = [known[os.path.normpath(name)] for name in wanted]
  for name, some in zip(wanted, each, strict=True):
    if len(some) > 1:
      raise ValueError(
        f"{name!r} is the name of {len(some)} files in {folder}, such as"
        f" {min(some)}; give paths in the folder"
      )
  paths = [next(iter(some)) for some in each]
  if len(set(paths)) < len(paths):
    twice = next(p for p in paths if paths.count(p) > 1)
    raise ValueError(f"the table names {twice} twice; name each network once")
  return paths
