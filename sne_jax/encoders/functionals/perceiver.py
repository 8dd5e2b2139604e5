"""Pooling of many tokens by a few learned latents that attend to them.

Blocks are pre-norm; the feed-forward is gated, value times GELU of the gate.
Names are those of the authors' code.

Dimensions: `B` networks, `N` tokens of width `c`, `M` latents of width `D`.

Reference: Jaegle et al., Perceiver, ICML 2021, arXiv:2103.03206, as used by
Zhou et al., Neural Functional Transformers, NeurIPS 2023, arXiv:2305.13546.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sne_jax.encoders.sets import attention


class PerceiverAttention(nn.Module):
  """Pre-norm attention of latents to tokens, or to themselves; residual."""

  heads: int
  head_dim: int

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B M D"],
    tokens: Float[Array, "B N c"] | None = None,
  ) -> Float[Array, "B M D"]:
    """Returns the new latents."""
    inner = self.heads * self.head_dim
    normed = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
    context = normed
    if tokens is not None:
      context = nn.LayerNorm(epsilon=1e-5, name="norm_context")(tokens)
    query = nn.Dense(inner, use_bias=False, name="to_q")(normed)
    both = nn.Dense(2 * inner, use_bias=False, name="to_kv")(context)
    keys, values = jnp.split(both, 2, axis=-1)
    answers = attention.attention(
      *(query, keys, values),
      None,
      heads=self.heads,
      scale=self.head_dim**-0.5,
    )
    return x + nn.Dense(x.shape[-1], name="to_out")(answers)


class PerceiverFeedForward(nn.Module):
  """Pre-norm gated feed-forward; residual."""

  factor: int = 4

  @nn.compact
  def __call__(self, x: Float[Array, "B M D"]) -> Float[Array, "B M D"]:
    """Returns the new latents."""
    width = x.shape[-1]
    normed = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
    both = nn.Dense(2 * self.factor * width, name="net_0")(normed)
    value, gate = jnp.split(both, 2, axis=-1)
    hidden = value * nn.gelu(gate, approximate=False)
    return x + nn.Dense(width, name="net_2")(hidden)


class Pooling(nn.Module):
  """Tokens to latents: cross attention, then blocks among latents.

  Attributes:
    latents: how many.
    width: of each.
    cross_dim: width of the one head of the cross attention; 0: the tokens'.
    blocks: latent self-attention blocks after it.
    heads: of these.
  """

  latents: int
  width: int
  cross_dim: int = 0
  blocks: int = 0
  heads: int = 1

  @nn.compact
  def __call__(self, tokens: Float[Array, "B N c"]) -> Float[Array, "B M D"]:
    """Returns the latents; the order of the tokens does not matter."""
    start = self.param(
      "latents", nn.initializers.normal(1.0), (self.latents, self.width)
    )
    x = jnp.broadcast_to(start[None], (len(tokens), *start.shape))
    cross = self.cross_dim or tokens.shape[-1]
    x = PerceiverAttention(1, cross, name="cross_attns_0")(x, tokens)
    x = PerceiverFeedForward(name="cross_ffs_0")(x)
    for block in range(self.blocks):
      name = f"self_attns_0_{block}"
      head_dim = self.width // self.heads
      x = PerceiverAttention(self.heads, head_dim, name=f"{name}_0")(x)
      x = PerceiverFeedForward(name=f"{name}_1")(x)
    return x
