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
  residual,
  vision_transformer,
)

_FAMILIES = {
  "mlp": (dense.mlp, dense.forward),
  "inr": (dense.inr, dense.forward),
  "cnn": (convolutional.cnn, convolutional.forward),
  "resnet": (residual.resnet, residual.forward),
  "transformer": (vision_transformer.transformer, vision_transformer.forward),
}

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
  return _find(spec.family)[1](spec, weights, x)


def _find(family: str):
  """Returns the builder and the forward function of a family."""
  if family not in _FAMILIES:
    raise ValueError(
      f"unknown family {family!r}; known are {', '.join(_FAMILIES)}"
    )
  return _FAMILIES[family]
