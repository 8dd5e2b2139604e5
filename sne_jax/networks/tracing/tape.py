"""The operations of a network, and what each says of its values' axes.

An operation that is not known must go through `unknown`, which pins all axes
of its inputs: nothing false can be claimed.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from sne_jax.networks.inference import axes as axes_lib
from sne_jax.networks.tracing.recording import (
  MAXIMUM,
  Axis,
  Part,
  Recorder,
  Use,
  Value,
  whole_view,
)

__all__ = ["MAXIMUM", "Part", "Tape", "Use", "Value"]


class Tape(Recorder):
  """Records a network by its operations. Mutable."""

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
    # Axes are aligned at the last one; those that meet are one axis, and those
    # of size 1 are repeated, so they say nothing.
    axes = []
    for place, size in enumerate(shape):
      axis: Axis = ()
      for v in values:
        own_place = place - rank + len(v.shape)
        if own_place < 0 or v.shape[own_place] == 1:
          continue
        if axis:
          self.axes.unify(axis, v.axes[own_place], f"{op} of unlike axes")
        axis = axis or v.axes[own_place]
      axes.append(axis if axis or size == 1 else self.axes.fresh(size))
    result = self._join(values, shape, tuple(axes))
    return self._combined(result, values, op)

  def _combined(self, result: Value, values: Sequence[Value], op: str) -> Value:
    """Levels, skips and tags of an elementwise result."""
    active = [v for v in values if v.level is not None]
    fixed = [v for v in values if v.level is None and v.parts]
    if not active:
      return result
    if len(active) > 1 and op != "add":
      self.note(active)  # One gates the other.
    if op == "add" and len(active) == 2 and active[0].shape == active[1].shape:
      self._note_skip(active[0], active[1])
    if len(active) == 1:  # Weights act on one activation: a bias or a scale.
      x = active[0]
      linear = op != "map"
      result = dataclasses.replace(
        result,
        producer=x.producer if linear else None,
        origin=x.origin,
        tag=x.tag,
      )
      for v in fixed:
        for part in v.parts:
          level = self._act(part, x, result, op)
          result = dataclasses.replace(
            result, level=max(level, result.level or 0)
          )
    else:  # A sum keeps the origin that all its terms share.
      tags = [v.tag for v in active if v.tag]
      origins = {v.origin for v in active}
      result = dataclasses.replace(
        result,
        tag=tags[0] if tags else (),
        origin=origins.pop() if len(origins) == 1 else None,
      )
      for v in fixed:
        for part in v.parts:
          self._act(part, active[0], result, op)
    return self._levelled(result)

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
    result = self._join((x, y), shape, tuple(v.axes[p] for v, p in places))
    # If one side is made of weights, the other is the activation they act on.
    for value, other, mine in ((x, y, 0), (y, x, 1)):
      if other.level is None and not other.parts:
        self.note((value,))  # A constant reads neurons.
      if value.level is not None or not value.parts:
        continue
      if other.level is None:
        continue
      axes = [pair[mine] for pair in summed]
      kept = right if mine else left
      return self._applied(result, other, value, axes, kept, batch)
    if x.level is not None and y.level is not None:
      self.note((x, y))
      return self._levelled(self._attended(result, x, y))
    return self._levelled(result)

  def _applied(self, result, x, weight, summed, kept, batch) -> Value:
    """The product of an activation and a weight."""
    level = (x.level if x.level is not None else -1) + 1
    view = whole_view(weight)
    if view is None or batch:
      for part in weight.parts:
        self.use(part, Use("other", level))
      return self._levelled(dataclasses.replace(result, level=level))
    part = weight.parts[0]
    flat = lambda places: tuple(a for p in places for a in view[p])
    kind = "linear_weight"
    if x.tag == ("attended",):
      kind = "attention_o"
    self.use(part, Use(kind, level, out=flat(kept), into=flat(summed)))
    level = max(level, self.uses[part].level)
    return self._levelled(
      dataclasses.replace(result, level=level, producer=part, origin=part)
    )

  def _attended(self, result: Value, x: Value, y: Value) -> Value:
    """The product of two activations, perhaps a step of attention."""
    for scores, values in ((x, y), (y, x)):
      if scores.tag[:1] == ("scores",) and values.origin is not None:
        _, q, k = scores.tag
        self._mark(q, k, values.origin)
        return dataclasses.replace(result, tag=("attended",))
    if x.origin is not None and y.origin is not None:
      return dataclasses.replace(result, tag=("scores", x.origin, y.origin))
    return result

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
      old = place - new
      kept = old >= 0 and x.shape[old] == size
      axes.append(x.axes[old] if kept else self.axes.fresh(size, pinned=False))
      view.append(x.view[old] if kept and x.view is not None else ())
    return self._same(
      x, shape, tuple(axes), None if x.view is None else tuple(view)
    )

  def reduce(self, x: Value, places: Iterable[int]) -> Value:
    """Sums, averages or takes the maximum over axes, which are dropped."""
    places = [p % len(x.shape) for p in places]
    if any(self.axes.is_free(x.axes[p]) for p in places):
      self.note((x,))  # Neurons are summed: no weight reads each.
    kept = _others(len(x.shape), places)
    result = self._join(
      (x,), tuple(x.shape[p] for p in kept), tuple(x.axes[p] for p in kept)
    )
    return self._levelled(dataclasses.replace(result, tag=x.tag))

  def select(self, x: Value, place: int, member: int) -> Value:
    """Takes one place of an axis, which is dropped."""
    place %= len(x.shape)
    # Picking from an axis that moves (queries of a fused matrix) names a part
    # of the weight; picking from one that is pinned leaves the whole.
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
    result = self._same(x, shape, axes, view)
    return dataclasses.replace(result, parts=parts, origin=origin)

  def slice(self, x: Value, place: int, start: int, stop: int) -> Value:
    """Takes the places from `start` to `stop` of an axis."""
    size, have = stop - start, x.shape[place]
    if (start, stop) == (0, have):
      return x
    shape = (*x.shape[:place], size, *x.shape[place + 1 :])
    pieces = have // size if size and have % size == 0 else 0
    even = pieces and start % size == 0 and pieces <= axes_lib.MOST_MEMBERS
    if (
      self.axes.is_free(x.axes[place]) and even
    ):  # One of several equal blocks.
      cut = (*x.shape[:place], pieces, size, *x.shape[place + 1 :])
      blocks = self.reshape(x, cut)
      leaves = self.axes.leaves(blocks.axes[place])
      if len(leaves) == 1:
        return self.select(blocks, place, start // size)
    self.axes.pin(x.axes[place], "part of an axis is taken")
    fresh = self.axes.fresh(size, pinned=True)
    axes = (*x.axes[:place], fresh, *x.axes[place + 1 :])
    return self._same(x, shape, axes, None)

  def concatenate(self, values: Sequence[Value], place: int) -> Value:
    """Puts values one after another; blocks of unlike sizes are pinned."""
    first = values[0]
    place %= len(first.shape)
    joined = self.axes.join([v.axes[place] for v in values])
    for v in () if joined else values:
      self.axes.pin(v.axes[place], "channels are concatenated")
    size = sum(v.shape[place] for v in values)
    shape = (*first.shape[:place], size, *first.shape[place + 1 :])
    axes = []
    for p in range(len(shape)):
      if p == place:
        axes.append(joined or self.axes.fresh(size, pinned=True))
        continue
      for v in values[1:]:
        self.axes.unify(first.axes[p], v.axes[p])
      axes.append(first.axes[p])
    result = self._join(values, shape, tuple(axes))
    active = [v for v in values if v.level is not None]
    for v in values:
      for part in v.parts if active and v.level is None else ():
        long = [n for n in self.weights[part[0]].shape if n > 1]
        kind = "class_token" if len(long) < 2 else "other"
        self.use(part, Use(kind, max(result.level or 0, 0)))
    return self._levelled(result)

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
    result = self._join((table, index), shape, (*index.axes, *table.axes[1:]))
    for part in table.parts:
      position = index.level is None or "position" in part[0]
      kind = "position" if position else "embedding"
      self.use(part, Use(kind, 0))
    level = max(0 if index.level is not None else -1, result.level or -1, 0)
    return self._levelled(
      dataclasses.replace(result, level=level, parts=(), view=None)
    )

  def unknown(
    self, values: Sequence[Value], shapes: Sequence[Sequence[int]], what: str
  ) -> list[Value]:
    """An operation of which nothing is known: no axis after it moves."""
    for v in values:
      for axis in v.axes:
        self.axes.pin(axis, f"unknown operation {what}")
    outputs = []
    for shape in shapes:
      one = self._join(values, tuple(shape), self._fixed(shape))
      if one.level is not None:
        for v in values:
          for part in v.parts:
            self.use(part, Use("other", max(one.level, 0)))
      outputs.append(self._levelled(one))
    return outputs

  def _same(self, x: Value, shape, axes, view) -> Value:
    """A view of a value."""
    result = self._join((x,), tuple(shape), tuple(axes))
    result = dataclasses.replace(
      result,
      view=view if x.level is None else None,
      producer=x.producer,
      origin=x.origin,
      tag=x.tag,
    )
    return self._levelled(result)


def _others(rank: int, places: Sequence[int]) -> list[int]:
  return [p for p in range(rank) if p not in places]


def _reshaped_view(x: Value, shape: tuple[int, ...]):
  """The view after a reshape that only splits off or merges whole axes."""
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
    if size == 1 and place < len(x.shape) and x.shape[place] == 1:
      view.append(x.view[place])
      place += 1
      continue
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
