"""Convolutions, pooling and what else moves places, of Keras.

Dimensions: `B` inputs, `C` channels, `I`, `O` those of kernels.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from sne_jax.networks.tracing.keras_files.layer import (
  TABLE,
  Layer,
  Play,
  each,
  pinned,
  plays,
)


@plays(*each("Conv{}D"))
def _conv(at, x):
  w = at.with_bias("kernel")
  rank, kernel = len(x.shape) - 2, w["kernel"]
  at.expect(len(kernel.shape) == rank + 2, "its kernel is of another rank")
  at.expect(kernel.shape[-1] == at.config["filters"], "it has other filters")
  kernel = at.m.transpose(kernel, (rank + 1, rank, *range(rank)))
  groups = at.config.get("groups", 1)
  y = _convolved(at, at.first(x), kernel, groups)
  return at.activated(at.back(at.biased(y, w.get("bias"), 1)))


def _convolved(at: Layer, x: Any, kernel: Any, groups: int) -> Any:
  """Convolves `x [B, C, ...]` with `[O, C / groups, ...]`."""
  rank = len(x.shape) - 2
  strides = at.tuple("strides", rank)
  steps = at.tuple("dilation_rate", rank)
  padding: Any = str(at.config.get("padding", "valid")).upper()
  if padding == "CAUSAL":
    padding = [(steps[0] * (kernel.shape[2] - 1), 0)]

  def run(x, kernel):
    return lax.conv_general_dilated(
      *(x, kernel, strides, padding),
      rhs_dilation=steps,
      feature_group_count=groups,
    )

  return at.m.convolve(x, kernel, groups, run)


def _depthwise(at: Layer, x: Any, kernel: Any) -> Any:
  """Convolves each channel of `x [B, C, ...]` alone."""
  rank = len(x.shape) - 2
  at.expect(len(kernel.shape) == rank + 2, "its kernel is of another rank")
  kernel = at.m.transpose(kernel, (rank, rank + 1, *range(rank)))
  shape = (kernel.shape[0] * kernel.shape[1], 1, *kernel.shape[2:])
  at.expect(kernel.shape[0] == x.shape[1], "it reads other channels")
  return _convolved(at, x, at.m.reshape(kernel, shape), x.shape[1])


@plays(*each("DepthwiseConv{}D"))
def _depthwise_conv(at, x):
  w = at.with_bias("kernel|depthwise_kernel")
  y = _depthwise(at, at.first(x), w["kernel"])
  return at.activated(at.back(at.biased(y, w.get("bias"), 1)))


@plays(*each("SeparableConv{}D"))
def _separable_conv(at, x):
  w = at.with_bias("depthwise_kernel", "pointwise_kernel")
  rank, kernel = len(x.shape) - 2, w["pointwise_kernel"]
  y = _depthwise(at, at.first(x), w["depthwise_kernel"])
  kernel = at.m.transpose(kernel, (rank + 1, rank, *range(rank)))
  y = at.m.convolve(
    y,
    kernel,
    1,
    lambda x, k: lax.conv_general_dilated(x, k, [1] * rank, "VALID"),
  )
  return at.activated(at.back(at.biased(y, w.get("bias"), 1)))


@plays(*each("Conv{}DTranspose"))
def _conv_transpose(at, x):
  rank = len(x.shape) - 2
  if at.config.get("groups", 1) != 1:
    return pinned(at, x)
  w = at.with_bias("kernel")
  kernel = w["kernel"]  # [..., O, I]
  at.expect(len(kernel.shape) == rank + 2, "its kernel is of another rank")
  kernel = at.m.transpose(kernel, (rank, rank + 1, *range(rank)))
  strides = at.tuple("strides", rank)
  steps = at.tuple("dilation_rate", rank)
  more: Sequence[int | None] = [None] * rank
  if at.config.get("output_padding") is not None:
    more = at.tuple("output_padding", rank)
  same = at.config.get("padding", "valid") == "same"
  sizes = [
    (n - 1) * d + 1 for n, d in zip(kernel.shape[2:], steps, strict=True)
  ]
  pads = [
    _transposed_pads(n, s, extra, same)
    for n, s, extra in zip(sizes, strides, more, strict=True)
  ]

  def run(x, kernel):
    kernel = jnp.flip(kernel, range(2, rank + 2))
    return lax.conv_general_dilated(
      *(x, kernel, [1] * rank, pads), lhs_dilation=strides, rhs_dilation=steps
    )

  y = at.m.convolve(at.first(x), kernel, 1, run)
  return at.activated(at.back(at.biased(y, w.get("bias"), 1)))


def _transposed_pads(
  size: int, stride: int, extra: int | None, same: bool
) -> tuple[int, int]:
  """Returns the zeros on both sides of the stretched input.

  Args:
    size: of the kernel, dilated.
    stride: of the layer.
    extra: output padding; None for as much as the stride asks for.
    same: whether the output is `stride` times as long as the input.
  """
  if not same:
    extra = max(size, stride) - size if extra is None else extra
    return size - 1, size - 1 + extra
  total = stride + size - 2 if extra is None else size + size % 2 - 2 + extra
  left = min((total + 1) // 2, size - 1)
  return left, total - left


def _pool(maximum: bool) -> Play:
  def play(at: Layer, x):
    places = at.places(x)
    size = at.tuple("pool_size", len(places), 2)
    strides = at.tuple("strides", len(places), list(size))
    padding = str(at.config.get("padding", "valid")).upper()
    whole = lambda ns: [
      ns[places.index(p)] if p in places else 1 for p in range(len(x.shape))
    ]
    window = lambda x, start, f: lax.reduce_window(
      x, start, f, whole(size), whole(strides), padding
    )

    def run(x):
      if maximum:
        return window(x, -jnp.inf, lax.max)
      return window(x, 0.0, lax.add) / window(jnp.ones_like(x), 0.0, lax.add)

    return at.m.spatial(x, places, run, maximum)

  return play


def _global_pool(how: str) -> Play:
  def play(at: Layer, x):
    places = at.places(x)
    y = at.m.reduce(x, places, how)
    if at.config.get("keepdims"):
      shape = [1 if p in places else n for p, n in enumerate(x.shape)]
      y = at.m.reshape(y, shape)
    return y

  return play


for _name in each("MaxPooling{}D"):
  TABLE[_name] = _pool(True)
  TABLE[f"Global{_name}"] = _global_pool("max")
for _name in each("AveragePooling{}D"):
  TABLE[_name] = _pool(False)
  TABLE[f"Global{_name}"] = _global_pool("mean")


@plays(*each("AdaptiveAveragePooling{}D"), *each("AdaptiveMaxPooling{}D"))
def _adaptive_pool(at, x):
  places = at.places(x)
  sizes = at.tuple("output_size", len(places))
  shape = list(x.shape)
  for place, n in zip(places, sizes, strict=True):
    shape[place] = n
  for place in places:  # Each channel by itself, whatever the windows are.
    at.expect(shape[place] > 0, "it gives no places")
  at.m.only_played(at.kind)
  run = lambda x: jnp.broadcast_to(x.reshape(-1)[0], shape)  # For its shape.
  return at.m.spatial(x, places, run, "Max" in at.kind)


def _pairs(at: Layer, key: str, rank: int) -> list[tuple[int, int]]:
  """Returns what is added or cut at both ends of each axis."""
  value = at.config.get(key, 1)
  value = [value] * rank if isinstance(value, int) else value
  if rank == 1 and len(value) == 2 and isinstance(value[0], int):
    value = [value]
  pairs = [(n, n) if isinstance(n, int) else (n[0], n[1]) for n in value]
  at.expect(len(pairs) == rank, f"{key} is for {len(pairs)} axes")
  return pairs


@plays(*each("ZeroPadding{}D"))
def _zero_padding(at, x):
  places = at.places(x)
  pads = [(0, 0)] * len(x.shape)
  for place, pair in zip(
    places, _pairs(at, "padding", len(places)), strict=True
  ):
    pads[place] = pair
  return at.m.spatial(x, places, lambda x: jnp.pad(x, pads))


@plays(*each("Cropping{}D"))
def _cropping(at, x):
  places = at.places(x)
  cuts = [slice(None)] * len(x.shape)
  for place, (low, high) in zip(
    places, _pairs(at, "cropping", len(places)), strict=True
  ):
    cuts[place] = slice(low, x.shape[place] - high)
  return at.m.spatial(x, places, lambda x: x[tuple(cuts)])


@plays(*each("UpSampling{}D"))
def _up_sampling(at, x):
  places = at.places(x)
  sizes = at.tuple("size", len(places), 2)
  if at.config.get("interpolation", "nearest") != "nearest":
    at.m.only_played(f"{at.kind} by interpolation")

  def run(x):
    for place, n in zip(places, sizes, strict=True):
      x = jnp.repeat(x, n, place)
    return x

  return at.m.spatial(x, places, run)
