"""Transformer encoders that classify images cut into patches.

Levels: patch embedding (with class token and positions), then for each block
norm, queries with keys and values (branches 0, 1, 2), output, norm, and the
two feed-forward layers; then norm and head. The two residual additions of a
block are skips.

Axis groups: `stream`, the residual stream, one through the whole network; for
each block the heads, the units of queries and keys and the units of values
and outputs (both permuted within each head), and the feed-forward units.

Dimensions: `P` weights, `B` images of `C` channels, height `H`, width `W`;
`T` tokens, `D` channels of the stream, `O` classes.

References:
  Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021,
  arXiv:2010.11929 (norm before attention and feed-forward layers).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import layers, parts


def transformer(
  image_shape: Sequence[int],
  patch: int,
  dim: int = 32,
  depth: int = 2,
  heads: int = 4,
  hidden: int = 64,
  head_dim: int | None = None,
  num_classes: int = 10,
  embed: str = "conv",
  attention_bias: bool = True,
  activation: str = "gelu",
  norm_eps: float = 1e-5,
) -> spec_lib.NetworkSpec:
  """Describes a transformer classifier with a class token.

  Args:
    image_shape: channels, height, width; the last two divisible by `patch`.
    patch: side of the square patches.
    dim: channels of the residual stream.
    depth: number of blocks.
    heads: attention heads of every block.
    hidden: feed-forward units of every block.
    head_dim: units of a head; None is `dim / heads`.
    num_classes: outputs.
    embed: how the patch embedding is stored, "conv" `[D, C, patch, patch]` or
      "linear" `[D, C * patch * patch]`.
    attention_bias: whether queries, keys, values and outputs have biases.
    activation: of the feed-forward units.
    norm_eps: added to variances by layer norm.

  Raises:
    ValueError: an option is malformed, or sizes do not divide.
  """
  image = parts.image(image_shape)
  all_sizes = (patch, dim, depth, heads, hidden, num_classes)
  parts.sizes(
    "patch, dim, depth, heads, hidden, num_classes", all_sizes, at_least=6
  )
  parts.choice("embed", embed, ("conv", "linear"))
  if image[1] % patch or image[2] % patch:
    raise ValueError(
      f"patch {patch} does not divide the image of {image[1]}x{image[2]}"
    )
  if head_dim is None:
    if dim % heads:
      raise ValueError(
        f"heads {heads} do not divide dim {dim}; give head_dim to part them"
      )
    head_dim = dim // heads
  num_tokens = 1 + image[1] // patch * (image[2] // patch)

  stream = spec_lib.plain_axis(dim, "stream")
  into = spec_lib.plain_axis(image[0])
  if embed == "conv":
    tensors = parts.convolution("patch", stream, into, patch, 0)
  else:
    into = spec_lib.plain_axis(image[0] * patch**2)
    tensors = parts.linear("patch", stream, into, 0)
  tensors.append(
    spec_lib.TensorSpec(
      "class_token", "class_token", (dim,), 0, (stream,), branch=1
    )
  )
  tensors.append(
    spec_lib.TensorSpec(
      "position",
      "position",
      (num_tokens, dim),
      0,
      (spec_lib.plain_axis(num_tokens), stream),
    )
  )
  skips, activations = [], ["none"]
  level = 0
  for place in range(depth):
    name = f"block{place}"
    sizes = (heads, head_dim, hidden)
    tensors += _block(name, stream, sizes, level + 1, attention_bias)
    skips += [(level, level + 3), (level + 3, level + 6)]
    activations += ["none"] * 4
    activations += [*parts.activations(activation, 1), "none"]
    level += 6
  tensors += parts.layer_norm("norm", stream, level + 1)
  classes = spec_lib.plain_axis(num_classes)
  tensors += parts.linear("head", classes, stream, level + 2)
  options = {
    "heads": heads,
    "image_shape": image,
    "norm_eps": float(norm_eps),
    "patch": patch,
  }
  return spec_lib.NetworkSpec(
    family="transformer",
    tensors=tuple(tensors),
    activations=(*activations, "none", "none"),
    skips=tuple(skips),
    options=tuple(sorted(options.items())),
  )


def _block(
  name: str,
  stream: spec_lib.Axis,
  sizes: tuple[int, int, int],
  level: int,
  bias: bool,
) -> list[spec_lib.TensorSpec]:
  """Returns the tensors of a block that begins at `level`."""
  num_heads, head_dim, hidden = sizes
  heads = spec_lib.Factor(num_heads, f"{name}.heads")

  def units(group):
    nested = spec_lib.Factor(head_dim, f"{name}.{group}", per=heads.group)
    return (heads, nested)

  tensors = parts.layer_norm(f"{name}.norm1", stream, level)
  for branch, part in enumerate("qkv"):
    tensors += parts.linear(
      f"{name}.{part}",
      units("vo" if part == "v" else "qk"),
      stream,
      level + 1,
      bias=bias,
      branch=branch,
      kinds=(f"attention_{part}", "attention_bias"),
    )
  kinds = ("attention_o", "linear_bias")
  tensors += parts.linear(
    f"{name}.o", stream, units("vo"), level + 2, bias=bias, kinds=kinds
  )
  tensors += parts.layer_norm(f"{name}.norm2", stream, level + 3)
  inside = spec_lib.plain_axis(hidden, f"{name}.hidden")
  tensors += parts.linear(f"{name}.ff1", inside, stream, level + 4)
  return tensors + parts.linear(f"{name}.ff2", stream, inside, level + 5)


def run(
  spec: spec_lib.NetworkSpec,
  tensors: layers.Tensors,
  x: Float[Array | np.ndarray, "B C H W"],
  hidden: layers.Hidden = layers.keep,
  activate: layers.Activate = layers.activated,
) -> Float[Array, "B O"]:
  """Runs a transformer."""
  options = dict(spec.options)
  layers.check_input(spec, x, options["image_shape"])
  eps = options["norm_eps"]
  x = _embed(tensors, jnp.asarray(x), options["patch"])
  for place in range((spec.num_levels - 3) // 6):
    name = f"block{place}"
    y = layers.layer_norm(tensors, f"{name}.norm1", x, eps)
    x = x + _attend(tensors, name, y, options["heads"])
    y = layers.layer_norm(tensors, f"{name}.norm2", x, eps)
    y = layers.linear(tensors, f"{name}.ff1", y)
    level = 6 * place + 5
    y = hidden(level, activate(level, spec.activations[level], y, 1.0))
    x = x + layers.linear(tensors, f"{name}.ff2", y)
  x = layers.layer_norm(tensors, "norm", x[:, 0], eps)
  return layers.linear(tensors, "head", x)


def _embed(
  tensors: layers.Tensors, x: Float[Array, "B C H W"], patch: int
) -> Float[Array, "B T D"]:
  """Cuts images into patches and embeds them after a class token."""
  batch, channels, height, width = x.shape
  rows, columns = height // patch, width // patch
  x = x.reshape(batch, channels, rows, patch, columns, patch)
  x = x.transpose(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
  kernel = tensors["patch.weight"]
  matrix = {"patch.weight": kernel.reshape(kernel.shape[0], -1)}
  x = layers.linear({**tensors, **matrix}, "patch", x)
  token = tensors["class_token"].reshape(1, 1, -1)
  token = jnp.broadcast_to(token, (batch, 1, token.shape[-1]))
  return jnp.concatenate([token, x], axis=1) + tensors["position"][None]


def _attend(
  tensors: layers.Tensors, name: str, x: Float[Array, "B T D"], heads: int
) -> Float[Array, "B T D"]:
  """Multi-head attention of every token to all."""
  batch, count, _ = x.shape
  q, k, v = (
    layers.linear(tensors, f"{name}.{part}", x).reshape(batch, count, heads, -1)
    for part in "qkv"
  )
  scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
  mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
  mixed = mixed.reshape(batch, count, -1)
  return layers.linear(tensors, f"{name}.o", mixed)
