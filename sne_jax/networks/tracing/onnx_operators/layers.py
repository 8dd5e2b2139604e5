"""Layers among the operators of ONNX: products, convolutions, norms.

They are in the table of `table.py`, as `operation(tape, given, *items)`.

Dimensions: none; shapes are tuples of sizes.
"""

import numpy as np

from sne_jax.networks.tracing import operations, torch_operations
from sne_jax.networks.tracing.onnx_operators import moves
from sne_jax.networks.tracing.tape import Tape, Value


def prelu(tape, given, x, slope):
  """Slopes below zero."""
  np.broadcast_shapes(x.shape, slope.shape)
  return tape.elementwise(x.value, slope.weight())


def matmul(tape, given, x, y):
  """A matrix product."""
  return operations.matmul(tape, x.weight(), y.weight())


def gemm(tape, given, x, y, bias=None):
  """A matrix product of two axes each, and what is added."""
  x, y = x.weight(), y.weight()
  if len(x.shape) != 2 or len(y.shape) != 2:
    return None
  x = tape.transpose(x, (1, 0)) if given.get("transA") else x
  y = tape.transpose(y, (1, 0)) if given.get("transB") else y
  z = operations.matmul(tape, x, y)
  if bias is None:
    return z
  if np.broadcast_shapes(z.shape, bias.shape) != z.shape:
    return None
  scalar = not bias.shape
  return tape.elementwise(
    z, bias.value if scalar else bias.weight(), op="add", shape=z.shape
  )


def einsum(tape, given, *items):
  """A product by the names of axes."""
  play = torch_operations.find("einsum")
  assert play is not None
  return play(tape, [], given["equation"], [i.weight() for i in items])


def conv(tape, given, x, kernel, bias=None):
  """A convolution."""
  w = kernel.weight()
  groups = given.get("group", 1)
  if w.level is not None or x.shape[1] != w.shape[1] * groups:
    return None
  places = moves.windows(given, x.shape[2:], w.shape[2:])
  y = operations.convolution(tape, x.weight(), w, places, groups)
  return _biased(tape, y, bias)


def conv_transpose(tape, given, x, kernel, bias=None):
  """A transposed convolution."""
  w = kernel.weight()
  if w.level is not None or x.shape[1] != w.shape[0]:
    return None
  places = moves.spread(given, x.shape[2:], w.shape[2:])
  y = operations.transposed_convolution(
    tape, x.weight(), w, places, given.get("group", 1)
  )
  return _biased(tape, y, bias)


def _biased(tape: Tape, y: Value, bias) -> Value:
  if bias is None:
    return y
  if bias.shape != (y.shape[1],):
    raise ValueError(f"a bias of {bias.shape} for {y.shape[1]} channels")
  column = tape.reshape(
    bias.weight(), (*bias.shape, *(1,) * (len(y.shape) - 2))
  )
  return tape.elementwise(y, column, op="add")


def batch_norm(tape, given, x, scale, shift, mean, var):
  """Normalises by running statistics."""
  channels = x.shape[1]
  if given.get("training_mode") or given.get("spatial", 1) != 1:
    return None
  vectors = {
    "norm_scale": scale,
    "norm_shift": shift,
    "norm_mean": mean,
    "norm_var": var,
  }
  if any(v.shape != (channels,) for v in vectors.values()):
    return None
  return operations.batch_norm(
    tape, x.value, {kind: v.weight() for kind, v in vectors.items()}
  )


def layer_norm(tape, given, x, scale, shift=None):
  """Normalises the last axes."""
  places = range(given.get("axis", -1) % len(x.shape), len(x.shape))
  size = tuple(x.shape[p] for p in places)
  if any(v is not None and v.shape != size for v in (scale, shift)):
    return None
  return operations.norm(tape, x.value, _vectors(scale, shift), list(places))


def _vectors(scale, shift) -> dict[str, Value]:
  pairs = {"norm_scale": scale, "norm_shift": shift}
  return {kind: v.weight() for kind, v in pairs.items() if v is not None}


def instance_norm(tape, given, x, scale, shift):
  """Normalises every channel by itself.

  Groups are written with it, as channels, with scales of 1 and shifts of 0.
  """
  if scale.shape != (x.shape[1],) or shift.shape != scale.shape:
    return None
  pairs = {"norm_scale": scale, "norm_shift": shift}
  vectors = {k: v.value for k, v in pairs.items() if v.value.parts}
  for (
    item
  ) in pairs.values():  # Other vectors than weights hold what they touch.
    tape.axes.unify(x.value.axes[1], item.value.axes[0])
  return operations.norm(tape, x.value, vectors, (1,))


def group_norm(tape, given, x, scale, shift):
  """Normalises groups of channels."""
  groups, channels = given["num_groups"], x.shape[1]
  if groups < 1 or channels % groups:
    return None
  if scale.shape == (channels,):
    return operations.norm(tape, x.value, _vectors(scale, shift), (1,), groups)
  if scale.shape != (groups,):  # Until opset 20 a number for each group.
    return None
  y = tape.reshape(
    x.value, (x.shape[0], groups, channels // groups, *x.shape[2:])
  )
  y = operations.norm(tape, y, _vectors(scale, shift), (1,))
  return tape.reshape(y, x.shape)


TABLE = {
  "PRelu": prelu,
  "MatMul": matmul,
  "Gemm": gemm,
  "Einsum": einsum,
  "Conv": conv,
  "ConvTranspose": conv_transpose,
  "BatchNormalization": batch_norm,
  "LayerNormalization": layer_norm,
  "RMSNormalization": layer_norm,
  "SimplifiedLayerNormalization": layer_norm,
  "InstanceNormalization": instance_norm,
  "GroupNormalization": group_norm,
}
"""What plays each operator."""
