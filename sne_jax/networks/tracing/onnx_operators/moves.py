"""Operators of ONNX that move, cut and join places; and windows over them.

They are in the table of `table.py`, as `operation(tape, given,
*items)`.

Dimensions: none; shapes are tuples of sizes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.networks.tracing.onnx_operators import known
from sne_jax.networks.tracing.tape import Tape, Value

Given = Mapping[str, Any]


def windows(
  given: Given, sizes: Sequence[int], kernel: Sequence[int]
) -> tuple[int, ...]:
  """Returns the sizes after a convolution or pooling.

  Raises:
    ValueError: no place is left.
  """
  strides, dilations, pads = _steps(given, len(sizes))
  result = []
  for p, (n, k) in enumerate(zip(sizes, kernel, strict=True)):
    auto = given.get("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
      result.append(-(-n // strides[p]))
      continue
    before, after = pads[p], pads[len(sizes) + p]
    if auto == "VALID":
      before = after = 0
    room = n + before + after - dilations[p] * (k - 1) - 1
    count = room // strides[p] + 1
    if given.get("ceil_mode"):
      count = -(-room // strides[p]) + 1
      if (count - 1) * strides[p] >= n + before:
        count -= 1  # A window must not begin in what is padded.
    result.append(count)
  if min(result, default=1) < 1:
    raise ValueError(f"windows of {tuple(kernel)} over {tuple(sizes)}")
  return tuple(result)


def spread(
  given: Given, sizes: Sequence[int], kernel: Sequence[int]
) -> tuple[int, ...]:
  """Returns the sizes after a transposed convolution; raises as `windows`."""
  strides, dilations, pads = _steps(given, len(sizes))
  more = given.get("output_padding") or [0] * len(sizes)
  if given.get("output_shape"):
    result = list(given["output_shape"])[-len(sizes) :]
  elif given.get("auto_pad", "NOTSET").startswith("SAME"):
    result = [n * s for n, s in zip(sizes, strides, strict=True)]
  else:
    result = [
      strides[p] * (n - 1)
      + more[p]
      + (kernel[p] - 1) * dilations[p]
      + 1
      - pads[p]
      - pads[len(sizes) + p]
      for p, n in enumerate(sizes)
    ]
  if len(result) != len(sizes) or min(result, default=1) < 1:
    raise ValueError(f"windows of {tuple(kernel)} over {tuple(sizes)}")
  return tuple(result)


def _steps(given: Given, rank: int):
  """Strides, dilations and pads, checked."""
  found = (
    list(given.get("strides") or [1] * rank),
    list(given.get("dilations") or [1] * rank),
    list(given.get("pads") or [0] * 2 * rank),
  )
  if [len(f) for f in found] != [rank, rank, 2 * rank] or min(found[0]) < 1:
    raise ValueError("windows of other axes")
  return found


def pool(tape, given, x):
  """Pooling: places with windows over them do not move."""
  places = windows(given, x.shape[2:], given["kernel_shape"])
  for axis in x.value.axes[2:]:
    tape.axes.pin(axis, "neurons are pooled or padded")
  return tape.spatial(x.value, (*x.shape[:2], *places))


def resize(tape, given, x, *rest):
  """Resize and Upsample, by scales or by sizes."""
  arrays = [None if r is None else r.array for r in rest]
  scales = arrays[0] if len(arrays) == 1 else (*arrays, None)[1:2]
  scales = scales[0] if isinstance(scales, tuple) else scales
  sizes = arrays[2] if len(arrays) > 2 else None
  if not rest:
    scales = np.asarray(given["scales"])
  stretch = given.get("keep_aspect_ratio_policy", "stretch") == "stretch"
  if "axes" in given or not stretch:
    return None
  if sizes is not None and sizes.size:
    shape = tuple(sizes.tolist())
  elif scales is not None and scales.size == len(x.shape):
    shape = tuple(
      math.floor(n * s) for n, s in zip(x.shape, scales.tolist(), strict=True)
    )
  else:
    return None
  for axis, old, new in zip(x.value.axes, x.shape, shape, strict=True):
    if old != new:
      tape.axes.pin(axis, "neurons are pooled or padded")
  crop = given.get("coordinate_transformation_mode") == "tf_crop_and_resize"
  return None if crop else tape.spatial(x.value, shape)


def pad(tape, given, x, pads=None, value=None, axes=None):
  """Pad: axes that it adds to, or takes from, do not move."""
  listed = given.get("pads") if pads is None else pads.numbers.tolist()
  places = range(len(x.shape)) if axes is None else axes.numbers.tolist()
  shape = list(x.shape)
  for p, place in enumerate(places):
    before, after = listed[p], listed[len(places) + p]
    if before or after:
      tape.axes.pin(x.value.axes[place], "neurons are pooled or padded")
    shape[place] += before + after
  if min(shape) < 1:
    return None
  return tape.spatial(x.value, shape)


def reshape(tape, given, x, shape=None):
  """Reshape, by an input or, until opset 4, by an attribute."""
  target = given["shape"] if shape is None else shape.numbers.tolist()
  allow = bool(given.get("allowzero"))
  return tape.reshape(x.value, known.reshaped(x.shape, target, allow))


def flatten(tape, given, x):
  """Flatten to two axes."""
  place = given.get("axis", 1)
  place += len(x.shape) if place < 0 else 0
  shape = (math.prod(x.shape[:place]), math.prod(x.shape[place:]))
  return tape.reshape(x.value, shape)


def squeeze(tape, given, x, axes=None):
  """Takes out axes of size 1."""
  places = known.axes_of(given, None if axes is None else axes.numbers)
  return tape.reshape(x.value, known.squeezed(x.shape, places))


def unsqueeze(tape, given, x, axes=None):
  """Puts in axes of size 1."""
  places = known.axes_of(given, None if axes is None else axes.numbers)
  return tape.reshape(x.value, known.unsqueezed(x.shape, places or []))


def transpose(tape, given, x):
  """Reorders axes."""
  rank = len(x.shape)
  order = list(given.get("perm") or range(rank)[::-1])
  if sorted(order) != list(range(rank)):
    return None
  return tape.transpose(x.weight(), order)


def expand(tape, given, x, shape):
  """Repeats places along axes of size 1."""
  full = np.broadcast_shapes(x.shape, tuple(shape.numbers.tolist()))
  return tape.expand(x.value, full)


def tile(tape, given, x, counts):
  """Repeats axes as a whole: copies, each of all places."""
  counts, y = counts.numbers.tolist(), x.value
  if len(counts) != len(x.shape) or min(counts) < 1:
    return None
  cut = [n for size in x.shape for n in (1, size)]
  long = [n for pair in zip(counts, x.shape, strict=True) for n in pair]
  y = tape.expand(tape.reshape(y, cut), long)
  return tape.reshape(y, [c * n for c, n in zip(counts, x.shape, strict=True)])


def slices(tape, given, x, starts=None, ends=None, axes=None, steps=None):
  """Takes stretches of axes."""
  listed = [
    None if item is None else item.numbers.tolist()
    for item in (starts, ends, axes, steps)
  ]
  first = given["starts"] if listed[0] is None else listed[0]
  last = given["ends"] if listed[1] is None else listed[1]
  places = listed[2] or given.get("axes") or range(len(first))
  y, computed = (
    x.value,
    any(i is not None and not i.name for i in (starts, ends)),
  )
  for n, place in enumerate(places):
    if computed and y.level is None:  # Of a table, as many rows as are needed.
      tape.axes.pin(y.axes[place])
    step = listed[3][n] if listed[3] else 1
    size = y.shape[place]
    start, stop, by = known.bounds(size, first[n], last[n], step)
    count = len(range(start, stop, by))
    if count < 1:
      return None
    place %= len(y.shape)
    y = (
      tape.slice(y, place, start, start + count)
      if by == 1
      else _taken(tape, y, place, count)
    )
  return y


def _taken(tape: Tape, x: Value, place: int, count: int) -> Value:
  """Some places of an axis, in some order."""
  tape.axes.pin(x.axes[place], "places are taken by number")
  return tape.slice(x, place, 0, count)


def _picked(tape: Tape, x: Value, place: int, index: Value) -> Value | None:
  """Places of an axis, by numbers that are constant or come from inputs."""
  if index.level is not None and index.level >= 0:
    return None
  for axis in index.axes:
    tape.axes.pin(axis, "places are taken by number")
  y = _taken(tape, x, place, math.prod(index.shape))
  return tape.reshape(
    y, (*x.shape[:place], *index.shape, *x.shape[place + 1 :])
  )


def split(tape, given, x, sizes=None):
  """Cuts an axis into parts."""
  place = given.get("axis", 0) % len(x.shape)
  size = x.shape[place]
  parts = given.get("split") if sizes is None else sizes.numbers.tolist()
  if parts is None:
    count = given.get("num_outputs") or given["outputs"]
    each = -(-size // count)
    parts = [each] * (count - 1) + [size - each * (count - 1)]
  if sum(parts) != size or min(parts) < 1:
    return None
  ends = np.cumsum(parts).tolist()
  return [
    tape.slice(x.value, place, end - n, end)
    for n, end in zip(parts, ends, strict=True)
  ]


def concat(tape, given, *items):
  """Puts values one after another."""
  place = given["axis"] % len(items[0].shape)
  if len(items) == 1:
    return items[0].value
  return tape.concatenate([i.value for i in items], place)


def gather(tape, given, x, index):
  """Takes places of an axis by number."""
  place = given.get("axis", 0) % len(x.shape)
  numbers = index.array
  data = x.weight()
  if data.level is None and data.parts and place == 0:
    return tape.look_up(data, index.value)
  if numbers is None or numbers.dtype.kind not in "iu":
    return _picked(tape, data, place, index.value)
  size = x.shape[place]
  if numbers.size and not (-size <= numbers.min() <= numbers.max() < size):
    return None
  if not numbers.shape:
    return tape.select(data, place, int(numbers) % size)
  listed = (numbers.reshape(-1) % size).tolist()
  stretch = listed == list(range(listed[0], listed[0] + len(listed)))
  if numbers.ndim == 1 and stretch:
    return tape.slice(data, place, listed[0], listed[0] + len(listed))
  return _picked(tape, data, place, index.value)


def depth_to_space(tape, given, x):
  """Channels become places."""
  b, c, h, w = x.shape
  n = given["blocksize"]
  if given.get("mode", "DCR") == "DCR":
    cut, order = (b, n, n, c // n**2, h, w), (0, 3, 4, 1, 5, 2)
  else:
    cut, order = (b, c // n**2, n, n, h, w), (0, 1, 4, 2, 5, 3)
  y = tape.transpose(tape.reshape(x.value, cut), order)
  return tape.reshape(y, (b, c // n**2, h * n, w * n))


def space_to_depth(tape, given, x):
  """Places become channels."""
  b, c, h, w = x.shape
  n = given["blocksize"]
  y = tape.reshape(x.value, (b, c, h // n, n, w // n, n))
  y = tape.transpose(y, (0, 3, 5, 1, 2, 4))
  return tape.reshape(y, (b, c * n * n, h // n, w // n))


def unplayed(
  op: str, given: Given, shapes: Sequence[tuple[int, ...] | None]
) -> list[tuple[int, ...] | None]:
  """Returns what is known of the shapes that operators give that pin all.

  Args:
    op: the operator.
    given: its attributes.
    shapes: of its inputs, without those that are left out.
  """
  first = shapes[0] if shapes else None
  if op in ("LSTM", "GRU", "RNN") and None not in shapes[:3]:
    x, _, hidden = (shape or () for shape in shapes[:3])
    if len(x) != 3 or len(hidden) != 3:
      return []
    first = 1 if given.get("layout") else 0
    t, b = x[first], x[1 - first]
    ends = (hidden[0], b, hidden[2]), (b, hidden[0], hidden[2])
    whole = (t, hidden[0], b, hidden[2]), (b, t, hidden[0], hidden[2])
    return [whole[first], ends[first], ends[first]]
  if op in ("ScatterND", "ScatterElements", "RandomNormalLike", "Bernoulli"):
    return [first]
  if op == "GatherElements":
    return [shapes[1]]
  return []


TABLE = {
  **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
  **dict.fromkeys(("Resize", "Upsample"), resize),
  "Pad": pad,
  "Reshape": reshape,
  "Flatten": flatten,
  "Squeeze": squeeze,
  "Unsqueeze": unsqueeze,
  "Transpose": transpose,
  "Expand": expand,
  "Tile": tile,
  "Slice": slices,
  "Split": split,
  "Concat": concat,
  "Gather": gather,
  "DepthToSpace": depth_to_space,
  "SpaceToDepth": space_to_depth,
}
"""What plays each operator."""
