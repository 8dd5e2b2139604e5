"""Flax files: MessagePack trees, as `flax.serialization.to_bytes` writes.

An array is an extension that holds its shape, its dtype and its bytes; one of
more than a gigabyte is a table of flat pieces.
"""

import dataclasses
import functools
import math
import mmap
from typing import Any

import numpy as np

from sne_jax.checkpoints import foreign, trees
from sne_jax.checkpoints.formats.msgpack_walk import Span, Walk
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import DTYPES, Entry, Tensors, add

ARRAY, COMPLEX, SCALAR = 1, 2, 3
"""Codes of the extensions."""

PIECES = "__msgpack_chunked_array__"


@dataclasses.dataclass(frozen=True)
class Leaf:
  """An array in the file: pieces `(start, count)` that follow each other."""

  shape: tuple[int, ...]
  dtype: str
  pieces: tuple[tuple[int, int], ...]


def read(path: str, limits: Limits) -> Tensors:
  """Opens a Flax file; names are joined by slashes.

  A trainer's state (optimizer, step) is left out. Metadata: `left_out`,
  `values`, as of `trees.variables`.

  Raises:
    CheckpointError: the file is damaged or hostile, or no tree of arrays.
  """
  size = foreign.file_size(path)
  budget = Budget(path, limits)
  with (
    foreign.guard(path, "not sound MessagePack", (OSError, ValueError)),
    open(path, "rb") as file,
    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
  ):
    walk = Walk(data, 0, size, max_values=20 * limits.max_entries)
    tree = walk.value()
    if walk.at != size:
      raise ValueError(f"{size - walk.at} bytes follow its end")
    tree = _arrays(tree, data)
  is_tensor = lambda value: isinstance(value, Leaf)
  leaves = trees.leaves(tree, budget)
  taken, metadata = trees.variables(leaves, is_tensor, budget)
  entries = {}
  for names, leaf in taken:
    load = functools.partial(_load, path, leaf)
    name = "/".join(names) or "tensor"
    add(entries, Entry(name, leaf.shape, leaf.dtype, load), budget, size)
  return Tensors(entries, "flax", path, metadata)


def _arrays(value: Any, data) -> Any:
  """Returns a tree in which extensions have become leaves."""
  if isinstance(value, dict):
    if PIECES in value:
      return _joined(value, data)
    return {key: _arrays(item, data) for key, item in value.items()}
  if isinstance(value, list):
    return [_arrays(item, data) for item in value]
  if not isinstance(value, Span) or value.code in (-1, COMPLEX):
    return value
  if value.code not in (ARRAY, SCALAR):
    raise ValueError(f"an extension with code {value.code}, not of Flax")
  return _array(value, data)


def _array(span: Span, data) -> Leaf:
  end = span.start + span.length
  walk = Walk(data, span.start, end, max_values=64)
  parts = walk.value()
  if walk.at != end or not isinstance(parts, list) or len(parts) != 3:
    raise ValueError("an array that is not shape, dtype and bytes")
  shape, dtype, raw = parts
  if isinstance(dtype, Span):
    dtype = bytes(data[dtype.start : dtype.start + dtype.length]).decode()
  if not foreign.is_shape(shape) or dtype not in DTYPES:
    raise ValueError(f"an array of {dtype!r} of shape {shape!r}")
  due = math.prod(shape) * foreign.dtype_bytes(dtype)
  if not isinstance(raw, Span) or raw.code != -1 or raw.length != due:
    raise ValueError(f"an array of {dtype}{shape} that has not {due} bytes")
  return Leaf(tuple(shape), dtype, ((raw.start, math.prod(shape)),))


def _joined(table: dict, data) -> Leaf:
  """Returns the leaf of an array that was cut into pieces."""
  sizes, pieces = table.get("shape"), table.get("chunks")
  if not isinstance(sizes, dict) or not isinstance(pieces, dict) or not pieces:
    raise ValueError("an array in pieces without shape or pieces")
  shape: Any = [sizes.get(str(i)) for i in range(len(sizes))]
  flat = []
  for number in range(len(pieces)):
    piece = pieces.get(str(number))
    if not isinstance(piece, Span) or piece.code != ARRAY:
      raise ValueError("an array in pieces, one of which is no array")
    flat.append(_array(piece, data))
  total = sum(math.prod(leaf.shape) for leaf in flat)
  dtypes = {leaf.dtype for leaf in flat}
  if (
    not foreign.is_shape(shape) or math.prod(shape) != total or len(dtypes) > 1
  ):
    raise ValueError("an array in pieces that do not make up its shape")
  joined = tuple(leaf.pieces[0] for leaf in flat)
  return Leaf(tuple(shape), flat[0].dtype, joined)


def _load(path: str, leaf: Leaf) -> np.ndarray:
  dtype = DTYPES[leaf.dtype]
  parts = [
    foreign.map_array(path, start, dtype, (count,))
    for start, count in leaf.pieces
  ]
  flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
  return flat.reshape(leaf.shape)
