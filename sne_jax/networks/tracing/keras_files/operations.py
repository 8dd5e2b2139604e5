"""Operations of `keras.ops` in a functional model, such as `x + y`.

Dimensions: none; shapes are tuples of sizes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sne_jax.networks.tracing.keras_files import layer
from sne_jax.networks.tracing.keras_files.machines import Machine
from sne_jax.networks.tracing.keras_files.nodes import Bound

_PAIRS = {
  **{n: n.lower() for n in ("Add", "Subtract", "Multiply", "Divide")},
  **{"TrueDivide": "divide", "Maximum": "maximum", "Minimum": "minimum"},
}
_MAPS = {
  **{n: n.lower() for n in ("Relu", "Relu6", "Selu", "Silu", "Elu")},
  **{n: n.lower() for n in ("Tanh", "Sigmoid", "Softplus", "Mish", "Celu")},
  **{"Gelu": "gelu", "LeakyRelu": "leaky_relu", "HardSigmoid": "hard_sigmoid"},
}
"""Operations that are activations, by their names."""

_PLAIN = {
  **{n: getattr(jnp, n.lower()) for n in ("Abs", "Exp", "Log", "Sqrt")},
  **{n: getattr(jnp, n.lower()) for n in ("Square", "Sin", "Cos", "Negative")},
  "Absolute": jnp.abs,
  "Rsqrt": jax.lax.rsqrt,
}
_REDUCTIONS = {"Mean": "mean", "Sum": "sum", "Max": "max"}


def play(
  m: Machine,
  kind: str,
  config: Mapping[str, Any],
  call: Bound,
  shapes: Sequence[Sequence[int]],
) -> list[Any]:
  """Plays one operation; what is not known here is pinned.

  Args:
    m: the machine.
    kind: its class.
    config: its settings.
    call: what it is called with.
    shapes: of what it gives, where the file says so.
  """
  result = None if call.masks else _play(m, kind, config, call)
  if result is None:
    values = [*call.values, *call.masks]
    shapes = shapes or [values[0].shape]
    return m.unknown(values, shapes, f"operation {kind[:50]}")
  return [result]


def _play(m: Machine, kind: str, config: Mapping[str, Any], call: Bound) -> Any:
  x, *others = call.values
  if kind in _PAIRS:
    return _paired(m, _PAIRS[kind], call)
  if kind == "Concatenate":
    return m.concatenate(call.values, config.get("axis", -1) % len(x.shape))
  if others:
    return None
  if kind in _MAPS:
    return layer.activate(m, x, _MAPS[kind])
  if kind == "Softmax":
    axis = config.get("axis", -1)
    axis = tuple(axis) if isinstance(axis, list) else axis
    return m.apply(x, lambda x: jax.nn.softmax(x, axis), "")
  if kind in _PLAIN:
    return m.apply(x, _PLAIN[kind], "sine" if kind == "Sin" else "")
  if kind in _REDUCTIONS:
    return _reduced(m, _REDUCTIONS[kind], config, x)
  if kind == "Transpose":
    axes = config.get("axes") or range(len(x.shape))[::-1]
    return m.transpose(x, [p % len(x.shape) for p in axes])
  if kind == "Reshape" and config.get("newshape"):
    return m.reshape(x, reshaped(x, config["newshape"]))
  if kind == "ExpandDims" and isinstance(config.get("axis"), int):
    place = config["axis"] % (len(x.shape) + 1)
    return m.reshape(x, (*x.shape[:place], 1, *x.shape[place:]))
  if kind == "Squeeze" and isinstance(config.get("axis"), int):
    place = config["axis"] % len(x.shape)
    return m.reshape(x, (*x.shape[:place], *x.shape[place + 1 :]))
  return None


def _paired(m: Machine, op: str, call: Bound) -> Any:
  """Two values, or one and a number."""
  if len(call.values) == 2:
    return m.combine(op, *call.values)
  numbers = [a for a in call.arguments if type(a) in (int, float)]
  if len(call.values) != 1 or len(numbers) != 1 or len(call.arguments) != 2:
    return None
  first = call.arguments[0] is numbers[0]
  run = lambda x: getattr(jnp, op)(*((numbers[0], x)[:: 1 if first else -1]))
  linear = op == "multiply" or op == "divide" and not first
  return m.apply(call.values[0], run, None if linear else "")


def _reduced(m: Machine, how: str, config: Mapping[str, Any], x: Any) -> Any:
  axis = config.get("axis")
  places = [axis] if isinstance(axis, int) else axis
  if not places or 0 in (places := [p % len(x.shape) for p in places]):
    return None  # Over the batch, too.
  y = m.reduce(x, places, how)
  if not config.get("keepdims"):
    return y
  return m.reshape(y, [1 if p in places else n for p, n in enumerate(x.shape)])


def reshaped(x: Any, shape: Sequence[int]) -> tuple[int, ...]:
  """Returns a shape whose open axes are worked out: -1, or None first."""
  shape = [x.shape[0] if p == 0 else n for p, n in enumerate(shape)]
  rest = math.prod(x.shape) // max(math.prod(n for n in shape if n != -1), 1)
  return tuple(rest if n == -1 else int(n) for n in shape)
