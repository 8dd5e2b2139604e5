"""Initial weights of any spec.

Dimensions: `P` weights of a network.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sne_jax.networks import spec as spec_lib

_LIKE_JAX = {
  "glorot_uniform": jax.nn.initializers.glorot_uniform(1, 0),
  "glorot_normal": jax.nn.initializers.glorot_normal(1, 0),
  "he_uniform": jax.nn.initializers.he_uniform(1, 0),
  "he_normal": jax.nn.initializers.he_normal(1, 0),
}

SCHEMES = ("default", "siren", *_LIKE_JAX, "fan_in_uniform") + (
  "orthogonal",
  "normal",
  "truncated_normal",
)
"""How weights may be drawn, for `init`."""

_DEFAULTS = {
  "inr": "siren",
  "resnet": "he_normal",
  "transformer": "truncated_normal",
}

_TABLE_STD = 0.02  # Of embeddings, class tokens and positions.


def init(
  spec: spec_lib.NetworkSpec,
  key: PRNGKeyArray,
  scheme: str = "default",
  *,
  std: float | Float[Array, ""] = 0.02,
  bias: float | Float[Array, ""] = 0.0,
) -> Float[Array, "P"]:
  """Draws the weights of a fresh network.

  Norm layers begin as the identity; embeddings, class tokens and positions
  are normal with deviation 0.02.

  Args:
    spec: the network.
    key: consumed.
    scheme: one of `SCHEMES`, static. "default" is siren for an inr, he_normal
      for a resnet, truncated_normal for a transformer, and glorot_uniform
      otherwise. "siren" draws all but the last weight from U(+-sqrt(6 /
      fan_in) / w0) and the last from U(+-1 / sqrt(fan_in)); "fan_in_uniform"
      draws all from the latter.
    std: deviation for "normal" and "truncated_normal" (which is cut at two
      deviations, not rescaled). May be traced, so that it can differ between
      networks mapped over.
    bias: the value of all biases; may be traced.

  Raises:
    ValueError: unknown scheme.
  """
  if scheme not in SCHEMES:
    raise ValueError(
      f"unknown scheme {scheme!r}; known are {', '.join(SCHEMES)}"
    )
  if scheme == "default":
    scheme = _DEFAULTS.get(spec.family, "glorot_uniform")
  last = max(t.level for t in spec.tensors)
  keys = jax.random.split(key, len(spec.tensors))
  values = []
  for key_tensor, t in zip(keys, spec.tensors, strict=True):
    if t.kind in spec_lib.WEIGHT_KINDS:
      draw = _weight_drawer(spec, scheme, t.level == last, std)
      value = draw(key_tensor, t.shape)
    elif t.kind.endswith("_bias"):
      value = jnp.broadcast_to(jnp.asarray(bias, jnp.float32), t.shape)
    elif t.kind in ("norm_scale", "norm_var"):
      value = jnp.ones(t.shape)
    elif t.kind in ("embedding", "class_token", "position"):
      value = _TABLE_STD * jax.random.normal(key_tensor, t.shape)
    else:
      value = jnp.zeros(t.shape)
    values.append(value.reshape(-1).astype(jnp.float32))
  return jnp.concatenate(values)


def random_weights(
  spec: spec_lib.NetworkSpec, key: PRNGKeyArray
) -> Float[Array, "P"]:
  """Draws weights in which no tensor is special, for checks of functions.

  Unlike fresh weights, biases and norm statistics are random too, so that
  ignoring one of them shows.
  """
  key_init, key_noise = jax.random.split(key)
  scheme = "siren" if spec.family == "inr" else "he_normal"
  tensors = spec.unflatten(init(spec, key_init, scheme))
  keys = jax.random.split(key_noise, len(spec.tensors))
  for key_tensor, t in zip(keys, spec.tensors, strict=True):
    if t.kind in ("norm_scale", "norm_var"):
      low_high = {"minval": 0.5, "maxval": 1.5}
      value = jax.random.uniform(key_tensor, t.shape, **low_high)
    elif t.kind not in spec_lib.WEIGHT_KINDS:
      value = 0.3 * jax.random.normal(key_tensor, t.shape)
    else:
      continue
    tensors[t.name] = value
  return spec.flatten(tensors, jnp)


def _weight_drawer(
  spec: spec_lib.NetworkSpec, scheme: str, is_last: bool, std
) -> Callable[[PRNGKeyArray, tuple[int, ...]], Array]:
  """Returns `(key, shape) -> values` for a weight of axes out, in, ..."""

  def uniform(key, shape):
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    if scheme == "siren" and not is_last:
      bound = math.sqrt(6) * bound / dict(spec.options).get("w0", 1.0)
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

  def normal(key, shape):
    return std * jax.random.normal(key, shape)

  def truncated_normal(key, shape):
    return std * jax.random.truncated_normal(key, -2, 2, shape)

  def orthogonal(key, shape):
    matrix = (shape[0], math.prod(shape[1:]))
    return jax.nn.initializers.orthogonal()(key, matrix).reshape(shape)

  own = {
    "siren": uniform,
    "fan_in_uniform": uniform,
    "normal": normal,
    "truncated_normal": truncated_normal,
    "orthogonal": orthogonal,
  }
  return (own | _LIKE_JAX)[scheme]
