"""What the operators of ONNX do to the axes of values.

A table from operators to a tape: `operation(tape, given, *items)` plays one on
its inputs, with attributes `given`, and returns what it gives, or None where
nothing is known. Raising `ValueError` is the same.

Dimensions: `B` inputs, `C` channels, `O` outputs, `T` tokens.

References:
  The operators of ONNX 1.23, opsets 1 to 28; those of `com.microsoft` that
  ONNX Runtime writes.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.networks.tracing.onnx_operators import known, layers, moves
from sne_jax.networks.tracing.tape import Value

Operation = Callable[..., Any]
Given = Mapping[str, Any]

_TABLE: dict[str, Operation] = {**layers.TABLE, **moves.TABLE}

_ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"} | {
  "Selu": "selu",
  "Sin": "sine",
  "Swish": "silu",
}

_MOVES = """
Identity Cast CastLike Dropout Reshape Flatten Squeeze Unsqueeze Transpose
Expand Tile Slice Split Gather Concat Mean ReduceMean ReduceSum AveragePool
GlobalAveragePool DepthToSpace SpaceToDepth Resize Upsample DequantizeLinear
""".split()  # noqa: SIM905
_NORMS = """
BatchNormalization LayerNormalization RMSNormalization GroupNormalization
InstanceNormalization SimplifiedLayerNormalization
""".split()  # noqa: SIM905

WORDS = {
  **dict.fromkeys(("Conv", "ConvTranspose"), "conv2d"),
  **dict.fromkeys(("MatMul", "Gemm", "Einsum"), "matmul"),
  **{"Mul": "mul", "Div": "div", "Neg": "neg", "Sub": "sub"},
  **dict.fromkeys(("Add", "Sum"), "add"),
  **dict.fromkeys(_MOVES, "reshape"),
  **dict.fromkeys(("MaxPool", "GlobalMaxPool", "ReduceMax"), "amax"),
  **dict.fromkeys(_NORMS, "layer_norm"),
}
"""Operators, and the word that `activations.of_operation` has for them."""

_PLACE_BY_PLACE = """
Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos
Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Hardmax IsInf IsNaN LeakyRelu
Log LogSoftmax LpNormalization MeanVarianceNormalization Mish Neg Not
Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus
Softsign Sqrt Swish Tan Tanh ThresholdedRelu com.microsoft.FastGelu
com.microsoft.Gelu com.microsoft.QuickGelu QuantizeLinear DequantizeLinear
""".split()  # noqa: SIM905

_MAPS = """
And BitwiseAnd BitwiseOr BitwiseXor Equal Greater GreaterOrEqual Less
LessOrEqual Max Min Mod Or PRelu Pow Where Xor com.microsoft.BiasGelu
""".split()  # noqa: SIM905

# Operators whose inputs are weights, whatever the numbers are.
_TAKES_WEIGHTS = frozenset(
  """
  Conv ConvTranspose Gemm MatMul BatchNormalization LayerNormalization
  RMSNormalization SimplifiedLayerNormalization GroupNormalization PRelu Gather
  Transpose Einsum
  """.split()  # noqa: SIM905
)


def find(op: str) -> Operation | None:
  """Returns what plays an operator."""
  return _TABLE.get(op)


def values(op: str, items: Sequence[Any]) -> list[Value]:
  """Returns the values among inputs, without shapes, axes and bounds."""
  weights = op in _TAKES_WEIGHTS
  return [
    item.weight() if weights else item.value
    for item in items
    if not item.is_number
  ]


def activation(op: str, given: Given) -> str | None:
  """Returns the name of an activation; "" if it has none, None if not one."""
  if op == "LeakyRelu":
    slope = given.get("alpha", 0.01)
    return "leaky_relu" if math.isclose(slope, 0.01, rel_tol=1e-5) else ""
  if op in ("Gelu", "com.microsoft.Gelu"):
    return "gelu" if given.get("approximate", "none") == "none" else ""
  if op == "Swish":
    return "silu" if given.get("alpha", 1.0) == 1.0 else ""
  if op == "Selu" and {"alpha", "gamma"} & set(given):
    usual = (given.get("alpha", 1.6732632), given.get("gamma", 1.0507010))
    return "selu" if np.allclose(usual, (1.6732632, 1.0507010)) else ""
  return _ACTIVATIONS.get(op)


def _plays(*names: str) -> Callable[[Operation], Operation]:
  def note(function: Operation) -> Operation:
    _TABLE.update(dict.fromkeys(names, function))
    return function

  return note


@_plays("Identity", "Dropout")
def _same(tape, given, x, *_):
  return x.value


@_plays("Cast", "CastLike")
def _cast(tape, given, x, *_):
  whole = given.get("to", 1) not in (1, 10, 11, 16)
  return tape.elementwise(x.value) if whole and x.value.parts else x.value


def _map(tape, given, x, *rest):
  """An operator on `x`; what else it takes are bounds, or one scale each."""
  long = [r for r in rest if r is not None and math.prod(r.shape) > 1]
  if not long:
    return _kept(x.value, tape.elementwise(x.value))
  axis = given.get("axis", 1) % len(x.shape)
  y = x.value
  for scale in long:
    aligned = [1] * len(x.shape)
    aligned[axis] = math.prod(scale.shape)
    y = tape.elementwise(y, tape.reshape(scale.value, aligned), op="scale")
  return y


for _name in _PLACE_BY_PLACE:
  _TABLE[_name] = _map


def _kept(weight: Value, result: Value) -> Value:
  """A weight times a number, or mapped, is still a view of that weight."""
  if weight.level is not None or weight.view is None:
    return result
  if result.shape != weight.shape:
    return result
  return dataclasses.replace(result, view=weight.view)


def _elementwise(op: str) -> Operation:
  def play(tape, given, *items):
    items = [i for i in items if i is not None]
    if "axis" in given and len(items) == 2:  # Opset 6 and before.
      x, y = (i.value for i in items)
      after = len(x.shape) - given["axis"] % len(x.shape) - len(y.shape)
      y = tape.reshape(y, (*y.shape, *(1,) * max(after, 0)))
      return tape.elementwise(x, y, op=op)
    np.broadcast_shapes(*(i.shape for i in items))
    heard = [i.value for i in items]
    if op == "add":  # A bias of one output is a weight all the same.
      rows = [
        v for v in heard if v.producer is not None and v.shape[-1:] == (1,)
      ]
      heard = [
        i.weight() if rows and i.shape == (1,) else v
        for i, v in zip(items, heard, strict=True)
      ]
    made = [v for v in heard if v.parts and v.level is None]
    result = tape.elementwise(*heard, op=op)
    plain = all(math.prod(v.shape) == 1 for v in heard if not v.parts)
    return _kept(made[0], result) if len(made) == 1 and plain else result

  return play


for _name in _MAPS:
  _TABLE[_name] = _elementwise("map")
for _name in ("Add", "Sum", "Mean"):
  _TABLE[_name] = _elementwise("add")
for _name in ("Mul", "Div", "Sub"):
  _TABLE[_name] = _elementwise("scale")


@_plays("LRN")
def _lrn(tape, given, x):
  tape.axes.pin(x.value.axes[1], "neighbouring channels are normalised")
  return tape.elementwise(x.value)


@_plays("CumSum")
def _cumsum(tape, given, x, axis, *_):
  place = int(axis.numbers.reshape(-1)[0])
  tape.axes.pin(x.value.axes[place], "neurons are summed up one by one")
  return tape.elementwise(x.value)


@_plays("Trilu")
def _trilu(tape, given, x, *_):
  for axis in x.value.axes[-2:]:
    tape.axes.pin(axis, "a triangle is cut out")
  return tape.elementwise(x.value)


def _argument(tape, given, x, *_):
  place = given.get("axis", 0) % len(x.shape)
  tape.axes.pin(x.value.axes[place], "the place of the largest is taken")
  return _reduced(tape, {**given, "axes": [place]}, x)


_TABLE["ArgMax"] = _TABLE["ArgMin"] = _argument


@_plays("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(tape, given, x):
  return _reduced(tape, {"axes": range(2, len(x.shape))}, x)


def _reduced(tape, given, x, axes=None):
  listed = None if axes is None else axes.array
  if axes is not None and listed is None:
    return None
  places = known.axes_of(given, listed)
  if not places and given.get("noop_with_empty_axes"):
    return x.value
  places = places or list(range(len(x.shape)))
  rank = len(x.shape)
  if any(not -rank <= p < rank for p in places):
    return None
  y = tape.reduce(x.value, places)
  if not given.get("keepdims", 1):
    return y
  return tape.reshape(y, known.unsqueezed(y.shape, places))


for _name in "Sum Mean Max Min Prod L1 L2 LogSum LogSumExp SumSquare".split():  # noqa: SIM905
  _TABLE[f"Reduce{_name}"] = _reduced
