"""Permutations of hidden neurons, as gathers on the flat vector.

A hidden neuron may be renamed: permute what makes it and what reads it alike,
and the network computes the same function. Which axes must move together is
what the axis groups of a spec say, so one construction serves all networks.

An *element* of the group is one index array per axis group: place `a` of the
new network holds the old neuron `element[group][a]`. A group that is nested
in another has a permutation for each member of the outer one, which goes with
that member: its array is `[*outer sizes, size]`, indexed by old members. As
an index `[P]` an element acts by a gather, `weights[index]`, on numpy and JAX
arrays, one network or many (`weights[..., index]`).

Draws are uniform over the group: independent uniform shuffles of all groups,
and of all members of an outer group.

Dimensions: `P` weights of a network.

References:
  Hecht-Nielsen, On the Algebraic Structure of Feedforward Network Weight
  Spaces, 1990; Zhou et al., Permutation Equivariant Neural Functionals,
  NeurIPS 2023, arXiv:2302.14040 (their group of hidden neurons).
"""

import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from sne_jax.networks import spec as spec_lib

Element = Mapping[str, Any]
"""For each axis group, its index array, of numpy or JAX."""

_ATTEMPTS = 100  # Redraws of a control that came out as the identity.


def element_shapes(spec: spec_lib.NetworkSpec) -> dict[str, tuple[int, ...]]:
  """Returns the shape of every group's index array, in order of the spec.

  Raises:
    ValueError: a group is nested in itself.
  """
  shapes = {}
  for group, (size, outer) in spec.groups.items():
    shape, seen = [size], {group}
    while outer is not None:
      if outer in seen:
        raise ValueError(f"group {group!r} is nested in itself")
      seen.add(outer)
      size, next_outer = spec.groups[outer]
      shape.insert(0, size)
      outer = next_outer
    shapes[group] = tuple(shape)
  return shapes


def log_order(spec: spec_lib.NetworkSpec) -> float:
  """Returns the natural logarithm of the number of elements."""
  return math.fsum(
    math.prod(shape[:-1]) * math.lgamma(shape[-1] + 1)
    for shape in element_shapes(spec).values()
  )


def identity(spec: spec_lib.NetworkSpec) -> Int[np.ndarray, "P"]:
  """Returns the index that leaves a network as it is."""
  return np.arange(spec.num_weights, dtype=np.int32)


