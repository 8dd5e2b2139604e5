"""Plain convolutional classifiers: convolutions, then dense layers.

The published small-CNN zoos are of this family: pooled heads (Unterthiner et
al. 2020, arXiv:2002.11448) and flattened ones (Schuerholt et al. 2022,
arXiv:2209.14764).

Dimensions: `P` weights, `B` images of `C` channels, height `H`, width `W`;
`O` classes.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import layers, parts


def cnn(
  image_shape: Sequence[int],
  channels: Sequence[int],
  kernels: int | Sequence[int] = 3,
  strides: int | Sequence[int] = 1,
  paddings: int | Sequence[int] = 0,
  pools: int | Sequence[int] = 1,
  dense: Sequence[int] = (),
  num_classes: int = 10,
  activation: str | Sequence[str] = "relu",
  head: str = "pool",
  flatten_order: str = "channels_first",
  bias: bool = True,
  pool_before_activation: bool = False,
) -> spec_lib.NetworkSpec:
  """Describes a convolutional classifier.

  Tensors are `conv0.weight`, `conv0.bias`, ..., `dense0.weight`, ...; the
  channels and hidden neurons are the groups `n1`, `n2`, ... in order.

  Args:
    image_shape: channels, height, width.
    channels: output channels of every convolution.
    kernels: side of the square kernels; one for all, or one for each, like
      the three that follow.
    strides: steps of the kernels.
    paddings: zeros around the image.
    pools: side of the max-pooling windows behind each convolution; 1 is none.
    dense: widths of the hidden dense layers.
    num_classes: outputs.
    activation: one name for all hidden layers, or one for each of
      convolutions and hidden dense layers.
    head: "pool" averages every channel over the image; "flatten" keeps the
      places.
    flatten_order: which runs slowest in the flattened image, "channels_first"
      (PyTorch) or "channels_last" (TensorFlow, Flax).
    bias: whether layers have biases.
    pool_before_activation: max-pool before the activation, not after it.

  Raises:
    ValueError: an option is malformed, or the image shrinks to nothing.
  """
  depth, *size = parts.image(image_shape)
  channels = parts.sizes("channels", channels, at_least=1)
  dense = parts.sizes("dense", dense, at_least=0)
  parts.sizes("num_classes", (num_classes,), at_least=1)
  parts.choice("head", head, ("pool", "flatten"))
  orders = ("channels_first", "channels_last")
  parts.choice("flatten_order", flatten_order, orders)
  count = len(channels)
  kernels = parts.per_layer("kernels", kernels, count, 1)
  strides = parts.per_layer("strides", strides, count, 1)
  paddings = parts.per_layer("paddings", paddings, count, 0)
  pools = parts.per_layer("pools", pools, count, 1)

  size = (size[0], size[1])
  into = spec_lib.plain_axis(depth)
  tensors = []
  for level, width in enumerate(channels):
    kernel = kernels[level]
    out = spec_lib.plain_axis(width, f"n{level + 1}")
    tensors += parts.convolution(
      f"conv{level}", out, into, kernel, level, bias=bias
    )
    size = parts.conv_size(size, kernel, strides[level], paddings[level])
    size = (size[0] // pools[level], size[1] // pools[level])
    if min(size) < 1:
      raise ValueError(
        f"nothing is left of the image behind the pooling of conv{level};"
        " use a larger image, or smaller strides and pools"
      )
    into = out
  if head == "flatten":
    image = spec_lib.plain_axis(size[0] * size[1])
    into = into + image if flatten_order == "channels_first" else image + into
  widths = (*dense, num_classes)
  for place, width in enumerate(widths):
    level = count + place
    group = f"n{level + 1}" if place < len(dense) else None
    out = spec_lib.plain_axis(width, group)
    tensors += parts.linear(f"dense{place}", out, into, level, bias=bias)
    into = out
  options = {
    "flatten_order": flatten_order,
    "head": head,
    "image_shape": parts.image(image_shape),
    "paddings": paddings,
    "pool_before_activation": pool_before_activation,
    "pools": pools,
    "strides": strides,
  }
  hidden = parts.activations(activation, count + len(dense))
  return spec_lib.NetworkSpec(
    family="cnn",
    tensors=tuple(tensors),
    activations=(*hidden, "none"),
    options=tuple(sorted(options.items())),
  )


def forward(
  spec: spec_lib.NetworkSpec,
  weights: Float[Array | np.ndarray, "P"],
  x: Float[Array | np.ndarray, "B C H W"],
) -> Float[Array, "B O"]:
  """Runs a cnn."""
  options = dict(spec.options)
  layers.check_input(spec, x, options["image_shape"])
  tensors = spec.unflatten(weights)
  count = len(options["strides"])
  x = layers.channels_last(x)
  for level in range(count):
    stride, padding = options["strides"][level], options["paddings"][level]
    x = layers.convolution(tensors, f"conv{level}", x, stride, padding)
    if options["pool_before_activation"]:
      x = layers.max_pool(x, options["pools"][level])
    x = layers.activate(spec.activations[level], x)
    if not options["pool_before_activation"]:
      x = layers.max_pool(x, options["pools"][level])
  if options["head"] == "pool":
    x = x.mean(axis=(1, 2))
  else:
    if options["flatten_order"] == "channels_first":
      x = x.transpose(0, 3, 1, 2)
    x = x.reshape(x.shape[0], -1)
  for level in range(count, spec.num_levels):
    x = layers.linear(tensors, f"dense{level - count}", x)
    x = layers.activate(spec.activations[level], x)
  return x
