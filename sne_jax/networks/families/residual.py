"""Residual convolutional classifiers with batch norm, run at inference.

Levels: every convolution is a level, together with the batch norm after it.
A block's two convolutions follow each other; the projection of its shortcut,
if it needs one, is at the level of the first, on branch 1. A block that takes
what level `s` gives and ends at level `e` is the skip `(s, e)`, with or
without a projection; the activation of level `e` acts on the sum.

Dimensions: `P` weights, `B` images of `C` channels, height `H`, width `W`;
`O` classes.

References:
  He et al., Deep Residual Learning for Image Recognition, CVPR 2016,
  arXiv:1512.03385.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import layers, parts


def resnet(
  image_shape: Sequence[int],
  widths: Sequence[int] = (16, 32, 64),
  blocks: int | Sequence[int] = 1,
  strides: Sequence[int] | None = None,
  num_classes: int = 10,
  kernel: int = 3,
  stem_stride: int = 1,
  activation: str = "relu",
  norm_eps: float = 1e-5,
) -> spec_lib.NetworkSpec:
  """Describes a residual classifier of basic blocks.

  Stem, stages of blocks, average over the image, dense layer. Convolutions
  are padded to keep the size and have no biases. Axis groups: the residual
  stream of a stage, which all its additions tie together, and the channels
  inside every block.

  Args:
    image_shape: channels, height, width.
    widths: channels of every stage; the first are the stem's too.
    blocks: blocks of every stage; one number for all, or one for each.
    strides: step of the first block of every stage; None is 1, then 2s.
    num_classes: outputs.
    kernel: side of the square kernels, odd.
    stem_stride: step of the stem.
    activation: of all hidden layers.
    norm_eps: added to variances by batch norm.

  Raises:
    ValueError: an option is malformed.
  """
  image = parts.image(image_shape)
  widths = parts.sizes("widths", widths, at_least=1)
  blocks = parts.per_layer("blocks", blocks, len(widths), 1)
  if strides is None:
    strides = (1,) + (2,) * (len(widths) - 1)
  strides = parts.per_layer("strides", strides, len(widths), 1)
  if kernel < 1 or kernel % 2 == 0:
    raise ValueError(f"kernel must be odd, to keep the size, got {kernel}")
  parts.sizes("num_classes", (num_classes,), at_least=1)

  stream = spec_lib.plain_axis(widths[0], "stem")
  tensors = _conv("stem", stream, spec_lib.plain_axis(image[0]), kernel, 0)
  level, place = 0, 0
  skips, steps = [], []
  for stage, width in enumerate(widths):
    for first in (True,) + (False,) * (blocks[stage] - 1):
      stride = strides[stage] if first else 1
      projected = stride != 1 or width != parts.places(stream)
      out = spec_lib.plain_axis(width, f"stage{stage}") if projected else stream
      inside = spec_lib.plain_axis(width, f"block{place}")
      name = f"block{place}"
      tensors += _conv(f"{name}.conv1", inside, stream, kernel, level + 1)
      if projected:
        shortcut = f"{name}.shortcut"
        tensors += _conv(shortcut, out, stream, 1, level + 1, branch=1)
      tensors += _conv(f"{name}.conv2", out, inside, kernel, level + 2)
      skips.append((level, level + 2))
      steps.append(stride)
      stream, level, place = out, level + 2, place + 1
  classes = spec_lib.plain_axis(num_classes)
  tensors += parts.linear("dense", classes, stream, level + 1)
  options = {
    "image_shape": image,
    "norm_eps": float(norm_eps),
    "stem_stride": stem_stride,
    "strides": tuple(steps),
  }
  return spec_lib.NetworkSpec(
    family="resnet",
    tensors=tuple(tensors),
    activations=(*parts.activations(activation, level + 1), "none"),
    skips=tuple(skips),
    options=tuple(sorted(options.items())),
  )


def _conv(
  name: str,
  out: spec_lib.Axis,
  into: spec_lib.Axis,
  kernel: int,
  level: int,
  branch: int = 0,
) -> list[spec_lib.TensorSpec]:
  """Returns a convolution without bias and the batch norm after it."""
  tensors = parts.convolution(
    name, out, into, kernel, level, bias=False, branch=branch
  )
  return tensors + parts.batch_norm(tensors[0])


def run(
  spec: spec_lib.NetworkSpec,
  tensors: layers.Tensors,
  x: Float[Array | np.ndarray, "B C H W"],
  hidden: layers.Hidden = layers.keep,
  activate: layers.Activate = layers.activated,
  norm: layers.Norm = layers.batch_norm,
  convolve: layers.Convolve = layers.convolution,
) -> Float[Array, "B O"]:
  """Runs a resnet, with batch norms or with these folded into biases.

  `norm` runs a batch norm; one that uses the batch's statistics trains.
  """
  options = dict(spec.options)
  layers.check_input(spec, x, options["image_shape"])

  def conv(name, x, stride):
    padding = tensors[f"{name}.weight"].shape[-1] // 2
    y = convolve(tensors, name, x, stride, padding)
    return norm(tensors, f"{name}.norm", y, options["norm_eps"])

  x = conv("stem", layers.inputs_last(x), options["stem_stride"])
  x = hidden(0, activate(0, spec.activations[0], x, 1.0))
  for place, stride in enumerate(options["strides"]):
    name = f"block{place}"
    y = conv(f"{name}.conv1", x, stride)
    level = 2 * place + 1
    y = hidden(level, activate(level, spec.activations[level], y, 1.0))
    y = conv(f"{name}.conv2", y, 1)
    if f"{name}.shortcut.weight" in tensors:
      x = conv(f"{name}.shortcut", x, stride)
    level += 1
    x = activate(level, spec.activations[level], x + y, 1.0)
    x = hidden(level, x)
  return layers.linear(tensors, "dense", layers.average(x))
