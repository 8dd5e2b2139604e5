"""A network as it is run: values, and what each operation says of their axes.

Whoever knows how a network is run (the convention of its names, or a
trace of its code) plays it on a tape. The tape holds no numbers. Of every
value it keeps the axes (`axes.py`), the level, and which weights it comes
from; of every weight, how it is used. `assembly.py` makes a spec of that.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from sne_jax.networks.inference import axes as axes_lib

Axis = axes_lib.Axis

MAXIMUM = "max"
"""What is noted of a maximum over places: it commutes with scales only."""

Part = tuple[str, tuple[tuple[int, int], ...]]
"""A weight, or a part of it: its name, and (enumerated node, member) pairs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
  """What an operation gives.

  Attributes:
    shape: its sizes.
    axes: for each, the nodes.
    level: of the deepest weight that it depends on, -1 for inputs; None where
      it depends on weights and constants alone.
    past: bits of all values before it, and its own.
    parts: weights that it is made of, if level is None.
    view: for a view of one weight, the weight's axes (of its part) that each
      of the value's axes is; None where it is something else.
    producer: the weight whose output this is, biases and scales aside.
    origin: the weight that it comes from by elementwise steps and views.
    tag: what it is to attention: ("scores", q, k), ("attended",) or ().
  """

  shape: tuple[int, ...]
  axes: tuple[Axis, ...]
  level: int | None
  past: int = 0
  parts: tuple[Part, ...] = ()
  view: tuple[tuple[int, ...], ...] | None = None
  producer: Part | None = None
  origin: Part | None = None
  tag: tuple = ()


def whole_view(value: Value) -> tuple[tuple[int, ...], ...] | None:
  """Returns the view of one whole weight, no axis of which is cut apart."""
  view = value.view
  if view is None or len(value.parts) != 1:
    return None
  held = [axis for axes in view for axis in axes]
  return view if len(set(held)) == len(held) else None


@dataclasses.dataclass
class Use:
  """How a weight is used, as first seen."""

  kind: str
  level: int
  out: tuple[int, ...] = ()  # Axes of the tensor, in order.
  into: tuple[int, ...] = ()
  rest: tuple[int, ...] = ()
  of: Part | None = None  # The weight that it comes after.
  after: tuple[Part, int] | None = None  # That, if nothing else reads it.


class Recorder:
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
    self.noted: dict[int, set[str]] = {}  # Activations, by level.
    self.muted = False  # Whether what is played is noted already.
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

  def note(self, values: Sequence[Value], name: str = "") -> None:
    """Notes what is applied to neurons.

    Args:
      values: what it is applied to; weights and constants do not count.
      name: of an activation, `MAXIMUM`, or "" if it is not known.
    """
    for value in () if self.muted else values:
      levels = {value.level}
      if value.origin in self.uses:  # A weight may be used again, deeper.
        levels.add(self.uses[value.origin].level)
      for level in levels:
        if level is not None and level >= 0:
          self.noted.setdefault(level, set()).add(name)

  def _act(self, part: Part, x: Value, result: Value, op: str) -> int:
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
    if op == "add" and self._is_bias(value, x.producer):
      self.use(part, Use("bias", level, of=x.producer))
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
    if running and x.producer is not None:
      self.use(part, Use(kind, level, of=x.producer))
      return level
    module = part[0].rpartition(".")[0] or part[0].rpartition("/")[0]
    level = self._norm_levels.setdefault(module or part[0], level + 1)
    self.use(part, Use(kind, level))
    return level

  def _is_bias(self, value: Value, producer: Part | None) -> bool:
    """Whether a tensor has a number for each output of the weight before it.

    A weight has one bias; what is added next is something else.
    """
    use = self.uses.get(producer) if producer is not None else None
    if use is None or producer is None or not use.out:
      return False
    shape = self.weights[producer[0]].shape
    outputs = math.prod(shape[place] for place in use.out)
    if math.prod(value.shape) != outputs:
      return False
    return not any(
      u.of == producer and u.kind == "bias" for u in self.uses.values()
    )

  def use(self, part: Part, use: Use) -> None:
    """Notes how a weight, or a part of one, is used; the first counts."""
    self.uses.setdefault(part, use)

  def use_all(self, value: Value, use: Use) -> None:
    """Notes how the weights of a value are used."""
    for part in value.parts:
      self.use(part, use)

  def activation(
    self, values: Sequence[Value], shape, axes, level: int
  ) -> Value:
    """Returns an activation made of others, at a level."""
    value = self._join(values, shape, axes)
    return self._levelled(Value(value.shape, value.axes, level, value.past))

  def read_once(self, use: Use) -> bool:
    """Whether what a batch norm comes after is read by it alone."""
    return use.after is None or self._reads.get(use.after[1], 0) <= 1

  def unclaimed(self) -> tuple[str, ...]:
    """Returns where no permutation is claimed, and why."""
    return tuple(
      why if "norm_groups" in why else f"no permutation is claimed where {why}"
      for why in self.axes.reasons
    )

  def _fixed(self, shape: Sequence[int]) -> tuple[Axis, ...]:
    return tuple(self.axes.fresh(n, pinned=True) for n in shape)

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
