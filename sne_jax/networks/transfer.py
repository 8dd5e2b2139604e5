"""Writing a network into another: new classes, a fresh classifier.

Dimensions: `P` weights of a network, `Q` weights of the target.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.spec import NetworkSpec


def classifier(spec: NetworkSpec) -> tuple[str, ...]:
  """Returns the tensors of the last layer: its weight, and its biases.

  Raises:
    ValueError: the network has no weight tensor.
  """
  weights = [t for t in spec.tensors if t.kind in spec_lib.WEIGHT_KINDS]
  if not weights:
    raise ValueError(f"{spec.describe()} has no weight tensor to reset")
  last = max(weights, key=lambda t: t.level)
  return tuple(t.name for t in spec.tensors if last.name in (t.name, t.of))


def carry_over(
  spec: NetworkSpec,
  weights: Float[Array | np.ndarray, "... P"],
  target: NetworkSpec,
  *,
  new: Sequence[str] = (),
) -> Float[Array | np.ndarray, "... Q"]:
  """Writes a network into an architecture that differs in a few tensors.

  Args:
    spec: of the network.
    weights: its vector; several are written alike.
    target: the architecture to be written.
    new: tensors of the target that are not taken over; they become 0, and are
      the caller's to fill (`reset_classifier`).

  Raises:
    ValueError: another tensor of the target is missing, or has another shape.
  """
  have = spec.unflatten(weights)
  xp = jnp if isinstance(weights, jax.Array) else np
  shapes = {t.name: t.shape for t in spec.tensors}
  values = {}
  for tensor in target.tensors:
    if tensor.name in new:
      lead = weights.shape[:-1]
      values[tensor.name] = xp.zeros((*lead, *tensor.shape), weights.dtype)
      continue
    shape = shapes.get(tensor.name, "missing")
    if shape != tensor.shape:
      raise ValueError(
        f"{tensor.name} of shape {tensor.shape} of {target.describe()} cannot"
        f" be taken from {spec.describe()}, where it is {shape}; tensors that"
        f" may differ: {', '.join(new) or 'none'}"
      )
    values[tensor.name] = have[tensor.name]
  return target.flatten(values, xp)


def reset_classifier(
  spec: NetworkSpec, weights: Float[Array | np.ndarray, "P"], key: PRNGKeyArray
) -> Float[Array, "P"]:
  """Draws the last layer anew, uniform in +-1 / sqrt(fan-in).

  To be used on weights as they run: after standardisation is undone, which
  would rescale the fresh layer.

  Raises:
    ValueError: the vector does not have the spec's length, or no last layer.
  """
  names = classifier(spec)
  fan_in = max(spec.tensor(name).fan_in for name in names)
  values = spec.unflatten(jnp.asarray(weights))
  for name, key_tensor in zip(
    names, jax.random.split(key, len(names)), strict=True
  ):
    bound = fan_in**-0.5
    shape = spec.tensor(name).shape
    values[name] = jax.random.uniform(
      key_tensor, shape, values[name].dtype, -bound, bound
    )
  return spec.flatten(values, jnp)
