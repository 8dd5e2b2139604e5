"""SANE: a transformer autoencoder of the tokens of networks, any architecture.

Tokens (`networks/tokens.py`) are mapped to one width, take learned positions
(token, layer, row) and pass through transformer blocks to latent tokens; the
decoder is the same in reverse, with the same positions. It is trained on
windows of a sequence and reads whole networks window by window. A projection
head reads the latents of a whole training window.

Dimensions: `B` sequences of `T` tokens of `C` entries, `d` width of the
transformer, `D` width of a latent token, `H` width of a projection.

References:
  Schuerholt et al., Towards Scalable and Versatile Weight Space Learning, ICML
  2024, arXiv:2406.09997, and the authors' code.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sne_jax.encoders.sets import attention as set_attention
from sne_jax.encoders.sets.layers import Dense
from sne_jax.encoders.tokens import token_layers
from sne_jax.networks import tokens
from sne_jax.networks.checked import Checked, option

_STDDEV = 0.02  # Of all first kernels and tables.


@dataclasses.dataclass(frozen=True, kw_only=True)
class SANEOptions(Checked):
  """Options of the autoencoder.

  Attributes:
    token_size: entries of a token, `C`.
    width: of a latent token, and so of a network's code.
    hidden: width `d` of the transformer; even, and a multiple of heads.
    blocks: transformer blocks of the encoder, and as many of the decoder.
    heads: attention heads.
    window: tokens of a training window; the projection head reads as many.
    table_tokens: entries of the position table of tokens.
    table_layers: of layers.
    table_rows: of rows (output channels) of a layer.
    projection: width of what is contrasted.
  """

  token_size: int = option(201, least=1)
  width: int = option(16, least=1)
  hidden: int = option(512, least=1)
  blocks: int = option(6, least=0)
  heads: int = option(8, least=1)
  window: int = option(16, least=1)
  table_tokens: int = option(100, least=1)
  table_layers: int = option(10, least=1)
  table_rows: int = option(40, least=1)
  projection: int = option(30, least=1)

  def __post_init__(self):
    super().__post_init__()
    if self.hidden % 2 or self.hidden % self.heads:
      raise ValueError(
        f"hidden is {self.hidden}; must be even and a multiple of heads"
        f" {self.heads}"
      )

  @property
  def tables(self) -> tuple[int, int, int]:
    """Sizes of the position tables."""
    return self.table_tokens, self.table_layers, self.table_rows

  def check(self, layout: tokens.TokenLayout) -> None:
    """Raises `ValueError` where a network cannot be encoded.

    Its tokens have another size, or a position has no entry in its table.
    """
    if layout.token_size != self.token_size:
      raise ValueError(
        f"token_size is {self.token_size}, but the tokens of"
        f" {layout.spec.describe()} have {layout.token_size} entries"
      )
    tokens.check_positions(layout, self.tables)


def kernel(features: int, *, bias: bool = False, stddev=_STDDEV, name=None):
  """Returns a linear map whose first kernel is normal; a bias begins at 0."""
  init = nn.initializers.normal(stddev)
  return Dense(features, bias, kernel_init=init, name=name)


class WindowAttention(nn.Module):
  """Multihead self-attention in both directions, without biases."""

  heads: int
  out_stddev: float = _STDDEV

  @nn.compact
  def __call__(
    self, x: Float[Array, "B T d"], real: Bool[Array, "B T"] | None = None
  ) -> Float[Array, "B T d"]:
    """Returns what each token gathers; those that are not real are not read."""
    width = x.shape[-1]
    joint = kernel(3 * width, name="c_attn")(x)
    query, keys, values = jnp.split(joint, 3, axis=-1)
    answers = set_attention.attention(
      *(query, keys, values),
      real,
      heads=self.heads,
      scale=(width // self.heads) ** -0.5,
    )
    out = kernel(width, stddev=self.out_stddev, name="c_proj")
    return out(answers)


class WindowFeedForward(nn.Module):
  """Two linear maps without biases, exact GELU between."""

  out_stddev: float = _STDDEV

  @nn.compact
  def __call__(self, x: Float[Array, "B T d"]) -> Float[Array, "B T d"]:
    """Returns vectors of the same width."""
    width = x.shape[-1]
    hidden = kernel(4 * width, name="c_fc")(x)
    out = kernel(width, stddev=self.out_stddev, name="c_proj")
    return out(nn.gelu(hidden, approximate=False))


class WindowBlock(nn.Module):
  """Pre-norm transformer block; norms have a scale and no bias."""

  heads: int
  out_stddev: float = _STDDEV

  @nn.compact
  def __call__(
    self, x: Float[Array, "B T d"], real: Bool[Array, "B T"] | None = None
  ) -> Float[Array, "B T d"]:
    """Returns tokens of the same shape."""
    norm = lambda name: nn.LayerNorm(epsilon=1e-5, use_bias=False, name=name)
    attention = WindowAttention(self.heads, self.out_stddev, name="attn")
    x = x + attention(norm("ln_1")(x), real)
    return x + WindowFeedForward(self.out_stddev, name="mlp")(norm("ln_2")(x))


class Transformer(nn.Module):
  """Blocks one after another."""

  options: SANEOptions

  @nn.compact
  def __call__(self, x, real=None):
    """Returns tokens `[B, T, d]`."""
    o = self.options
    stddev = _STDDEV * (2 * max(o.blocks, 1)) ** -0.5
    for number in range(o.blocks):
      x = WindowBlock(o.heads, stddev, name=f"transformer_{number}")(x, real)
    return x


class Positions(nn.Module):
  """Learned positions: (token + layer, row)."""

  options: SANEOptions

  @nn.compact
  def __call__(self, positions: Int[Any, "B T 3"]) -> Float[Array, "B T d"]:
    """Returns the vector of every position."""
    half = self.options.hidden // 2
    token, layer, row = (
      token_layers.Table(size, half, _STDDEV, name=f"pe{number}")()[
        positions[..., number - 1]
      ]
      for number, size in enumerate(self.options.tables, 1)
    )
    return jnp.concatenate([token + layer, row], axis=-1)


class Projection(nn.Module):
  """From the latent tokens of a window to what is contrasted.

  The last step is a ReLU, as published: projections are not negative.
  """

  options: SANEOptions

  @nn.compact
  def __call__(self, z: Float[Array, "B T D"]) -> Float[Array, "B H"]:
    """Returns projections of training windows.

    Raises:
      ValueError: the sequences are not as long as the training window.
    """
    o = self.options
    if z.shape[1] != o.window:
      raise ValueError(
        f"the projection head reads windows of {o.window} tokens, got"
        f" {z.shape[1]}; encode and decode take any length, and contrast needs"
        " training windows (windows.draw)"
      )
    x = z.reshape(z.shape[0], -1)
    for layer in (0, 3):
      x = kernel(o.projection, name=f"head_{layer}")(x)
      x = nn.LayerNorm(epsilon=1e-5, name=f"head_{layer + 1}")(x)
      x = nn.relu(x)
    return x


class SANE(nn.Module):
  """The autoencoder; each method is a use of it.

  `positions` are int [B, T, 3]; check them once per network on the host
  (`options.check`): a position beyond its table is silently the last entry.
  `real` is False at tokens of padding, which are not read and have no meaning;
  None: all are real. Zero entries inside a token are not masked.
  """

  options: SANEOptions

  def setup(self):
    """Builds the parts."""
    o = self.options
    self.tokenizer = kernel(o.hidden, bias=True)
    self.pe = Positions(o)
    self.transformer_encoder = Transformer(o)
    self.encoder_comp = kernel(o.width, bias=True)
    self.decoder_comp = kernel(o.hidden, bias=True)
    self.transformer_decoder = Transformer(o)
    self.detokenizer = kernel(o.token_size, bias=True)
    self.projection_head = Projection(o)

  def encode(
    self,
    x: Float[Array, "B T C"],
    positions: Int[Any, "B T 3"],
    real: Bool[Array, "B T"] | None = None,
  ) -> Float[Array, "B T D"]:
    """Returns latent tokens."""
    x = self.tokenizer(x) + self.pe(positions)
    return self.encoder_comp(self.transformer_encoder(x, real))

  def decode(
    self,
    z: Float[Array, "B T D"],
    positions: Int[Any, "B T 3"],
    real: Bool[Array, "B T"] | None = None,
  ) -> Float[Array, "B T C"]:
    """Returns tokens of weights; what is at padding is to be ignored."""
    z = self.decoder_comp(z) + self.pe(positions)
    return self.detokenizer(self.transformer_decoder(z, real))

  def __call__(
    self,
    x: Float[Array, "B T C"],
    positions: Int[Any, "B T 3"],
    real: Bool[Array, "B T"] | None = None,
  ) -> tuple[Array, Array, Array]:
    """Returns latent tokens, tokens of weights, and projections."""
    z = self.encode(x, positions, real)
    return z, self.decode(z, positions, real), self.projection_head(z)
