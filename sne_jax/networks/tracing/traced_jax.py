"""A JAX function, traced: which axes move together is known, not guessed.

Serves Flax modules as `trace(module.apply, variables, x)`, and any function of
a tree of weights. The operations of its jaxpr are played on a tape; one that
is not in the table claims no permutation, and is named in `guesses`.

Dimensions: none; shapes are tuples of sizes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.assembly import assemble
from sne_jax.networks.inference.inferred import InferredNetwork
from sne_jax.networks.tracing import activations, operations
from sne_jax.networks.tracing.tape import Tape, Value

_LINEAR = {"add": "add", "add_any": "add", "sub": "scale", "mul": "scale"}
_LINEAR |= {"div": "scale"}

_PLACE_BY_PLACE = frozenset(
  """
  abs acos and asin atan atan2 cbrt ceil clamp convert_element_type copy cos
  cosh eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le
  lgamma log log1p logistic lt max min ne neg nextafter not or pow
  reduce_precision rem round rsqrt select_n sign sin sinh sqrt square
  stop_gradient tan tanh xor
  """.split()  # noqa: SIM905
)
_CALLS = frozenset(
  """
  pjit jit closed_call core_call custom_jvp_call custom_vjp_call
  custom_vjp_call_jaxpr remat remat2 checkpoint
  """.split()  # noqa: SIM905
)
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_REDUCTIONS = frozenset(
  f"reduce_{what}" for what in ("sum", "max", "min", "prod", "and", "or")
)


def trace(
  function: Callable[..., Any], variables: Any, *inputs: Any
) -> InferredNetwork:
  """Finds the spec of a function of weights by running it without numbers.

  Args:
    function: called as `function(variables, *inputs)`; pure.
    variables: tree of arrays or of `jax.ShapeDtypeStruct`. The tensors of the
      file are named by their paths, with slashes: `params/Dense_0/kernel`.
    *inputs: arrays, or their shapes and dtypes.

  Raises:
    ValueError: no weight has a part in the output.
  """
  paths, tree = jax.tree_util.tree_flatten_with_path(variables)
  names = [
    jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths
  ]
  leaves = [_struct(leaf) for _, leaf in paths]

  def run(leaves: Sequence[Any], inputs: Sequence[Any]) -> Any:
    return function(jax.tree_util.tree_unflatten(tree, leaves), *inputs)

  closed = jax.make_jaxpr(run)(leaves, jax.tree.map(_struct, inputs))
  shapes = {n: tuple(leaf.shape) for n, leaf in zip(names, leaves, strict=True)}
  tape = Tape(naming.hints(shapes))
  heard: list[Value | Callable[[], Value]] = []
  for place, var in enumerate(closed.jaxpr.invars):
    shape = tuple(var.aval.shape)
    if place >= len(names):
      heard.append(tape.input(shape))
    elif np.issubdtype(np.dtype(leaves[place].dtype), np.integer):
      heard.append(tape.constant(shape))
    else:
      # Weights are made when they are first used, and so stand in order.
      heard.append(lambda n=names[place], s=shape: tape.weight(n, s))
  for output in _Player(tape).play(closed, heard):
    tape.output(output)
  spec, sources = assemble(tape)
  used = {source.name for source in sources}
  reason = "has no part in the output of the traced function"
  left_out = {name: reason for name in names if name not in used}
  return InferredNetwork(
    spec, sources, left_out, {}, tape.unclaimed(), how="traced"
  )


def named(variables: Any) -> dict[str, np.ndarray]:
  """Returns the arrays of a tree by the names that `trace` gives them."""
  paths, _ = jax.tree_util.tree_flatten_with_path(variables)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
    for path, leaf in paths
  }


def _struct(leaf: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)


def _primitives(closed: Any) -> set[str]:
  """Returns the names of all primitives of a jaxpr, through calls."""
  names = set()
  for eqn in getattr(closed, "jaxpr", closed).eqns:
    if eqn.primitive.name not in _CALLS:
      names.add(eqn.primitive.name)
      continue
    names |= _primitives(next(eqn.params[k] for k in _INNER if k in eqn.params))
  return names


def _activation(eqn: Any, values: Sequence[Value]) -> str | None:
  """Returns what an equation is to neurons; see `activations.of_operation`."""
  name = eqn.primitive.name
  zeros = [
    isinstance(v, core.Literal) and np.all(v.val == 0) for v in eqn.invars
  ]
  if name == "max" and any(zeros):
    return "relu"
  if name in activations.JAX:
    return activations.JAX[name]
  if name == "pad" and zeros[1]:
    return None
  if name.startswith("reduce_window"):
    values = values[:1]  # Without where the sum or maximum begins.
  return activations.of_operation(name, values)


class _Player:
  """Plays a jaxpr on a tape."""

  def __init__(self, tape: Tape):
    self.tape = tape

  def play(self, closed: Any, heard: Sequence[Any]) -> list[Value]:
    """Plays a closed jaxpr on values, or on what makes them; its outputs."""
    jaxpr = getattr(closed, "jaxpr", closed)
    consts = getattr(closed, "consts", ())
    known: dict[Any, Any] = dict(zip(jaxpr.invars, heard, strict=True))
    for var, const in zip(jaxpr.constvars, consts, strict=True):
      known[var] = self._constant(const)

    def value(item: Any) -> Value:
      if isinstance(item, core.Literal):
        return self._constant(item.val)
      if not isinstance(known[item], Value):
        known[item] = known[item]()
      return known[item]

    for eqn in jaxpr.eqns:
      for var, output in zip(
        eqn.outvars, self._equation(eqn, value, known), strict=True
      ):
        known[var] = output
    return [value(var) for var in jaxpr.outvars]

  def _constant(self, item: Any) -> Value:
    array = np.asarray(item)
    alike = array.size < 2 or bool((array == array.reshape(-1)[0]).all())
    return self.tape.constant(array.shape, uniform=alike)

  def _equation(self, eqn: Any, value: Any, known: Any) -> Sequence[Value]:
    """Plays one operation; unknown ones claim nothing."""
    name = eqn.primitive.name
    shapes = [tuple(v.aval.shape) for v in eqn.outvars]
    if name in _CALLS:
      inner = next(eqn.params[k] for k in _INNER if k in eqn.params)
      lazy = [
        value(v) if isinstance(v, core.Literal) else known[v]
        for v in eqn.invars
      ]
      return self._called(eqn.params.get("name", ""), inner, lazy)
    values = [value(v) for v in eqn.invars]
    act = _activation(eqn, values)
    if act is not None:
      self.tape.note(values, act)
    if name in _LINEAR or name in _PLACE_BY_PLACE:
      op = _LINEAR.get(name, "map")
      return [self.tape.elementwise(*values, op=op, shape=shapes[0])]
    play = getattr(self, f"_{name}", None)
    if name in _REDUCTIONS:
      play = self._reduce
    outputs = None if play is None else play(eqn.params, shapes, *values)
    if outputs is None:
      return self.tape.unknown(values, shapes, name)
    return outputs if isinstance(outputs, list) else [outputs]

  def _called(self, name: str, inner: Any, heard: Sequence[Any]) -> list[Value]:
    """Plays a call; one that is an activation is noted as a whole."""
    allowed = activations.JAX_CALLS.get(name, ())
    if allowed is not None and not _primitives(inner) <= set(allowed):
      return self.play(inner, heard)
    self.tape.note([v for v in heard if isinstance(v, Value)], name)
    muted, self.tape.muted = self.tape.muted, True
    outputs = self.play(inner, heard)
    self.tape.muted = muted
    return outputs

  def _reduce(self, params, shapes, x):
    return self.tape.reduce(x, params["axes"])

  def _dot_general(self, params, shapes, x, y):
    summed, batch = params["dimension_numbers"]
    pairs = lambda both: list(zip(*both, strict=True))
    return self.tape.contract(x, y, pairs(batch), pairs(summed))

  def _conv_general_dilated(self, params, shapes, x, kernel):
    if params["batch_group_count"] != 1:
      return None
    heard, stored, output = params["dimension_numbers"]
    x = self.tape.transpose(x, heard)
    kernel = self.tape.transpose(kernel, stored)
    places = [shapes[0][p] for p in output[2:]]
    groups = params["feature_group_count"]
    y = operations.convolution(self.tape, x, kernel, places, groups)
    return self.tape.transpose(y, np.argsort(output).tolist())

  def _reshape(self, params, shapes, x):
    if params.get("dimensions") is not None:
      return None
    return self.tape.reshape(x, shapes[0])

  def _squeeze(self, params, shapes, x):
    return self.tape.reshape(x, shapes[0])

  _expand_dims = _squeeze

  def _transpose(self, params, shapes, x):
    return self.tape.transpose(x, params["permutation"])

  def _broadcast_in_dim(self, params, shapes, x):
    kept = dict(zip(params["broadcast_dimensions"], x.shape, strict=True))
    long = tuple(kept.get(p, 1) for p in range(len(shapes[0])))
    return self.tape.expand(self.tape.reshape(x, long), shapes[0])

  def _slice(self, params, shapes, x):
    steps = params["strides"] or (1,) * len(x.shape)
    for place, (start, stop, step) in enumerate(
      zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    ):
      if step != 1 and stop - start > 1:
        return None
      x = self.tape.slice(x, place, start, stop)
    return x

  def _split(self, params, shapes, x):
    parts, start = [], 0
    for size in map(int, params["sizes"]):
      parts.append(self.tape.slice(x, params["axis"], start, start + size))
      start += size
    return parts

  def _concatenate(self, params, shapes, *values):
    return self.tape.concatenate(values, int(params["dimension"]))

  def _iota(self, params, shapes):
    return self.tape.constant(shapes[0])

  def _gather(self, params, shapes, table, index):
    """Rows of a table, as `table[index]` and `jnp.take(..., axis=0)` give."""
    numbers = params["dimension_numbers"]
    rank = len(table.shape)
    free = len(shapes[0]) - (rank - 1)
    rows = (1, *table.shape[1:])
    plain = (
      tuple(numbers.collapsed_slice_dims) == (0,)
      and tuple(numbers.start_index_map) == (0,)
      and tuple(params["slice_sizes"]) == rows
      and tuple(numbers.offset_dims) == tuple(range(free, len(shapes[0])))
      and not numbers.operand_batching_dims
      and index.shape[-1] == 1
    )
    if not plain:
      return None
    return self.tape.look_up(table, self.tape.reshape(index, index.shape[:-1]))

  def _windows(self, params, shapes, x, *_):
    """Pooling: axes with a window of more than one place do not move."""
    for place, size in enumerate(params["window_dimensions"]):
      if size > 1:
        self.tape.axes.pin(x.axes[place], "neurons are pooled or padded")
    return self.tape.spatial(x, shapes[0])

  _reduce_window = _reduce_window_sum = _windows
  _reduce_window_max = _reduce_window_min = _windows

  def _pad(self, params, shapes, x, _):
    for place, (low, high, inner) in enumerate(params["padding_config"]):
      if low or high or inner:
        self.tape.axes.pin(x.axes[place], "neurons are pooled or padded")
    return self.tape.spatial(x, shapes[0])

  def _rev(self, params, shapes, x):
    return None if math.prod(x.shape) > 1 else x
