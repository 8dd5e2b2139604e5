"""Small numbers of an ONNX graph, worked out: shapes, axes, bounds.

Exporters compute the sizes of reshapes in the graph itself. Only whole
numbers and single ones are worked out, only a few thousand at a time, and only
by the operators below; whatever is not is simply not known.

Dimensions: none; arrays have any shape.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

MOST = 4096
"""Numbers of the largest array that is worked out."""

Given = Mapping[str, Any]
Known = np.ndarray


def evaluate(
  op: str, given: Given, inputs: Sequence[Known | None]
) -> list[Known] | None:
  """Returns what an operator gives for known inputs; None if not known.

  Args:
    op: its name in the default domain.
    given: its attributes.
    inputs: arrays, or None where an optional input is left out.
  """
  work = _TABLE.get(op)
  if work is None or not all(_is_plain(x) for x in inputs if x is not None):
    return None
  try:
    with np.errstate(all="ignore"):
      outputs = work(given, *inputs)
  except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError):
    return None  # Inputs or attributes are left out, or do not fit.
  outputs = outputs if isinstance(outputs, list) else [outputs]
  outputs = [np.asarray(y) for y in outputs]
  return outputs if all(y.size <= MOST for y in outputs) else None


def _is_plain(x: Known) -> bool:
  return x.size <= 1 or x.size <= MOST and x.dtype.kind in "iub"


def axes_of(given: Given, listed: Known | None) -> list[int] | None:
  """Returns the axes that an operator has as attribute or as input."""
  if listed is not None:
    return [int(n) for n in listed.reshape(-1)]
  axes = given.get("axes")
  return None if axes is None else [int(n) for n in axes]


def unsqueezed(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
  """Returns a shape with ones put in at the places `axes`."""
  rank = len(shape) + len(axes)
  places = {a % rank for a in axes}
  if len(places) < len(axes):
    raise ValueError(f"axes {list(axes)} name a place twice")
  left = iter(shape)
  return tuple(1 if p in places else next(left) for p in range(rank))


def squeezed(
  shape: Sequence[int], axes: Sequence[int] | None
) -> tuple[int, ...]:
  """Returns a shape without the ones at the places `axes`, or all of them."""
  rank = len(shape)
  if axes is None:
    places = {p for p, n in enumerate(shape) if n == 1}
  else:
    places = {a % rank for a in axes}
  if any(shape[p] != 1 for p in places):
    raise ValueError(f"axes {sorted(places)} of {tuple(shape)} are not 1")
  return tuple(n for p, n in enumerate(shape) if p not in places)


def reshaped(
  shape: Sequence[int], target: Sequence[int], allow_zero: bool = False
) -> tuple[int, ...]:
  """Returns the shape that a Reshape gives: 0 keeps a size, -1 is what is left.

  Raises:
    ValueError: the numbers do not come out.
  """
  sizes = [
    shape[p] if n == 0 and not allow_zero else int(n)
    for p, n in enumerate(target)
  ]
  rest = math.prod(n for n in sizes if n != -1)
  if sizes.count(-1) == 1 and rest:
    sizes[sizes.index(-1)] = math.prod(shape) // rest
  if min(sizes, default=0) < 0 or math.prod(sizes) != math.prod(shape):
    raise ValueError(f"{tuple(shape)} is not reshaped to {tuple(target)}")
  return tuple(sizes)


def bounds(size: int, start: int, stop: int, step: int) -> tuple[int, int, int]:
  """Returns start, stop and step of a Slice along an axis, as of a range."""
  return slice(
    start, stop if step > 0 or stop >= -size else None, step
  ).indices(size)


def _slice(given, x, starts=None, ends=None, axes=None, steps=None):
  starts = given["starts"] if starts is None else starts.tolist()
  ends = given["ends"] if ends is None else ends.tolist()
  axes = axes_of(given, axes) or range(len(starts))
  steps = [1] * len(starts) if steps is None else steps.tolist()
  for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
    first, last, by = bounds(x.shape[axis], start, stop, step)
    x = np.take(x, range(first, last, by), axis)
  return x


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
  def work(given, x, axes=None):
    axes = axes_of(given, axes)
    if not axes and given.get("noop_with_empty_axes"):
      return x
    keep = bool(given.get("keepdims", 1))
    return function(x, axis=tuple(axes) if axes else None, keepdims=keep)

  return work


def _divided(given, x, y):
  """Whole numbers are divided towards zero."""
  if np.any(y == 0):
    raise ValueError("a division by zero")
  if x.dtype.kind == "f" or y.dtype.kind == "f":
    return x / y
  return (np.abs(x) // np.abs(y) * np.sign(x) * np.sign(y)).astype(x.dtype)


def _range(given, start, limit, step):
  start, limit, step = start.item(), limit.item(), step.item()
  if not step or (limit - start) / step > MOST:
    raise ValueError("a long range")
  return np.arange(start, limit, step)


def _filled(given, shape):
  if math.prod(shape.tolist()) > MOST:
    raise ValueError("a large array")
  value = given.get("value", np.zeros(1, np.float32))
  return np.full(shape.tolist(), np.asarray(value).reshape(-1)[0])


def _expanded(given, x, shape):
  shape = np.broadcast_shapes(x.shape, tuple(shape.tolist()))
  if math.prod(shape) > MOST:
    raise ValueError("a large array")
  return np.broadcast_to(x, shape)


def _cast(given, x):
  kind = {1: "f4", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8"}
  return x.astype(kind[given["to"]])


_TABLE: dict[str, Callable[..., Any]] = {
  "Abs": lambda given, x: np.abs(x),
  "Add": lambda given, x, y: x + y,
  "And": lambda given, x, y: x & y,
  "Cast": _cast,
  "Ceil": lambda given, x: np.ceil(x),
  "Concat": lambda given, *xs: np.concatenate(xs, given["axis"]),
  "ConstantOfShape": _filled,
  "Div": _divided,
  "Equal": lambda given, x, y: x == y,
  "Expand": _expanded,
  "Floor": lambda given, x: np.floor(x),
  "Gather": lambda given, x, i: np.take(x, i, given.get("axis", 0)),
  "Greater": lambda given, x, y: x > y,
  "Identity": lambda given, x: x,
  "Less": lambda given, x, y: x < y,
  "Max": lambda given, *xs: np.max(np.stack(np.broadcast_arrays(*xs)), 0),
  "Min": lambda given, *xs: np.min(np.stack(np.broadcast_arrays(*xs)), 0),
  "Mod": lambda given, x, y: np.mod(x, y),
  "Mul": lambda given, x, y: x * y,
  "Neg": lambda given, x: -x,
  "Not": lambda given, x: ~x,
  "Or": lambda given, x, y: x | y,
  "Range": _range,
  "ReduceMax": _reduced(np.max),
  "ReduceMin": _reduced(np.min),
  "ReduceProd": _reduced(np.prod),
  "ReduceSum": _reduced(np.sum),
  "Reshape": lambda given, x, s: x.reshape(
    reshaped(x.shape, s.tolist(), bool(given.get("allowzero")))
  ),
  "Slice": _slice,
  "Sqrt": lambda given, x: np.sqrt(x),
  "Squeeze": lambda given, x, axes=None: x.reshape(
    squeezed(x.shape, axes_of(given, axes))
  ),
  "Sub": lambda given, x, y: x - y,
  "Transpose": lambda given, x: x.transpose(given.get("perm")),
  "Unsqueeze": lambda given, x, axes=None: x.reshape(
    unsqueezed(x.shape, axes_of(given, axes) or [])
  ),
  "Where": lambda given, c, x, y: np.where(c, x, y),
}
