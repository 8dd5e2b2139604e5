"""Tensors that a network computes from several of its file.

A file may keep a direction and a length, or small numbers and their scale,
where the network multiplies by one tensor. A recipe says how; its result takes
the parts' place, and is computed when it is read. Where a file does not say
enough, the tensor carries a doubt: it is not read unless it is left out.

Dimensions: none; a tensor has any shape.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sne_jax import errors
from sne_jax.checkpoints.limits import Budget
from sne_jax.checkpoints.tensors import DTYPES, Entry, Tensors

Entries = Mapping[str, Entry]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """One tensor that is computed.

  Attributes:
    name: of the result.
    parts: names of the entries that it is computed from.
    shape: of the result.
    dtype: of the result.
    compute: gives the result from the arrays of the parts, in any dtype.
    what: the kind, in words, such as "weight norm".
    invert: gives parts from which `compute` makes an array, from this array
      and the parts as they were; None where numbers would be lost.
  """

  name: str
  parts: tuple[str, ...]
  shape: tuple[int, ...]
  dtype: str
  compute: Callable[..., np.ndarray]
  what: str
  invert: Callable[..., tuple[np.ndarray, ...]] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
  """What was found in a file.

  Attributes:
    recipes: of tensors that are computed.
    doubts: names of entries whose numbers do not say what the network
      computes with, and why.
    left_out: names of entries that are no part of it, and why.
  """

  recipes: Sequence[Recipe] = ()
  doubts: Mapping[str, str] = dataclasses.field(default_factory=dict)
  left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)


def apply(
  tensors: Tensors,
  finders: Sequence[Callable[[Entries, str], Found]],
  budget: Budget,
) -> Tensors:
  """Returns tensors as the network computes with them.

  Args:
    tensors: of a file.
    finders: each is given the entries and the format, and says what is
      computed; the next sees the results of the one before.
    budget: of the file; the results are counted.

  Returns:
    The tensors, with results in the place of their first part. Metadata gets
    `computed`, and more of `left_out`.

  Raises:
    CheckpointError: the results pass a limit.
  """
  if tensors.graph is not None:
    return tensors  # What is computed from what is in the graph.
  stored = sum(e.num_bytes for e in tensors.entries.values() if not e.tied_to)
  entries, metadata = dict(tensors.entries), dict(tensors.metadata)
  changed = False
  for find in finders:
    found = find(entries, tensors.format)
    if not (found.recipes or found.doubts or found.left_out):
      continue
    entries, changed = _replaced(entries, found, tensors.source), True
    if found.left_out:
      said = [f"{name} ({why})" for name, why in found.left_out.items()]
      said = [*filter(None, [metadata.get("left_out")]), *said]
      metadata["left_out"] = ", ".join(said)[:1000]
    if found.recipes:
      kinds: dict[str, list[str]] = {}
      for recipe in found.recipes:
        kinds.setdefault(recipe.what, []).append(recipe.name)
      said = [f"{_some(names)} by {what}" for what, names in kinds.items()]
      said = [*filter(None, [metadata.get("computed")]), *said]
      metadata["computed"] = "; ".join(said)
  if not changed:
    return tensors
  for name, entry in entries.items():
    budget.take(name, 0 if entry.tied_to else entry.num_bytes, stored=stored)
  return dataclasses.replace(tensors, entries=entries, metadata=metadata)


def check_doubts(tensors: Tensors, leave_out: Sequence[str] = ()) -> None:
  """Refuses tensors whose numbers are not what the network computes with.

  Args:
    tensors: of a file.
    leave_out: names that are not read.

  Raises:
    CheckpointError: says the doubt, and how to leave the layer out where
      others remain.
  """
  doubtful = {
    name: entry.doubt
    for name, entry in tensors.entries.items()
    if entry.doubt and name not in leave_out
  }
  if not doubtful:
    return
  layers = {_layer(name) for name in doubtful} - {""} | set(doubtful)
  names = [
    name
    for name in tensors.entries
    if name in doubtful or _layer(name) in layers
  ]
  others = [e for n, e in tensors.entries.items() if n not in names]
  remedy = "save what the network computes with"
  if any(len(e.shape) > 1 and not e.doubt for e in others):
    listed = ", ".join(f'"{name}"' for name in names)
    remedy += f', or leave it out: override {{"leave_out": [{listed}]}}'
  name, why = next(iter(doubtful.items()))
  more = f", and so are {len(doubtful) - 1} more" if len(doubtful) > 1 else ""
  raise errors.unreadable(tensors.source, f"{name!r} {why}{more}", remedy)


def _replaced(entries: Entries, found: Found, source: str) -> dict[str, Entry]:
  """Returns entries with results for parts, and doubts written down."""
  by_part = {recipe.parts[0]: recipe for recipe in found.recipes}
  gone = {name for recipe in found.recipes for name in recipe.parts}
  first: dict[tuple, str] = {}
  made: dict[str, Entry] = {}
  for name, entry in entries.items():
    if recipe := by_part.get(name):
      parts = tuple(entries[part] for part in recipe.parts)
      same = (recipe.what, *(part.tied_to or part.name for part in parts))
      tied_to = first.setdefault(same, recipe.name)
      made[recipe.name] = Entry(
        recipe.name,
        recipe.shape,
        recipe.dtype,
        _loader(recipe, parts, source),
        tied_to if tied_to != recipe.name else None,
        computed_from=recipe.parts,
        uncompute=_inverse(recipe, parts),
      )
    elif name not in gone and name not in found.left_out:
      if name in found.doubts:
        entry = dataclasses.replace(entry, doubt=found.doubts[name])
      if entry.tied_to in gone:
        entry = dataclasses.replace(entry, tied_to=None)
      made[name] = entry
  return made


def _loader(recipe: Recipe, parts: tuple[Entry, ...], source: str):
  """Returns what computes a result."""

  def load() -> np.ndarray:
    arrays = [part.read() for part in parts]
    try:
      with np.errstate(all="ignore"):  # What is not finite then can be seen.
        result = recipe.compute(*arrays)
    except ValueError as error:
      raise errors.unreadable(
        source,
        f"{recipe.name!r}, by {recipe.what}: {error}",
        "save what the network computes with",
      ) from error
    return np.asarray(result).astype(DTYPES[recipe.dtype], copy=False)

  return load


def _inverse(recipe: Recipe, parts: tuple[Entry, ...]):
  """Returns what gives the parts of a result; None if nothing does."""
  invert = recipe.invert
  if invert is None:
    return None

  def uncompute(array: np.ndarray) -> dict[str, np.ndarray]:
    with np.errstate(all="ignore"):
      made = invert(array, *(part.read() for part in parts))
    return {
      part.name: np.asarray(one).astype(DTYPES[part.dtype]).reshape(part.shape)
      for part, one in zip(parts, made, strict=True)
    }

  return uncompute


def _layer(name: str) -> str:
  """Returns what a tensor's name says of its layer."""
  before, found, _ = name.partition(".parametrizations.")
  return before if found else name[: max(name.rfind("."), name.rfind("/"), 0)]


def _some(names: list[str]) -> str:
  more = f" and {len(names) - 3} more" if len(names) > 3 else ""
  return ", ".join(names[:3]) + more
