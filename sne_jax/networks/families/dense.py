"""Fully connected networks: classifiers (mlp) and sine networks (inr).

An implicit neural representation (INR) is a network that is a signal: it maps
a coordinate to the signal's value there. Ours have sine activations.

Dimensions: `P` weights, `B` inputs, `I` input and `O` output features.

References:
  Sitzmann et al., Implicit Neural Representations with Periodic Activation
  Functions, NeurIPS 2020, arXiv:2006.09661. Initialisation and output offset
  as in the code of Navon et al., Equivariant Architectures for Learning in
  Deep Weight Spaces, ICML 2023, arXiv:2301.12780.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import layers, parts


def mlp(
  widths: Sequence[int],
  activation: str | Sequence[str] = "relu",
  bias: bool = True,
) -> spec_lib.NetworkSpec:
  """Describes a fully connected network.

  Tensors are `layer0.weight`, `layer0.bias`, `layer1.weight`, ...; the hidden
  neurons are the groups `n1`, `n2`, ...

  Args:
    widths: neurons of every layer, input and output included.
    activation: one name for all hidden layers, or one for each. A sine here
      is `sin(x)`.
    bias: whether layers have biases.

  Raises:
    ValueError: fewer than two widths, or an unknown activation.
  """
  return _dense("mlp", widths, activation, bias, {})


def inr(
  widths: Sequence[int] = (1, 32, 32, 1),
  w0: float = 30.0,
  output_offset: float = 0.5,
  bias: bool = True,
) -> spec_lib.NetworkSpec:
  """Describes a sine INR: hidden layers are `sin(w0 (W x + b))`.

  Args:
    widths: neurons of every layer; coordinates first, signal values last.
    w0: frequency of the sine, above 0.
    output_offset: added to what the last layer gives.
    bias: whether layers have biases.

  Raises:
    ValueError: fewer than two widths, or `w0` is not above 0.
  """
  if not w0 > 0:
    raise ValueError(f"w0 must be above 0, got {w0}")
  options = {"output_offset": float(output_offset), "w0": float(w0)}
  return _dense("inr", widths, "sine", bias, options)


def _dense(
  family: str,
  widths: Sequence[int],
  activation: str | Sequence[str],
  bias: bool,
  options: dict[str, Any],
) -> spec_lib.NetworkSpec:
  widths = parts.sizes("widths", widths, at_least=2)
  depth = len(widths) - 1
  axes = [
    spec_lib.plain_axis(width, f"n{place}" if 0 < place < depth else None)
    for place, width in enumerate(widths)
  ]
  tensors = []
  for level in range(depth):
    tensors += parts.linear(
      f"layer{level}", axes[level + 1], axes[level], level, bias=bias
    )
  return spec_lib.NetworkSpec(
    family=family,
    tensors=tuple(tensors),
    activations=(*parts.activations(activation, depth - 1), "none"),
    options=tuple(sorted(options.items())),
  )


def run(
  spec: spec_lib.NetworkSpec,
  tensors: layers.Tensors,
  x: Float[Array | np.ndarray, "B I"],
  hidden: layers.Hidden = layers.keep,
  activate: layers.Activate = layers.activated,
) -> Float[Array, "B O"]:
  """Runs an mlp or an inr."""
  layers.check_input(spec, x, (spec.tensors[0].shape[1],))
  options = dict(spec.options)
  y = jnp.asarray(x)
  for level, activation in enumerate(spec.activations):
    y = layers.linear(tensors, f"layer{level}", y)
    y = activate(level, activation, y, options.get("w0", 1.0))
    y = hidden(level, y) if level < spec.num_levels - 1 else y
  return y + options.get("output_offset", 0.0)


def run_inputs_last(
  spec: spec_lib.NetworkSpec,
  tensors: layers.Tensors,
  x: Float[Array | np.ndarray, "B I"],
  hidden: layers.Hidden = layers.keep,
  activate: layers.Activate = layers.activated,
) -> Float[Array, "B O"]:
  """Does what `run` does; in between, activations are `[neurons, B]`.

  Mapped over networks, all products are then of rows as they lie in memory,
  and the first, of inputs that all networks share, is a single one.
  """
  layers.check_input(spec, x, (spec.tensors[0].shape[1],))
  options = dict(spec.options)
  y = jnp.asarray(x).T
  for level, activation in enumerate(spec.activations):
    y = jnp.asarray(tensors[f"layer{level}.weight"]) @ y
    if f"layer{level}.bias" in tensors:
      y = y + tensors[f"layer{level}.bias"].reshape(-1, 1)
    y = activate(level, activation, y, options.get("w0", 1.0))
    y = hidden(level, y) if level < spec.num_levels - 1 else y
  return y.T + options.get("output_offset", 0.0)
