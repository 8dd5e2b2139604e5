"""Layers played on a tape: convolutions, norms, attention.

Values are channels first: `[batch, channels, places...]` for convolutions and
norms of images, channels last for everything else.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from sne_jax.networks.tracing.recording import whole_view
from sne_jax.networks.tracing.tape import Tape, Use, Value


def convolution(
  tape: Tape,
  x: Value,
  kernel: Value,
  places: Sequence[int],
  groups: int = 1,
) -> Value:
  """Convolves `x [B, C, ...]` with a kernel `[O, C / groups, ...]`.

  The channels of a grouped convolution are groups of channels: groups may be
  renamed, and the channels within all groups alike.

  Args:
    tape: records it.
    x: the input.
    kernel: a view of a weight.
    places: height and width of the result.
    groups: as in PyTorch.
  """
  axes = tape.axes
  out, into = kernel.axes[0], kernel.axes[1]
  if groups == 1:
    axes.unify(x.axes[1], into, "a convolution of unlike channels")
  else:
    cut = (groups, kernel.shape[1])
    heard = axes.regroup([x.axes[1]], cut, "groups of channels")
    rows = (groups, kernel.shape[0] // groups)
    outputs = axes.regroup([out], rows, "groups of channels")
    axes.unify(heard[0], outputs[0], "groups of channels")
    axes.unify(heard[1], into, "groups of channels")
    axes.see([into])
  for axis in kernel.axes[2:]:
    axes.pin(axis)
  for axis in x.axes[2:]:
    axes.pin(axis, "neurons lie along an axis that is convolved")
  level = (-1 if x.level is None else x.level) + 1
  shape = (x.shape[0], kernel.shape[0], *places)
  spatial = tuple(axes.fresh(n, pinned=True) for n in places)
  view = whole_view(kernel)
  if view is None:
    tape.use_all(kernel, Use("other", level))
    return tape.activation(
      (x, kernel), shape, (x.axes[0], out, *spatial), level
    )
  flat = lambda view: tuple(a for dims in view for a in dims)
  part = kernel.parts[0]
  use = Use(
    "conv_weight", level, flat(view[:1]), flat(view[1:2]), flat(view[2:])
  )
  tape.use(part, use)
  value = tape.activation(
    (x, kernel),
    shape,
    (x.axes[0], out, *spatial),
    max(level, tape.uses[part].level),
  )
  return dataclasses.replace(value, producer=part, origin=part)


def transposed_convolution(
  tape: Tape,
  x: Value,
  kernel: Value,
  places: Sequence[int],
  groups: int = 1,
) -> Value:
  """Convolves `x [B, C, ...]` back, by a kernel `[C, O / groups, ...]`.

  Arguments are those of `convolution`. A kernel of groups stays as it is
  stored, for no reshape gives it rows of outputs, unless each channel is a
  group of its own.
  """
  axes, rank = tape.axes, len(kernel.shape)
  turned = tape.transpose(kernel, (1, 0, *range(2, rank)))
  if groups == 1:
    return convolution(tape, x, turned, places)
  cut = (groups, kernel.shape[0] // groups)
  axes.unify(x.axes[1], kernel.axes[0], "a convolution of unlike channels")
  outer, _ = axes.regroup([kernel.axes[0]], cut, "groups of channels")
  out = (*outer, *kernel.axes[1])
  for axis in kernel.axes[2:]:
    axes.pin(axis)
  for axis in x.axes[2:]:
    axes.pin(axis, "neurons lie along an axis that is convolved")
  axes.see(kernel.axes)
  level = (-1 if x.level is None else x.level) + 1
  channels = groups * kernel.shape[1]
  own = kernel if cut[1] * kernel.shape[1] == 1 else turned
  flat = lambda dims: tuple(a for axis in dims for a in axis)
  view, part = whole_view(own), None
  if view is None:
    tape.use_all(kernel, Use("other", level))
  else:
    part = kernel.parts[0]
    each = flat(view[:1]), flat(view[1:2]), flat(view[2:])
    tape.use(part, Use("conv_weight", level, *each))
    level = max(level, tape.uses[part].level)
  spatial = tuple(axes.fresh(n, pinned=True) for n in places)
  value = tape.activation(
    (x, kernel),
    (x.shape[0], channels, *places),
    (x.axes[0], out, *spatial),
    level,
  )
  return dataclasses.replace(value, producer=part, origin=part)


def matmul(tape: Tape, x: Value, y: Value) -> Value:
  """Multiplies matrices as NumPy does: leading axes are broadcast.

  Raises:
    ValueError: the shapes do not fit.
  """
  if not x.shape or not y.shape:
    raise ValueError("a product of numbers")
  row, column = len(x.shape) == 1, len(y.shape) == 1
  x = tape.reshape(x, (1, *x.shape)) if row else x
  y = tape.reshape(y, (*y.shape, 1)) if column else y
  rank = max(len(x.shape), len(y.shape)) - 2
  ahead = [rank + 2 - len(v.shape) for v in (x, y)]
  batch, left, right, order = [], [], [], []
  for place in range(rank):  # Of the result: from both, from x or from y.
    a, b = place - ahead[0], place - ahead[1]
    m, n = (x.shape[a] if a >= 0 else 0), (y.shape[b] if b >= 0 else 0)
    if m == n:
      order.append(("both", len(batch)))
      batch.append((a, b))
    elif n in (0, 1):
      order.append(("x", len(left)))
      left.append(a)
    elif m in (0, 1):
      order.append(("y", len(right)))
      right.append(b)
    else:
      raise ValueError(f"a product of {x.shape} and {y.shape}")
  # Axes of one place that the other side spreads out are dropped first.
  x, kept = _without(tape, x, {a for a, _ in batch} | {*left})
  y, held = _without(tape, y, {b for _, b in batch} | {*right})
  z = tape.contract(
    x,
    y,
    [(kept[a], held[b]) for a, b in batch],
    [(len(x.shape) - 1, len(y.shape) - 2)],
  )
  starts = {"both": 0, "x": len(batch), "y": len(batch) + len(left) + 1}
  turn = [starts[side] + number for side, number in order]
  turn += [starts["y"] - 1, len(z.shape) - 1]
  z = tape.transpose(z, turn)
  shape = z.shape[:-2] + z.shape[-2:][row : 2 - column]
  return tape.reshape(z, shape) if row or column else z


def _without(tape: Tape, x: Value, kept: set[int]):
  """Drops leading axes that are not kept; returns where the others are now."""
  last = len(x.shape) - 2
  places = [p for p in range(len(x.shape)) if p in kept or p >= last]
  if len(places) < len(x.shape):
    x = tape.reshape(x, [x.shape[p] for p in places])
  return x, {p: now for now, p in enumerate(places)}


def batch_norm(
  tape: Tape, x: Value, vectors: Mapping[str, Value], place: int = 1
) -> Value:
  """Normalises channels by running statistics.

  Args:
    tape: records it.
    x: the input; its channels lie along axis `place`.
    vectors: by kind: `norm_scale`, `norm_shift`, `norm_mean`, `norm_var`.
    place: axis of the channels.
  """
  level = max(x.level or 0, 0)
  level += x.producer is None and x.level != -1
  for kind, vector in vectors.items():
    tape.axes.unify(x.axes[place], vector.axes[0], "a norm of other channels")
    of = None if x.producer is None else (x.producer, x.past)
    tape.use_all(vector, Use(kind, level, of=x.producer, after=of))
  normalised = tape.activation((x,), x.shape, x.axes, level)
  return dataclasses.replace(normalised, producer=x.producer)


def norm(
  tape: Tape,
  x: Value,
  vectors: Mapping[str, Value],
  places: Sequence[int],
  groups: int | None = None,
) -> Value:
  """Normalises by statistics of the input: a layer or group norm.

  Args:
    tape: records it.
    x: the input.
    vectors: by kind, `norm_scale` and `norm_shift`, as far as there are.
    places: axes of `x` that the vectors have, in order.
    groups: of the channels along the only one of `places`; None for all
      together, or each by itself.
  """
  if groups is not None and groups > 1:
    channels = x.shape[places[0]]
    cut = (groups, channels // groups)
    tape.axes.regroup([x.axes[places[0]]], cut, "groups of a norm")
  level = max(x.level or 0, 0) + (x.level != -1)
  if not vectors:
    tape.note((x,))
  for kind, vector in vectors.items():
    for place, axis in zip(places, vector.axes, strict=True):
      tape.axes.unify(x.axes[place], axis, "a norm of other channels")
    tape.use_all(vector, Use(kind if len(places) == 1 else "other", level))
  return tape.activation(
    (x,), x.shape, x.axes, level if vectors else x.level or 0
  )


def attend(tape: Tape, q: Value, k: Value, v: Value) -> Value:
  """Attention of `q [..., T, E]` to `k [..., S, E]`, `v [..., S, F]`."""
  lead = len(q.shape) - 2
  batch = [(p, p) for p in range(lead)]
  scores = tape.contract(q, k, batch, [(lead + 1, lead + 1)])
  weights = tape.elementwise(scores)
  return tape.contract(weights, v, batch, [(lead + 1, lead)])


def split_heads(tape: Tape, x: Value, heads: int) -> Value:
  """Turns `[B, T, heads * E]` into `[B, heads, T, E]`."""
  size = x.shape[2] // heads
  x = tape.reshape(x, (*x.shape[:2], heads, size))
  return tape.transpose(x, (0, 2, 1, 3))


def merge_heads(tape: Tape, x: Value) -> Value:
  """Turns `[B, heads, T, E]` into `[B, T, heads * E]`."""
  x = tape.transpose(x, (0, 2, 1, 3))
  return tape.reshape(x, (*x.shape[:2], x.shape[2] * x.shape[3]))
