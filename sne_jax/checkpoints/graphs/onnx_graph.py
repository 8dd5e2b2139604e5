"""The graph of an ONNX file: to be played on a tape, or run to be checked.

Playing runs nothing of the file. Running is only done when asked for, by the
reference implementation of ONNX, in NumPy.

Dimensions: none; shapes are tuples of sizes.
"""

import functools
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from sne_jax.checkpoints.graphs import onnx_run
from sne_jax.checkpoints.tensors import Entry
from sne_jax.networks.inference import Mismatch, Override, Player
from sne_jax.networks.tracing import traced_onnx
from sne_jax.networks.tracing.traced_onnx import Node, Plan, Stored

BATCH = 1
PLACES = (32, 8, 64, 224, 256, 16, 28, 128, 512, 1)
"""Sizes that are tried for axes that the file leaves open, but the first."""

_OWN = ("", "ai.onnx")
_FLOATS = {1: "f4", 10: "f2", 11: "f8"}
_KINDS = _FLOATS | {2: "u1", 3: "i1", 5: "i2", 6: "i4", 7: "i8", 9: "?"}


class OnnxGraph:
  """The graph of an ONNX file; see `networks.inference.Graph`."""

  def __init__(self, model: Any, entries: Mapping[str, Entry]):
    """Keeps a model, which is not changed, and its tensors by name."""
    self._model = model
    self._entries = entries

  def play(self, player: Player) -> None:
    """Plays the graph; see `Graph.play`."""
    traced_onnx.play(self._plan, player)

  def forward(
    self, tensors: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]
  ) -> np.ndarray:
    """Runs the graph, and returns its outputs end to end `[n]`.

    Args:
      tensors: in place of the file's, by name; others are the file's.
      inputs: by name; see `example_input`.

    Raises:
      ValueError: the reference implementation cannot run it.
    """
    fed = dict(self._numbers)
    for name, array in tensors.items():
      fed[name] = np.asarray(array).astype(fed[name].dtype)
    outputs = self._run({**fed, **inputs})
    arrays = [np.asarray(y) for y in outputs]
    numbers = [y for y in arrays if y.dtype.kind in "fiub"]
    return np.concatenate([y.reshape(-1).astype(np.float64) for y in numbers])

  def example_input(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns random inputs, by name: normal numbers, and 0 or 1 of others."""
    inputs = {}
    for value in self._inputs():
      kind, shape = value.type.tensor_type.elem_type, self._plan.inputs
      size = shape[value.name]
      if kind not in _KINDS or size is None:
        raise ValueError(
          f"input {value.name!r} is of no kind that can be drawn"
        )
      if kind in _FLOATS:
        array = rng.standard_normal(size)
      elif "mask" in value.name:
        array = np.ones(size)
      else:
        array = rng.integers(0, 2, size)
      inputs[value.name] = array.astype(_KINDS[kind])
    return inputs

  @functools.cached_property
  def _numbers(self) -> dict[str, np.ndarray]:
    """All tensors, read."""
    return {name: entry.read() for name, entry in self._entries.items()}

  @functools.cached_property
  def _run(self) -> onnx_run.Run:
    return onnx_run.make(self._model, self._operations())

  def _operations(self) -> Iterator[Any]:
    """Gives the nodes that do not give tensors of the file."""
    for node in self._model.graph.node:
      if not (node.output and node.output[0] in self._entries):
        yield node

  def _inputs(self) -> Iterator[Any]:
    """Gives the inputs that the file does not fill itself."""
    filled = {tensor.name for tensor in self._model.graph.initializer}
    for value in self._model.graph.input:
      if value.name not in filled:
        yield value

  @functools.cached_property
  def _plan(self) -> Plan:
    """The graph as plain nodes, with sizes for the axes that are open."""
    shapes = {n: e.shape for n, e in self._entries.items()}
    best = None
    for size in PLACES:
      plan, is_open = self._sized(size)
      if not is_open:
        return plan
      player = Player(_real(self._entries, shapes), "onnx", Override())
      try:
        failed = traced_onnx.play(plan, player)
      except Mismatch:
        failed = len(plan.nodes) + 1
      if best is None or failed < best[0]:
        best = (failed, plan)
      if not failed:
        break
    assert best is not None
    return best[1]

  def _sized(self, size: int) -> tuple[Plan, bool]:
    """Returns the graph with `size` places along open axes, if there are."""
    named: dict[str, int] = {}
    opened = []

    def sizes(value: Any) -> tuple[int, ...] | None:
      kind = value.type.tensor_type
      if not kind.HasField("shape") or len(kind.shape.dim) > 32:
        return None
      shape = []
      for place, dim in enumerate(kind.shape.dim):
        usual = BATCH if place == 0 else size
        if dim.dim_param:
          usual = named.setdefault(dim.dim_param, usual)
        if not 0 < dim.dim_value < 1 << 40:
          opened.extend([place] if usual == size and place else [])
        shape.append(dim.dim_value if 0 < dim.dim_value < 1 << 40 else usual)
      return tuple(shape) if math.prod(shape) < 1 << 58 else None

    inputs = {value.name: sizes(value) for value in self._inputs()}
    nodes = [*self._untyped(), *map(self._node, self._operations())]
    plan = Plan(
      nodes=nodes,
      inputs=inputs,
      outputs=[value.name for value in self._model.graph.output],
      stored={name: self._stored(name) for name in self._entries},
      shapes=dict(self._declared(sizes)),
    )
    return plan, bool(opened)

  def _declared(self, sizes: Callable[[Any], Any]) -> Iterator[tuple[str, Any]]:
    """Gives the shapes that the file says of values, by name."""
    graph = self._model.graph
    for node in graph.node:  # A branch, and a loop after its condition.
      for attribute in node.attribute:
        inner = attribute.g.output if attribute.HasField("g") else ()
        first = 1 if node.op_type == "Loop" else 0
        for name, value in zip(node.output, inner[first:], strict=False):
          yield name, sizes(value)
    for value in (*graph.value_info, *graph.output):
      if (shape := sizes(value)) is not None:
        yield value.name, shape

  def _stored(self, name: str) -> Stored:
    entry = self._entries[name]
    return Stored(
      shape=entry.shape,
      dtype=entry.dtype,
      read=entry.read,
      computed=name in self._constants,
    )

  @functools.cached_property
  def _constants(self) -> set[str]:
    return {
      name
      for node in self._model.graph.node
      if node.op_type == "Constant"
      for name in node.output
    }

  def _untyped(self) -> Iterator[Node]:
    """Gives tensors of the file that are no arrays of ours, such as four bits.

    To those who play they are what an unknown operator gives.
    """
    for tensor in self._model.graph.initializer:
      if tensor.name not in self._entries:
        kind = f"the tensor {tensor.name[:80]} of a type that is not read"
        yield Node(op=kind, inputs=(), outputs=(tensor.name,))
    for sparse in self._model.graph.sparse_initializer:
      kind = f"the sparse tensor {sparse.values.name[:80]}"
      yield Node(op=kind, inputs=(), outputs=(sparse.values.name,))

  def _node(self, node: Any) -> Node:
    op = node.op_type
    if (node.domain, op) in self._functions:
      op = f"the function {op}"
    elif node.domain not in _OWN:
      op = f"{node.domain}.{op}"
    inner = dict.fromkeys(_used_inside(node, ""))
    return Node(
      op=op,
      inputs=tuple(node.input),
      outputs=tuple(node.output),
      given={a.name: v for a in node.attribute if (v := _given(a)) is not None},
      inner=tuple(inner),
    )

  @functools.cached_property
  def _functions(self) -> set[tuple[str, str]]:
    return {(f.domain, f.name) for f in self._model.functions}


def _real(
  entries: Mapping[str, Entry], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of tensors that can be weights."""
  return {
    name: shape
    for name, shape in shapes.items()
    if "float" in entries[name].dtype and 0 not in shape
  }


def _large(tensor: Any) -> bool:
  return math.prod(tensor.dims) > 1024


def _given(attribute: Any) -> Any:
  """Returns the value of an attribute; None where it is a graph."""
  kind = attribute.type
  if kind == attribute.INT:
    return attribute.i
  if kind == attribute.FLOAT:
    return attribute.f
  if kind == attribute.STRING:
    return attribute.s[:1000].decode(errors="replace")
  if kind == attribute.INTS:
    return list(attribute.ints)
  if kind == attribute.FLOATS:
    return list(attribute.floats)
  if kind == attribute.TENSOR and not _large(attribute.t):
    helper = importlib.import_module("onnx.numpy_helper")
    return helper.to_array(attribute.t)
  return None


def _used_inside(node: Any, before: str) -> Iterator[str]:
  """Gives the names that the graphs within a node use, and their tensors."""
  label = node.name or (node.output[0] if node.output else node.op_type)
  for attribute in node.attribute:
    graphs = [attribute.g] if attribute.HasField("g") else []
    for graph in [*graphs, *attribute.graphs]:
      here = f"{before}{label}/"
      yield from (here + tensor.name for tensor in graph.initializer)
      for inner in graph.node:
        yield from inner.input
        yield from (here + name for name in inner.output)
        yield from _used_inside(inner, here)
