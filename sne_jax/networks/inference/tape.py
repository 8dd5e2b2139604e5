"""A network as it is run: values, and what each operation says of their axes.

Whoever knows how a network is run (the convention behind its names, or a
trace of its code) plays it on a tape. The tape holds no numbers. Of every
value it keeps the axes (`axes.py`), the level, and which weights it comes
from; of every weight, how it is used. `assembly.py` makes a spec of that.

An operation that is not known must go through `unknown`, which pins all axes
of its inputs: nothing false can be claimed.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from sne_jax.networks.inference import axes as axes_lib

Axis = axes_lib.Axis

Part = tuple[str, tuple[tuple[int, int], ...]]
"""A weight, or a part of it: its name, and (enumerated node, member) pairs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
  """What an operation gives.

  Attributes:
    shape: its sizes.
    axes: for each, the nodes.
    level: of the deepest weight behind it, -1 for inputs; None where only
      weights and constants are behind it.
    past: bits of all values before it, and its own.
    parts: weights that it is made of, if level is None.
    view: for a view of one weight, the weight's axes (of its part) that each
      of the value's axes is; None where it is something else.
    behind: the weight whose output this is, biases and scales aside.
    origin: the weight that it comes from by elementwise steps and views.
    tag: what it is to attention: ("scores", q, k), ("attended",) or ().
  """

  shape: tuple[int, ...]
  axes: tuple[Axis, ...]
  level: int | None
  past: int = 0
  parts: tuple[Part, ...] = ()
  view: tuple[tuple[int, ...], ...] | None = None
  behind: Part | None = None
  origin: Part | None = None
  tag: tuple = ()


@dataclasses.dataclass
class Use:
  """How a weight is used, as first seen."""

  kind: str
  level: int
  out: tuple[int, ...] = ()  # Axes of the tensor, in order.
  into: tuple[int, ...] = ()
  rest: tuple[int, ...] = ()
  of: Part | None = None  # The weight that it stands behind.
  behind: tuple[Part, int] | None = None  # That, if nothing else reads it.


