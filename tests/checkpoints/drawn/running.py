"""The one forward function of random networks, in plain NumPy.

Dimensions: `N` inputs, `C` channels.
"""

import numpy as np

from tests.checkpoints.drawn.graphs import Module, Network, Node
from tests.checkpoints.drawn.plans import NORMS

EPSILON = 1e-3


def run(network: Network, params, x):
  """The true network in plain numpy, float64.

  Args:
    network: its graph.
    params: arrays by (number of module, part), as `Module.params`.
    x: `[N, C, ...]`.
  """
  values = [np.asarray(x, np.float64)]
  for node in network.nodes:
    given = [values[i] for i in node.inputs]
    values.append(_step(network, node, params, *given))
  return values[-1]


def _step(network: Network, node: Node, params, x, *more):
  """Returns what one node gives."""
  places = tuple(range(2, x.ndim))
  if node.op == "act":
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    return {
      "relu": lambda v: np.maximum(v, 0),
      "tanh": np.tanh,
      "silu": lambda v: v * sigmoid(v),
    }[network.plan.activation](x)
  if node.op == "sigmoid":
    return 1 / (1 + np.exp(-x))
  if node.op == "add":
    return x + more[0]
  if node.op == "mul":
    return x * more[0]
  if node.op == "mean_keep":
    return x.mean(places, keepdims=True)
  if node.op == "concat":
    return np.concatenate([x, *more], 1)
  if node.op == "pool":
    for axis in places:
      shape = (*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
      x = x.reshape(shape).max(axis + 1)
    return x
  if node.op == "mean":
    return x.mean(places)
  if node.op in ("flatten", "flatten_last"):
    x = np.moveaxis(x, 1, -1) if node.op == "flatten_last" else x
    return x.reshape(len(x), -1)
  if node.op == "softmax":
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)
  module = network.modules[node.module]
  get = lambda part: params.get((node.module, part))
  if module.kind in NORMS:
    return _norm(module, get, x)
  y = {"dense": _dense, "conv": _conv, "transposed": _transposed}[module.kind](
    x, np.asarray(get("weight"), np.float64), module.groups
  )
  bias = get("bias")
  along = (-1,) + (1,) * (y.ndim - 2)
  return y if bias is None else y + np.reshape(bias, along)


def _norm(module: Module, get, x):
  along = (-1,) + (1,) * (x.ndim - 2)
  if module.kind == "batch":
    mean, var = get("mean").reshape(along), get("var").reshape(along)
    x = (x - mean) / np.sqrt(np.asarray(var, np.float64) + EPSILON)
  elif module.kind == "layer":
    x = x - x.mean(1, keepdims=True)
    x = x / np.sqrt((x**2).mean(1, keepdims=True) + EPSILON)
  else:
    y = x.reshape(len(x), module.groups, -1)
    y = y - y.mean(2, keepdims=True)
    y = y / np.sqrt((y**2).mean(2, keepdims=True) + EPSILON)
    x = y.reshape(x.shape)
  if get("scale") is not None:
    x = x * get("scale").reshape(along) + get("shift").reshape(along)
  return x


def _dense(x, weight, groups):
  del groups
  return x @ weight.T


def _conv(x, weight, groups):
  rank, count = x.ndim - 2, len(x)
  half = [(n // 2, n // 2) for n in weight.shape[2:]]
  x = np.pad(x, [(0, 0), (0, 0), *half])
  axes = tuple(range(2, 2 + rank))
  seen = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axes)
  out = [
    np.tensordot(s, w, [(1, *range(2 + rank, 2 + 2 * rank)), (1, *axes)])
    for s, w in zip(
      np.split(seen, groups, 1), np.split(weight, groups), strict=True
    )
  ]
  return np.moveaxis(np.concatenate(out, -1), -1, 1).reshape(
    count, len(weight), *seen.shape[2 : 2 + rank]
  )


def _transposed(x, weight, groups):
  """By a kernel of two places with a stride of two."""
  del groups
  rank = x.ndim - 2
  y = np.moveaxis(np.tensordot(x, weight, [(1,), (0,)]), 1 + rank, 1)
  # [N, out, places..., 2...] -> [N, out, place, 2, ...].
  order = [0, 1]
  for axis in range(rank):
    order += [2 + axis, 2 + rank + axis]
  return y.transpose(order).reshape(*y.shape[:2], *(2 * n for n in x.shape[2:]))
