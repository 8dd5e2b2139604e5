"""The layers that the families' forward functions are made of. Pure JAX.

Images are `[C, H, W, B]` inside this package, inputs last: a convolution is one
matrix product, for which runs of `B` numbers are copied, and what is computed
for each place runs over `B`. All functions may be mapped over networks.

Dimensions: `B` inputs, `I` input and `O` output features, `H`, `W` height and
width, `C` channels, `T` tokens.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.networks import spec as spec_lib

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
  "none": lambda x: x,
  "relu": jax.nn.relu,
  "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.01),
  "gelu": lambda x: jax.nn.gelu(x, approximate=False),
  "silu": jax.nn.silu,
  "selu": jax.nn.selu,
  "tanh": jnp.tanh,
  "sigmoid": jax.nn.sigmoid,
  "sine": jnp.sin,
}
"""Activation functions by name. Leaky relu has slope 0.01, gelu is exact."""

Tensors = Mapping[str, Array | np.ndarray]

Hidden = Callable[[int, Array], Array]
"""What is done to the activations after a hidden level, such as dropout."""


Activate = Callable[[int, str, Array, float], Array]
"""What takes pre-activations on: of a level, its activation's name, and w0."""

Convolve = Callable[[Tensors, str, Array, int, int], Array]
"""How a convolution is run: of tensors, its name, an image, stride, padding."""

Norm = Callable[[Tensors, str, Array, float], Array]
"""How a batch norm is run: of tensors, its name, an image and epsilon."""


def keep(level: int, x: Float[Array, "..."]) -> Float[Array, "..."]:
  """The `Hidden` that changes nothing."""
  del level
  return x


def activate(
  name: str, x: Float[Array, "..."], w0: float = 1.0
) -> Float[Array, "..."]:
  """Applies an activation; the sine is `sin(w0 x)`."""
  return ACTIVATIONS[name](w0 * x if name == "sine" and w0 != 1.0 else x)


def activated(
  level: int, name: str, x: Float[Array, "..."], w0: float = 1.0
) -> Float[Array, "..."]:
  """The `Activate` that applies the activation of a level as it is named."""
  del level
  return activate(name, x, w0)


def check_input(
  spec: spec_lib.NetworkSpec, x: Array | np.ndarray, shape: tuple[int, ...]
) -> None:
  """Raises `ValueError` unless `x` is a batch of inputs of that shape."""
  if tuple(x.shape[1:]) != shape:
    raise ValueError(
      f"{spec.describe()} takes inputs of shape {('B', *shape)}, got"
      f" {tuple(x.shape)}"
    )


def add_bias(
  tensors: Tensors, name: str, y: Float[Array, "... O"]
) -> Float[Array, "... O"]:
  """Adds tensor `name` to the last axis, if the network has it."""
  if name not in tensors:
    return y
  return y + tensors[name].reshape((1,) * (y.ndim - 1) + (-1,))


def linear(
  tensors: Tensors, name: str, x: Float[Array, "... I"]
) -> Float[Array, "... O"]:
  """Applies `name.weight` `[O, I]` and, if there is one, `name.bias`."""
  y = jnp.einsum("...i,oi->...o", x, tensors[f"{name}.weight"])
  return add_bias(tensors, f"{name}.bias", y)


def inputs_last(x: Float[Array | np.ndarray, "B C H W"]) -> Array:
  """Turns images into `[C, H, W, B]`."""
  return jnp.transpose(jnp.asarray(x), (1, 2, 3, 0))


def convolution(
  tensors: Tensors,
  name: str,
  x: Float[Array, "I H W B"],
  stride: int = 1,
  padding: int = 0,
) -> Float[Array, "O H2 W2 B"]:
  """Applies `name.weight` `[O, I, kh, kw]` and `name.bias`, if there is one.

  The image is cut into shifted copies, one per kernel place, which meet the
  kernel in one matrix product: mapped over networks this stays a matrix
  product, where a library convolution becomes a grouped one, slow on CPUs.
  """
  kernel = tensors[f"{name}.weight"]
  out, into, kernel_height, kernel_width = kernel.shape
  around = (padding, padding)
  x = jnp.pad(x, ((0, 0), around, around, (0, 0)))
  _, height, width, batch = x.shape
  rows = (height - kernel_height) // stride
  columns = (width - kernel_width) // stride
  copies = [
    jax.lax.slice(
      x,
      (0, i, j, 0),
      (into, i + stride * rows + 1, j + stride * columns + 1, batch),
      (1, stride, stride, 1),
    )
    for i in range(kernel_height)
    for j in range(kernel_width)
  ]
  matrix = jnp.transpose(kernel, (0, 2, 3, 1)).reshape(out, -1)
  # [places of the kernel, I, H2, W2, B] as a matrix.
  patches = jnp.stack(copies).reshape(matrix.shape[1], -1)
  y = (matrix @ patches).reshape(out, rows + 1, columns + 1, batch)
  if f"{name}.bias" not in tensors:
    return y
  return y + tensors[f"{name}.bias"].reshape(-1, 1, 1, 1)


def max_pool(x: Float[Array, "C H W B"], size: int) -> Array:
  """Takes the maximum of every full `size` x `size` window."""
  if size == 1:
    return x
  channels, height, width, batch = x.shape
  rows, columns = height // size, width // size
  x = x[:, : rows * size, : columns * size]
  x = x.reshape(channels, rows, size, columns, size, batch)
  return x.max(axis=(2, 4))


def average(x: Float[Array, "C H W B"]) -> Float[Array, "B C"]:
  """Averages every channel over the image."""
  return x.mean(axis=(1, 2)).T


def flatten(x: Float[Array, "C H W B"], order: str) -> Float[Array, "B F"]:
  """Flattens images; the order is that of `cnn`'s `flatten_order`."""
  if order == "channels_last":
    x = x.transpose(1, 2, 0, 3)
  return x.reshape(-1, x.shape[-1]).T


def add_channels(
  x: Float[Array, "C H W B"], other: Float[Array, "C2 H W B"]
) -> Float[Array, "C H W B"]:
  """Adds the first channels of another image, as many as both have."""
  more = max(0, x.shape[0] - other.shape[0])
  other = jnp.pad(other[: x.shape[0]], ((0, more),) + ((0, 0),) * 3)
  return x + other


def batch_norm(
  tensors: Tensors, name: str, x: Float[Array, "C H W B"], eps: float
) -> Float[Array, "C H W B"]:
  """Normalises channels by running statistics, if the network has them."""
  if f"{name}.mean" not in tensors:
    return x
  scale = jax.lax.rsqrt(tensors[f"{name}.var"] + eps)
  scale = scale * tensors[f"{name}.scale"]
  shift = tensors[f"{name}.shift"] - tensors[f"{name}.mean"] * scale
  return x * scale.reshape(-1, 1, 1, 1) + shift.reshape(-1, 1, 1, 1)


def layer_norm(
  tensors: Tensors, name: str, x: Float[Array, "... C"], eps: float
) -> Float[Array, "... C"]:
  """Normalises every place over its channels, then scales and shifts."""
  lead = (1,) * (x.ndim - 1) + (-1,)
  x = x - x.mean(axis=-1, keepdims=True)
  x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)
  scale = tensors[f"{name}.scale"].reshape(lead)
  return x * scale + tensors[f"{name}.shift"].reshape(lead)
