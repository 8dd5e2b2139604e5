"""Plain convolutional classifiers: convolutions, then dense layers.

The published small-CNN zoos are of this family: pooled heads (Unterthiner et
al. 2020, arXiv:2002.11448) and flattened ones (Schuerholt et al. 2022,
arXiv:2209.14764); and the CNN Wild Park (Kofinas et al. 2024,
arXiv:2403.12143), whose layers differ and have skips.

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
  skips: Sequence[int] = (),
) -> spec_lib.NetworkSpec:
  """Describes a convolutional classifier.

  Tensors are `conv0.weight`, `conv0.bias`, ..., `dense0.weight`, ...; the
  channels and hidden neurons are the groups `n1`, `n2`, ... in order. Layers
  that skips tie together have one group, that of the first; if their widths
  differ, the channels that a skip adds up are tied and the others are not,
  which no axis can say: then none of them may move.

  Args:
    image_shape: channels, height, width.
    channels: output channels of every convolution.
    kernels: side of the square kernels; one for all, or one for each, like
      the three that follow.
    strides: steps of the kernels.
    paddings: zeros around the image.
    pools: side of the max-pooling windows after each convolution; 1 is none.
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
    skips: for each convolution the earlier one, at least two before, whose
      final output is added to its own before the activation (and pooling);
      -1 is none. Of different widths, the first channels that both have are
      added. Images must be of one size. Empty: no skips.

  Raises:
    ValueError: an option is malformed, or the image shrinks to nothing.
  """
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
  skips = parts.per_layer("skips", skips or -1, count, -1)
  steps = (kernels, strides, paddings, pools)
  tensors, into, size = _convolutions(
    parts.image(image_shape), channels, steps, skips, bias
  )
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
    skips=tuple((a, b) for b, a in enumerate(skips) if a >= 0),
    options=tuple(sorted(options.items())),
  )


def _convolutions(
  image: tuple[int, int, int],
  channels: Sequence[int],
  steps: tuple[Sequence[int], ...],
  skips: Sequence[int],
  bias: bool,
) -> tuple[list[spec_lib.TensorSpec], spec_lib.Axis, tuple[int, int]]:
  """Returns the tensors of all convolutions, the last axis and image size.

  `steps` are kernels, strides, paddings and pools; see `cnn`.
  """
  groups = _groups(channels, skips)
  into, size = spec_lib.plain_axis(image[0]), image[1:]
  tensors, seen = [], []
  for level, width in enumerate(channels):
    kernel, stride, padding, pool = (values[level] for values in steps)
    out = spec_lib.plain_axis(width, groups[level])
    tensors += parts.convolution(
      f"conv{level}", out, into, kernel, level, bias=bias
    )
    size = parts.conv_size(size, kernel, stride, padding)
    if skips[level] >= 0 and seen[skips[level]] != size:
      raise ValueError(
        f"skips: conv{skips[level]} gives images of {seen[skips[level]]}, and"
        f" conv{level} of {size}; pad and use stride 1 in between"
      )
    size = (size[0] // pool, size[1] // pool)
    if min(size) < 1:
      raise ValueError(
        f"nothing is left of the image after the pooling of conv{level};"
        " use a larger image, or smaller strides and pools"
      )
    seen.append(size)
    into = out
  return tensors, into, size


def _groups(channels: Sequence[int], skips: Sequence[int]) -> list[str | None]:
  """Returns the group of every convolution's channels; see `cnn`."""
  first = list(range(len(channels)))  # Of the layers tied to each.
  for level, source in enumerate(skips):
    if source >= 0 and source > level - 2:
      raise ValueError(
        f"skips must come from 2 or more layers before, got {source} for"
        f" conv{level}"
      )
    if source >= 0:
      one, other = sorted((first[source], first[level]))
      first = [one if place == other else place for place in first]
  widths = [
    {w for w, f in zip(channels, first, strict=True) if f == root}
    for root in first
  ]
  return [
    f"n{root + 1}" if len(width) == 1 else None
    for root, width in zip(first, widths, strict=True)
  ]


def run(
  spec: spec_lib.NetworkSpec,
  tensors: layers.Tensors,
  x: Float[Array | np.ndarray, "B C H W"],
  hidden: layers.Hidden = layers.keep,
  activate: layers.Activate = layers.activated,
  convolve: layers.Convolve = layers.convolution,
) -> Float[Array, "B O"]:
  """Runs a cnn."""
  options = dict(spec.options)
  layers.check_input(spec, x, options["image_shape"])
  count = len(options["strides"])
  x = layers.inputs_last(x)
  sources = {target: source for source, target in spec.skips}
  kept = []
  for level in range(count):
    stride, padding = options["strides"][level], options["paddings"][level]
    x = convolve(tensors, f"conv{level}", x, stride, padding)
    if level in sources:
      x = layers.add_channels(x, kept[sources[level]])
    if options["pool_before_activation"]:
      x = layers.max_pool(x, options["pools"][level])
    x = activate(level, spec.activations[level], x, 1.0)
    if not options["pool_before_activation"]:
      x = layers.max_pool(x, options["pools"][level])
    x = hidden(level, x)
    kept.append(x)
  if options["head"] == "pool":
    x = layers.average(x)
  else:
    x = layers.flatten(x, options["flatten_order"])
  for level in range(count, spec.num_levels):
    x = layers.linear(tensors, f"dense{level - count}", x)
    x = activate(level, spec.activations[level], x, 1.0)
    x = hidden(level, x) if level < spec.num_levels - 1 else x
  return x
