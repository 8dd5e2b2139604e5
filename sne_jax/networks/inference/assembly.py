"""From a played tape to a spec, and to where its tensors lie in the file.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.inference.sources import Source
from sne_jax.networks.tracing import activations
from sne_jax.networks.tracing.tape import Part, Tape, Use

_TOKENS = ("class_token", "position")


@dataclasses.dataclass
class _Piece:
  """A tensor of the spec in the making.

  Attributes:
    name: in the spec.
    part: of which weight.
    use: how it is used.
    axes: of the spec's tensor, as nodes.
    source: where it lies.
  """

  name: str
  part: Part
  use: Use
  axes: list[tuple[int, ...]]
  source: Source


def assemble(
  tape: Tape,
  family: str = "unknown",
  options: Mapping[str, Any] | None = None,
) -> tuple[spec_lib.NetworkSpec, tuple[Source, ...]]:
  """Returns the spec that a tape describes, and the sources of its tensors.

  Args:
    tape: all of the network; it is finished here.
    family: see `NetworkSpec`.
    options: see `NetworkSpec`.

  Raises:
    ValueError: the tape holds no weights.
  """
  if not tape.uses:
    raise ValueError("no weight has a part in what the network gives")
  tape.axes.finish()
  # Tensors of the spec: names first, then groups and branches, which use them.
  uses: dict[str, dict[Part, Use]] = {}
  for part, use in tape.uses.items():
    uses.setdefault(part[0], {})[part] = use
  pieces = [p for name in uses for p in _pieces_of(tape, name, uses[name])]
  _name_parts(pieces)
  namer = _Groups(tape, pieces)
  branches = _branches(pieces)
  names: dict[str, list[tuple[Part, str]]] = {}
  for piece in pieces:
    names.setdefault(piece.part[0], []).append((piece.part, piece.name))
  owners = {piece.name: _owner(piece, names) for piece in pieces}
  pieces = _after_owners(pieces, owners)
  by_name = {piece.name: piece for piece in reversed(pieces)}
  tensors = []
  for piece in pieces:
    of = owners[piece.name]
    use = piece.use
    kept = of if tape.read_once(use) else None
    tensors.append(
      spec_lib.TensorSpec(
        name=piece.name,
        kind=_kind(piece, by_name.get(of or "")),
        shape=piece.source.shape,
        level=use.level,
        axes=tuple(
          namer.axis(axis, size)
          for axis, size in zip(piece.axes, piece.source.shape, strict=True)
        ),
        of=kept,
        branch=branches[of or piece.name],
      )
    )
  spec = spec_lib.NetworkSpec(
    family=family,
    tensors=tuple(tensors),
    activations=activations.by_level(
      tape.noted, 1 + max(t.level for t in tensors)
    ),
    skips=tuple(tape.skips),
    options=tuple(sorted((options or {}).items())),
  )
  return spec, tuple(p.source for p in pieces)


def _after_owners(
  pieces: list[_Piece], owners: Mapping[str, str | None]
) -> list[_Piece]:
  """Puts every vector right after the weight that it belongs to."""
  owned: dict[str | None, list[_Piece]] = {}
  for piece in pieces:
    owned.setdefault(owners[piece.name], []).append(piece)
  return [
    p for owner in owned.pop(None) for p in (owner, *owned.get(owner.name, ()))
  ]


def _pieces_of(tape: Tape, name: str, uses: dict[Part, Use]) -> list[_Piece]:
  """Returns the tensors of the spec that one weight becomes, by its uses."""
  value = tape.weights[name]
  axes = [tape.axes.leaves(axis) for axis in value.axes]
  cuts = tape.axes.enumerated(axes)
  if not cuts:
    use = uses.get((name, ())) or next(iter(uses.values()))
    view = tuple((p,) for p in range(len(axes)))
    return [_piece(name, (name, ()), use, axes, value.shape, view, ())]
  # Every leaf is an axis of the view; cut ones are picked by number.
  leaves = [leaf for axis in axes for leaf in axis]
  sizes = tuple(tape.axes.size((leaf,)) for leaf in leaves)
  view, left = [], 0
  for axis in axes:
    kept = [p for p, n in enumerate(leaves) if left <= p < left + len(axis)]
    left += len(axis)
    view.append(tuple(p for p in kept if leaves[p] not in cuts))
  # One tensor for each choice of a member on every cut axis, last cut fastest.
  counts = [tape.axes.size((cut,)) for cut in cuts]
  pieces = []
  expanded = tape.axes.expand(axes)
  for number, choice in enumerate(expanded):
    members, rest = [], number
    for count in reversed(counts):
      rest, member = divmod(rest, count)
      members.insert(0, member)
    chosen = dict(zip(cuts, members, strict=True))
    picks = tuple(
      (p, chosen[leaf]) for p, leaf in enumerate(leaves) if leaf in chosen
    )
    part = (name, tuple(chosen.items()))
    use = _use_of(tape, uses, chosen)
    kept = [tuple(n for n in axis if n not in cuts) for axis in choice]
    pieces.append(
      _piece(name, part, use, kept, value.shape, tuple(view), picks, sizes)
    )
  read = sum(math.prod(piece.source.shape) for piece in pieces)
  if read != math.prod(value.shape):
    raise ValueError(
      f"tensor {name!r}: {read} of {math.prod(value.shape)} numbers would be"
      ' read by its parts; write {"opaque": true} to have it whole'
    )
  return pieces


def _use_of(tape: Tape, uses: dict[Part, Use], chosen: dict[int, int]) -> Use:
  """The use of a part of a weight: its own, or that of the whole."""
  whole = None
  for (_, members), use in uses.items():
    now = {leaf: i for cut, i in members for leaf in tape.axes.leaves((cut,))}
    if now and all(chosen.get(cut) == i for cut, i in now.items()):
      return use
    whole = whole or use
  assert whole is not None
  return whole


def _piece(name, part, use, axes, stored, dims, picks, view=None) -> _Piece:
  """Puts a weight's axes in the order of the spec.

  Args:
    name: of the weight.
    part: of it.
    use: how it is used.
    axes: nodes of each of the weight's axes.
    stored: the weight's shape.
    dims: for each of its axes, the axes of the view that it is.
    picks: places of the view that are picked.
    view: the view's sizes; None if it is the stored shape.
  """
  view = tuple(stored) if view is None else view
  size = lambda place: math.prod(view[p] for p in dims[place])
  # Which of the weight's axes each axis of the spec's tensor merges: of a
  # layer rows, columns and kernel; else every axis that is longer than 1.
  if use.out or use.into:
    groups = [use.out, use.into, *((p,) for p in use.rest)]
    seen = [p for group in groups for p in group]
    groups += [(p,) for p in range(len(stored)) if p not in seen]
    if len(groups) > 2 and use.kind != "conv_weight":
      groups = groups[:2] + [g for g in groups[2:] if size(g[0]) > 1]
  elif use.kind == "bias":
    groups = [tuple(range(len(stored)))]
  elif use.kind in _TOKENS or len(stored) > 1 and use.kind != "embedding":
    keep = [p for p in range(len(stored)) if size(p) > 1]
    groups = [(p,) for p in keep or range(len(stored))]
  else:
    groups = [(p,) for p in range(len(stored))]
  if use.kind == "class_token" or not groups:
    groups = groups or [()]
  # The order of the view's axes in the tensor, without those that are picked.
  used = [p for group in groups for p in group]
  dropped = [p for p in range(len(stored)) if p not in used]
  order = [a for p in used for a in dims[p]] + [
    a for p in dropped for a in dims[p]
  ]
  picked = [p for p, _ in picks]
  order = tuple(a - sum(q < a for q in picked) for a in order)
  shape = tuple(math.prod(size(p) for p in group) for group in groups)
  nodes = [tuple(n for p in group for n in axes[p]) for group in groups]
  source = Source(name, name, tuple(stored), view, picks, order, shape)
  return _Piece(name, part, use, nodes, source)


def _name_parts(pieces: list[_Piece]) -> None:
  """Gives the parts of one weight names of their own."""
  for piece in pieces:
    if not piece.part[1]:
      continue
    kind = piece.use.kind
    letter = kind[-1] if kind.startswith("attention_") else ""
    if piece.use.of is not None:
      owner = _find(pieces, piece)
      if owner is not None and owner.use.kind.startswith("attention_"):
        letter = owner.use.kind[-1]
    number = "".join(f"[{i}]" for _, i in piece.part[1])
    piece.name = (
      f"{piece.source.name}.{letter}" if letter else piece.name + number
    )
    piece.source = dataclasses.replace(piece.source, tensor=piece.name)


def _find(pieces: list[_Piece], piece: _Piece) -> _Piece | None:
  """The weight that a bias or norm comes after: the like part of it."""
  if piece.use.of is None:
    return None
  matches = [p for p in pieces if p.part[0] == piece.use.of[0]]
  members = [i for _, i in piece.part[1]]
  for other in matches:
    if [i for _, i in other.part[1]] == members:
      return other
  wanted = [i for _, i in piece.use.of[1]]
  for other in matches:
    if [i for _, i in other.part[1]] == wanted:
      return other
  return None


def _owner(
  piece: _Piece, names: Mapping[str, list[tuple[Part, str]]]
) -> str | None:
  """Name of the weight that a vector belongs to, if it has one per row.

  Args:
    piece: the vector.
    names: parts of weights and their tensors, by the weight.
  """
  of = piece.use.of
  if of is None or len(piece.source.shape) != 1:
    return None
  members = [i for _, i in piece.part[1]]
  for part, name in names.get(of[0], ()):
    have = [i for _, i in part[1]]
    if have in (members, [i for _, i in of[1]]):
      return name
  return None


def _kind(piece: _Piece, owner: _Piece | None) -> str:
  """The kind, checked against the shape that it asks for."""
  kind, rank = piece.use.kind, len(piece.source.shape)
  if kind == "bias":
    if owner is None or owner.source.shape[:1] != piece.source.shape:
      return "other"
    if owner.use.kind == "conv_weight":
      return "conv_bias"
    part = owner.use.kind in ("attention_q", "attention_k", "attention_v")
    return "attention_bias" if part else "linear_bias"
  if kind.startswith("norm_") and rank != 1:
    return "other"
  ranks = {"class_token": 1, "position": 2, "embedding": 2, "linear_weight": 2}
  return kind if ranks.get(kind, rank) == rank else "other"


def _branches(pieces: list[_Piece]) -> dict[str, int]:
  """The branch of every tensor: its number among the layers of its level."""
  layers: dict[int, list[str]] = {}
  branches = {}
  for piece in pieces:
    if piece.use.of is not None or piece.use.kind == "position":
      branches[piece.name] = 0
      continue
    level = layers.setdefault(piece.use.level, [])
    module = piece.name
    if piece.use.kind.startswith("norm_"):
      module = module.rpartition(".")[0] or module.rpartition("/")[0]
    if module not in level:
      level.append(module)
    branches[piece.name] = level.index(module)
  return branches


class _Groups:
  """Names the nodes that move, and says which are nested in which."""

  def __init__(self, tape: Tape, pieces: list[_Piece]):
    self._tape = tape
    self._names: dict[int, str] = {}
    self._taken = set[str]()
    self._per: dict[int, int | None] = {}
    self._resolve = tape.axes.leaves
    # A group is nested in the nearest one that precedes it wherever it occurs.
    before: dict[int, list[list[int]]] = {}
    for piece in pieces:
      for axis in piece.axes:
        held = [n for n in self._resolve(axis) if not tape.axes.is_pinned(n)]
        for place, node in enumerate(held):
          before.setdefault(node, []).append(held[:place])
    for node, places in before.items():
      always = [n for n in places[0] if all(n in held for held in places)]
      nested = [n for n in always if n in tape.axes.outer(node)]
      self._per[node] = nested[-1] if nested else None
    for piece in pieces:  # Groups are named after what makes them.
      if piece.use.kind in spec_lib.WEIGHT_KINDS:
        self._name(piece, piece.axes[0])
      elif piece.use.kind == "embedding":
        self._name(piece, piece.axes[-1])
    for piece in pieces:
      for axis in piece.axes:
        self._name(piece, axis)

  def _name(self, piece: _Piece, axis: tuple[int, ...]) -> None:
    """Names the new groups of an axis after its tensor."""
    held = [n for n in self._resolve(axis) if not self._tape.axes.is_pinned(n)]
    base = piece.name
    for end in (".weight", "/kernel", "/embedding"):
      base = base.removesuffix(end)
    for place, node in enumerate(held):
      if node in self._names:
        continue
      name = base if len(held) == 1 else f"{base}.{place}"
      while name in self._taken:
        name += "'"
      self._names[node] = name
      self._taken.add(name)

  def axis(self, axis: tuple[int, ...], size: int) -> spec_lib.Axis:
    """Returns an axis of the spec; neighbours that stay are one factor."""
    factors: list[spec_lib.Factor] = []
    for node in self._resolve(axis):
      places = self._tape.axes.size((node,))
      if self._tape.axes.is_pinned(node):
        if factors and factors[-1].group is None:
          places *= factors.pop().size
        factors.append(spec_lib.Factor(places))
        continue
      per = self._per[node]
      outer = None if per is None else self._names[per]
      factors.append(spec_lib.Factor(places, self._names[node], outer))
    return tuple(factors) or (spec_lib.Factor(size),)
