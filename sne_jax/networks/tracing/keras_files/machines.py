"""Two machines that run the layers of a file: on a tape, and with numbers.

A layer is written once, as what it does to a machine's values. On the tape
(`OnTape`) this says which axes move together; with numbers (`OnNumbers`) it
gives the output, so that what was said can be tried (`permutation_check`).
Functions that are called `run` compute with JAX; the tape takes nothing of
them but the shape of what they give.

Values have a `shape`; their first axis is the batch.

Dimensions: none; shapes are tuples of sizes.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.networks.tracing import operations, torch_operations
from sne_jax.networks.tracing.player import Mismatch, Player
from sne_jax.networks.tracing.tape import MAXIMUM, Value

Run = Callable[..., Any]


class CannotRunError(ValueError):
  """A layer that is not run with numbers; says which."""


_OPS = {"add": "add", "average": "add", "subtract": "scale"}
_OPS |= {"multiply": "scale", "divide": "scale"}
"""What the tape calls what combines values; all others are maps."""


class OnTape:
  """Records layers on the tape of a player."""

  def __init__(self, player: Player):
    self.player = player
    self.tape = player.tape

  def weight(self, name: str) -> Value:
    """Returns a tensor of the file; `Mismatch` if it is no weight."""
    if not self.player.has(name):
      raise Mismatch(f"{name!r} holds no numbers of a network's own precision")
    return self.player.weight(name)

  def contract(self, x, y, pairs):
    """Multiplies and sums over pairs of axes."""
    _check(all(x.shape[a] == y.shape[b] for a, b in pairs), "a product", x, y)
    return self.tape.contract(x, y, (), pairs)

  def einsum(self, equation, x, y):
    """Multiplies and sums; `Mismatch` where the tape cannot say how."""
    play = torch_operations.find("einsum")
    result = play(self.tape, None, equation, [x, y]) if play else None
    if result is None:
      raise Mismatch(f"a product {equation!r} that is not known")
    return result

  def convolve(self, x, kernel, groups, run):
    """Convolves `x [B, C, ...]` with a kernel `[O, C / groups, ...]`."""
    fits = x.shape[1] == kernel.shape[1] * groups
    fits &= groups > 0 and kernel.shape[0] % max(groups, 1) == 0
    _check(fits, "a convolution", x, kernel)
    shape = _shape_of(run, x, kernel)
    return operations.convolution(self.tape, x, kernel, shape[2:], groups)

  def combine(self, op, *values):
    """Combines values place by place: "add", "maximum", ...

    The sizes of each axis are one or equal.
    """
    rank = max(len(v.shape) for v in values)
    for p in range(-rank, 0):
      sizes = {v.shape[p] for v in values if p >= -len(v.shape)} - {1}
      _check(len(sizes) < 2, f"{op} of unlike shapes", *values)
    result = values[0]
    for value in values[1:]:
      result = self.tape.elementwise(result, value, op=_OPS.get(op, "map"))
    return result

  def apply(self, x, run, name: str | None = ""):
    """Applies a function to all places alike.

    Args:
      x: the value.
      run: the function.
      name: of an activation, "" if it has none, None if it is linear.
    """
    if name is not None:
      self.tape.note((x,), name)
    return self.tape.elementwise(x)

  def normalise(self, x, places, vectors, run, *, running=False, groups=None):
    """Normalises axes: by running statistics, or by those of the input.

    Args:
      x: the value.
      places: its axes that the vectors have, in order.
      vectors: by kind: `norm_scale`, `norm_shift`, `norm_mean`, `norm_var`.
      run: called with the value and the vectors.
      running: whether statistics are among the vectors.
      groups: see `operations.norm`.
    """
    sizes = tuple(x.shape[p] for p in places)
    for vector in vectors.values():
      _check(vector.shape == sizes, "a norm of other channels", x, vector)
    if running and len(places) == 1:
      return operations.batch_norm(self.tape, x, vectors, places[0])
    _check(groups is None or sizes[0] % groups == 0, "groups of a norm", x)
    return operations.norm(self.tape, x, vectors, places, groups)

  def reduce(self, x, places, how):
    """Drops axes: by their "mean", "sum" or "max"."""
    if how == "max":
      self.tape.note((x,), MAXIMUM)
    return self.tape.reduce(x, places)

  def spatial(self, x, places, run, maximum=False):
    """Pools, pads, crops or resizes axes."""
    if maximum:
      self.tape.note((x,), MAXIMUM)
    shape = _shape_of(run, x)
    for place in places:
      self.tape.axes.pin(x.axes[place], "neurons are pooled or padded")
    return self.tape.spatial(x, shape)

  def reshape(self, x, shape):
    """Reads a value, row-major, in another shape."""
    _check(math.prod(shape) == math.prod(x.shape), f"a reshape to {shape}", x)
    return self.tape.reshape(x, shape)

  def transpose(self, x, order):
    """Reorders axes."""
    return self.tape.transpose(x, order)

  def expand(self, x, shape):
    """Repeats axes of size 1."""
    return self.tape.expand(x, shape)

  def concatenate(self, values, place):
    """Puts values one after another along an axis."""
    alike = {(*v.shape[:place], *v.shape[place:][1:]) for v in values}
    _check(len(alike) == 1, "a concatenation", *values)
    return self.tape.concatenate(values, place)

  def look_up(self, table, index):
    """Takes rows of a table."""
    return self.tape.look_up(table, index)

  def attend(self, q, k, v, scale, causal):
    """Attention of `q [..., T, E]` to `k [..., S, E]`, `v [..., S, F]`."""
    alike = q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2]
    _check(alike and q.shape[:-2] == k.shape[:-2], "attention", q, k, v)
    if causal:
      for axis in (q.axes[-2], k.axes[-2]):
        self.tape.axes.pin(axis, "causal attention")
    return operations.attend(self.tape, q, k, v)

  def only_played(self, what):
    """Says that what follows is not run with numbers as Keras runs it."""

  def unknown(self, values, shapes, what):
    """Something of which nothing is known: what it touches is pinned."""
    return self.tape.unknown(values, shapes, what)


class OnNumbers:
  """Runs layers; arrays are those of a file, by name."""

  def __init__(self, arrays: Mapping[str, Any]):
    self._arrays = arrays

  def weight(self, name):
    """See `OnTape`."""
    if name not in self._arrays:
      raise Mismatch(f"there is no tensor {name!r}")
    return jnp.asarray(self._arrays[name])

  def contract(self, x, y, pairs):
    """See `OnTape`."""
    axes = [[a for a, _ in pairs], [b for _, b in pairs]]
    return jnp.tensordot(x, y, axes)

  def einsum(self, equation, x, y):
    """See `OnTape`."""
    return jnp.einsum(equation, x, y)

  def convolve(self, x, kernel, groups, run):
    """See `OnTape`."""
    del groups
    return run(x, kernel)

  def combine(self, op, *values):
    """See `OnTape`."""
    if op == "average":
      return self.combine("add", *values) / len(values)
    result = values[0]
    for value in values[1:]:
      rank = max(result.ndim, value.ndim)
      one, other = (
        jnp.reshape(v, (1,) * (rank - v.ndim) + v.shape)
        for v in (result, value)
      )
      if op == "prelu":
        result = jnp.where(one > 0, one, one * other)
      else:
        result = getattr(jnp, op)(one, other)
    return result

  def apply(self, x, run, name: str | None = ""):
    """See `OnTape`."""
    del name
    return run(x)

  def normalise(self, x, places, vectors, run, *, running=False, groups=None):
    """See `OnTape`."""
    del running, groups
    shape = [n if p in places else 1 for p, n in enumerate(x.shape)]
    along = lambda v: v.transpose(np.argsort(places)).reshape(shape)
    return run(x, {kind: along(v) for kind, v in vectors.items()})

  def reduce(self, x, places, how):
    """See `OnTape`."""
    return getattr(jnp, how)(x, axis=tuple(places))

  def spatial(self, x, places, run, maximum=False):
    """See `OnTape`."""
    del places, maximum
    return run(x)

  def reshape(self, x, shape):
    """See `OnTape`."""
    return jnp.reshape(x, tuple(shape))

  def transpose(self, x, order):
    """See `OnTape`."""
    return jnp.transpose(x, tuple(order))

  def expand(self, x, shape):
    """See `OnTape`."""
    return jnp.broadcast_to(x, tuple(shape))

  def concatenate(self, values, place):
    """See `OnTape`."""
    return jnp.concatenate(values, place)

  def look_up(self, table, index):
    """See `OnTape`."""
    return table[index.astype(np.int32)]

  def attend(self, q, k, v, scale, causal):
    """See `OnTape`."""
    scores = jnp.einsum("...te,...se->...ts", q, k) * scale
    if causal:
      seen = jnp.tri(*scores.shape[-2:], dtype=bool)
      scores = jnp.where(
        seen.reshape((1,) * (scores.ndim - 2) + seen.shape), scores, -1e9
      )
    return jnp.einsum("...ts,...sf->...tf", jax.nn.softmax(scores), v)

  def only_played(self, what):
    """See `OnTape`."""
    raise CannotRunError(f"{what} is not run here")

  def unknown(self, values, shapes, what):
    """See `OnTape`."""
    raise CannotRunError(f"{what} is not run here")


Machine = OnTape | OnNumbers


def _check(holds: bool, what: str, *values: Any) -> None:
  if not holds:
    shapes = ", ".join(str(tuple(v.shape)) for v in values)
    raise Mismatch(f"{what}: {shapes}")


def _shape_of(run: Run, *values: Any) -> tuple[int, ...]:
  """Returns the shape of what a function gives; `Mismatch` if nothing."""
  structs = [jax.ShapeDtypeStruct(tuple(v.shape), np.float32) for v in values]
  try:
    return tuple(jax.eval_shape(run, *structs).shape)
  except Exception as error:  # noqa: BLE001 - any of JAX's, said in one line
    raise Mismatch(f"it cannot be run: {str(error)[:200]}") from error
