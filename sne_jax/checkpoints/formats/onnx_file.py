"""ONNX files: initialisers and constants of the graph.

Numbers kept in other files beside the model are mapped; their paths must not
leave its folder. The model itself, at most two gigabytes, is parsed at once.
onnx is optional and imported only here.
"""

import functools
import importlib
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from sne_jax import errors
from sne_jax.checkpoints import foreign
from sne_jax.checkpoints.formats import archive
from sne_jax.checkpoints.graphs import onnx_graph, quantised
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import DTYPES, Entry, Tensors, add

TYPES = {
  **{1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16"},
  **{6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"},
  **{12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128"},
  **{16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz"},
  **{19: "float8_e5m2", 20: "float8_e5m2fnuz", 24: "float8_e8m0fnu"},
}
"""Their numbers of dtypes -> ours."""

MAX_BYTES = (1 << 31) - 1


def read(path: str, limits: Limits) -> Tensors:
  """Opens an ONNX file: initialisers, then constants, by name.

  Those of inner graphs have the node's name and a slash before theirs. Stored
  integers that a DequantizeLinear turns into weights are there twice: as they
  are, and as weights, under the name that the node gives them.
  Metadata: `producer`, `left_out` (texts, sparse and four-bit tensors).

  Raises:
    CheckpointError: the file is damaged or hostile, or onnx is missing.
  """
  size = foreign.file_size(path)
  onnx = foreign.library(
    "onnx", path, "an ONNX file, and onnx is not installed"
  )
  if size > MAX_BYTES:
    raise errors.unreadable(
      path, f"an ONNX file of {size} bytes", "save it with external data"
    )
  budget = Budget(path, limits)
  with foreign.guard(path, "a damaged ONNX file"), open(path, "rb") as file:
    model = onnx.ModelProto.FromString(file.read())
  graph = model.graph
  with foreign.guard(path, "a damaged ONNX file"):
    if len(graph.node) > limits.max_entries:
      raise budget.fault("too many nodes", "max_entries")
    metadata = {"producer": model.producer_name[:200]}
    entries, out, stored = {}, [], size
    for name, tensor in _tensors(graph, "", 0, out):
      entry, outside = _entry(path, name, tensor)
      if entry is None:
        out.append(name)
        continue
      stored += outside
      add(entries, entry, budget, stored)
    for entry in quantised.entries(graph, entries):
      add(entries, entry, budget, stored)
  if not (entries or graph.node):
    raise errors.unreadable(
      path,
      "it holds no graph of ONNX: another kind of protobuf, such as a"
      " SavedModel of TensorFlow or a model of Core ML",
      "export the network to ONNX, or save its weights as Keras or PyTorch do",
    )
  if not entries:
    raise errors.unreadable(
      path, "it holds no tensors", "export the network with its weights"
    )
  if out:
    metadata["left_out"] = ", ".join(out)[:1000]
  graph = onnx_graph.OnnxGraph(model, entries) if model.graph.output else None
  return Tensors(entries, "onnx", path, metadata, graph)


def _tensors(
  graph: Any, before: str, depth: int, out: list[str]
) -> Iterator[tuple[str, Any]]:
  """Gives name and tensor of initialisers, constants and inner graphs."""
  if depth > 20:
    raise ValueError("graphs nested too deep")
  for tensor in graph.initializer:
    yield before + tensor.name, tensor
  for sparse in graph.sparse_initializer:
    out.append(before + sparse.values.name)
  for node in graph.node:
    label = node.name or (node.output[0] if node.output else node.op_type)
    for attribute in node.attribute:
      if node.op_type == "Constant" and node.output:
        value = _constant(attribute)
        if value is not None:
          yield before + node.output[0], value
        else:
          out.append(before + node.output[0])
      graphs = [attribute.g] if attribute.HasField("g") else []
      for inner in [*graphs, *attribute.graphs]:
        yield from _tensors(inner, f"{before}{label}/", depth + 1, out)


def _constant(attribute: Any) -> Any:
  """Returns the value of a Constant node: a tensor or an array; else None."""
  if attribute.name == "value" and attribute.HasField("t"):
    return attribute.t
  if attribute.name == "value_float":
    return np.float32(attribute.f)
  if attribute.name == "value_int":
    return np.int64(attribute.i)
  if attribute.name == "value_floats":
    return np.array(attribute.floats, np.float32)
  if attribute.name == "value_ints":
    return np.array(attribute.ints, np.int64)
  return None


def _entry(path: str, name: str, tensor: Any) -> tuple[Entry | None, int]:
  """Returns the entry of a tensor, None if it is no array of numbers.

  The second value are the bytes that it has in another file.
  """
  if isinstance(tensor, np.ndarray | np.generic):
    array = np.asarray(tensor)
    return Entry(name, array.shape, array.dtype.name, lambda: array), 0
  dtype, shape = TYPES.get(tensor.data_type), tuple(tensor.dims)
  if dtype is None:
    return None, 0
  if not foreign.is_shape(shape):
    raise ValueError(f"tensor {name!r} has shape {list(shape)}")
  due = math.prod(shape) * foreign.dtype_bytes(dtype)
  if tensor.data_location == tensor.EXTERNAL:
    file, offset = _outside(path, name, tensor, due)
    load = functools.partial(
      foreign.map_array, file, offset, DTYPES[dtype], shape
    )
    return Entry(name, shape, dtype, load), due
  if tensor.HasField("raw_data"):
    have = len(tensor.raw_data)
  else:
    have = due if _typed_count(tensor, dtype) == math.prod(shape) else -1
  if have != due:
    raise ValueError(
      f"tensor {name!r} of {dtype}{list(shape)} has not {due} bytes"
    )
  load = functools.partial(_load, path, name, tensor, dtype, shape)
  return Entry(name, shape, dtype, load), 0


def _typed_count(tensor: Any, dtype: str) -> int:
  """Returns how many numbers a tensor has in the field of its dtype."""
  if dtype.startswith("complex"):
    field = tensor.double_data if dtype == "complex128" else tensor.float_data
    return len(field) // 2
  if dtype == "float32":
    return len(tensor.float_data)
  if dtype == "float64":
    return len(tensor.double_data)
  if dtype == "int64":
    return len(tensor.int64_data)
  if dtype in ("uint32", "uint64"):
    return len(tensor.uint64_data)
  return len(tensor.int32_data)


def _load(path, name, tensor, dtype, shape) -> np.ndarray:
  numpy_helper = importlib.import_module("onnx.numpy_helper")
  if tensor.HasField("raw_data"):
    raw = np.frombuffer(tensor.raw_data, np.uint8)
    return raw.view(DTYPES[dtype]).reshape(shape)
  with foreign.guard(path, f"tensor {name!r} cannot be read"):
    return np.asarray(numpy_helper.to_array(tensor))


def _outside(path: str, name: str, tensor: Any, due: int) -> tuple[str, int]:
  """Returns file and offset of numbers outside, if they may be read."""
  given = {item.key: item.value for item in tensor.external_data}
  location = given.get("location", "")
  archive.check_path(path, location)
  folder = os.path.dirname(os.path.abspath(path))
  file = os.path.join(folder, location)
  foreign.check_inside(path, folder, file)
  offset, length = given.get("offset", "0"), given.get("length", str(due))
  if not all(v.isdecimal() and len(v) < 19 for v in (offset, length)):
    raise ValueError(f"tensor {name!r} lies at {offset!r} in {location!r}")
  have = foreign.file_size(file)
  if int(length) != due or int(offset) + due > have:
    raise ValueError(
      f"tensor {name!r} takes {due} bytes at {offset} of {location!r}, which"
      f" has {have}"
    )
  return file, int(offset)
