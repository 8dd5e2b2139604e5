"""Numbers of a network's neurons, and which of them a weight touches.

A neuron is an output row of a weight tensor: there is one number per
(weight tensor, row), in the order of the tensors. Rows that a residual stream
adds up are different neurons, though they share an axis group.

A weight that reads a group reads it from the *nearest earlier producer*: the
weight tensor of highest level strictly below the reader's whose rows are that
group (the first in order, if several share that level). A group that no weight
tensor produces below the reader, such as the stream after an embedding table,
has a number per member too; these come last, in order of first use.

Dimensions: `K` neurons. All numbers here are 1-based; 0 stands for none.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.spec import Axis, NetworkSpec, TensorSpec


class Neurons(NamedTuple):
  """The neurons that each tensor touches; tuples are in tensor order.

  Attributes:
    total: `K`.
    rows: for each weight tensor, the neurons of its rows `[out]`; for the
      others None.
    reads: for each weight tensor, the neurons that it reads along axis 1
      `[in]`, 0 for inputs of the network; for the others None.
    owners: for each vector that belongs to a weight tensor (`of`), that
      tensor's place in the spec; for all other tensors None.
    belongs: for each tensor that is no weight, the axis along which its
      elements belong to neurons, and those `[size of that axis]`; None for
      weights and where there are none.
  """

  total: int
  rows: tuple[Int[np.ndarray, "out"] | None, ...]
  reads: tuple[Int[np.ndarray, "in"] | None, ...]
  owners: tuple[int | None, ...]
  belongs: tuple[tuple[int, Int[np.ndarray, "size"]] | None, ...]


def is_weight(tensor: TensorSpec) -> bool:
  """Whether the tensor maps an input axis to an output axis."""
  return tensor.kind in spec_lib.WEIGHT_KINDS


def groups_of(axis: Axis) -> frozenset[str]:
  """Names of the groups that permute the places of an axis."""
  return frozenset(f.group for f in axis if f.group is not None)


def members(axis: Axis) -> Int[np.ndarray, "size"]:
  """For each place of an axis, which member of its groups it is.

  Two axes of the same groups agree on the numbers, whatever the order of
  their factors and whatever other places they have.
  """
  sizes = tuple(f.size for f in axis)
  index = np.unravel_index(np.arange(math.prod(sizes)), sizes)
  numbers = np.zeros(math.prod(sizes), np.int32)
  for group in sorted(groups_of(axis)):
    factor = [f.group for f in axis].index(group)
    numbers = numbers * sizes[factor] + index[factor]
  return numbers


def matching(axis: Axis, other: Axis) -> Int[np.ndarray, "size m"]:
  """For each place of `axis`, the places of `other` that are the same member.

  Both axes must have the same groups. Equal axes match place by place, and
  others by group member: every place of one channel, for example.
  """
  if axis == other:
    return np.arange(math.prod(f.size for f in axis))[:, None]
  theirs = members(other)
  order = np.argsort(theirs, kind="stable").reshape(theirs.max() + 1, -1)
  return order[members(axis)]


@functools.lru_cache(maxsize=1024)
def number(spec: NetworkSpec) -> Neurons:
  """Numbers the neurons of a network; see the module docstring.

  Raises:
    ValueError: a vector does not fit the weight tensor that it belongs to.
  """
  rows, count, producers = [], 0, {}
  for tensor in spec.tensors:
    size = tensor.shape[0] if is_weight(tensor) else 0
    first = 1 + count
    numbers = np.arange(first, first + size, dtype=np.int32)
    rows.append(numbers if size else None)
    count += size
    if size:
      groups = groups_of(tensor.axes[0])
      producers.setdefault(groups, []).append((tensor, rows[-1]))

  sources = {}  # groups -> first number of the members that nothing produces

  def neurons_of(axis: Axis, below: int) -> Int[np.ndarray, "size"]:
    nonlocal count
    groups = groups_of(axis)
    if not groups:
      return np.zeros(math.prod(f.size for f in axis), np.int32)
    earlier = [p for p in producers.get(groups, ()) if p[0].level < below]
    if earlier:
      tensor, numbers = max(earlier, key=lambda pair: pair[0].level)
      return numbers[matching(axis, tensor.axes[0])[:, 0]]
    if groups not in sources:
      sources[groups] = 1 + count
      count += math.prod(spec.groups[name][0] for name in groups)
    return sources[groups] + members(axis)

  reads, owners, belongs = [], [], []
  for tensor in spec.tensors:
    weight = is_weight(tensor)
    owners.append(_owner(spec, tensor))
    reads.append(neurons_of(tensor.axes[1], tensor.level) if weight else None)
    owner, place = None, owners[-1]
    if place is not None:
      owner = (0, rows[place])
    elif not weight:
      grouped = [a for a, axis in enumerate(tensor.axes) if groups_of(axis)]
      if grouped:  # A vector may share the level of what it acts on.
        axis = grouped[-1]
        owner = (axis, neurons_of(tensor.axes[axis], tensor.level + 1))
    belongs.append(owner)
  return Neurons(
    count, tuple(rows), tuple(reads), tuple(owners), tuple(belongs)
  )


def _owner(spec: NetworkSpec, tensor: TensorSpec) -> int | None:
  """Returns the place of the weight tensor that a vector belongs to.

  Returns:
    None if `of` is not set or names no weight tensor.

  Raises:
    ValueError: the vector does not have one element per row.
  """
  if tensor.of is None or is_weight(tensor):
    return None
  place = spec.index(tensor.of)
  weight = spec.tensors[place]
  if not is_weight(weight):
    return None
  if tensor.shape != weight.shape[:1]:
    raise ValueError(
      f"tensor {tensor.name!r} of shape {tensor.shape} belongs to"
      f" {weight.name!r}, which has {weight.shape[0]} outputs; it must have one"
      " element for each, or no `of`"
    )
  return place
