"""The families by name: building and running a network of any of them.

Dimensions: `P` weights, `B` inputs, `O` outputs.
"""

import inspect
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import (
  convolutional,
  dense,
  layers,
  residual,
  vision_transformer,
)

_FAMILIES = {
  "mlp": (dense.mlp, dense.run),
  "inr": (dense.inr, dense.run),
  "cnn": (convolutional.cnn, convolutional.run),
  "resnet": (residual.resnet, residual.run),
  "transformer": (vision_transformer.transformer, vision_transformer.run),
}

_CONVOLVE = ("cnn", "resnet")

FAMILIES = tuple(_FAMILIES)
"""Names of the families that can be built and run."""


def build(family: str, **options: Any) -> spec_lib.NetworkSpec:
  """Describes a network of a family, for example `build("inr", w0=20.0)`.

  Args:
    family: one of `FAMILIES`.
    **options: what the family's own function takes.

  Raises:
    ValueError: unknown family or option, or an option without which the
      family cannot be built; the message lists what there is.
  """
  function, _ = _find(family)
  signature = inspect.signature(function)
  try:
    bound = signature.bind(**options)
  except TypeError as error:
    raise ValueError(
      f"family {family!r}: {error}; its options are"
      f" {', '.join(signature.parameters)}"
    ) from error
  return function(*bound.args, **bound.kwargs)


def forward(
  spec: spec_lib.NetworkSpec,
  weights: Float[Array | np.ndarray, "P"],
  x: Float[Array | np.ndarray, "B ..."],
) -> Float[Array, "B O"]:
  """Runs a network of a known family.

  Pure: may be compiled (with `spec` static) and mapped over `weights`.

  Args:
    spec: the network.
    weights: its flat vector.
    x: inputs `[B, I]` of an mlp or inr, images `[B, C, H, W]` otherwise.

  Returns:
    Outputs; of classifiers, logits.

  Raises:
    ValueError: the family cannot be run, or a shape does not fit.
  """
  return run(spec, spec.unflatten(weights), x)


def run(
  spec: spec_lib.NetworkSpec,
  tensors: layers.Tensors,
  x: Float[Array | np.ndarray, "B ..."],
  hidden: layers.Hidden = layers.keep,
  activate: layers.Activate = layers.activated,
  convolve: layers.Convolve = layers.convolution,
) -> Float[Array, "B O"]:
  """Runs a network whose weights are given as tensors, for training.

  Args:
    spec: the network.
    tensors: by name, as `spec.unflatten` gives them.
    x: see `forward`.
    hidden: is called with the number of every hidden level that has an
      activation, and what the level gives, and returns what continues from
      there; dropout, for example.
    activate: is called with the number of a level, the name of its activation,
      the pre-activations and w0, and returns the activations.
    convolve: runs the convolutions of a cnn or a resnet.

  Returns:
    Outputs, as `forward`.
  """
  run_family = _find(spec.family)[1]
  more = {"convolve": convolve} if spec.family in _CONVOLVE else {}
  return run_family(spec, tensors, x, hidden=hidden, activate=activate, **more)


def _find(family: str):
  """Returns the builder and the function that runs a family."""
  if family not in _FAMILIES:
    raise ValueError(
      f"unknown family {family!r}; known are {', '.join(_FAMILIES)}"
    )
  return _FAMILIES[family]
