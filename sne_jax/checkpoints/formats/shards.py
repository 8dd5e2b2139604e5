"""Sharded checkpoints: an index that says which file has which tensor.

References:
  The layout that huggingface_hub writes, `model.safetensors.index.json`.
"""

import os
import re
from collections.abc import Callable

from sne_jax import errors
from sne_jax.checkpoints import foreign
from sne_jax.checkpoints.foreign import natural
from sne_jax.checkpoints.formats import archive
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import Tensors, retied

SUFFIX = ".index.json"

_SHARD = re.compile(r"(.*)-(\d{2,5})-of-(\d{2,5})(\.\w+)")


def read(
  path: str, read_shard: Callable[[str], Tensors], limits: Limits
) -> Tensors:
  """Opens all shards of an index.

  The order is that of the tensors' names, numbers in them as numbers: shards
  are filled by size, and say nothing of the order of layers. So a set of
  several is as one of safetensors, whatever its files are: of the same
  kernels, in no order. Metadata: that of the first shard; `left_out` has
  tensors that are in a shard but not in the index.

  Args:
    path: the index.
    read_shard: opens one shard.
    limits: of the whole.

  Raises:
    CheckpointError: the index is damaged, a shard is missing, lies elsewhere
      or has not the tensors that the index says.
  """
  budget = Budget(path, limits)
  table = _table(path, budget)
  folder = os.path.dirname(os.path.abspath(path))
  due: dict[str, list[str]] = {}
  for name, shard in table.items():
    due.setdefault(shard, []).append(name)
  entries, out, stored = {}, [], 0
  first: Tensors | None = None
  for shard in sorted(due):
    file = os.path.join(folder, shard)
    if not os.path.exists(file):
      raise errors.unreadable(
        path, f"shard {shard!r} is missing", "download all shards"
      )
    foreign.check_inside(path, folder, file)
    if os.path.isdir(file) or file.endswith(SUFFIX):
      raise errors.unreadable(path, f"shard {shard!r} is no file of tensors")
    tensors = read_shard(file)
    first = first or tensors
    stored += os.path.getsize(file)
    for name in due[shard]:
      if name not in tensors.entries:
        raise errors.unreadable(path, f"shard {shard!r} has no tensor {name!r}")
    for name, entry in tensors.entries.items():
      if table.get(name) == shard:
        budget.take(
          name, 0 if entry.tied_to else entry.num_bytes, stored=stored
        )
        entries[name] = entry
      else:
        out.append(name)
  if first is None:
    raise errors.unreadable(path, "it names no tensors")
  metadata = dict(first.metadata)
  if out:
    metadata["left_out"] = ", ".join(out)[:1000] + " (not in the index)"
  if len(due) == 1:
    return Tensors(entries, first.format, path, metadata)
  entries = retied({n: entries[n] for n in sorted(entries, key=natural)})
  metadata["shards"] = f"{len(due)} files of {first.format}"
  form = "safetensors" if first.format == "torch" else first.format
  return Tensors(entries, form, path, metadata)


def single(path: str) -> tuple[str, str] | None:
  """Returns what a file is that is one shard of several, and what helps.

  Args:
    path: of one file; its name says which shard it is, and of how many.

  Returns:
    What it is, as "it is ..." goes on, and a remedy; None for other files.
  """
  folder, base = os.path.split(os.path.abspath(path))
  match = _SHARD.fullmatch(base)
  if not match or not os.path.isfile(path):
    return None
  stem, number, count, end = match.groups()
  if not 1 <= int(number) <= int(count) or int(count) < 2:
    return None
  beside = set(os.listdir(folder))
  index = f"{stem}{end}{SUFFIX}"
  due = {
    f"{stem}-{n:0{len(number)}d}-of-{count}{end}"
    for n in range(1, int(count) + 1)
  }
  for name in sorted(n for n in beside if n.endswith(SUFFIX)):
    if base in (inside := names(os.path.join(folder, name))):
      index, due = name, inside
  what = f"shard {int(number)} of {int(count)} of a network"
  missing = sorted({*due, index} - beside)
  if not missing:
    return what, f"name the index of all its shards, {index}"
  more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
  return (
    f"{what}; missing beside it: {', '.join(missing[:4])}{more}",
    f"put what is missing beside it and name {index}, or write the override"
    ' {"opaque": true} to read this shard alone, with no permutation claimed;'
    " if it is a network by itself, give it another name",
  )


def names(path: str) -> set[str]:
  """Returns the files that an index names; none if it cannot be read."""
  try:
    return set(_table(path, Budget(path, Limits())).values())
  except errors.CheckpointError:
    return set()


def _table(path: str, budget: Budget) -> dict[str, str]:
  """Returns which tensor is in which file."""
  budget.check_header("an index", foreign.file_size(path))
  index = foreign.parse_json(foreign.read_head(path), path, "it")
  table = index.get("weight_map") if isinstance(index, dict) else None
  if not isinstance(table, dict) or not all(
    isinstance(shard, str) for shard in table.values()
  ):
    raise errors.unreadable(path, "it has no weight_map of names and files")
  for shard in set(table.values()):
    archive.check_path(path, shard)
    if "/" in shard:
      raise errors.unreadable(path, f"shard {shard!r} is not beside it")
  return table
