"""The layers that the families' forward functions are made of. Pure JAX.

Images are channels-last inside this package, `[B, H, W, C]`, so that a
convolution is one matrix product. All functions may be mapped over networks.

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

Tensors = Mapping[str, Array]


def activate(
  name: str, x: Float[Array, "..."], w0: float = 1.0
) -> Float[Array, "..."]:
  """Applies an activation; the sine is `sin(w0 x)`."""
  return ACTIVATIONS[name](w0 * x if name == "sine" and w0 != 1.0 else x)


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


def channels_last(x: Float[Array | np.ndarray, "B C H W"]) -> Array:
  """Turns images into `[B, H, W, C]`."""
  return jnp.transpose(jnp.asarray(x), (0, 2, 3, 1))


def convolution(
  tensors: Tensors,
  name: str,
  x: Float[Array, "B H W I"],
  stride: int = 1,
  padding: int = 0,
) -> Float[Array, "B H2 W2 O"]:
  """Applies `name.weight` `[O, I, kh, kw]` and `name.bias`, if there is one.

  The image is cut into shifted copies, one per kernel place, which meet the
  kernel in one matrix product: mapped over networks this stays a matrix
  product, where a library convolution becomes a grouped one, slow on CPUs.
  """
  kernel = tensors[f"{name}.weight"]
  out, into, kernel_height, kernel_width = kernel.shape
  around = (padding, padding)
  x = jnp.pad(x, ((0, 0), around, around, (0, 0)))
  batch, height, width, _ = x.shape
  rows = stride * ((height - kernel_height) // stride) + 1
  columns = stride * ((width - kernel_width) // stride) + 1
  copies = [
    jax.lax.slice(
      x,
      (0, i, j, 0),
      (batch, i + rows, j + columns, into),
      (1, stride, stride, 1),
    )
    for i in range(kernel_height)
    for j in range(kernel_width)
  ]
  matrix = jnp.transpose(kernel, (2, 3, 1, 0)).reshape(-1, out)
  y = jnp.einsum("bhwi,io->bhwo", jnp.concatenate(copies, axis=-1), matrix)
  return add_bias(tensors, f"{name}.bias", y)


def max_pool(x: Float[Array, "B H W C"], size: int) -> Array:
  """Takes the maximum of every full `size` x `size` window."""
  if size == 1:
    return x
  batch, height, width, channels = x.shape
  rows, columns = height // size, width // size
  x = x[:, : rows * size, : columns * size]
  x = x.reshape(batch, rows, size, columns, size, channels)
  return x.max(axis=(2, 4))


def batch_norm(
  tensors: Tensors, name: str, x: Float[Array, "... C"], eps: float
) -> Float[Array, "... C"]:
  """Normalises channels by running statistics, if the network has them."""
  if f"{name}.mean" not in tensors:
    return x
  scale = jax.lax.rsqrt(tensors[f"{name}.var"] + eps)
  scale = scale * tensors[f"{name}.scale"]
  shift = tensors[f"{name}.shift"] - tensors[f"{name}.mean"] * scale
  lead = (1,) * (x.ndim - 1) + (-1,)
  return x * scale.reshape(lead) + shift.reshape(lead)


def layer_norm(
  tensors: Tensors, name: str, x: Float[Array, "... C"], eps: float
) -> Float[Array, "... C"]:
  """Normalises every place over its channels, then scales and shifts."""
  lead = (1,) * (x.ndim - 1) + (-1,)
  x = x - x.mean(axis=-1, keepdims=True)
  x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)
  scale = tensors[f"{name}.scale"].reshape(lead)
  return x * scale + tensors[f"{name}.shift"].reshape(lead)
