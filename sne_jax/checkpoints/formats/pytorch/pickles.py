"""Pickles as data: a small machine that builds containers and runs no code.

A pickle is a program for a stack machine. Python's own machine imports what
the program names and calls it. This one knows the instructions that plain
containers, numbers and texts need, calls only functions that its caller hands
over, and refuses everything else by name. It keeps its memo in a table, so
that a large index costs nothing, and counts its steps.

References:
  CPython, Lib/pickletools.py, which describes the instructions.
"""

import dataclasses
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

_PUSH_ARGUMENT = frozenset(
  (
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
  )
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = frozenset(("BINPUT", "LONG_BINPUT", "MEMOIZE"))
_GET = frozenset(("BINGET", "LONG_BINGET"))
_PLAIN = (str, int, float, bytes, type(None))
_IGNORED = frozenset(("PROTO", "FRAME"))


class RefusedError(ValueError):
  """The program wants something that this machine does not do.

  Attributes:
    symbol: what it wants, for example "os.system".
  """

  def __init__(self, symbol: str):
    """Keeps the symbol."""
    super().__init__(f"it names {symbol}")
    self.symbol = symbol


@dataclasses.dataclass(frozen=True)
class Function:
  """A function that a program may call, under the name that it uses."""

  call: Callable[..., Any]


class Ordered(dict):
  """What `collections.OrderedDict` becomes; `state` are its attributes."""

  state: Mapping[str, Any] | None = None


@dataclasses.dataclass(eq=False)
class Record:
  """An object of an unknown class: what would have made it, nothing run.

  Attributes:
    name: of its class or function, for example "pathlib.PosixPath".
    args: it would have been made from.
    state: its attributes, mostly a dictionary; None if it has none.
    items: appended to it, if it is a list.
    mapping: put into it, if it is a dictionary.
  """

  name: str
  args: tuple = ()
  state: Any = None
  items: list = dataclasses.field(default_factory=list)
  mapping: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Symbol:
  """A class or function that is named, but not called."""

  name: str


def ordered(items=()) -> Ordered:
  """Makes an `Ordered` of pairs, as `OrderedDict` would."""
  values = Ordered()
  for key, value in items:
    values[_key(key)] = value
  return values


def loads(
  data: bytes,
  known: Mapping[str, Any],
  *,
  persistent: Callable[[Any], Any] | None = None,
  records: bool = False,
  max_steps: int = 10_000_000,
) -> Any:
  """Runs a pickle on the small machine.

  Args:
    data: the pickle, binary protocols 2 to 5 without buffers outside.
    known: what a global means, by "module.name": a `Function` may be called,
      other values are only values.
    persistent: turns a persistent id into its object.
    records: whether unknown classes become inert `Record`s rather than being
      refused. Nothing of them runs either way.
    max_steps: instructions after which to give up.

  Raises:
    RefusedError: a global is unknown, or something else than `known` functions
      is called.
    ValueError: the program is damaged. `known` functions and `persistent` may
      raise it too, for what they are given.
  """
  machine = _Machine(known, persistent, records)
  for step, (opcode, arg, _) in enumerate(pickletools.genops(data)):
    if step >= max_steps:
      raise ValueError(f"more than {max_steps} instructions")
    if opcode.name == "STOP":
      break
    try:
      machine.run(opcode.name, arg)
    except IndexError:
      raise ValueError(f"{opcode.name} finds its stack empty") from None
  if machine.marks or len(machine.stack) != 1:
    raise ValueError("it does not end with one value")
  return machine.stack.pop()


class _Machine:
  """Stack, marks and memo of one run."""

  def __init__(self, known, persistent, records):
    self.stack: list[Any] = []
    self.marks: list[list[Any]] = []
    self.memo: dict[int, Any] = {}
    self._known = known
    self._persistent = persistent
    self._records = records

  def run(self, name: str, arg: Any) -> None:
    """Does one instruction."""
    stack = self.stack
    if name in _PUSH_ARGUMENT:
      stack.append(arg)
    elif name in _PUT:
      self.memo[len(self.memo) if name == "MEMOIZE" else arg] = stack[-1]
    elif name in _GET:
      if arg not in self.memo:
        raise ValueError(f"nothing is kept under {arg}")
      stack.append(self.memo[arg])
    elif name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
      stack.append(_EMPTY[name]())
    elif name in _TUPLES:
      stack.append(tuple(self._pop(_TUPLES[name])))
    elif name not in _IGNORED:
      method = getattr(self, "op_" + name.lower(), None)
      if method is None:
        raise RefusedError(f"the instruction {name}")
      method(arg)

  def _pop(self, count: int) -> list[Any]:
    if count > len(self.stack):
      raise IndexError
    taken = self.stack[len(self.stack) - count :]
    del self.stack[len(self.stack) - count :]
    return taken

  def _pop_mark(self) -> list[Any]:
    taken, self.stack = self.stack, self.marks.pop()
    return taken

  def op_mark(self, _):
    self.marks.append(self.stack)
    self.stack = []

  def op_pop(self, _):
    self.stack.pop()

  def op_pop_mark(self, _):
    self._pop_mark()

  def op_dup(self, _):
    self.stack.append(self.stack[-1])

  def op_tuple(self, _):
    taken = self._pop_mark()
    self.stack.append(tuple(taken))

  def op_list(self, _):
    taken = self._pop_mark()
    self.stack.append(taken)

  def op_dict(self, _):
    taken = self._pop_mark()
    self.stack.append({})
    self._set(taken)

  def op_append(self, _):
    (value,) = self._pop(1)
    self._extend([value])

  def op_appends(self, _):
    self._extend(self._pop_mark())

  def _extend(self, values: list[Any]) -> None:
    target = self.stack[-1]
    if isinstance(target, Record):
      target = target.items
    if not isinstance(target, list):
      raise ValueError(f"appends to a {type(target).__name__}")
    target.extend(values)

  def op_additems(self, _):
    values = self._pop_mark()
    if not isinstance(self.stack[-1], set):
      raise ValueError("adds to what is no set")
    self.stack[-1].update(map(_key, values))

  def op_frozenset(self, _):
    taken = self._pop_mark()
    self.stack.append(frozenset(map(_key, taken)))

  def op_setitem(self, _):
    self._set(self._pop(2))

  def op_setitems(self, _):
    self._set(self._pop_mark())

  def _set(self, values: list[Any]) -> None:
    target = self.stack[-1]
    if isinstance(target, Record):
      target = target.mapping
    if not isinstance(target, dict) or len(values) % 2:
      raise ValueError(f"sets items of a {type(target).__name__}")
    for key, value in zip(values[::2], values[1::2], strict=True):
      target[_key(key)] = value

  def op_global(self, arg):
    self._find(*arg.split(" ", 1))

  def op_stack_global(self, _):
    module, name = self._pop(2)
    if not isinstance(module, str) or not isinstance(name, str):
      raise ValueError("a global is named by what is no text")
    self._find(module, name)

  def _find(self, module: str, name: str) -> None:
    symbol = f"{module}.{name}"
    if symbol not in self._known and not self._records:
      raise RefusedError(symbol)
    self.stack.append(self._known.get(symbol, Symbol(symbol)))

  def op_binpersid(self, _):
    (key,) = self._pop(1)
    if self._persistent is None:
      raise ValueError("it refers to something outside")
    self.stack.append(self._persistent(key))

  def op_reduce(self, _):
    function, args = self._pop(2)
    if not isinstance(args, tuple):
      raise ValueError("calls with what is no tuple")
    self.stack.append(self._call(function, args))

  op_newobj = op_reduce

  def op_newobj_ex(self, _):
    function, args, named = self._pop(3)
    self.stack.append(self._call(function, (*args, named)))

  def _call(self, function: Any, args: tuple) -> Any:
    if isinstance(function, Function):
      try:
        return function.call(*args)
      except TypeError as error:
        raise ValueError(f"wrong arguments: {error}") from None
    if self._records and isinstance(function, Symbol):
      return Record(function.name, args)
    raise RefusedError(f"a call of a {type(function).__name__}")

  def op_build(self, _):
    (state,) = self._pop(1)
    target = self.stack[-1]
    if not isinstance(target, Record | Ordered):
      raise RefusedError(f"attributes of a {type(target).__name__}")
    target.state = state


def _key(value: Any) -> Any:
  """Returns a key of a table; only plain ones, whose hash is quick."""
  if isinstance(value, (*_PLAIN, Symbol, Record)):
    return value
  if isinstance(value, tuple) and all(isinstance(v, _PLAIN) for v in value):
    return value
  raise ValueError(f"a {type(value).__name__} as a key")
