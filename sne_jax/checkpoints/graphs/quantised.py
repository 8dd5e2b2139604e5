"""Weights of ONNX files that are stored as integers and a scale.

Dimensions: none; arrays have any shape.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sne_jax.checkpoints.tensors import Entry

_WHOLE = ("int8", "uint8", "int16", "uint16", "int32")


def entries(graph: Any, stored: Mapping[str, Entry]) -> Iterator[Entry]:
  """Gives the weights that DequantizeLinear nodes make of stored integers.

  Args:
    graph: of the file.
    stored: its tensors, by name.

  Raises:
    ValueError: a scale does not fit its integers.
  """
  for node in graph.node:
    if node.op_type != "DequantizeLinear" or node.domain not in ("", "ai.onnx"):
      continue
    names = [name for name in node.input if name]
    given = [stored[name] for name in names if name in stored]
    if not 1 < len(given) == len(names) or given[0].dtype not in _WHOLE:
      continue
    options = {a.name: a.i for a in node.attribute}
    load = functools.partial(_load, given, options)
    shape = given[0].shape
    for scale in given[1:]:
      _check(scale.shape, shape, options)
    yield Entry(
      node.output[0],
      shape,
      "float32",
      load,
      computed_from=tuple(entry.name for entry in given),
    )


def _load(given: list[Entry], options: Mapping[str, int]) -> np.ndarray:
  raw, *rest = (entry.read() for entry in given)
  scale, *zero = (_spread(array, raw.shape, options) for array in rest)
  moved = raw.astype(np.float32)
  if zero:
    moved = moved - zero[0].astype(np.float32)
  return moved * scale.astype(np.float32)


def _check(
  scale: tuple[int, ...], shape: tuple[int, ...], options: Mapping[str, int]
) -> None:
  """Refuses scales that are not one, one for each row, or of blocks."""
  axis, block = options.get("axis", 1), options.get("block_size", 0)
  if math.prod(scale) == 1:
    return
  fits = -len(shape) <= axis < len(shape)
  if fits and block:
    axis %= len(shape)
    cut = list(shape)
    cut[axis] = -(-cut[axis] // max(block, 1))
    fits = 0 < block <= shape[axis] and list(scale) == cut
  elif fits:
    fits = scale == (shape[axis],)
  if not fits:
    raise ValueError(f"scales of {list(scale)} for integers of {list(shape)}")


def _spread(
  array: np.ndarray, shape: tuple[int, ...], options: Mapping[str, int]
) -> np.ndarray:
  """Returns scales in a shape that meets the integers."""
  axis, block = options.get("axis", 1), options.get("block_size", 0)
  if array.size == 1:
    return array.reshape(())
  if block:
    return array.repeat(block, axis)[tuple(slice(n) for n in shape)]
  return array.reshape([-1] + [1] * (len(shape) - 1 - axis % len(shape)))
