"""Batch norm, folded into the weight before it.

At inference batch norm is an affine map of each channel; a convolution or
dense layer followed by it is a convolution or dense layer. Layer norm is no
such map and stays.

Dimensions: `P` weights of a network, `Q` weights of the folded one.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.networks import spec as spec_lib

Weights = Float[Array | np.ndarray, "..."]

_BIAS_KINDS = {"linear_weight": "linear_bias", "conv_weight": "conv_bias"}

_PARTS = ("norm_scale", "norm_shift", "norm_mean", "norm_var")


def fold_norms(
  spec: spec_lib.NetworkSpec,
) -> tuple[spec_lib.NetworkSpec, Callable[[Weights], Weights]]:
  """Returns the spec without batch norms, and the map of weights to it.

  A weight with a batch norm is multiplied by `scale / sqrt(var + eps)`, and
  its bias takes the rest; a layer without a bias is given one. `eps` is the
  spec's option `norm_eps`, or 1e-5.

  Returns:
    `folded_spec, fold`: `fold(weights [..., P]) -> [..., Q]`, differentiable,
    on numpy and JAX arrays. The folded network is the same function. A spec
    without batch norms comes back as it is.

  Raises:
    ValueError: a norm after a weight lacks one of its running statistics, or
      the name of a bias to be added is taken.
  """
  norms = {t.name: _norm_of(spec, t) for t in spec.tensors}
  norms = {name: parts for name, parts in norms.items() if parts}
  dropped = {part for parts in norms.values() for part in parts.values()}
  biases = {
    t.of: t.name
    for t in spec.tensors
    if t.of in norms and t.name not in dropped
  }
  tensors = []
  for t in spec.tensors:
    if t.name in dropped:
      continue
    tensors.append(t)
    if t.name in norms and t.name not in biases:
      bias = _bias_after(spec, t)
      biases[t.name] = bias.name
      tensors.append(bias)
  folded = dataclasses.replace(spec, tensors=tuple(tensors))
  eps = dict(spec.options).get("norm_eps", 1e-5)

  def fold(weights: Weights) -> Weights:
    values = spec.unflatten(weights)
    xp = jnp if isinstance(weights, jax.Array) else np
    for name, parts in norms.items():
      mean, var = values[parts["norm_mean"]], values[parts["norm_var"]]
      factor = 1 / xp.sqrt(var + xp.asarray(eps, var.dtype))
      if "norm_scale" in parts:
        factor = factor * values[parts["norm_scale"]]
      bias = values.get(biases[name], xp.zeros_like(mean))
      bias = (bias - mean) * factor
      if "norm_shift" in parts:
        bias = bias + values[parts["norm_shift"]]
      weight = values[name]
      along = factor.shape + (1,) * (weight.ndim - factor.ndim)
      values[name] = weight * factor.reshape(along)
      values[biases[name]] = bias
    return folded.flatten(values, xp)

  return folded, fold


def _norm_of(
  spec: spec_lib.NetworkSpec, weight: spec_lib.TensorSpec
) -> dict[str, str]:
  """Returns the names of the batch norm vectors after a weight, by kind."""
  parts = {
    t.kind: t.name
    for t in spec.tensors
    if t.of == weight.name and t.kind in _PARTS
  }
  lacking = {"norm_mean", "norm_var"} - set(parts)
  if parts and (lacking or weight.kind not in _BIAS_KINDS):
    raise ValueError(
      f"the norm {', '.join(parts.values())} after {weight.name!r}"
      f" ({weight.kind}) cannot be folded: that takes a dense or convolution"
      " weight and running mean and variance; a layer norm has `of` None"
    )
  return parts


def _bias_after(
  spec: spec_lib.NetworkSpec, weight: spec_lib.TensorSpec
) -> spec_lib.TensorSpec:
  """Returns a new bias for a weight that has none."""
  name = f"{weight.name.removesuffix('.weight')}.bias"
  if any(t.name == name for t in spec.tensors):
    raise ValueError(
      f"{weight.name!r} needs a bias, but the name {name!r} is taken"
    )
  return spec_lib.TensorSpec(
    name=name,
    kind=_BIAS_KINDS[weight.kind],
    shape=weight.shape[:1],
    level=weight.level,
    axes=weight.axes[:1],
    of=weight.name,
    branch=weight.branch,
  )
