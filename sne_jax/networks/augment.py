"""Exact symmetries that are not permutations, and shifts of a signal.

A hidden neuron with an odd activation (tanh, sine) may change its sign, one
with a positively homogeneous activation (relu, leaky relu) its scale, if its
readers undo it. A sine neuron may also have its phase shifted by multiples of
pi. These act on the flat vector by factors, and offsets, of its length.

Which groups may be touched follows from the spec: a group qualifies if one
weight tensor makes it, weight tensors alone read it, and nothing else (norms,
residual streams, attention heads) has it among its axes. Signs, moreover, do
not pass max-pooling: after a convolution they need a spec whose option
`pools` says that there is none.

`zoom`, `translate` and `rotate` change a coordinate network's function in a
known way.

Dimensions: `P` weights, `G` neurons of a group, `I` input coordinates.

References:
  Shamsian et al., Improved Generalization of Weight Space Networks via
  Augmentations, ICML 2024, arXiv:2402.04081; Godfrey et al., On the
  Symmetries of Deep Learning Models and their Internal Representations,
  NeurIPS 2022, arXiv:2205.14258.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.networks import spec as spec_lib

ODD = frozenset({"tanh", "sine"})
"""Activations `f` with `f(-x) = -f(x)`."""

HOMOGENEOUS = frozenset({"relu", "leaky_relu"})
"""Activations `f` with `f(s x) = s f(x)` for `s > 0`."""

UNKNOWN = "unknown"
"""An activation of a spec that says those of other levels only."""


def is_known(spec: spec_lib.NetworkSpec) -> bool:
  """Whether the spec says what comes after all neurons that could move."""
  activations = [_activation(spec, maker) for maker in makers_of(spec).values()]
  return not {None, UNKNOWN} & set(activations)


@functools.lru_cache(maxsize=1024)
def assumed(
  spec: spec_lib.NetworkSpec, activation: str
) -> spec_lib.NetworkSpec:
  """Returns the spec with an activation where it says none.

  Args:
    spec: of files or zoos that do not say how networks are run.
    activation: after every hidden level that is not known; "" changes none.
  """
  if not activation:
    return spec
  said = spec.activations or (*[UNKNOWN] * (spec.num_levels - 1), "none")
  names = tuple(activation if name == UNKNOWN else name for name in said)
  return dataclasses.replace(spec, activations=names)


@functools.lru_cache(maxsize=1024)
def sign_groups(spec: spec_lib.NetworkSpec) -> tuple[str, ...]:
  """Returns the groups whose neurons may change sign."""
  pools = dict(spec.options).get("pools", ())
  return tuple(
    group
    for group, maker in makers_of(spec).items()
    if _activation(spec, maker) in ODD
    and (maker.kind != "conv_weight" or pools[maker.level :][:1] == (1,))
  )


@functools.lru_cache(maxsize=1024)
def scale_groups(spec: spec_lib.NetworkSpec) -> tuple[str, ...]:
  """Returns the groups whose neurons may change scale."""
  return tuple(
    group
    for group, maker in makers_of(spec).items()
    if _activation(spec, maker) in HOMOGENEOUS
  )


def shift_groups(spec: spec_lib.NetworkSpec) -> tuple[str, ...]:
  """Returns the groups whose phases may shift: sine neurons with biases.

  Of a network of no family the factor `w0` is not known, and none may.
  """
  if spec.family == "unknown" and "w0" not in dict(spec.options):
    return ()
  makers = makers_of(spec)
  biased = {t.of for t in spec.tensors}
  return tuple(
    group
    for group in sign_groups(spec)
    if _activation(spec, makers[group]) == "sine"
    and makers[group].name in biased
  )


def draw_signs(
  spec: spec_lib.NetworkSpec,
  rng: np.random.Generator,
  probability: float = 0.5,
) -> Float[np.ndarray, "P"]:
  """Draws signs of neurons, on the host.

  Args:
    spec: the network.
    rng: advanced by the draw.
    probability: with which each neuron of `sign_groups` changes sign.

  Returns:
    `factor` of ones and minus ones: `weights * factor` is the same function.
  """
  signs = {
    group: np.where(rng.random(_size(spec, group)) < probability, -1.0, 1.0)
    for group in sign_groups(spec)
  }
  return signs_from(spec, signs, np)


def signs_from(
  spec: spec_lib.NetworkSpec, signs: Mapping[str, Any], xp: ModuleType
) -> Any:
  """Returns the factor `[P]` of explicit signs.

  Args:
    spec: the network.
    signs: for each group, `[G]` of ones and minus ones; others stay.
    xp: array module of the signs (numpy or jax.numpy).

  Raises:
    ValueError: a group whose signs may not change.
  """
  _check_groups(spec, signs, sign_groups(spec), "sign")
  return factor_of(spec, signs, signs, xp)


def draw_scales(
  spec: spec_lib.NetworkSpec,
  rng: np.random.Generator,
  low: float = 0.5,
  high: float = 2.0,
) -> Float[np.ndarray, "P"]:
  """Draws scales of neurons, log-uniform in `[low, high]`, on the host.

  Returns:
    `factor`: `weights * factor` is the same function.

  Raises:
    ValueError: not `0 < low <= high`.
  """
  if not 0 < low <= high:
    raise ValueError(f"need 0 < low <= high, got low {low}, high {high}")
  bounds = math.log(low), math.log(high)
  scales = {
    group: np.exp(rng.uniform(*bounds, _size(spec, group)))
    for group in scale_groups(spec)
  }
  return scales_from(spec, scales, np)


def scales_from(
  spec: spec_lib.NetworkSpec, scales: Mapping[str, Any], xp: ModuleType
) -> Any:
  """Returns the factor `[P]` of explicit scales; as `signs_from`.

  Scales must be above 0; this is not checked.
  """
  _check_groups(spec, scales, scale_groups(spec), "scale")
  inverse = {group: 1 / xp.asarray(value) for group, value in scales.items()}
  return factor_of(spec, scales, inverse, xp)


def draw_pi_shifts(
  spec: spec_lib.NetworkSpec, rng: np.random.Generator, max_shift: int = 1
) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
  """Draws phase shifts `k pi` of sine neurons, on the host.

  A bias grows by `k pi / w0`, and what reads the neuron changes sign if `k`
  is odd; `k` is uniform in `-max_shift, ..., max_shift`.

  Returns:
    `factor, offset`: `weights * factor + offset` is the same function, up to
    rounding that grows with `max_shift`.

  Raises:
    ValueError: `max_shift` is below 0.
  """
  if max_shift < 0:
    raise ValueError(f"max_shift must be at least 0, got {max_shift}")
  w0 = dict(spec.options).get("w0", 1.0)
  counts = {
    group: rng.integers(-max_shift, max_shift + 1, _size(spec, group))
    for group in shift_groups(spec)
  }
  parities = {group: 1.0 - 2.0 * (k % 2) for group, k in counts.items()}
  factor = factor_of(spec, {}, parities, np)
  makers = makers_of(spec)
  offset = np.zeros(spec.num_weights, np.float32)
  offsets = spec.unflatten(offset)  # Views of it.
  for group, k in counts.items():
    for t in spec.tensors:
      if t.of == makers[group].name:
        offsets[t.name] += (k * math.pi / w0).astype(np.float32)
  return factor, offset


def zoom(
  spec: spec_lib.NetworkSpec,
  weights: Float[Array | np.ndarray, "*N P"],
  factor: float | Float[Array, ""],
) -> Float[Array | np.ndarray, "*N P"]:
  """Stretches the signal of coordinate networks: `x` gives `f(factor x)`.

  Not a symmetry: the signal changes, as described. Multiplies the first
  weight.

  Raises:
    ValueError: the first tensor is no dense weight.
  """
  tensors, xp = _first_dense(spec, weights)
  first = spec.tensors[0].name
  tensors[first] = tensors[first] * factor
  return spec.flatten(tensors, xp)


def translate(
  spec: spec_lib.NetworkSpec,
  weights: Float[Array | np.ndarray, "*N P"],
  shift: Float[Array | np.ndarray, "I"],
) -> Float[Array | np.ndarray, "*N P"]:
  """Moves the signal of coordinate networks: `x` gives `f(x + shift)`.

  Not a symmetry: the signal changes, as described. Adds the first weight
  times `shift` to the first bias.

  Raises:
    ValueError: the first tensor is no dense weight, or has no bias.
  """
  tensors, xp = _first_dense(spec, weights)
  first = spec.tensors[0].name
  biases = [t.name for t in spec.tensors if t.of == first]
  if not biases:
    raise ValueError(
      f"{spec.describe()} has no bias after {first}; translating needs one"
    )
  moved = xp.einsum("...oi,i->...o", tensors[first], xp.asarray(shift))
  tensors[biases[0]] = tensors[biases[0]] + moved.astype(weights.dtype)
  return spec.flatten(tensors, xp)


def rotate(
  spec: spec_lib.NetworkSpec,
  weights: Float[Array | np.ndarray, "*N P"],
  angle: float | Float[Array, ""],
) -> Float[Array | np.ndarray, "*N P"]:
  """Turns the signal of networks of two coordinates: `x` gives `f(R x)`.

  Not a symmetry: the signal changes, as described. Multiplies the first weight
  by `R`, the rotation by `angle` radians, from the first coordinate to the
  second.

  Raises:
    ValueError: the first tensor is no dense weight of two inputs.
  """
  tensors, xp = _first_dense(spec, weights)
  first = spec.tensors[0]
  if first.shape[1] != 2:
    raise ValueError(
      f"{spec.describe()} has {first.shape[1]} inputs; only networks of two"
      " coordinates can be rotated"
    )
  cos, sin = xp.cos(angle), xp.sin(angle)
  turn = xp.stack([xp.stack([cos, -sin]), xp.stack([sin, cos])])
  turned = xp.einsum("...oi,ij->...oj", tensors[first.name], turn)
  tensors[first.name] = turned.astype(weights.dtype)
  return spec.flatten(tensors, xp)


def _first_dense(spec: spec_lib.NetworkSpec, weights):
  """Returns tensors by name and the array module they are of."""
  if spec.tensors[0].kind != "linear_weight":
    raise ValueError(
      f"{spec.describe()} does not begin with a dense layer; only coordinate"
      " networks have a signal to zoom, translate or rotate"
    )
  xp = jnp if isinstance(weights, jax.Array) else np
  return spec.unflatten(weights), xp


@functools.lru_cache(maxsize=1024)
def makers_of(spec: spec_lib.NetworkSpec) -> dict[str, spec_lib.TensorSpec]:
  """Returns the groups that one weight makes and only weights read."""
  makers = {}
  for group in spec.groups:
    having = [t for t in spec.tensors if _has(t.axes, group)]
    weights = [t for t in having if t.kind in spec_lib.WEIGHT_KINDS]
    made_by = [t for t in weights if _has(t.axes[:1], group)]
    if len(made_by) != 1:
      continue
    maker = made_by[0]
    plain = maker.axes[0] == spec_lib.plain_axis(maker.shape[0], group)
    biases = [t for t in having if t.of == maker.name]
    known = len(weights) + len(biases) == len(having)
    norms = any(t.kind.startswith("norm") for t in biases)
    again = _has(maker.axes[1:], group)
    if plain and known and not norms and not again:
      makers[group] = maker
  return makers


def _has(axes: tuple[spec_lib.Axis, ...], group: str) -> bool:
  """Whether a group is in, or around, a factor of the axes."""
  return any(group in (f.group, f.per) for axis in axes for f in axis)


def _activation(
  spec: spec_lib.NetworkSpec, maker: spec_lib.TensorSpec
) -> str | None:
  """Returns the activation after a tensor, if the spec says."""
  return spec.activations[maker.level] if spec.activations else None


def _size(spec: spec_lib.NetworkSpec, group: str) -> int:
  return spec.groups[group][0]


def _check_groups(
  spec: spec_lib.NetworkSpec,
  given: Mapping[str, Any],
  allowed: tuple[str, ...],
  what: str,
) -> None:
  for group, value in given.items():
    if group not in allowed:
      raise ValueError(
        f"the {what} of group {group!r} of {spec.describe()} may not change;"
        f" groups that allow it: {', '.join(allowed) or 'none'}"
      )
    if value.shape != (_size(spec, group),):
      raise ValueError(
        f"group {group!r} has {_size(spec, group)} neurons, got an array of"
        f" shape {value.shape}"
      )


def factor_of(
  spec: spec_lib.NetworkSpec,
  written: Mapping[str, Any],
  read: Mapping[str, Any],
  xp: ModuleType,
) -> Any:
  """Returns `[P]`: `written` along outputs of groups, `read` along inputs."""
  parts = []
  for t in spec.tensors:
    factor = xp.ones((1,) * len(t.shape), xp.float32)
    for place, axis in enumerate(t.axes):
      along = [1] * len(t.shape)
      along[place] = t.shape[place]
      vector = _axis_factor(axis, read if place else written, xp)
      factor = factor * vector.reshape(along)
    parts.append(factor.reshape(-1))
  return xp.concatenate(parts).astype(xp.float32)


def _axis_factor(
  axis: spec_lib.Axis, values: Mapping[str, Any], xp: ModuleType
) -> Any:
  """Returns the factor of every place of an axis."""
  vector = xp.ones((1,), xp.float32)
  for factor in axis:
    factors = xp.ones((factor.size,), xp.float32)
    if factor.group is not None and factor.group in values:
      factors = values[factor.group]
    vector = (vector[:, None] * factors[None, :]).reshape(-1)
  return vector
