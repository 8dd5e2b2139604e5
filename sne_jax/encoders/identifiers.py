"""Identifiers: marks by which a chunk sees which neuron a weight leads to.

A chunk is a set of weights, so it cannot see which row meets which column. If
every weight carries an identifier of the neuron at its other end, it can. Ours,
not the paper's:

- `random`: drawn anew at every call. The pairing is visible, the invariance is
  not built in and has to be learned.
- `content`: computed from the neuron's own chunk without identifiers (its
  weights by role, its inputs and outputs, kind and level). A relabelling of
  neurons relabels the identifiers, so the code is exactly invariant.

Dimensions: `M` chunks of `C` weights, `F` features, `R` roles, `K` neurons,
`d` width of an identifier.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders import encodings
from sne_jax.encoders.packing import Packed
from sne_jax.encoders.sne_options import SNEOptions
from sne_jax.networks import chunking
from sne_jax.networks.spec import KINDS

NUM_FREQUENCIES = 16


def role_sums(values, mask, role):
  """Sums values `[..., C, F]` over each role: `[..., R, F]`, counts `[..., R]`.

  Only weights under `mask` `[..., C]` count.
  """
  sums, counts = [], []
  for number in range(len(chunking.ROLES)):
    real = mask & (role == number)
    sums.append(jnp.sum(jnp.where(real[..., None], values, 0), axis=-2))
    counts.append(jnp.sum(real, axis=-1))
  return jnp.stack(sums, -2), jnp.stack(counts, -1).astype(values.dtype)


def role_moments(values, mask, role):
  """Mean and root mean square of values per role, `[..., 2 R F]`."""
  both = jnp.concatenate([values, values**2], axis=-1)
  sums, counts = role_sums(both, mask, role)
  means = sums / jnp.maximum(counts, 1)[..., None]
  width = values.shape[-1]
  root = jnp.sqrt(means[..., width:] + 1e-12)
  moments = jnp.concatenate([means[..., :width], root], axis=-1)
  return moments.reshape(*moments.shape[:-2], -1)


class Identifiers(nn.Module):
  """Gives every neuron of a packed batch an identifier."""

  options: SNEOptions

  @nn.compact
  def __call__(self, batch: Packed, weights, values, marks):
    """Returns the table of identifiers `[K, d]`; row 0, "none", is zero.

    Args:
      batch: the packed batch.
      weights: scaled weights `[M, C]`.
      values: their features `[M, C, F]`.
      marks: index features `[M, C, d]`, or None.
    """
    o = self.options
    count = len(batch.neurons)
    real = (jnp.arange(count) > 0)[:, None]
    if o.identifiers == "random":
      key = self.make_rng("identifiers")
      return jax.random.normal(key, (count, o.identifier_dim)) * real
    parts = [role_moments(values, batch.mask, batch.role)]
    if marks is not None:
      product = jnp.where(batch.mask[..., None], weights[..., None] * marks, 0)
      parts.append(jnp.sum(product, axis=-2))
    dense = nn.Dense(o.width, name="summary")(jnp.concatenate(parts, axis=-1))
    if o.type_encoding == "learned":
      dense = dense + nn.Embed(len(KINDS), o.width, name="type")(
        batch.chunk_kind
      )
    level = encodings.LevelEncoding(o.width, o.level_encoding, name="level")
    dense = dense + level(batch.chunk_level)
    ones = jnp.ones_like(dense[:, :1])
    total = jax.ops.segment_sum(
      jnp.concatenate([dense, ones], axis=-1), batch.own, count
    )
    mean = total[:, :-1] / jnp.maximum(total[:, -1:], 1)
    waves = nn.Dense(
      NUM_FREQUENCIES,
      kernel_init=nn.initializers.normal(o.width**-0.5),
      use_bias=False,
      name="frequencies",
    )(mean)
    code = jnp.concatenate([mean, jnp.sin(waves), jnp.cos(waves)], axis=-1)
    code = nn.gelu(nn.Dense(o.width, name="hidden")(code))
    return nn.Dense(o.identifier_dim, name="out")(code) * real
