"""A value for every weight, from the codes of SNE.

A weight lies in one chunk or, by the neuron rule, in that of each of its ends.
There it is seen with the code of the chunk and the identifiers of the chunk's
neuron and of the one at the other end. What is made of it is summed over its
chunks, and joined by the code of the network and the place of its tensor. With
`content` identifiers and chunks that hold a neuron whole, all of this moves
along with the neurons, and nothing else is read.

Dimensions: `M` chunks of `C` slots, `T` weights of a batch, `h` width.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders.batches import joining
from sne_jax.encoders.responses import seen as seen_lib
from sne_jax.encoders.sne import module, slots
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.networks import chunking, scales


class PerWeight(nn.Module):
  """Maps a batch of networks to `[T, 1]`.

  Attributes:
    encoder: SNE.
  """

  encoder: module.SNE

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Returns a value for every weight, `[T, 1]`."""
    width = self.encoder.options.width
    code, parts = self.encoder.in_parts(batch, deterministic)
    table = batch.tables["weights"]
    index = jnp.asarray(batch.tables["chunks"]["index"])
    mask = jnp.asarray(parts.slots.mask)
    seen = jnp.where(mask[..., None], self._in_chunks(parts), 0)
    summed = jax.ops.segment_sum(
      seen.reshape(-1, width), index.reshape(-1), len(batch.weights)
    )
    joined = nn.LayerNorm(name="norm")(summed)
    of_network = nn.Dense(width, name="network")(code)
    network = jnp.asarray(batch.tables["tensors"]["network"])
    joined = joined + of_network[network[table["tensor"]]]
    place = nn.Embed(len(scales.PLACES), width, name="place")
    hidden = nn.gelu(joined + place(jnp.asarray(table["place"])))
    hidden = nn.gelu(nn.Dense(width, name="hidden")(hidden))
    return nn.Dense(1, name="value")(hidden)

  def _in_chunks(self, parts: slots.Parts):
    """Returns what chunks make of their weights, `[M, C, h]`."""
    o, s = self.encoder.options, parts.slots
    dense = lambda name: nn.Dense(o.width, use_bias=False, name=name)
    values = slots.values(s, o)
    roles = jax.nn.one_hot(s.role, len(chunking.ROLES), dtype=values.dtype)
    x = nn.Dense(o.width, name="weight")(
      jnp.concatenate([values, roles], axis=-1)
    )
    of_chunk = dense("chunk")(parts.rows)
    if parts.neurons is not None:
      of_chunk = of_chunk + dense("own")(parts.neurons)[s.neuron]
      # Mapped once for each neuron, not for each of its weights.
      other = nn.Dense(2 * o.width, use_bias=False, name="other")(parts.neurons)
      added, factor = jnp.split(other[s.other], 2, axis=-1)
      x = x + added + s.weights[..., None] * factor
    if parts.marks is not None:
      x = x + dense("marks")(parts.marks)
    return nn.gelu(x + of_chunk[:, None])


def encoder(options: SNEOptions, measured: Mapping[str, Any]) -> module.SNE:
  """Returns the encoder's module, from what was measured."""
  seen = seen_lib.Seen()
  if options.responses != "none":
    seen = seen_lib.seen_of(measured["seen"])
  return module.SNE(
    options,
    measured["global_scale"],
    tuple(measured["place_scales"]),
    seen,
    name="encoder",
  )


def build(options: SNEOptions, measured: Mapping[str, Any]) -> nn.Module:
  """Returns the module of a value for every weight; see `interface.Row`."""
  return PerWeight(encoder(options, measured))
