"""Runs an ONNX graph by the reference implementation of ONNX, in NumPy.

For checks, only when asked for. The library is slow, and imported only here.

Dimensions: none; arrays have any shape.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Run = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


def make(model: Any, nodes: Iterable[Any]) -> Run:
  """Returns what runs a graph: all inputs and tensors by name -> outputs.

  Args:
    model: parsed; it is not changed.
    nodes: of its graph that are run; no other gives a value.

  Raises:
    ValueError: there is no such thing for one of its operators. Running
      raises the same where it fails.
  """
  reference = importlib.import_module("onnx.reference")
  bare = type(model)()
  bare.CopyFrom(model)
  del bare.graph.initializer[:]
  del bare.graph.node[:]
  bare.graph.node.extend(nodes)
  ours = [_transposed(), _pooled()]
  evaluator = _guarded(lambda: reference.ReferenceEvaluator(bare, new_ops=ours))
  return lambda fed: _guarded(lambda: evaluator.run(None, dict(fed)))


def _guarded(run: Callable[[], Any]) -> Any:
  try:
    return run()
  except Exception as error:  # noqa: BLE001 - any of theirs, said in one line
    raise ValueError(
      f"onnx.reference cannot run this graph ({str(error)[:200]})"
    ) from error


def _transposed() -> Any:
  """Transposed convolutions of groups, one group after another.

  The library's own (1.23) mixes the weights and biases of groups up.
  """
  base = importlib.import_module(
    "onnx.reference.ops.op_conv_transpose"
  ).ConvTranspose

  class ConvTranspose(base):
    op_domain = ""

    def _run(self, x, w, bias=None, **given):
      groups = given.pop("group", None) or 1
      biases = [None] * groups if bias is None else np.split(bias, groups)
      parts = [
        base._run(self, *part, group=1, **given)[0]
        for part in zip(
          np.split(x, groups, 1), np.split(w, groups), biases, strict=True
        )
      ]
      return (np.concatenate(parts, 1),)

  return ConvTranspose


def _pooled() -> Any:
  """The largest of all places; the library's own (1.23) is for images only."""
  base = importlib.import_module(
    "onnx.reference.ops.op_global_max_pool"
  ).GlobalMaxPool

  class GlobalMaxPool(base):
    op_domain = ""

    def _run(self, x):
      return (x.max(tuple(range(2, x.ndim)), keepdims=True),)

  return GlobalMaxPool
