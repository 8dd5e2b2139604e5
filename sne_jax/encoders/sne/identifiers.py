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

from sne_jax.encoders.sne import encodings
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.encoders.sne.slots import Slots
from sne_jax.networks import chunking
from sne_jax.networks.spec import KINDS

NUM_FREQUENCIES = 16


def role_moments(values, mask, role):
  """Mean and root mean square of values `[..., C, F]` by role, `[..., 2 R F]`.

  Only weights under `mask` `[..., C]` count.
  """
  both = jnp.concatenate([values, values**2], axis=-1)
  means = []
  for number in range(len(chunking.ROLES)):
    real = mask & (role == number)
    count = jnp.maximum(jnp.sum(real, axis=-1).astype(values.dtype), 1)
    total = jnp.sum(jnp.where(real[..., None], both, 0), axis=-2)
    means.append(total / count[..., None])
  mean, square = jnp.split(jnp.stack(means, -2), 2, axis=-1)
  moments = jnp.concatenate([mean, jnp.sqrt(square + 1e-12)], axis=-1)
  return moments.reshape(*moments.shape[:-2], -1)


class Identifiers(nn.Module):
  """Gives every neuron an identifier; row 0 of a table, "none", is zero."""

  options: SNEOptions

  def setup(self):
    """Names the parts."""
    o = self.options
    self.summary = nn.Dense(o.width)
    self.type = nn.Embed(len(KINDS), o.width)
    self.level = encodings.LevelEncoding(o.width, o.level_encoding)
    self.frequencies = nn.Dense(
      NUM_FREQUENCIES,
      kernel_init=nn.initializers.normal(o.width**-0.5),
      use_bias=False,
    )
    self.hidden = nn.Dense(o.width)
    self.out = nn.Dense(o.identifier_dim)

  def draw(self, count: int):
    """Draws the table `[count, d]`; rng `identifiers`."""
    key = self.make_rng("identifiers")
    drawn = jax.random.normal(key, (count, self.options.identifier_dim))
    return jnp.where(_real(count), drawn, 0)

  def summaries(self, slots: Slots, values, marks):
    """Returns what each chunk tells of its own neuron, `[M, h]`.

    Args:
      slots: the chunks.
      values: features of their weights `[M, C, F]`.
      marks: index features `[M, C, d]`; None if there are none, or all are 0.
    """
    o = self.options
    parts = [role_moments(values, slots.mask, slots.role)]
    if marks is not None:
      product = slots.weights[..., None] * marks
      product = jnp.where(slots.mask[..., None], product, 0)
      parts.append(jnp.sum(product, axis=-2))
    elif o.index_features != "none":
      parts.append(jnp.zeros((len(slots.mask), o.identifier_dim)))
    dense = self.summary(jnp.concatenate(parts, axis=-1))
    if o.type_encoding == "learned":
      dense = dense + self.type(slots.kind)
    return dense + self.level(slots.level)

  def of_means(self, means):
    """Maps the mean summary of every neuron, `[K, h]`, to the table `[K, d]`.

    Row 0 of the means stands for no neuron.
    """
    waves = self.frequencies(means)
    code = jnp.concatenate([means, jnp.sin(waves), jnp.cos(waves)], axis=-1)
    code = nn.gelu(self.hidden(code))
    # Chosen, not multiplied: row 0 may hold what is not finite.
    return jnp.where(_real(len(means)), self.out(code), 0)


def _real(count: int):
  """Returns `[count, 1]`, which is False in row 0 and True elsewhere."""
  return (jnp.arange(count) > 0)[:, None]
