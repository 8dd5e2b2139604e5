"""The layers that the families' forward functions are made of. Pure JAX.

Images are channels-last inside this package, `[B, H, W, C]`, so that a
convolution is one matrix product. All functions may be mapped over networks.

Dimensions: `B` inputs, `I` input and `O` output features, `H`, `W` height and
width, `C` channels, `T` tokens.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
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
  spec: spec_lib.NetworkSpec, x: Array, shape: tuple[int, ...]
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
