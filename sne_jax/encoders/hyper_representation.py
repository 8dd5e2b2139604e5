"""Hyper-representations: an attention autoencoder of whole networks.

Each neuron is a token, mapped to one width by a linear map of its layer.
Transformer blocks relate the tokens; a learned token, in front of them, holds
the code. The decoder spreads the code over all positions, and linear maps of
the layers turn tokens back into neurons. The published generative variant has
other compressions and an unbounded code.

Reads networks of one layout. Neurons have learned positions, so permuted
networks have different codes: views teach the symmetry.

Dimensions: `B` networks, `P` weights of one, `N` tokens, `d` width of a token,
`D` width of the code, `F` units of the feed-forward.

References:
  Schuerholt et al., Self-Supervised Representation Learning on Neural Network
  Weights for Model Characteristic Prediction, NeurIPS 2021, arXiv:2110.15288;
  Schuerholt et al., Hyper-Representations as Generative Models, NeurIPS 2022,
  arXiv:2209.14733; and the authors' code.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sne_jax.encoders import (
  interface,
  joining,
  set_attention,
  tied,
  token_layers,
)
from sne_jax.encoders.token_layers import HeadOptions, Linear
from sne_jax.networks import neuron_tokens
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec

NAME = "hyper_representation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class HyperRepresentationOptions(Checked):
  """Options of hyper-representations.

  Attributes:
    width: of the code.
    token_width: of a token; a multiple of heads.
    blocks: transformer blocks of the encoder, and as many of the decoder.
    heads: attention heads.
    feed_forward: hidden units of a block's feed-forward.
    tokens: neuron, neuron_in_out or weight (`networks/neuron_tokens.py`), or
      none: a perceptron on the whole vector, without attention.
    compression: of the tokens to one vector: token (a learned token), average,
      or flatten (all tokens end to end).
    decompression: linear (a map to all tokens) or repeat (one map to a token,
      which positions tell apart).
    bottleneck: bounded (a linear map, then tanh), linear, or mlp (several
      layers, then tanh).
    bottleneck_layers: hidden layers of the mlp bottleneck.
    vector_layers: hidden layers of the perceptron (tokens none).
    decoder_bias: add a learned vector to the code in front of the decoder.
    block_norm: norms in front of attention and feed-forward.
    dropout: share dropped from residual branches while training.
    attention_dropout: share of attention weights dropped while training.
    normalise: how weights are normalised when it is trained by labels: tensor,
      element or none; the autoencoder takes vectors as they are.
  """

  width: int = option(50, least=1)
  token_width: int = option(256, least=1)
  blocks: int = option(2, least=0)
  heads: int = option(4, least=1)
  feed_forward: int = option(512, least=1)
  tokens: str = option("neuron", choices=(*neuron_tokens.KINDS, "none"))
  compression: str = option("token", choices=("token", "average", "flatten"))
  decompression: str = option("linear", choices=("linear", "repeat"))
  bottleneck: str = option("bounded", choices=("bounded", "linear", "mlp"))
  bottleneck_layers: int = option(3, least=0)
  vector_layers: int = option(10, least=0)
  decoder_bias: bool = False
  block_norm: bool = True
  dropout: float = option(0.1, least=0, below=1)
  attention_dropout: float = option(0.1, least=0, below=1)
  normalise: str = option("tensor", choices=tied.NORMALISATIONS)

  def __post_init__(self):
    super().__post_init__()
    if self.token_width % self.heads:
      raise ValueError(
        f"token_width is {self.token_width}; must be a multiple of heads"
        f" {self.heads}"
      )


class Norm(nn.Module):
  """Layer norm with the unbiased deviation, epsilon added to it."""

  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Returns the normed vectors."""
    alpha = self.param("alpha", nn.initializers.ones, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
    x = x - x.mean(axis=-1, keepdims=True)
    square = jnp.sum(x * x, axis=-1, keepdims=True) / (x.shape[-1] - 1)
    spread = jnp.sqrt(jnp.maximum(square, 1e-30)) + self.epsilon
    lead = (1,) * (x.ndim - 1) + (-1,)
    return alpha.reshape(lead) * x / spread + bias.reshape(lead)


class Attention(nn.Module):
  """Multihead self-attention with biases and an output map."""

  heads: int
  dropout: float = 0.1

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B N d"],
    real: Bool[Array, "B N"] | None = None,
    deterministic: bool = True,
  ) -> Float[Array, "B N d"]:
    """Returns what each token finds; tokens that are not real are not read."""
    width = x.shape[-1]
    drop = nn.Dropout(self.dropout, deterministic=deterministic)
    found = set_attention.attention(
      Linear(width, name="q_linear")(x),
      Linear(width, name="k_linear")(x),
      Linear(width, name="v_linear")(x),
      real,
      heads=self.heads,
      scale=(width // self.heads) ** -0.5,
      drop=drop,
    )
    return Linear(width, name="out")(found)


class FeedForward(nn.Module):
  """Two linear maps with ReLU between."""

  units: int
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, deterministic: bool = True):
    """Returns vectors of the same width."""
    hidden = nn.relu(Linear(self.units, name="linear_1")(x))
    hidden = nn.Dropout(self.dropout)(hidden, deterministic)
    return Linear(x.shape[-1], name="linear_2")(hidden)


