"""One network of a file that holds several: by the start of its names.

Dimensions: none; a tensor has any shape.
"""

import dataclasses
import re

from sne_jax import errors
from sne_jax.checkpoints import trees
from sne_jax.checkpoints.tensors import Tensors, retied


def take(tensors: Tensors, part: str) -> Tensors:
  """Returns the tensors whose names begin with `part`; names are kept.

  Args:
    tensors: of any format.
    part: whole words of names, joined by dots or slashes. What wrappers put
      before every name may be left out.

  Raises:
    CheckpointError: there are none.
  """
  wanted = _words(part)
  skip = _words(trees.prefix(tensors.entries))
  for start in (wanted, (*skip, *wanted)):
    names = [
      name
      for name in tensors.entries
      if _words(name)[: len(start)] == start and name != part
    ]
    if names:
      return _only(tensors, names, part, len(start))
  depth = len(skip) + 1
  firsts = {_words(name)[:depth]: None for name in tensors.entries}
  listed = ", ".join(".".join(words) for words in list(firsts)[:12])
  raise errors.unreadable(
    tensors.source,
    f"no tensors under {part!r}",
    f"name the part to read; it has {listed}"[:400],
  )


def _words(name: str) -> tuple[str, ...]:
  return tuple(word for word in re.split(r"[./]", name) if word)


def _only(tensors: Tensors, names: list[str], part: str, depth: int) -> Tensors:
  """Returns some of the tensors; a storage they share is its first name's.

  Others are counted by the first `depth` words of their names.
  """
  entries = retied({name: tensors.entries[name] for name in names})
  out: dict[str, int] = {}
  for name in tensors.entries:
    if name not in entries:
      branch = ".".join(_words(name)[:depth])
      out[branch] = out.get(branch, 0) + 1
  metadata = dict(tensors.metadata)
  metadata["taken"] = f"{part} ({len(names)} tensors)"
  above = [metadata["part"]] if metadata.get("part") else []
  metadata["part"] = "/".join([*above, part])
  said = [metadata["left_out"]] if metadata.get("left_out") else []
  if out:
    metadata["left_out"] = ", ".join(
      [*said, trees.counted(out, are_parts=True)]
    )
  return dataclasses.replace(
    tensors, entries=entries, metadata=metadata, graph=None
  )
