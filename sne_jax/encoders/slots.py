"""What is known of every slot of every chunk, before anything is encoded.

Dimensions: `M` chunks of `C` slots, `T` weights of a packed batch, `F` features
of a weight.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.encoders import encodings, rectangles
from sne_jax.encoders.packing import Packed
from sne_jax.encoders.sne_options import SNEOptions
from sne_jax.networks import scales


class Slots(NamedTuple):
  """Chunks of any networks, whatever they were gathered from."""

  weights: Any  # float32 [M, C], scaled; 0 where there is none
  log_scale: Any  # float32 [M, C], of the weight's tensor, or None
  mask: Any  # bool [M, C], True where there is a weight
  role: Any  # int32 [M, C], as in `chunking.ROLES`
  places: Any  # int32 [M, C, 4], or None if index features do not ask for it
  io: Any  # int32 [M, C, 2], or None likewise, and if all are 0
  other: Any  # int32 [M, C], neuron at the other end, or None likewise
  own: Any  # int32 [M], neuron that the chunk belongs to
  chunk: Any  # int32 [M], number of the chunk within its layer
  kind: Any  # int32 [M], kind of its layer
  level: Any  # float32 [M, 2], level, and level / deepest level
  other_readers: Any = rectangles.Readers((), None)  # of `other`
  io_readers: Any = (rectangles.Readers((), None),) * 2  # of columns of `io`


class Scaling(NamedTuple):
  """How weights are scaled before they are encoded.

  Attributes:
    options: `fan_in_scale` and `weight_scale`.
    global_scale: root mean square of the (fan-in scaled) training weights.
    place_scales: the same for each of `scales.PLACES`; empty: `global_scale`.
  """

  options: SNEOptions
  global_scale: float
  place_scales: tuple[float, ...]

  @property
  def by_place(self) -> np.ndarray:
    """What weights are divided by, `[places]`; 1 where tensors say it."""
    count = len(scales.PLACES)
    known = {"none": (1.0,) * count, "tensor": (1.0,) * count}
    known["global"] = (self.global_scale,) * count
    known["place"] = self.place_scales or known["global"]
    return np.asarray(known[self.options.weight_scale], np.float32)


def of_batch(batch: Packed, scaling: Scaling) -> Slots:
  """Gathers the slots of a packed batch."""
  flat, log_scale = _scaled(batch, scaling)
  if log_scale is not None:
    log_scale = log_scale[batch.tensor_of[batch.index]]
    log_scale = jnp.where(batch.mask, log_scale, 0)
  return Slots(
    weights=jnp.where(batch.mask, flat[batch.index], 0),
    log_scale=log_scale,
    mask=batch.mask,
    role=batch.role,
    places=batch.places,
    io=batch.io,
    other=batch.other,
    own=batch.own,
    chunk=batch.chunk,
    kind=batch.chunk_kind,
    level=batch.chunk_level,
    other_readers=batch.other_readers,
    io_readers=batch.io_readers,
  )


def values(slots: Slots, options: SNEOptions):
  """Returns the features of weights, `[M, C, F]`."""
  found = encodings.value_features(slots.weights, options.value_features)
  if slots.log_scale is None:
    return found
  return jnp.concatenate([found, slots.log_scale[..., None]], axis=-1)


def root_mean_square(total, count):
  """Returns that of tensors, from the sums of their squares."""
  return (total / count + 1e-12) ** 0.5


def _scaled(batch: Packed, scaling: Scaling):
  """Returns scaled weights `[T]`, and the log scale of tensors or None."""
  o = scaling.options
  flat = batch.weights
  if o.fan_in_scale:
    flat = flat * batch.scale
  if o.weight_scale == "none":
    return flat, None
  if o.weight_scale != "tensor":
    return flat / jnp.asarray(scaling.by_place)[batch.place_of], None
  count = len(batch.tensors)
  total = jax.ops.segment_sum(flat**2, batch.tensor_of, count)
  number = jax.ops.segment_sum(
    (batch.scale > 0).astype(flat.dtype), batch.tensor_of, count
  )
  rms = root_mean_square(total, jnp.maximum(number, 1))
  return flat / rms[batch.tensor_of], jnp.log(rms)
