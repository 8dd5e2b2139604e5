"""Neural functional transformers: attention in weight space.

Every entry of every tensor has a query, a key and a value. They attend in two
ways, whose results are added: tensors to tensors by their means; and for each
layer of neurons, the columns that make them, their bias and the rows that read
them to one another, as vectors over these neurons, whose inner products no
permutation changes.

Dimensions: as in `features`; `h` heads of width `d`, `t` tokens.

Reference: Zhou et al., Neural Functional Transformers, NeurIPS 2023,
arXiv:2305.13546, and the authors' code.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders.batches import joining, tied
from sne_jax.encoders.functionals import feature_layers, features, perceiver
from sne_jax.encoders.functionals import per_weight as per_weight_lib
from sne_jax.encoders.functionals.feature_layers import Map
from sne_jax.encoders.functionals.features import Features
from sne_jax.encoders.sets.layers import affine
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec

FOURIER_SCALE = 1.0
"""Deviation of the frequencies of values."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NFTOptions(Checked):
  """Options of nft.

  Attributes:
    width: of the latents that pool the network, and of the code.
    channels: of every entry; even, and a multiple of heads.
    heads: attention heads in weight space.
    blocks: transformer blocks.
    feed_forward: hidden channels of the feed-forward, as a multiple.
    latents: vectors that the network is pooled into, before their mean.
    latent_blocks: self-attention blocks among them.
    normalise: how inputs are normalised: tensor (exactly equivariant), element
      (the authors' mode, only nearly invariant), or none.
  """

  width: int = option(64, least=1)
  channels: int = option(32, least=2)
  heads: int = option(4, least=1)
  blocks: int = option(2, least=1)
  feed_forward: int = option(2, least=1)
  latents: int = option(4, least=1)
  latent_blocks: int = option(0, least=0)
  normalise: str = option("tensor", choices=tied.NORMALISATIONS)

  def __post_init__(self):
    super().__post_init__()
    if self.channels % 2 or self.channels % self.heads:
      raise ValueError(
        f"channels is {self.channels}; must be even and a multiple of heads"
        f" {self.heads}"
      )


class WeightSpaceAttention(nn.Module):
  """NP-equivariant self-attention; no residual, no output matrix.

  Attributes:
    layout: of the networks.
    channels: of the input and the output.
    heads: must divide the channels.
    share: one projection for all tensors, for kernels of one place; else each
      tensor has its own.
    tensors_attend: the first term, between the means of tensors.
    neurons_attend: the second term, for each layer of neurons.
  """

  layout: features.Layout
  channels: int
  heads: int
  share: bool = True
  tensors_attend: bool = True
  neurons_attend: bool = True

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Returns features of the same shape."""
    weights, biases = self._projected(x)
    count = len(weights)
    out_weights: list[Any] = [0.0] * count
    out_biases: list[Any] = [0.0] * count
    if self.tensors_attend:
      means = [w.mean(axis=(1, 2)) for w in weights]
      means += [v.mean(axis=1) for v in biases]
      tokens = jnp.stack(means, axis=1)[:, :, None]  # [B, 2L, 1, h, 3, d]
      answers = _attend(tokens)[:, :, 0]  # [B, 2L, h, d]
      for l in range(count):
        out_weights[l] = out_weights[l] + answers[:, l, None, None]
        out_biases[l] = out_biases[l] + answers[:, count + l, None]
    if self.neurons_attend:
      for l in range(count + 1):
        self._neurons(l, weights, biases, out_weights, out_biases)
    return self._merged(x, out_weights, out_biases)

  def _neurons(self, l, weights, biases, out_weights, out_biases):
    """Attention among what touches the neurons of layer `l`, from 0."""
    tokens, columns = [], 0
    if l:
      tokens.append(jnp.swapaxes(weights[l - 1], 1, 2))  # columns: [B, I, O]
      tokens.append(biases[l - 1][:, None])
      columns = tokens[0].shape[1]
    if l < len(weights):
      tokens.append(weights[l])  # rows: [B, O, I]
    answers = _attend(jnp.concatenate(tokens, axis=1))
    if l:
      out_weights[l - 1] = out_weights[l - 1] + jnp.swapaxes(
        answers[:, :columns], 1, 2
      )
      out_biases[l - 1] = out_biases[l - 1] + answers[:, columns]
      answers = answers[:, columns + 1 :]
    if l < len(weights):
      out_weights[l] = out_weights[l] + answers

  def _projected(self, x: Features) -> Features:
    """Returns queries, keys and values: `[B, O, I, h, 3, d]`, `[B, O, ...]`."""
    wide = 3 * self.channels
    split = (self.heads, 3, self.channels // self.heads)

    def project(array, name):
      y = affine(array, *Map(array.shape[-1], wide, name=name)())
      return y.reshape(*y.shape[:-1], *split)

    if self.share:
      parameters = Map(self.channels, wide, name="to_qkv")()
      return jax.tree.map(
        lambda a: affine(a, *parameters).reshape(*a.shape[:-1], *split), x
      )
    return features.each(
      x,
      lambda l, w: project(w, f"weight_to_qkv_{l}"),
      lambda l, v: project(v, f"bias_to_qkv_{l}"),
    )

  def _merged(self, x: Features, weights, biases) -> Features:
    """Puts the heads side by side; kernels get their places back."""

    def merge(heads, like, lead):
      shape = (*like.shape[:lead], self.heads, self.channels // self.heads)
      heads = jnp.broadcast_to(heads, shape)
      return heads.reshape(*shape[:lead], self.channels)

    weights = [merge(f, w, 3) for f, w in zip(weights, x.weights, strict=True)]
    biases = [merge(f, v, 2) for f, v in zip(biases, x.biases, strict=True)]
    if not self.share:
      # The authors map each of the added terms back, so the bias counts for
      # every one of them: tensors, columns and rows.
      terms = self.tensors_attend + 2 * self.neurons_attend
      for l, like in enumerate(x.weights):
        back = Map(self.channels, like.shape[-1], name=f"unproject_weight_{l}")
        kernel, bias = back()
        weights[l] = affine(weights[l], kernel, terms * bias)
    return Features(tuple(weights), tuple(biases))


class NFTBlock(nn.Module):
  """Pre-norm transformer block: attention, then a pointwise feed-forward."""

  layout: features.Layout
  channels: int
  heads: int
  share: bool = True
  factor: int = 2

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Returns features of the same shape."""
    add = lambda x, y: jax.tree.map(jnp.add, x, y)
    attention = WeightSpaceAttention(
      self.layout, self.channels, self.heads, self.share, name="attn"
    )
    x = add(x, attention(feature_layers.SimpleNorm(name="ln1")(x)))
    wide = feature_layers.Pointwise(
      self.layout, self.factor * self.channels, name="ff_0"
    )
    narrow = feature_layers.Pointwise(self.layout, self.channels, name="ff_2")
    hidden = wide(feature_layers.SimpleNorm(name="ln2")(x))
    hidden = jax.tree.map(lambda a: nn.gelu(a, approximate=False), hidden)
    return add(x, narrow(hidden))


