"""An ONNX graph, played: which axes move together is known, not guessed.

The graph comes as plain nodes, from whoever has read the file; nothing here
knows the library. Its operators are played on a tape; one that is not in
`onnx_operators/` claims no permutation of what it touches, and says so.

Sizes are worked out along the way. What comes after an operator of which not
even the shape of its result is known is *lost*: whatever meets it is pinned.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.networks.tracing import activations
from sne_jax.networks.tracing.onnx_operators import known, moves, table
from sne_jax.networks.tracing.player import Mismatch, Player
from sne_jax.networks.tracing.tape import Value

MAX_NODES = 20_000
"""Nodes of the largest graph that is played."""

Shape = tuple[int, ...]

MASKED = 1e4
"""Numbers beyond this are those of a mask, not weights."""

_MOST_REAL = 16  # Real numbers that are looked at: bounds, steps, scales.
_WHOLE = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
  """One operation.

  Attributes:
    op: operator; those of other domains than ONNX's own have `domain.` before.
    inputs: names; "" where an optional one is left out.
    outputs: names.
    given: attributes, as numbers, texts, lists and arrays.
    inner: names that graphs within the node use.
  """

  op: str
  inputs: tuple[str, ...]
  outputs: tuple[str, ...]
  given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  inner: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
  """Numbers of the file.

  Attributes:
    shape: of the array.
    dtype: its name.
    read: returns the array.
    computed: whether it stands as a Constant among the operations.
  """

  shape: Shape
  dtype: str
  read: Callable[[], np.ndarray]
  computed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """A graph.

  Attributes:
    nodes: in an order in which they can run.
    inputs: shapes by name; None where they are not known.
    outputs: names.
    stored: numbers of the file, by name.
    shapes: of other values, as far as the file says them.
  """

  nodes: Sequence[Node]
  inputs: Mapping[str, Shape | None]
  outputs: Sequence[str]
  stored: Mapping[str, Stored]
  shapes: Mapping[str, Shape] = dataclasses.field(default_factory=dict)


class Item:
  """What a name of the graph stands for: a value, numbers, or both.

  Attributes:
    shape: its sizes; None where they are lost.
    name: of stored numbers, else "".
  """

  def __init__(
    self,
    shape: Shape | None,
    value: Value | Callable[[], Value],
    *,
    name: str = "",
    array: Callable[[], np.ndarray | None] = lambda: None,
    weight: Callable[[], Value] | None = None,
  ):
    """Stands for a value, that may be made when it is first used.

    Args:
      shape: see the class.
      value: on the tape.
      name: see the class.
      array: returns the numbers, or None where they are not known.
      weight: makes the value of numbers that are known to be weights.
    """
    self.shape = shape
    self.name = name
    self._value = value
    self._array = array
    self._weight = weight

  @functools.cached_property
  def value(self) -> Value:
    """On the tape; numbers that nothing says of are weights if they vary."""
    return self._value() if callable(self._value) else self._value

  @functools.cached_property
  def array(self) -> np.ndarray | None:
    """The numbers, where they are few and known."""
    return self._array()

  @property
  def numbers(self) -> np.ndarray:
    """The same, for an operator that needs them: sizes, axes, bounds.

    Raises:
      ValueError: they are only known when the graph is run.
    """
    if self.array is None:
      raise ValueError("numbers that are only known when the graph is run")
    return self.array

  @property
  def is_number(self) -> bool:
    """Whether these are whole numbers that are known, such as a shape."""
    return self.array is not None and self.array.dtype.kind in "iub"

  def weight(self) -> Value:
    """The same as `value`, used where an operator takes weights."""
    return self.value if self._weight is None else self._weight()


def play(plan: Plan, player: Player) -> int:
  """Plays a graph; returns how many operators have not fitted their inputs.

  Raises:
    Mismatch: it has too many nodes, or none that makes its outputs; it is in
      no order that can be run; or no weight has a part in its outputs.
  """
  run = _Run(plan, player)
  run.play()
  return run.failed


_UNPLAYED = (
  *(ValueError, IndexError, KeyError, TypeError, ArithmeticError),
  AttributeError,
)
"""Raised by operators whose inputs are left out, not known, or do not fit."""


class _Run:
  """A graph on its way over the tape."""

  def __init__(self, plan: Plan, player: Player):
    self.plan, self.player, self.tape = plan, player, player.tape
    self.known: dict[str, Item] = {}
    self.used: set[str] = set()
    self.failed = 0

  def play(self) -> None:
    """Plays all nodes that have a part in the outputs."""
    nodes = self._living()
    for name, shape in self.plan.inputs.items():
      value = functools.partial(self.tape.input, shape or ())
      self.known[name] = Item(shape, value)
    for name, stored in self.plan.stored.items():
      self.known[name] = self._item(name, stored)
    for node in nodes:
      for name, item in zip(node.outputs, self._played(node), strict=True):
        if name in self.known:
          raise Mismatch(f"two operators give {name[:80]!r}")
        if name:
          self.known[name] = item
    for name in self.plan.outputs:
      self.tape.output(self._find(name).value)
    if not self.tape.uses:
      raise Mismatch("no weight has a part in its outputs")

  def _living(self) -> list[Node]:
    """Returns the nodes that the outputs depend on, in order."""
    if len(self.plan.nodes) > MAX_NODES:
      raise Mismatch(f"it has more than {MAX_NODES} operators")
    wanted, living = set(self.plan.outputs), []
    for node in reversed(self.plan.nodes):
      if wanted & set(node.outputs) - {""}:
        living.append(node)
        wanted |= {*node.inputs, *node.inner}
        self.used |= {*node.inputs, *node.inner}
    return living[::-1]

  def _find(self, name: str) -> Item:
    if name not in self.known:
      raise Mismatch(
        f"{name[:80]!r} is used before any operator gives it: a cycle, or"
        " operators in no order"
      )
    return self.known[name]

  def _item(self, name: str, stored: Stored) -> Item:
    """Numbers of the file: weights, or constants."""
    shape = stored.shape
    real = self.player.has(name) and self.player.shape(name) == shape
    size = math.prod(shape)
    most = known.MOST if stored.dtype in _WHOLE else _MOST_REAL

    def constant() -> Value:
      alike = size <= known.MOST and _is_uniform(stored.read())
      self.player.constants[name] = None
      return self.tape.constant(shape, uniform=alike)

    def value() -> Value:
      weigh = real and size > 1 and not self._is_constant(stored)
      return self.player.weight(name) if weigh else constant()

    return Item(
      shape,
      value,
      name=name,
      array=lambda: stored.read() if size <= most else None,
      weight=lambda: self.player.weight(name) if real and shape else constant(),
    )

  def _is_constant(self, stored: Stored) -> bool:
    """Whether numbers are a mask, or a Constant of one number, repeated."""
    if stored.computed and _is_uniform(stored.read()):
      return True
    if len([n for n in stored.shape if n > 1]) < 2:
      return False
    array = stored.read()
    return not bool(np.all(np.abs(array.astype(np.float32)) < MASKED))

  def _played(self, node: Node) -> list[Item]:
    """Plays one operator; what cannot be played is unknown."""
    inner = [self.known[n] for n in node.inner if n in self.known]
    items = [self._find(name) if name else None for name in node.inputs]
    given = [item for item in items if item is not None]
    numbers = self._numbers(node, items)
    if numbers is not None:
      return numbers
    extra = any(name in self.used for name in node.outputs[1:] if name)
    operation = table.find(node.op)
    sound = not any(item.shape is None for item in given)
    if operation is not None and sound and not node.inner:
      self._note(node, given)
      try:
        options = {**node.given, "outputs": len(node.outputs)}
        results = operation(self.tape, options, *items)
      except _UNPLAYED:
        results, self.failed = None, self.failed + 1
      if results is not None:
        many = results if isinstance(results, list) else [results]
        if len(many) >= len(node.outputs) or not extra:
          return self._padded(many, node)
    return self._unknown(node, [*given, *inner])

  def _padded(self, values: Sequence[Value], node: Node) -> list[Item]:
    """Results as items; those that nobody uses may be missing."""
    items = [Item(v.shape, v) for v in values[: len(node.outputs)]]
    lost = lambda: self.tape.unknown([], [()], node.op)[0]
    return items + [
      Item(None, lost) for _ in range(len(node.outputs) - len(items))
    ]

  def _numbers(
    self, node: Node, items: Sequence[Item | None]
  ) -> list[Item] | None:
    """Works an operator out on numbers, where all inputs are known."""
    if node.op in ("Shape", "Size") and items and items[0] is not None:
      shape = items[0].shape
      if shape is None:
        return None
      part = slice(node.given.get("start", 0), node.given.get("end"))
      number = math.prod(shape) if node.op == "Size" else shape[part]
      arrays = [np.asarray(number, np.int64)]
    else:
      inputs = [None if i is None else i.array for i in items]
      if any(
        i is not None and a is None for i, a in zip(items, inputs, strict=True)
      ):
        return None
      found = known.evaluate(node.op, node.given, inputs)
      if found is None or len(found) != len(node.outputs):
        return None
      arrays = found
    return [
      Item(
        a.shape,
        functools.partial(self.tape.constant, a.shape, _is_uniform(a)),
        array=lambda a=a: a,
      )
      for a in arrays
    ]

  def _note(self, node: Node, items: Sequence[Item]) -> None:
    """Notes what an operator is to the neurons that it is applied to."""
    last = set(self.plan.outputs)
    if set(node.outputs) & last and not set(node.outputs) & self.used:
      return  # What acts on the outputs alone moves no hidden neuron.
    values = table.values(node.op, items)
    if not values:
      return
    name = table.activation(node.op, node.given)
    if name is None:
      word = table.WORDS.get(node.op, node.op)
      name = activations.of_operation(word, values)
    if name is not None:
      self.tape.note(values, name)

  def _unknown(self, node: Node, items: Sequence[Item]) -> list[Item]:
    """An operator of which nothing is known but, perhaps, shapes."""
    sizes = moves.unplayed(node.op, node.given, [i.shape for i in items])
    sizes += [None] * (len(node.outputs) - len(sizes))
    shapes = [
      size or self.plan.shapes.get(name)
      for name, size in zip(node.outputs, sizes, strict=False)
    ]
    values = [item.value for item in items if not item.is_number]
    if table.find(node.op) is not None:
      for axis in (axis for v in values for axis in v.axes):
        self.tape.axes.pin(axis, f"{node.op} meets what is not known")
    if not items:
      self.player.guess(f"no permutation is claimed where {node.op} has a part")
    outputs = self.tape.unknown(values, [s or () for s in shapes], node.op)
    self.tape.note(values)
    return [Item(s, v) for s, v in zip(shapes, outputs, strict=True)]


def _is_uniform(array: np.ndarray) -> bool:
  flat = array.reshape(-1)
  return flat.size < 2 or bool(np.all(flat == flat[0]))
