"""Hyper-representations: an attention autoencoder of whole networks.

Each neuron is a token, mapped to one width by a linear map of its layer.
Transformer blocks relate the tokens; a learned token, before them, holds the
code. The decoder spreads the code over all positions, and linear maps of the
layers turn tokens back into neurons. The compressions and the unbounded code
of the published generative variant are not built.

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
import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sne_jax.encoders.batches import joining, tied
from sne_jax.encoders.functionals.feature_layers import ChannelNorm
from sne_jax.encoders.sets import attention as set_attention
from sne_jax.encoders.tokens import token_layers
from sne_jax.encoders.tokens.token_layers import Linear, ProjectionOptions
from sne_jax.networks import neuron_tokens
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class HyperRepresentationOptions(Checked):
  """Options of hyper-representations.

  Attributes:
    width: of the code.
    token_width: of a token; a multiple of heads.
    blocks: transformer blocks of the encoder, and as many of the decoder.
    heads: attention heads.
    feed_forward: hidden units of a block's feed-forward.
    tokens: neuron, neuron_in_out or weight (`networks/neuron_tokens.py`).
    compression: of the tokens to one vector: token (a learned token) or flatten
      (all tokens, concatenated).
    block_norm: norms before attention and feed-forward.
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
  tokens: str = option("neuron", choices=neuron_tokens.KINDS)
  compression: str = option("token", choices=("token", "flatten"))
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


Norm = functools.partial(ChannelNorm, epsilon=1e-6, scale="alpha")
"""Layer norm with the unbiased deviation, epsilon added to it."""


class TokenAttention(nn.Module):
  """Multihead self-attention with biases and an output map."""

  heads: int
  dropout: float = 0.1

  @nn.compact
  def __call__(
    self, x: Float[Array, "B N d"], deterministic: bool = True
  ) -> Float[Array, "B N d"]:
    """Returns what each token gathers."""
    width = x.shape[-1]
    query, keys, values = (
      Linear(width, name=f"{name}_linear")(x) for name in "qkv"
    )
    answers = set_attention.attention(
      *(query, keys, values),
      None,
      heads=self.heads,
      scale=(width // self.heads) ** -0.5,
      drop=nn.Dropout(self.dropout, deterministic=deterministic),
    )
    return Linear(width, name="out")(answers)


class TokenFeedForward(nn.Module):
  """Two linear maps with ReLU between."""

  units: int
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, deterministic: bool = True):
    """Returns vectors of the same width."""
    hidden = nn.relu(Linear(self.units, name="linear_1")(x))
    hidden = nn.Dropout(self.dropout)(hidden, deterministic)
    return Linear(x.shape[-1], name="linear_2")(hidden)


class TokenBlock(nn.Module):
  """Pre-norm transformer block."""

  heads: int
  feed_forward: int
  norm: bool = True
  dropout: float = 0.0
  attention_dropout: float = 0.0

  @nn.compact
  def __call__(
    self, x: Float[Array, "B N d"], deterministic: bool = True
  ) -> Float[Array, "B N d"]:
    """Returns tokens of the same shape."""
    drop = nn.Dropout(self.dropout, deterministic=deterministic)
    first = Norm(name="norm_1") if self.norm else lambda x: x
    second = Norm(name="norm_2") if self.norm else lambda x: x
    attention = TokenAttention(self.heads, self.attention_dropout, name="attn")
    x = x + drop(attention(first(x), deterministic))
    feed = TokenFeedForward(self.feed_forward, self.dropout, name="ff")
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
      part = x[:, start : start + count]
      layers.append(Linear(width, name=f"layer_lst_{number}")(part))
      start += count
    return jnp.asarray(neuron_tokens.detokenise(layout, layers))


def _body(o: HyperRepresentationOptions, x, deterministic):
  """Adds positions and applies the blocks; within a compact method."""
  positions = token_layers.Table(
    x.shape[1], o.token_width, name="position_embeddings"
  )
  x = x + positions()[None]
  for number in range(o.blocks):
    x = TokenBlock(
      o.heads,
      o.feed_forward,
      o.block_norm,
      o.dropout,
      o.attention_dropout,
      name=f"layers_{number}",
    )(x, deterministic)
  return x


class Encoder(nn.Module):
  """From weights to codes."""

  options: HyperRepresentationOptions
  spec: NetworkSpec

  @nn.compact
  def __call__(
    self, weights: Float[Array, "B P"], deterministic: bool = True
  ) -> Float[Array, "B D"]:
    """Returns the codes of networks, in (-1, 1)."""
    o = self.options
    x = Tokeniser(self.spec, o.tokens, o.token_width, name="token_embeddings")(
      weights
    )
    if o.compression == "token":
      token = self.param(
        "comp_token", nn.initializers.normal(1.0), (o.token_width,)
      )
      token = jnp.broadcast_to(token, (x.shape[0], 1, o.token_width))
      x = _body(o, jnp.concatenate([token, x], axis=1), deterministic)[:, 0]
    else:
      x = _body(o, x, deterministic).reshape(x.shape[0], -1)
    return jnp.tanh(Linear(o.width, name="vec2neck_0")(x))


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
    count = len(neuron_tokens.layout(self.spec, o.tokens))
    x = Linear(o.token_width * count, name="nec2vec")(z)
    x = _body(o, x.reshape(-1, count, o.token_width), deterministic)
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
  head: ProjectionOptions

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

  def project(self, z):
    """Returns what is contrasted, `[B, outputs]`; for each view apart."""
    return self.projection_head(z)

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