class Block(nn.Module):
  """Pre-norm transformer block."""

  heads: int
  feed_forward: int
  norm: bool = True
  dropout: float = 0.0
  attention_dropout: float = 0.0

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B N d"],
    real: Bool[Array, "B N"] | None = None,
    deterministic: bool = True,
  ) -> Float[Array, "B N d"]:
    """Returns tokens of the same shape."""
    drop = nn.Dropout(self.dropout, deterministic=deterministic)
    first = Norm(name="norm_1") if self.norm else lambda x: x
    second = Norm(name="norm_2") if self.norm else lambda x: x
    attention = Attention(self.heads, self.attention_dropout, name="attn")
    x = x + drop(attention(first(x), real, deterministic))
    feed = FeedForward(self.feed_forward, self.dropout, name="ff")
    return x + drop(feed(second(x), deterministic))


class Tokeniser(nn.Module):
  """A linear map per layer, from neurons to tokens."""

  layout_spec: NetworkSpec
  kind: str
  width: int

  @nn.compact
  def __call__(self, weights: Float[Array, "B P"]) -> Float[Array, "B N d"]:
    """Returns the tokens of networks, without positions."""
    layout = neuron_tokens.layout(self.layout_spec, self.kind)
    layers = neuron_tokens.tokenise(layout, weights)
    return jnp.concatenate(
      [
        Linear(self.width, name=f"layer_lst_{number}")(jnp.asarray(rows))
        for number, rows in enumerate(layers)
      ],
      axis=1,
    )


class Detokeniser(nn.Module):
  """A linear map per layer, from tokens to neurons."""

  layout_spec: NetworkSpec
  kind: str

  @nn.compact
  def __call__(self, x: Float[Array, "B N d"]) -> Float[Array, "B P"]:
    """Returns networks."""
    layout = neuron_tokens.layout(self.layout_spec, self.kind)
    layers, start = [], 0
    for number, index in enumerate(layout.layers):
      count, width = index.shape
      own = x[:, start : start + count]
      layers.append(Linear(width, name=f"layer_lst_{number}")(own))
      start += count
    return jnp.asarray(neuron_tokens.detokenise(layout, layers))


def _body(o: HyperRepresentationOptions, x, deterministic):
  """Adds positions and applies the blocks; within a compact method."""
  positions = token_layers.Table(
    x.shape[1], o.token_width, name="position_embeddings"
  )
  x = x + positions()[None]
  for number in range(o.blocks):
    x = Block(
      o.heads,
      o.feed_forward,
      o.block_norm,
      o.dropout,
      o.attention_dropout,
      name=f"layers_{number}",
    )(x, None, deterministic)
  return x


