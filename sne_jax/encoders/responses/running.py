"""Runs the networks of a batch on inputs: one program for each shape.

Whatever a network does, nothing infinite or undefined comes out, so that one
whose activations overflow cannot disturb others through shared gradients.

Dimensions: `N` networks of a program, `K` inputs, `O` outputs, `U` units of
them, `G` places of a grid, `P` weights.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sne_jax.encoders.responses.programs import (
  PREFIX,
  Program,
  input_shape,
  of_name,
)
from sne_jax.networks import families
from sne_jax.networks.families import banded, dense, layers, sine

BOUND = 1e6
"""Pre-activations and outputs are cut off here, on both sides."""


CACHE_BYTES = 5 << 20
"""What networks that are run side by side on a CPU may take: the images of a
level, once for each row of a kernel."""

MOST_TILE = 32
"""Networks that are run side by side on a CPU, at most."""


class Answers(NamedTuple):
  """What the networks of one program answer."""

  outputs: Any  # float32 [N, K, O]
  before: Any  # float32 [N, U, G, K], pre-activations, or None
  after: Any  # float32 [N, U, G, K], activations, or None
  is_unit: Any  # bool [N, U], False for channels that only fill a template


def each(batch: Any, inputs: Any, grid: int):
  """Runs all networks of a batch, program by program.

  Args:
    batch: a `joining.Joined` with the tables of `programs.Plan`.
    inputs: from the shape of an input, and `is_signal`, to inputs.
    grid: see `run`.

  Yields:
    Each program that the batch has networks of, its table, and their answers.
  """
  for name, table in sorted(batch.tables.items()):
    if not name.startswith(PREFIX) or not len(table["network"]):
      continue
    program = of_name(name)
    shape = input_shape(program.spec)
    x = inputs(shape, is_signal=program.spec.family == "inr")
    yield program, table, run(program, batch.weights, table, x, grid=grid)


def by_level(program: Program, answers: Answers) -> list[tuple[Any, Any, Any]]:
  """Returns pre-activations, activations and the mask of every level."""
  parts, first = [], 0
  for _, count in program.levels:
    part = slice(first, first + count)
    parts.append(tuple(values[:, part] for values in answers[1:]))
    first += count
  return parts


def run(
  program: Program,
  weights: Any,
  table: Mapping[str, Any],
  inputs: Any,
  *,
  grid: int = 0,
) -> Answers:
  """Runs all networks of a program on the same inputs.

  Args:
    program: what to compile.
    weights: of the batch, `[T]`.
    table: the program's columns; see `programs.Plan`.
    inputs: `[K, ...]`, of the shape that the program takes.
    grid: side of the grid that images are averaged to, at each unit; 0: only
      outputs are wanted.
  """
  vectors = weights.at[table["index"]].get(mode="clip")
  vectors = jnp.where(table["weighs"], vectors, 0)
  is_unit = table["unit"] > 0

  def one(vector, activation, skip, is_unit):
    return _run_one(program, vector, inputs, activation, skip, is_unit, grid)

  columns = (table["activation"], table["skip"], is_unit)
  tile = _tile(program, len(inputs))
  outputs, before, after = _in_tiles(one, (vectors, *columns), tile)
  return Answers(outputs, before, after, is_unit)


def _tile(program: Program, inputs: int) -> int:
  """Returns how many networks are best run side by side.

  On a CPU as many as stay in its cache; and one where activations are chosen,
  since side by side all of them have to be computed.
  """
  if jax.default_backend() != "cpu":
    return 1 << 30
  if any(len(names) > 1 for names in program.activations):
    return 1
  each = 4 * inputs * _largest(program.spec)
  return max(1, min(MOST_TILE, CACHE_BYTES // each))


@functools.lru_cache(maxsize=4096)
def _largest(spec) -> int:
  """Returns how many numbers of an input a level takes at most; see `_tile`."""
  sizes = [1]

  def hidden(level, x):
    del level
    sizes.append(x.size)
    return x

  run = lambda vector, x: families.run(spec, spec.unflatten(vector), x, hidden)
  vector = jax.ShapeDtypeStruct((spec.num_weights,), jnp.float32)
  x = jax.ShapeDtypeStruct((1, *input_shape(spec)), jnp.float32)
  jax.eval_shape(run, vector, x)
  sides = [t.shape[-1] for t in spec.tensors if t.kind == "conv_weight"]
  return max(sizes) * max(sides, default=1)


def _in_tiles(one, columns, tile: int):
  """Maps a function over networks, so many at a time."""
  count = len(columns[0])
  tiles = max(1, -(-count // tile))
  size = -(-count // tiles)
  if tiles == 1:
    return jax.vmap(one)(*columns)

  def cut(column):
    more = ((0, tiles * size - count),) + ((0, 0),) * (column.ndim - 1)
    return jnp.pad(column, more).reshape(tiles, size, *column.shape[1:])

  several = lambda part: jax.vmap(one)(*part)
  if size == 1:  # Not mapped: a choice stays a choice.
    first = lambda part: one(*(column[0] for column in part))
    several = lambda part: jax.tree.map(lambda x: x[None], first(part))
  results = jax.lax.map(several, jax.tree.map(cut, columns))
  join = lambda x: x.reshape(tiles * size, *x.shape[2:])[:count]
  return jax.tree.map(join, results)


def _run_one(program, vector, inputs, activation, skip, is_unit, grid):
  """Runs one network; the arguments without their first axis."""
  spec = program.spec
  is_dense = spec.family in ("mlp", "inr")
  turned = lambda x: x.T if is_dense else x  # To [K, U].
  before, after, kept = [], [], {}
  first = {}
  for level, count in program.levels:
    first[level] = sum(n for _, n in program.levels[: len(first)])
    first[level] = slice(first[level], first[level] + count)

  def activate(level, name, x, w0):
    del name
    if program.padded and x.ndim == 4:
      for source, image in kept.items():
        if (source, level) not in program.skips:
          continue
        x = x + skip[level, source] * _of_width(image, x.shape[0])
    x = _bounded(x)
    if grid and level in first and level < spec.num_levels - 1:
      before.append(_on_grid(turned(x), grid))
    return _chosen(program.activations[level], activation[level], x, w0)

  def hidden(level, x):
    if program.padded:  # What activations make of nothing is nothing.
      mask = is_unit[first[level]]
      x = jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, 0)
      kept[level] = x
    if grid:
      after.append(_on_grid(turned(x), grid))
    return x

  given = (spec, spec.unflatten(vector), inputs, hidden, activate)
  if is_dense:
    outputs = dense.run_inputs_last(*given)
  else:
    outputs = families.run(*given, convolve=banded.convolution)
  outputs = _bounded(outputs)
  if not grid:
    return outputs, None, None
  last = _on_grid(outputs, grid)
  join = lambda parts: jnp.concatenate([*parts, last])
  return outputs, join(before), join(after)


def _chosen(names, number, x, w0):
  """Applies the activation of that number among the names.

  Where networks are run one by one, it is the only one that is computed.
  """
  if len(names) == 1:
    return _activation(names[0], w0)(x)
  functions = [_activation(name, w0) for name in names]
  slopes = [functools.partial(_slope, function) for function in functions]

  @jax.custom_jvp
  def chosen(number, x):
    return jax.lax.switch(number, functions, x)

  @chosen.defjvp
  def chosen_jvp(primals, tangents):
    number, x = primals
    slope = jax.lax.switch(number, slopes, x)
    return chosen(number, x), slope * tangents[1]

  return chosen(number, x)


def _activation(name, w0):
  """Returns an activation as a function; the sine is the fast one."""
  if name == "sine":
    return lambda x: sine.sine(w0 * x)
  return functools.partial(layers.activate, name, w0=w0)


def _slope(function, x):
  """Returns the derivative of an activation at each number."""
  return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]


def _of_width(image, channels: int):
  """Returns so many channels of an image `[C, H, W, K]`, with zeros."""
  more = max(0, channels - image.shape[0])
  return jnp.pad(image[:channels], ((0, more), (0, 0), (0, 0), (0, 0)))


def _bounded(x):
  """Returns what is finite and not huge; gradients of the rest are 0."""
  limit = jnp.where(x > 0, BOUND, jnp.where(x < 0, -BOUND, 0.0))
  return jnp.where(jnp.abs(x) <= BOUND, x, limit)


def _on_grid(x, grid: int):
  """Averages what units answer over the places of a grid, `[U, G, K]`.

  Images are `[C, H, W, K]`; tokens `[K, T, U]` are averaged over; a vector's
  unit `[K, U]` gives the same at all places.
  """
  if x.ndim == 4:
    channels, height, width, count = x.shape
    rows = _means(height, grid)
    columns = _means(width, grid)
    x = jnp.einsum("chwk,gh,jw->cgjk", x, rows, columns)
    return x.reshape(channels, grid * grid, count)
  if x.ndim == 3:
    x = x.mean(axis=1)
  return jnp.repeat(x.T[:, None, :], grid * grid, axis=1)


def _means(size: int, grid: int):
  """Returns `[grid, size]`: averages over the parts of a line."""
  place = jnp.arange(size)[None, :]
  part = jnp.arange(grid)[:, None]
  start, stop = part * size // grid, -((-(part + 1) * size) // grid)
  inside = (place >= start) & (place < jnp.maximum(stop, start + 1))
  return inside / inside.sum(axis=1, keepdims=True)
