"""Orbax checkpoints: folders, as orbax.checkpoint writes them.

The description of the tree is read first, and checked; arrays are restored
one by one, onto the host, whatever devices they were on. No class that the
checkpoint names is imported.
"""

import functools
import os
from typing import Any

import numpy as np

from sne_jax import errors
from sne_jax.checkpoints import foreign, trees
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import DTYPES, Entry, Tensors, add

TREE = "_METADATA"
"""File of a folder that holds a tree."""

STEP = "_CHECKPOINT_METADATA"
"""File of a folder that holds trees, each in a folder of its own."""

FORBIDDEN = ("\\", "\0")


def tree_folders(folder: str) -> list[str]:
  """Returns the folders of trees of one checkpoint; empty if it is none.

  `folder` holds the tree itself, or is a step of a manager, in which every
  item is a folder.
  """
  if os.path.isfile(os.path.join(folder, TREE)):
    return [folder]
  if not os.path.isfile(os.path.join(folder, STEP)):
    return []
  inner = sorted(
    entry.path
    for entry in os.scandir(folder)
    if entry.is_dir(follow_symlinks=False)
  )
  return [path for path in inner if os.path.isfile(os.path.join(path, TREE))]


def read(folder: str, limits: Limits) -> Tensors:
  """Opens an Orbax checkpoint; names are joined by slashes.

  A trainer's state (optimizer, step) is left out. Metadata: `left_out`,
  `values`, as of `trees.variables`.

  Raises:
    CheckpointError: the folder is damaged or hostile, or holds several trees.
  """
  folders = tree_folders(folder)
  if len(folders) != 1:
    names = ", ".join(os.path.basename(path) for path in folders) or "none"
    raise errors.unreadable(
      folder,
      f"it holds {len(folders)} trees ({names})",
      "name the folder of one",
    )
  path = folders[0]
  budget = Budget(path, limits)
  stored = _folder_size(path, budget)
  tree = _described(path, budget)
  is_tensor = lambda value: hasattr(value, "shape") and hasattr(value, "dtype")
  everything = trees.leaves(tree, budget)
  taken, metadata = trees.variables(everything, is_tensor, budget)
  entries: dict[str, Entry] = {}
  for names, leaf in taken:
    name = "/".join(names) or "tensor"
    dtype, shape = str(np.dtype(leaf.dtype)), tuple(leaf.shape)
    if dtype not in DTYPES or not foreign.is_shape(shape):
      raise errors.unreadable(
        path, f"array {name!r} of {dtype}{list(shape)} is none"
      )
    load = functools.partial(_load, path, tree, names)
    add(entries, Entry(name, shape, dtype, load), budget, stored)
  return Tensors(entries, "orbax", folder, metadata)


def _folder_size(path: str, budget: Budget) -> int:
  """Returns the bytes of the files below; refuses links."""
  total, count = 0, 0
  for where, folders, files in os.walk(path):
    for name in (*folders, *files):
      file = os.path.join(where, name)
      if os.path.islink(file):
        raise errors.unreadable(
          path, f"{name!r} in it is a link", "put the file itself there"
        )
    count += len(files)
    if count > 10 * budget.limits.max_entries:
      raise budget.fault("too many files in it", "max_entries")
    total += sum(os.lstat(os.path.join(where, name)).st_size for name in files)
  return total


def _described(path: str, budget: Budget) -> Any:
  """Returns the tree of descriptions of arrays, checked before it is used."""
  file = os.path.join(path, TREE)
  budget.check_header(TREE, foreign.file_size(file))
  with open(file, "rb") as handle:
    table = foreign.parse_json(handle.read(), file, "it")
  leaves = table.get("tree_metadata") if isinstance(table, dict) else None
  if not isinstance(leaves, dict):
    raise errors.unreadable(file, "it describes no tree")
  if len(leaves) > budget.limits.max_entries:
    raise budget.fault(f"{len(leaves)} leaves", "max_entries")
  for leaf in leaves.values():
    keys = leaf.get("key_metadata") if isinstance(leaf, dict) else None
    for key in keys if isinstance(keys, list) else [None]:
      name = key.get("key") if isinstance(key, dict) else None
      if not isinstance(name, str | int) or _leads_out(str(name)):
        raise errors.unreadable(file, f"a leaf is called {name!r}")
  with foreign.guard(path, "a damaged Orbax checkpoint"):
    metadata = _checkpointer().metadata(path).item_metadata
    if metadata is None:
      raise ValueError("no description of a tree")
    return metadata.tree


def _leads_out(name: str) -> bool:
  """Whether a key, which may be a path (Flax's norms of weights), leads out."""
  out = not {"", ".", ".."}.isdisjoint(name.split("/"))
  return out or any(c in name for c in FORBIDDEN)


def _checkpointer():
  import orbax.checkpoint as ocp

  return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


def _load(path: str, tree: Any, names: tuple[str, ...]) -> np.ndarray:
  """Restores one array, onto the host."""
  import orbax.checkpoint as ocp

  with foreign.guard(path, f"array {'/'.join(names)!r} cannot be read"):
    item = _only(tree, names, 0, ocp.PLACEHOLDER)
    how = _only(
      tree, names, ocp.RestoreArgs(restore_type=np.ndarray), ocp.RestoreArgs()
    )
    args = ocp.args.PyTreeRestore(item=item, restore_args=how)
    node = _checkpointer().restore(path, args=args)
    for name in names:
      node = node[int(name) if isinstance(node, list | tuple) else name]
    return np.asarray(node)


def _only(tree: Any, names: tuple[str, ...], this: Any, other: Any) -> Any:
  """Returns a tree with `this` at one leaf and `other` at all others."""
  if isinstance(tree, dict):
    return {
      key: _only(value, names[1:], this, other)
      if names and str(key) == names[0]
      else _only(value, (), other, other)
      for key, value in tree.items()
    }
  if isinstance(tree, list | tuple):
    return [
      _only(value, names[1:], this, other)
      if names and str(key) == names[0]
      else _only(value, (), other, other)
      for key, value in enumerate(tree)
    ]
  return this