class Equivariant(nn.Module):
  """The equivariant part: encodings and blocks; weights in, weights out."""

  options: NFTOptions
  layout: features.Layout

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Maps features of one channel to features of `channels`."""
    o = self.options
    table = feature_layers.frequencies(o.channels // 2, FOURIER_SCALE)
    x = feature_layers.fourier(self.layout, x, table)
    x = feature_layers.LearnedPositions(self.layout, name="positions")(x)
    share = all(layer.places == 1 for layer in self.layout.layers)
    sizes = (o.channels, o.heads, share, o.feed_forward)
    for number in range(o.blocks):
      x = NFTBlock(self.layout, *sizes, name=f"block_{number}")(x)
    return x


class NFT(nn.Module):
  """Encodes networks of one architecture as `[B, D]`."""

  options: NFTOptions
  normaliser: tied.Normaliser

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    o = self.options
    layout = layout_of(self.normaliser.spec)
    x = layout.features(self.normaliser(batch))
    x = Equivariant(o, layout, name="equivariant")(x)
    pool = perceiver.Pooling(
      o.latents, o.width, blocks=o.latent_blocks, name="pool"
    )
    latents = pool(layout.flat(x))
    return nn.LayerNorm(epsilon=1e-5, name="norm")(latents.mean(axis=1))


def layout_of(spec: NetworkSpec) -> features.Layout:
  """Returns the layout; an error names encoders that can read the spec."""
  return features.layout_of(spec, "nft")


def per_weight(options: NFTOptions, measured) -> nn.Module:
  """Returns the module of a value for every weight; see `interface.Row`."""
  normaliser = tied.opened(measured)
  layout = layout_of(normaliser.spec)
  body = Equivariant(options, layout)
  last = feature_layers.Pointwise(layout, 1)
  return per_weight_lib.PerWeight(
    normaliser, layout, body, last, is_normed=True
  )


def _attend(tokens):
  """Attention among tokens `[B, t, n, h, 3, d]`: `[B, t, n, h, d]`.

  A token is a vector over `n` neurons and `d` channels.
  """
  # One product for each network and head: on a CPU it is twice as fast as to
  # contract neurons and channels where they lie.
  batch, count, neurons, heads, _, dim = tokens.shape
  parts = jnp.transpose(tokens, (4, 0, 3, 1, 2, 5))
  query, key, value = parts.reshape(3, batch * heads, count, neurons * dim)
  query = query * (neurons * dim) ** -0.5
  weights = jax.nn.softmax(query @ jnp.swapaxes(key, 1, 2), axis=-1)
  answers = (weights @ value).reshape(batch, heads, count, neurons, dim)
  return jnp.transpose(answers, (0, 2, 3, 1, 4))
