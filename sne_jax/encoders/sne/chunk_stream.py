"""The chunks of one network in micro-batches of one size, gathered on the host.

Dimensions: `M` chunks of a micro-batch, `L` pseudo-layers, `X` positions.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from sne_jax.encoders.batches import buckets
from sne_jax.encoders.sne import encodings, tensor_source
from sne_jax.encoders.sne import slots as slots_lib
from sne_jax.networks import scales
from sne_jax.networks.chunking import ranges
from sne_jax.networks.spec import NetworkSpec


class ChunkStream:
  """The chunks of one network, to be gone through more than once.

  Args:
    plan: how it is cut.
    tensors: its tensors, as of `tensor_source.TensorSource`.
    scaling: how its weights are scaled.
    size: chunks of a micro-batch, at most. All have one shape; those at no end
      of the network leave `positions` out, which saves most of the gathers.

  Attributes:
    size: chunks of a micro-batch.

  Raises:
    ValueError: a tensor is missing, or has another shape than the spec says.
  """

  def __init__(
    self,
    plan: ranges.Plan,
    tensors: Mapping[str, Any],
    scaling: slots_lib.Scaling,
    size: int,
  ):
    o = self._options = scaling.options
    self._plan = plan
    self._source = tensor_source.TensorSource(plan.spec, tensors)
    self.size = min(size, buckets.round_up(plan.num_chunks))
    self._factors, self._log_scales = _scales(self._source, plan.spec, scaling)
    wanted = {
      "role": True,
      "places": o.index_features == "neuron",
      "io": o.index_features == "io",
      "other": o.identifiers != "none",
      "tensor": self._log_scales is not None,
    }
    self._fields = [name for name, is_wanted in wanted.items() if is_wanted]
    self._level = levels(plan)

  def map(
    self,
    function: Callable[[slots_lib.Slots], Any],
    tell: Callable[[int], None] = lambda count: None,
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Applies a function to all chunks, micro-batch by micro-batch.

    While the device computes one, the next is gathered.

    Args:
      function: of `Slots` to an array with a row for each chunk.
      tell: is told how many chunks were done since the last call.

    Yields:
      The neurons that chunks belong to `[M]`, and the rows `[M, ...]`, in
      order and without padding.
    """
    total, waiting = self._plan.num_chunks, None
    for start in range(0, total, self.size):
      slots = self.slots(start, min(start + self.size, total))
      rows = function(slots)
      if waiting is not None:
        yield self._finished(*waiting, tell)
      waiting = rows, slots.neuron[: total - start]
    if waiting is not None:
      yield self._finished(*waiting, tell)

  def _finished(self, rows, neurons, tell) -> tuple[np.ndarray, np.ndarray]:
    rows = np.asarray(rows)[: len(neurons)]
    tell(len(neurons))
    return neurons, rows

  def slots(self, start: int, stop: int) -> slots_lib.Slots:
    """Gathers chunks `start` to `stop`, padded to the size of all."""
    plan = self._plan
    chunks = ranges.arrays(plan, start, stop, self._fields)
    weights = ranges.gather(plan, start, stop, self._source, self._factors)
    before = np.searchsorted(plan.starts, max(start - 1, 0), side="right") - 1
    for cut in plan.cuts[before : chunks.layer[-1]]:  # Not needed again.
      for piece in cut.pieces:
        self._source.give_back(piece.tensor)
    log_scale = None
    if self._log_scales is not None:
      log_scale = np.where(chunks.mask, self._log_scales[chunks.tensor], 0)
    kind = self._options.index_features
    positions = encodings.positions_of(chunks, kind)
    if kind == "io" and not np.any(chunks.io):
      positions = None
    slots = slots_lib.Slots(
      weights=weights,
      log_scale=log_scale,
      mask=chunks.mask,
      role=chunks.role,
      positions=positions,
      other=chunks.other,
      neuron=chunks.owner,
      chunk=chunks.chunk,
      kind=plan.kind[chunks.layer],
      level=self._level[chunks.layer],
    )
    missing = self.size - (stop - start)
    if not missing:
      return slots
    pad = lambda x: np.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1))
    return jax.tree.map(pad, slots)


def levels(plan: ranges.Plan) -> np.ndarray:
  """Returns the levels of pseudo-layers, as encoders see them: `[L, 2]`."""
  return slots_lib.with_relative(plan.level, plan.spec)


def positions(options, plan: ranges.Plan) -> np.ndarray:
  """Returns all positions that index features look up: 0, 1, 2, ... `[X]`.

  Rounded up to one of few sizes.
  """
  spec, count = plan.spec, 1
  if options.index_features == "io":
    sizes = [
      t.shape[axis] for t in spec.tensors for _, axis in ranges.io_axes(spec, t)
    ]
    count = 1 + max(sizes, default=0)
  if options.index_features == "neuron":
    count = max(max(*t.shape[:3], math.prod(t.shape[3:])) for t in spec.tensors)
  return np.arange(buckets.round_up(count), dtype=np.float32)


def _scales(
  source: tensor_source.TensorSource,
  spec: NetworkSpec,
  scaling: slots_lib.Scaling,
):
  """Returns what weights of each tensor are multiplied by, and log scales."""
  o = scaling.options
  fan_in = [t.fan_in if o.fan_in_scale else 1 for t in spec.tensors]
  factors = np.sqrt(fan_in) / scaling.by_place[scales.tensor_places(spec)]
  if o.weight_scale != "tensor":
    return factors, None
  squares = source.mean_squares() * fan_in
  root = slots_lib.root_mean_square(squares, 1)
  return factors / root, np.log(root).astype(np.float32)