class Tape:
  """Records a network; see the module docstring. Mutable.

  Attributes:
    axes: the nodes.
    weights: the first value of every weight, in the order of first use.
    uses: what each weight is for.
    skips: residual additions, as pairs of levels.
  """

  def __init__(self, hints: Mapping[str, tuple[str, bool]] | None = None):
    """Starts an empty tape.

    Args:
      hints: what names say of vectors: their kind, and for norms whether
        running statistics belong to them.
    """
    self.axes = axes_lib.Axes()
    self._hints = dict(hints or {})
    self.weights: dict[str, Value] = {}
    self.uses: dict[Part, Use] = {}
    self.skips: dict[tuple[int, int], None] = {}
    self.outputs: list[Value] = []
    self._levels: list[int] = []  # Of every activation, by its bit.
    self._reads: dict[int, int] = {}  # How often each is read, by its past.
    self._norm_levels: dict[str, int] = {}

  def weight(self, name: str, shape: Sequence[int]) -> Value:
    """Returns a weight tensor of the network."""
    if name not in self.weights:
      axes = tuple(self.axes.fresh(n) for n in shape)
      self.axes.see(axes)
      view = tuple((place,) for place in range(len(shape)))
      self.weights[name] = Value(
        tuple(shape), axes, None, parts=((name, ()),), view=view
      )
    return self.weights[name]

  def input(self, shape: Sequence[int]) -> Value:
    """Returns an input of the network; its places never move."""
    return self._new(shape, self._fixed(shape), -1)

  def constant(self, shape: Sequence[int], uniform: bool = False) -> Value:
    """Returns a constant; a uniform one is the same number everywhere."""
    axes = tuple(self.axes.fresh(n, pinned=not uniform) for n in shape)
    return Value(tuple(shape), axes, None)

  def output(self, value: Value) -> None:
    """Says that this is what the network gives; its places never move."""
    self.outputs.append(value)
    for axis in value.axes:
      self.axes.pin(axis)

  def elementwise(
    self, *values: Value, op: str = "map", shape: Sequence[int] | None = None
  ) -> Value:
    """Combines values place by place, by the rules of broadcasting.

    Args:
      *values: one or more.
      op: "add", "scale" (multiply, divide, subtract) or "map", for anything
        else that treats all places alike.
      shape: of the result, if it is not that of the values.
    """
    rank = max(len(v.shape) for v in values)
    if shape is None:
      columns = [
        [
          v.shape[len(v.shape) - rank + p]
          for v in values
          if p >= rank - len(v.shape)
        ]
        for p in range(rank)
      ]
      shape = tuple(max(column) if 0 not in column else 0 for column in columns)
    axes = []
    for place, size in enumerate(shape):
      found: Axis = ()
      for v in values:
        own = place - rank + len(v.shape)
        if own < 0 or v.shape[own] == 1:
          continue
        if found:
          self.axes.unify(found, v.axes[own], f"{op} of unlike axes")
        found = found or v.axes[own]
      axes.append(found if found or size == 1 else self.axes.fresh(size))
    made = self._join(values, shape, tuple(axes))
    return self._combined(made, values, op)

  def _combined(self, made: Value, values: Sequence[Value], op: str) -> Value:
    """Levels, skips and tags of an elementwise result."""
    active = [v for v in values if v.level is not None]
    fixed = [v for v in values if v.level is None and v.parts]
    if not active:
      return made
    if op == "add" and len(active) == 2 and active[0].shape == active[1].shape:
      self._note_skip(active[0], active[1])
    if len(active) == 1:
      x = active[0]
      linear = op != "map"
      made = dataclasses.replace(
        made,
        behind=x.behind if linear else None,
        origin=x.origin,
        tag=x.tag,
      )
      for v in fixed:
        for part in v.parts:
          level = self.act(part, x, made, op)
          made = dataclasses.replace(made, level=max(level, made.level or 0))
    else:
      tags = [v.tag for v in active if v.tag]
      origins = {v.origin for v in active}
      made = dataclasses.replace(
        made,
        tag=tags[0] if tags else (),
        origin=origins.pop() if len(origins) == 1 else None,
      )
      for v in fixed:
        for part in v.parts:
          self.act(part, active[0], made, op)
    return self._levelled(made)

  def act(self, part: Part, x: Value, made: Value, op: str) -> int:
    """Notes a vector or table that acts on an activation; returns the level.

    What it is follows from its name and shape where these say it, else from
    where it stands.
    """
    level = max(x.level or 0, 0)
    if part in self.uses:
      return max(level, self.uses[part].level)
    value = self.weights[part[0]]
    long = [p for p, n in enumerate(value.shape) if n > 1] or [0]
    hint, running = self._hints.get(part[0], ("", False))
    if hint.startswith("norm_") and len(long) == 1:
      return self._norm(part, hint, running, x, level)
    if op == "add" and self._is_bias(value, x.behind):
      self.use(part, Use("bias", level, of=x.behind))
      return level
    if op == "add" and len(long) > 1:
      self.use(part, Use("position", level))
      return level
    kind = {"add": "norm_shift", "scale": "norm_scale"}.get(op, "other")
    if len(long) > 1:
      kind = "other"
    return self._norm(part, kind, False, x, level)

  def _norm(
    self, part: Part, kind: str, running: bool, x: Value, level: int
  ) -> int:
    """Notes a vector of a norm; returns its level."""
    if running and x.behind is not None:
      self.use(part, Use(kind, level, of=x.behind))
      return level
    module = part[0].rpartition(".")[0] or part[0].rpartition("/")[0]
    level = self._norm_levels.setdefault(module or part[0], level + 1)
    self.use(part, Use(kind, level))
    return level

  def _is_bias(self, value: Value, behind: Part | None) -> bool:
    """Whether a tensor has a number for each output of the weight before it.

    A weight has one bias; what is added next is something else.
    """
    use = self.uses.get(behind) if behind is not None else None
    if use is None or behind is None or not use.out:
      return False
    shape = self.weights[behind[0]].shape
    outputs = math.prod(shape[place] for place in use.out)
    if math.prod(value.shape) != outputs:
      return False
    return not any(
      u.of == behind and u.kind == "bias" for u in self.uses.values()
    )

  def use(self, part: Part, use: Use) -> None:
    """Notes how a weight, or a part of one, is used; the first counts."""
    self.uses.setdefault(part, use)

  def use_all(self, value: Value, use: Use) -> None:
    """Notes how the weights behind a value are used."""
    for part in value.parts:
      self.use(part, use)

  def made(self, values: Sequence[Value], shape, axes, level: int) -> Value:
    """Returns an activation made of others, at a level."""
    value = self._join(values, shape, axes)
    return self._levelled(dataclasses.replace(value, level=level, parts=()))

  def read_once(self, use: Use) -> bool:
    """Whether what a batch norm stands behind is read by it alone."""
    return use.behind is None or self._reads.get(use.behind[1], 0) <= 1

  def contract(
    self,
    x: Value,
    y: Value,
    batch: Sequence[tuple[int, int]] = (),
    summed: Sequence[tuple[int, int]] = (),
  ) -> Value:
    """Multiplies and sums: a matrix product in general.

    Args:
      x: a value.
      y: another.
      batch: pairs of axes of x and y that run together.
      summed: pairs of axes that are summed over.

    Returns:
      The axes of `batch`, what is left of x, what is left of y.
    """
    for a, b in (*batch, *summed):
      if x.shape[a] != y.shape[b]:
        raise ValueError(
          f"a product over axes of {x.shape[a]} and {y.shape[b]} places"
        )
      self.axes.unify(x.axes[a], y.axes[b], "a product of unlike axes")
    self.axes.see([x.axes[a] for a, _ in (*batch, *summed)])
    left = _others(len(x.shape), [a for a, _ in (*batch, *summed)])
    right = _others(len(y.shape), [b for _, b in (*batch, *summed)])
    places = [(x, a) for a, _ in batch]
    places += [(x, a) for a in left] + [(y, b) for b in right]
    shape = tuple(v.shape[p] for v, p in places)
    made = self._join((x, y), shape, tuple(v.axes[p] for v, p in places))
    for value, other, mine in ((x, y, 0), (y, x, 1)):
      if value.level is not None or not value.parts:
        continue
      if other.level is None:
        continue
      axes = [pair[mine] for pair in summed]
      kept = right if mine else left
      return self._applied(made, other, value, axes, kept, batch)
    if x.level is not None and y.level is not None:
      return self._levelled(self._attended(made, x, y))
    return self._levelled(made)

  def _applied(self, made, x, weight, summed, kept, batch) -> Value:
    """The product of an activation and a weight."""
    level = (x.level if x.level is not None else -1) + 1
    whole = weight.view is not None and not batch and len(weight.parts) == 1
    if not whole:
      for part in weight.parts:
        self.use(part, Use("other", level))
      return self._levelled(dataclasses.replace(made, level=level))
    part = weight.parts[0]
    flat = lambda places: tuple(a for p in places for a in weight.view[p])
    kind = "linear_weight"
    if x.tag == ("attended",):
      kind = "attention_o"
    self.use(part, Use(kind, level, out=flat(kept), into=flat(summed)))
    level = max(level, self.uses[part].level)
    return self._levelled(
      dataclasses.replace(made, level=level, behind=part, origin=part)
    )

  def _attended(self, made: Value, x: Value, y: Value) -> Value:
    """The product of two activations, perhaps a step of attention."""
    for scores, values in ((x, y), (y, x)):
      if scores.tag[:1] == ("scores",) and values.origin is not None:
        self._mark(*scores.tag[1:], values.origin)
        return dataclasses.replace(made, tag=("attended",))
    if x.origin is not None and y.origin is not None:
      return dataclasses.replace(made, tag=("scores", x.origin, y.origin))
    return made

  def _mark(self, q: Part, k: Part, v: Part) -> None:
    for part, kind in ((q, "q"), (k, "k"), (v, "v")):
      use = self.uses.get(part) or self.uses.get((part[0], ()))
      if use is not None and use.kind == "linear_weight":
        use = dataclasses.replace(use, kind=f"attention_{kind}")
        self.uses[part] = use

  def reshape(self, x: Value, shape: Sequence[int]) -> Value:
    """Reads the places of a value, row-major, in another shape."""
    axes = self.axes.regroup(x.axes, shape, "a reshape that cuts neurons apart")
    return self._same(x, shape, axes, _reshaped_view(x, tuple(shape)))

  def transpose(self, x: Value, order: Sequence[int]) -> Value:
    """Reorders axes."""
    view = None if x.view is None else tuple(x.view[p] for p in order)
    shape = tuple(x.shape[p] for p in order)
    return self._same(x, shape, tuple(x.axes[p] for p in order), view)

  def expand(self, x: Value, shape: Sequence[int]) -> Value:
    """Repeats places along axes of size 1, and along new leading axes."""
    new = len(shape) - len(x.shape)
    axes, view = [], []
    for place, size in enumerate(shape):
      own = place - new
      kept = own >= 0 and x.shape[own] == size
      axes.append(x.axes[own] if kept else self.axes.fresh(size, pinned=False))
      view.append(x.view[own] if kept and x.view is not None else ())
    return self._same(
      x, shape, tuple(axes), None if x.view is None else tuple(view)
    )

  def reduce(self, x: Value, places: Iterable[int]) -> Value:
    """Sums, averages or takes the maximum over axes, which are dropped."""
    kept = _others(len(x.shape), [p % len(x.shape) for p in places])
    made = self._join(
      (x,), tuple(x.shape[p] for p in kept), tuple(x.axes[p] for p in kept)
    )
    return self._levelled(dataclasses.replace(made, tag=x.tag))

  def select(self, x: Value, place: int, member: int) -> Value:
    """Takes one place of an axis, which is dropped."""
    place %= len(x.shape)
    cut = self.axes.leaves(x.axes[place])
    shape = tuple(n for p, n in enumerate(x.shape) if p != place)
    axes = self.axes.pick(
      x.axes, place, member % x.shape[place], "places are taken by number"
    )
    free = self.axes.is_free(cut)
    parts = tuple(
      (name, (*of, (cut[0], member % x.shape[place]))) if free else (name, of)
      for name, of in x.parts
    )
    origin = x.origin
    if origin is not None and free:
      origin = (origin[0], (*origin[1], (cut[0], member % x.shape[place])))
    view = None
    if x.view is not None and (free or not cut):
      view = tuple(v for p, v in enumerate(x.view) if p != place)
    made = self._same(x, shape, axes, view)
    return dataclasses.replace(made, parts=parts, origin=origin)

  def slice(self, x: Value, place: int, start: int, stop: int) -> Value:
    """Takes the places from `start` to `stop` of an axis."""
    size, have = stop - start, x.shape[place]
    if (start, stop) == (0, have):
      return x
    shape = (*x.shape[:place], size, *x.shape[place + 1 :])
    pieces = have // size if size and have % size == 0 else 0
    even = pieces and start % size == 0 and pieces <= axes_lib.MOST_MEMBERS
    if self.axes.is_free(x.axes[place]) and even:
      cut = (*x.shape[:place], pieces, size, *x.shape[place + 1 :])
      made = self.reshape(x, cut)
      leaves = self.axes.leaves(made.axes[place])
      if len(leaves) == 1:
        return self.select(made, place, start // size)
    self.axes.pin(x.axes[place], "part of an axis is taken")
    fresh = self.axes.fresh(size, pinned=True)
    axes = (*x.axes[:place], fresh, *x.axes[place + 1 :])
    return self._same(x, shape, axes, None)

  def concatenate(self, values: Sequence[Value], place: int) -> Value:
    """Puts values one behind the other along an axis, which is pinned."""
    first = values[0]
    place %= len(first.shape)
    for v in values:
      self.axes.pin(v.axes[place], "channels are concatenated")
    size = sum(v.shape[place] for v in values)
    shape = (*first.shape[:place], size, *first.shape[place + 1 :])
    axes = []
    for p in range(len(shape)):
      if p == place:
        axes.append(self.axes.fresh(size, pinned=True))
        continue
      for v in values[1:]:
        self.axes.unify(first.axes[p], v.axes[p])
      axes.append(first.axes[p])
    made = self._join(values, shape, tuple(axes))
    active = [v for v in values if v.level is not None]
    for v in values:
      for part in v.parts if active and v.level is None else ():
        long = [n for n in self.weights[part[0]].shape if n > 1]
        kind = "class_token" if len(long) < 2 else "other"
        self.use(part, Use(kind, max(made.level or 0, 0)))
    return self._levelled(made)

  def spatial(self, x: Value, shape: Sequence[int]) -> Value:
    """Pools, pads, resizes: axes that change size hold places, not neurons."""
    axes = []
    for axis, old, new in zip(x.axes, x.shape, shape, strict=True):
      if old != new:
        self.axes.pin(axis, "neurons are pooled or padded")
        axis = self.axes.fresh(new, pinned=True)
      axes.append(axis)
    return self._levelled(self._join((x,), tuple(shape), tuple(axes)))

  def look_up(self, table: Value, index: Value) -> Value:
    """Takes rows of a table by number, constant or input."""
    self.axes.pin(table.axes[0])
    shape = (*index.shape, *table.shape[1:])
    made = self._join((table, index), shape, (*index.axes, *table.axes[1:]))
    for part in table.parts:
      position = index.level is None or "position" in part[0]
      kind = "position" if position else "embedding"
      self.use(part, Use(kind, 0))
    level = max(0 if index.level is not None else -1, made.level or -1, 0)
    return self._levelled(
      dataclasses.replace(made, level=level, parts=(), view=None)
    )

  def unknown(
    self, values: Sequence[Value], shapes: Sequence[Sequence[int]], what: str
  ) -> list[Value]:
    """An operation of which nothing is known: no axis behind it moves."""
    for v in values:
      for axis in v.axes:
        self.axes.pin(axis, f"unknown operation {what}")
    made = []
    for shape in shapes:
      one = self._join(values, tuple(shape), self._fixed(shape))
      if one.level is not None:
        for v in values:
          for part in v.parts:
            self.use(part, Use("other", max(one.level, 0)))
      made.append(self._levelled(one))
    return made

  def _fixed(self, shape: Sequence[int]) -> tuple[Axis, ...]:
    return tuple(self.axes.fresh(n, pinned=True) for n in shape)

  def _same(self, x: Value, shape, axes, view) -> Value:
    """A view of a value."""
    made = self._join((x,), tuple(shape), tuple(axes))
    made = dataclasses.replace(
      made,
      view=view if x.level is None else None,
      behind=x.behind,
      origin=x.origin,
      tag=x.tag,
    )
    return self._levelled(made)

  def _join(self, values: Sequence[Value], shape, axes) -> Value:
    """A value made of others."""
    self.axes.see(axes)
    levels = [v.level for v in values if v.level is not None]
    past = 0
    for v in values:
      past |= v.past
      self._reads[v.past] = self._reads.get(v.past, 0) + 1
    parts = () if levels else tuple(p for v in values for p in v.parts)
    return Value(
      tuple(shape),
      tuple(axes),
      max(levels) if levels else None,
      past,
      tuple(dict.fromkeys(parts)),
    )

  def _new(self, shape, axes, level: int) -> Value:
    self.axes.see(axes)
    return self._levelled(Value(tuple(shape), tuple(axes), level))

  def _levelled(self, value: Value) -> Value:
    """Gives an activation its bit, so that common ancestors can be found."""
    if value.level is None:
      return value
    self._levels.append(value.level)
    return dataclasses.replace(
      value, past=value.past | 1 << (len(self._levels) - 1)
    )

  def _note_skip(self, one: Value, other: Value) -> None:
    """A sum of activations: from their latest common value to the deeper."""
    common = one.past & other.past
    if not common or one.level == other.level:
      return
    source = self._levels[common.bit_length() - 1]
    target = max(one.level or 0, other.level or 0)
    if 0 <= source < target:
      self.skips[source, target] = None


def _others(rank: int, places: Sequence[int]) -> list[int]:
  return [p for p in range(rank) if p not in places]


def _reshaped_view(x: Value, shape: tuple[int, ...]):
  """The view behind a reshape that only splits off or merges whole axes."""
  if x.view is None or x.level is not None:
    return None
  view, place, cut = [], 0, None
  for size in shape:
    held, have = [], 1
    if cut is not None:  # The rest of an axis that was cut.
      rest, cut = cut, None
      if rest[1] % size == 0:
        view.append(rest[0])
        if rest[1] != size:
          cut = (rest[0], rest[1] // size)
        continue
      return None
    while have < size and place < len(x.shape):
      n = x.shape[place]
      if size % (have * n):
        if have == 1 and n % size == 0:
          held, have, cut = [*x.view[place]], size, (x.view[place], n // size)
          place += 1
          break
        return None
      held, have, place = [*held, *x.view[place]], have * n, place + 1
    if have != size:
      return None
    view.append(tuple(held))
  return tuple(view)
