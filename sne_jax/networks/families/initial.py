"""Initial weights of any spec.

Dimensions: `P` weights of a network, `R` rows and `C` columns of a matrix.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sne_jax.networks import spec as spec_lib

_UNIFORM = ("siren", "glorot_uniform", "he_uniform", "fan_in_uniform")
_TRUNCATED = ("glorot_normal", "he_normal", "lecun_normal", "truncated_normal")

SCHEMES = ("default", *_UNIFORM, *_TRUNCATED, "normal", "orthogonal")
"""How weights may be drawn, for `init`."""

BIASES = ("constant", "fan_in_uniform")
"""How biases may be drawn, for `init`."""

_DEFAULTS = {
  "inr": "siren",
  "resnet": "he_normal",
  "transformer": "truncated_normal",
}

_TABLE_STD = 0.02  # Of embeddings, class tokens and positions.

_CUT_STD = 0.87962566  # Of a standard normal cut at two deviations.


def init(
  spec: spec_lib.NetworkSpec,
  key: PRNGKeyArray,
  scheme: str = "default",
  *,
  std: float | Float[Array, ""] = 0.02,
  bias: float | Float[Array, ""] = 0.0,
  biases: str = "constant",
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
      draws all from the latter. The scheme's normals are cut at two
      deviations; all but truncated_normal then rescaled.
    std: deviation for "normal" and, before the cut, "truncated_normal". May
      be traced, so that it can differ between networks mapped over.
    bias: the value of all biases, where they are constant; may be traced.
    biases: one of `BIASES`, static. "fan_in_uniform" draws those of a weight
      from U(+-1 / sqrt(fan_in)) of that weight, as PyTorch does.

  Raises:
    ValueError: unknown scheme, of weights or of biases.
  """
  for value, known in ((scheme, SCHEMES), (biases, BIASES)):
    if value not in known:
      raise ValueError(
        f"unknown scheme {value!r}; known are {', '.join(known)}"
      )
  if scheme == "default":
    scheme = _DEFAULTS.get(spec.family, "glorot_uniform")
  key_weights, key_tables = jax.random.split(key)
  if biases == "fan_in_uniform":
    key_tables, key_biases = jax.random.split(key_tables)
    shares = _draw(spec, key_biases, biases)
    offsets = spec.unflatten(shares)
    fans = {t.name: t.fan_in for t in spec.tensors}
  else:
    offsets, fans = {}, {}
  drawn = spec.unflatten(_draw(spec, key_weights, scheme))
  tables = ("embedding", "class_token", "position")
  if any(t.kind in tables for t in spec.tensors):
    normal = jax.random.normal(key_tables, (spec.num_weights,))
    table_values = spec.unflatten(_TABLE_STD * normal)
  else:
    table_values = {}
  values = {}
  for t in spec.tensors:
    if t.kind in spec_lib.WEIGHT_KINDS:
      values[t.name] = drawn[t.name] * _spread(spec, t, scheme, std)
    elif t.kind in tables:
      values[t.name] = table_values[t.name]
    elif t.kind.endswith("_bias") and t.of in fans:
      values[t.name] = offsets[t.name] / math.sqrt(fans[t.of])
    elif t.kind.endswith("_bias"):
      values[t.name] = jnp.broadcast_to(jnp.asarray(bias), t.shape)
    else:
      one = t.kind in ("norm_scale", "norm_var")
      values[t.name] = jnp.full(t.shape, 1.0 if one else 0.0)
  return spec.flatten(values, jnp).astype(jnp.float32)


def _draw(
  spec: spec_lib.NetworkSpec, key: PRNGKeyArray, scheme: str
) -> Float[Array, "P"]:
  """Draws all places at once from the unit distribution of a scheme."""
  if scheme == "orthogonal":
    keys = jax.random.split(key, len(spec.tensors))
    rows = [(t.size // t.fan_in, t.fan_in) for t in spec.tensors]
    return jnp.concatenate(
      [
        _orthogonal(k, *shape).reshape(-1)
        if t.kind in spec_lib.WEIGHT_KINDS
        else jnp.zeros(t.size)
        for k, shape, t in zip(keys, rows, spec.tensors, strict=True)
      ]
    )
  shape = (spec.num_weights,)
  if scheme in _UNIFORM:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
  if scheme in _TRUNCATED:
    return jax.random.truncated_normal(key, -2.0, 2.0, shape) / _CUT_STD
  return jax.random.normal(key, shape)


def _orthogonal(
  key: PRNGKeyArray, rows: int, columns: int
) -> Float[Array, "R C"]:
  """Draws a matrix with orthonormal rows, or columns if those are fewer.

  Evenly among all such: Gram-Schmidt, twice, on normal vectors. Without LAPACK,
  two of whose batched factorizations in one program wait for each other for
  ever on a CPU of two cores.
  """
  count, width = sorted((rows, columns))
  drawn = jax.random.normal(key, (count, width))

  def body(place, basis):
    vector = drawn[place]
    for _ in range(2):
      vector = vector - (basis @ vector) @ basis
    return basis.at[place].set(vector / jnp.linalg.norm(vector))

  basis = jax.lax.fori_loop(0, count, body, jnp.zeros((count, width)))
  return basis if rows <= columns else basis.T


def _spread(
  spec: spec_lib.NetworkSpec,
  weight: spec_lib.TensorSpec,
  scheme: str,
  std: float | Float[Array, ""],
) -> float | Float[Array, ""]:
  """Returns the deviation, or the bound if uniform, of a weight tensor."""
  fan_in = weight.fan_in
  fan_out = weight.size // weight.shape[1]
  if scheme == "siren" and weight.level < spec.num_levels - 1:
    return math.sqrt(6 / fan_in) / dict(spec.options).get("w0", 1.0)
  return {
    "siren": 1 / math.sqrt(fan_in),
    "fan_in_uniform": 1 / math.sqrt(fan_in),
    "glorot_uniform": math.sqrt(6 / (fan_in + fan_out)),
    "glorot_normal": math.sqrt(2 / (fan_in + fan_out)),
    "he_uniform": math.sqrt(6 / fan_in),
    "he_normal": math.sqrt(2 / fan_in),
    "lecun_normal": math.sqrt(1 / fan_in),
    "truncated_normal": std * _CUT_STD,
    "normal": std,
    "orthogonal": 1.0,
  }[scheme]