class Encoder(nn.Module):
  """From weights to codes."""

  options: HyperRepresentationOptions
  spec: NetworkSpec

  @nn.compact
  def __call__(
    self, weights: Float[Array, "B P"], deterministic: bool = True
  ) -> Float[Array, "B D"]:
    """Returns the codes of networks, in (-1, 1) if bounded."""
    o = self.options
    if o.tokens == "none":
      body = token_layers.Perceptron(
        o.width, o.vector_layers, o.dropout, name="perceptron"
      )
      z = body(weights, deterministic)
      return z if o.bottleneck == "linear" else jnp.tanh(z)
    x = Tokeniser(self.spec, o.tokens, o.token_width, name="token_embeddings")(
      weights
    )
    if o.compression == "token":
      token = self.param(
        "comp_token", nn.initializers.normal(1.0), (o.token_width,)
      )
      token = jnp.broadcast_to(token, (x.shape[0], 1, o.token_width))
      x = jnp.concatenate([token, x], axis=1)
    x = _body(o, x, deterministic)
    if o.compression == "token":
      x = x[:, 0]
    elif o.compression == "average":
      x = x.mean(axis=1)
    else:
      x = x.reshape(x.shape[0], -1)
    if o.bottleneck == "mlp":
      neck = token_layers.Perceptron(
        o.width, o.bottleneck_layers, o.dropout, name="vec2neck"
      )
      return jnp.tanh(neck(x, deterministic))
    z = Linear(o.width, name="vec2neck_0")(x)
    return z if o.bottleneck == "linear" else jnp.tanh(z)


class Decoder(nn.Module):
  """From codes to weights."""

  options: HyperRepresentationOptions
  spec: NetworkSpec

  @nn.compact
  def __call__(
    self, z: Float[Array, "B D"], deterministic: bool = True
  ) -> Float[Array, "B P"]:
    """Returns networks."""
    o = self.options
    if o.decoder_bias:
      init = nn.initializers.normal(1e-3)
      z = z + self.param("bias", init, z.shape[-1:])[None]
    if o.tokens == "none":
      return token_layers.Perceptron(
        self.spec.num_weights, o.vector_layers, o.dropout, name="perceptron"
      )(z, deterministic)
    count = len(neuron_tokens.layout(self.spec, o.tokens))
    shape = (z.shape[0], count, o.token_width)
    wide = o.token_width * (1 if o.decompression == "repeat" else count)
    if o.bottleneck == "mlp":
      x = token_layers.Perceptron(
        wide, o.bottleneck_layers, o.dropout, name="nec2vec"
      )(z, deterministic)
    else:
      x = Linear(wide, name="nec2vec")(z)
    if o.decompression == "repeat":
      x = jnp.broadcast_to(x[:, None], shape)
    x = _body(o, x.reshape(shape), deterministic)
    return Detokeniser(self.spec, o.tokens, name="token_debeddings")(x)


class Autoencoder(nn.Module):
  """Encoder, decoder and projection head.

  Attributes:
    options: of encoder and decoder.
    spec: of the networks.
    head: of the projection.
  """

  options: HyperRepresentationOptions
  spec: NetworkSpec
  head: HeadOptions

  def setup(self):
    """Builds the parts."""
    self.encoder = Encoder(self.options, self.spec)
    self.decoder = Decoder(self.options, self.spec)
    self.projection_head = token_layers.ProjectionHead(self.head)

  def encode(self, weights, deterministic: bool = True):
    """Returns codes `[B, D]`."""
    return self.encoder(weights, deterministic)

  def decode(self, z, deterministic: bool = True):
    """Returns networks `[B, P]`."""
    return self.decoder(z, deterministic)

  def project(self, z, real=None):
    """Returns what is contrasted, `[B, outputs]`; for each view apart."""
    return self.projection_head(z, real)

  def __call__(self, weights, deterministic: bool = True):
    """Returns codes, reconstructed networks and projections."""
    z = self.encode(weights, deterministic)
    return z, self.decode(z, deterministic), self.project(z)


class Coder(nn.Module):
  """The encoder alone, for batches of the table: trained by labels."""

  options: HyperRepresentationOptions
  normaliser: tied.Normaliser

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    encoder = Encoder(self.options, self.normaliser.spec, name="body")
    return encoder(self.normaliser(batch), deterministic)


def measure(
  options: HyperRepresentationOptions, networks: Sequence[interface.Network]
) -> dict[str, Any]:
  """See `tied.measure`."""
  return tied.measure(NAME, options.normalise, networks)


def build(
  options: HyperRepresentationOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  """Builds the encoder."""
  spec, normaliser = tied.opened(measured)
  return interface.Encoder(
    make_packer=lambda specs: tied.packer(specs, spec, NAME),
    module=Coder(options, normaliser, name="encoder"),
  )
