"""Weights of few bits beside their scales: read as what they stand for.

Certain, and multiplied: `X_scale` and `X_scale_inv` of a tensor `X` (of
compressed-tensors, vLLM, DeepSeek and Transformers; the latter is a factor in
spite of its name), `scale_weight` (ComfyUI), `X._data` with `X._scale`
(Quanto), and `SCB` over 127 (bitsandbytes); less `X_zero_point` where there is
one. A scale is of the whole tensor, of each channel, or of each block: sides
of blocks are powers of two, or divide the tensor evenly, and only one of these
may fit. Everything else with whole numbers for weights is a doubt. Small
floats without a scale are numbers as they are: a plain cast.

Dimensions: none; a tensor has any shape.
"""

import re

import numpy as np

from sne_jax.checkpoints.recipes import Entries, Found, Recipe
from sne_jax.checkpoints.tensors import FLOATS, Entry

SMALL = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
LAST_WORDS = re.compile(r"(^|[._])(weight|kernel|w|_?data|weight_packed)$")
PACKED = re.compile(r"(^|[._])(qweight|weight_packed|packed_weight)$")
ACTIVATIONS = re.compile(
  r"(^|[._])((input|output|activation|input_activation|k|v|q|prob)_scale"
  r"|scale_(input|output)|input_scale_inv|weight_format)$"
)
OTHER_SCALES = re.compile(r"scale|absmax|amax|quant|qzeros|SCB|zero_point")
MARKS = ("scaled_fp8",)
DEEPSEEK = 128

UNKNOWN = "is kept in {dtype}, and how it is scaled is not known"
NO_SCALE = "is kept in {dtype}, and its scale is not in the file"
NO_FIT = (
  "is kept in {dtype}, and its scale {scale} of shape {shape} does not say"
  " what it belongs to"
)


def find(entries: Entries, form: str) -> Found:
  """Finds tensors of few bits and their scales by names and shapes.

  Args:
    entries: of a file.
    form: of the file. Other frameworks than PyTorch divide by some scales, so
      theirs are doubts.
  """
  recipes: list[Recipe] = []
  doubts: dict[str, str] = {}
  bare: list[str] = []
  known = form in ("torch", "safetensors", "npz")
  beside = {
    name.rpartition(".")[0]
    for name in entries
    if OTHER_SCALES.search(name.rpartition(".")[2])
    and not ACTIVATIONS.search(name)
  }
  for name, entry in entries.items():
    small, whole = entry.dtype in SMALL, _is_whole_weight(name, entry, form)
    if name in MARKS or not (small or whole):
      continue
    layer = name.rpartition(".")[0]
    scale, result, factor = _scale_of(name, entries)
    if scale and known and not PACKED.search(name):
      recipe = _recipe(entries, name, scale, result, factor)
      if recipe is not None:
        recipes.append(recipe)
      else:
        shape = list(entries[scale].shape)
        doubts[name] = NO_FIT.format(
          dtype=entry.dtype, scale=scale, shape=shape
        )
    elif whole or scale or not beside.isdisjoint((layer, name)):
      doubts[name] = UNKNOWN.format(dtype=entry.dtype)
    elif len(entry.shape) > 1:
      bare.append(name)
  marked = any(mark in entries for mark in MARKS)
  if recipes or doubts or marked:
    doubts |= {n: NO_SCALE.format(dtype=entries[n].dtype) for n in bare}
  left_out = {}
  if recipes or marked:
    left_out = {n: "a mark of the format" for n in MARKS if n in entries}
    left_out |= {
      name: "a scale of activations"
      for name, entry in entries.items()
      if ACTIVATIONS.search(name) and entry.size == 1
    }
  return Found(recipes=recipes, doubts=doubts, left_out=left_out)


def _is_whole_weight(name: str, entry: Entry, form: str) -> bool:
  """Whether whole numbers stand where weights are due."""
  usual = ("uint8", "int32")  # The graph of ONNX says what others are for.
  whole = entry.dtype.startswith(("int", "uint", "bool"))
  if len(entry.shape) < 2 or not whole:
    return False
  if entry.dtype == "int8" or PACKED.search(name):
    return True
  due = form != "onnx" or entry.dtype in usual
  return due and bool(LAST_WORDS.search(name))


def _scale_of(name: str, entries: Entries) -> tuple[str, str, float]:
  """Returns the scale of a tensor ("" if there is none), result and factor."""
  layer, dot, last = name.rpartition(".")
  if last == "_data":
    return f"{layer}._scale" if f"{layer}._scale" in entries else "", layer, 1.0
  names = {f"{name}_scale": 1.0, f"{name}_scale_inv": 1.0}
  if last == "weight":
    names |= {f"{layer}{dot}scale_weight": 1.0, f"{layer}{dot}SCB": 1 / 127}
  there = [n for n in names if n in entries and entries[n].dtype in FLOATS]
  if len(there) != 1:
    return "", name, 1.0
  return there[0], name, names[there[0]]


def _recipe(entries: Entries, name, scale, result, factor) -> Recipe | None:
  """Returns how a tensor is scaled, None if its scale does not fit."""
  whole, (layer, dot, _) = entries[name].shape, name.rpartition(".")
  blocks = _blocks(whole, entries[scale].shape, scale.endswith("_inv"))
  if blocks is None or (result != name and result in entries):
    return None
  parts, zero = [name, scale], f"{name}_zero_point"
  if zero in entries:
    parts.append(zero)
    if entries[zero].shape != entries[scale].shape:
      return None
  if any(layer + dot + n in entries for n in ("_shift", "weight_scale_2")):
    return None
  counts = tuple(-(-n // side) for n, side in zip(whole, blocks, strict=True))

  def spread(array):
    array = array.astype(np.float32).reshape(counts)
    for axis, side in enumerate(blocks):
      if 1 < counts[axis] < whole[axis]:
        array = array.repeat(side, axis).take(range(whole[axis]), axis)
    return array

  def compute(array, scale, zero=None):
    array = array.astype(np.float32)
    array = array if zero is None else array - spread(zero)
    return array * (spread(scale) * np.float32(factor))

  return Recipe(
    name=result,
    parts=tuple(parts),
    shape=whole,
    dtype="float32",
    compute=compute,
    what=f"{scale.rpartition('.')[2]} ({entries[name].dtype})",
  )


def _blocks(
  whole: tuple[int, ...], scale: tuple[int, ...], is_inverse: bool
) -> tuple[int, ...] | None:
  """Returns the sides of what one number of a scale belongs to.

  Args:
    whole: shape of the tensor.
    scale: shape of its scale.
    is_inverse: whether the scale is called so, as DeepSeek's of blocks are.

  Returns:
    A side for each axis; None if several fit, or none.
  """
  if 0 in whole or 0 in scale:
    return None
  if set(scale) <= {1}:
    return whole
  if scale == whole[:1]:
    scale = scale + (1,) * (len(whole) - 1)
  if len(scale) != len(whole):
    return None
  sides = []
  for size, count in zip(whole, scale, strict=True):
    powers = [1 << k for k in range(size.bit_length())]
    fit = {side for side in powers if -(-size // side) == count}
    if size % count == 0:
      fit.add(size // count)
    if is_inverse and DEEPSEEK in fit:
      fit = {DEEPSEEK}
    if count == size:
      fit = {1}
    if len(fit) != 1 and count > 1:
      return None
    sides.append(fit.pop() if count > 1 else size)
  return tuple(sides)