def draw_element(
  spec: spec_lib.NetworkSpec, rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Draws an element uniformly, on the host."""
  return {
    group: rng.permuted(_places(shape), axis=-1)
    for group, shape in element_shapes(spec).items()
  }


def draw_permutation(
  spec: spec_lib.NetworkSpec, rng: np.random.Generator
) -> Int[np.ndarray, "P"]:
  """Draws an element uniformly, on the host, as the index of its gather.

  Args:
    spec: the network.
    rng: advanced by the draw.

  Returns:
    `index`: `weights[index]` is the permuted network.
  """
  return _index(spec, draw_element(spec, rng), np)


def make_permutation_sampler(
  spec: spec_lib.NetworkSpec,
) -> Callable[[PRNGKeyArray], Int[Array, "P"]]:
  """Returns `sample(key) -> index`, uniform over the group.

  It is pure, so it may be compiled, and mapped over keys.
  """
  shapes = element_shapes(spec)
  if not shapes:
    return lambda key: jnp.asarray(identity(spec))
  rows = sum(math.prod(shape[:-1]) for shape in shapes.values())
  widest = max(shape[-1] for shape in shapes.values())

  def sample(key: PRNGKeyArray) -> Int[Array, "P"]:
    # One sort for all groups: each row ranks random numbers, and those beyond
    # the size of its group are the largest and rank last.
    noise = jax.random.bits(key, (rows, widest), dtype=jnp.uint32)
    size = np.concatenate(
      [np.full(math.prod(shape[:-1]), shape[-1]) for shape in shapes.values()]
    )
    beyond = np.arange(widest)[None] >= size[:, None]
    ranks = jnp.where(beyond, np.uint32(2**32 - 1), noise)
    ranks = jnp.argsort(ranks, axis=-1).astype(jnp.int32)
    element, start = {}, 0
    for group, shape in shapes.items():
      stop = start + math.prod(shape[:-1])
      element[group] = ranks[start:stop, : shape[-1]].reshape(shape)
      start = stop
    return _index(spec, element, jnp)

  return sample


def permutation_from(
  spec: spec_lib.NetworkSpec, element: Element
) -> Int[np.ndarray, "P"]:
  """Returns the index of an explicit element, on the host.

  Args:
    spec: the network.
    element: index arrays by group; groups that are not in it stay.

  Raises:
    ValueError: an unknown group, or an array that is no permutation of it or
      has the wrong shape.
  """
  shapes = element_shapes(spec)
  whole: dict[str, np.ndarray] = {}
  for group, value in element.items():
    if group not in shapes:
      raise ValueError(
        f"no group {group!r} in {spec.describe()}; it has"
        f" {', '.join(shapes) or 'none'}"
      )
    array = np.asarray(value)
    if array.shape != shapes[group]:
      raise ValueError(
        f"group {group!r} takes an array of shape {shapes[group]}, got"
        f" {array.shape}"
      )
    if not (np.sort(array, axis=-1) == _places(shapes[group])).all():
      raise ValueError(f"not a permutation of group {group!r}: {array}")
    whole[group] = array
  for group, shape in shapes.items():
    whole.setdefault(group, _places(shape))
  return _index(spec, whole, np)


def draw_uncoupled(
  spec: spec_lib.NetworkSpec, rng: np.random.Generator
) -> Int[np.ndarray, "P"]:
  """Draws a FALSE symmetry: one layer's rows move, their readers do not.

  A random weight tensor is permuted along its output neurons, together with
  the biases and norm vectors that belong to it, and nothing else is. Every
  layer keeps its set of neurons, but the function changes: a control.

  Raises:
    ValueError: no layer has two hidden output neurons.
  """
  layers = [t for t in spec.tensors if _moves(t, axis=0)]
  if not layers:
    raise ValueError(f"no layer of {spec.describe()} has hidden neurons")
  layer = layers[rng.integers(len(layers))]
  rows = np.arange(layer.shape[0])
  for _ in range(_ATTEMPTS):
    rows = _axis_index(layer.axes[0], draw_element(spec, rng), np)
    if (rows != np.arange(layer.shape[0])).any():
      break
  index = identity(spec)
  for t, start in zip(spec.tensors, spec.offsets, strict=True):
    mine = layer.name in (t.name, t.of)
    if mine and t.axes[0] == layer.axes[0]:  # A norm may be of another axis.
      indices = index[start : start + t.size].reshape(t.shape)
      index[start : start + t.size] = indices[rows].reshape(-1)
  return index


def draw_input_shuffle(
  spec: spec_lib.NetworkSpec, rng: np.random.Generator
) -> Int[np.ndarray, "P"]:
  """Draws a FALSE symmetry: each neuron's inputs are shuffled on their own.

  In every weight tensor that reads hidden neurons, each row (output neuron)
  gets a shuffle of its inputs, kernels kept whole. Every neuron keeps its set
  of weights, but the function changes: a control.

  Raises:
    ValueError: no layer reads two hidden neurons.
  """
  index = identity(spec)
  shuffled = False
  for t, start in zip(spec.tensors, spec.offsets, strict=True):
    if _moves(t, axis=1):
      shuffled = True
      columns = rng.permuted(_places(t.shape[:2]), axis=-1)
      columns = columns.reshape(*t.shape[:2], *(1 for _ in t.shape[2:]))
      indices = index[start : start + t.size].reshape(t.shape)
      indices = np.take_along_axis(indices, columns, axis=1)
      index[start : start + t.size] = indices.reshape(-1)
  if not shuffled:
    raise ValueError(f"no layer of {spec.describe()} reads hidden neurons")
  return index


def _moves(tensor: spec_lib.TensorSpec, axis: int) -> bool:
  """Whether that axis of a weight tensor has neurons to permute."""
  return tensor.kind in spec_lib.WEIGHT_KINDS and any(
    factor.group is not None and factor.size > 1 for factor in tensor.axes[axis]
  )


def _places(shape: tuple[int, ...]) -> np.ndarray:
  """Returns 0, 1, ... along the last axis of `shape`."""
  return np.broadcast_to(np.arange(shape[-1], dtype=np.int32), shape)


def _index(spec: spec_lib.NetworkSpec, element: Element, xp: ModuleType) -> Any:
  """Returns the gather index `[P]` of an element; `xp` as in its arrays."""
  axes = {}  # Many tensors share an axis.
  parts = []
  for t, start in zip(spec.tensors, spec.offsets, strict=True):
    index = xp.full((1,) * len(t.shape), start, dtype=xp.int32)
    stride = t.size
    for place, axis in enumerate(t.axes):
      stride //= t.shape[place]
      if axis not in axes:
        axes[axis] = _axis_index(axis, element, xp)
      along = [1] * len(t.shape)
      along[place] = t.shape[place]
      index = index + (axes[axis] * stride).reshape(along)
    parts.append(index.reshape(-1))
  return xp.concatenate(parts)


def _axis_index(axis: spec_lib.Axis, element: Element, xp: ModuleType) -> Any:
  """Returns the old place of every new place of an axis.

  Raises:
    ValueError: a factor is nested in one that does not come before it.
  """
  old: dict[str, Any] = {}  # Old members of the groups so far.
  index = xp.zeros((1,) * len(axis), dtype=xp.int32)
  for place, factor in enumerate(axis):
    along = [1] * len(axis)
    along[place] = factor.size
    new = np.arange(factor.size, dtype=np.int32).reshape(along)
    if factor.group is None:
      member = new
    else:
      chain = _outer_groups(axis[:place], factor)
      member = element[factor.group][(*(old[outer] for outer in chain), new)]
      old[factor.group] = member
    index = index * factor.size + member
  return index.reshape(-1)


def _outer_groups(
  before: spec_lib.Axis, factor: spec_lib.Factor
) -> tuple[str, ...]:
  """Returns the groups that a factor is nested in, outermost first."""
  by_group = {f.group: f for f in before}
  chain = []
  outer = factor.per
  while outer is not None:
    if outer not in by_group:
      raise ValueError(
        f"group {factor.group!r} is nested in {outer!r}, which must be an"
        " earlier factor of the same axis"
      )
    chain.insert(0, outer)
    outer = by_group[outer].per
  return tuple(chain)
