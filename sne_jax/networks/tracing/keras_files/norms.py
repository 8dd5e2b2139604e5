"""Norms of Keras, and its input statistics."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from sne_jax.networks.tracing.keras_files.layer import Layer, pinned, plays


@plays("BatchNormalization")
def _batch_norm(at, x):
  (place,) = _axes(at, x)
  w = at.take(*_affine(at), "moving_mean", "moving_variance")
  vectors = _vectors(w, norm_mean="moving_mean", norm_var="moving_variance")
  epsilon = at.config.get("epsilon", 1e-3)

  def run(x, v):
    x = (x - v["norm_mean"]) / jnp.sqrt(v["norm_var"] + epsilon)
    return _scaled(x, v)

  return at.m.normalise(x, [place], vectors, run, running=True)


def _affine(at: Layer) -> list[str]:
  names = (("scale", "gamma"), ("center", "beta"))
  return [name for key, name in names if at.config.get(key, True)]


def _vectors(variables: dict[str, Any], **kinds: str) -> dict[str, Any]:
  kinds = {"norm_scale": "gamma", "norm_shift": "beta"} | kinds
  return {k: variables[n] for k, n in kinds.items() if n in variables}


def _scaled(x, vectors):
  return x * vectors.get("norm_scale", 1.0) + vectors.get("norm_shift", 0.0)


def _axes(at: Layer, x: Any, default: Any = -1) -> list[int]:
  """Returns the axes that a norm names, sorted."""
  axis = at.config.get("axis", default)
  axes = [axis] if isinstance(axis, int) else axis
  axes = [p % len(x.shape) for p in axes]
  at.expect(axes == sorted(set(axes)), "the order of its axes is unusual")
  return axes


@plays("LayerNormalization", "RMSNormalization")
def _layer_norm(at, x):
  places, epsilon = _axes(at, x), at.config.get("epsilon", 1e-3)
  rms = at.kind.startswith("RMS")
  if at.config.get("rms_scaling"):
    return pinned(at, x)
  w = at.take(*(["scale"] if rms else _affine(at)))
  vectors = {"norm_scale": w["scale"]} if rms else _vectors(w)

  def run(x, v):
    mean = 0 if rms else x.mean(places, keepdims=True)
    var = ((x - mean) ** 2).mean(places, keepdims=True)
    return _scaled((x - mean) * lax.rsqrt(var + epsilon), v)

  return at.m.normalise(x, places, vectors, run)


@plays("GroupNormalization")
def _group_norm(at, x):
  (place,) = _axes(at, x)
  groups, epsilon = at.config["groups"], at.config.get("epsilon", 1e-3)
  groups = x.shape[place] if groups == -1 else groups
  vectors = _vectors(at.take(*_affine(at)))

  def run(x, v):
    y = jnp.moveaxis(x, place, -1)
    y = y.reshape(*y.shape[:-1], groups, -1)
    over = tuple(p for p in range(1, y.ndim) if p != y.ndim - 2)
    mean, var = (f(y, over, keepdims=True) for f in (jnp.mean, jnp.var))
    y = (y - mean) * lax.rsqrt(var + epsilon)
    y = jnp.moveaxis(y.reshape(*y.shape[:-2], -1), -1, place)
    return _scaled(y, v)

  return at.m.normalise(x, [place], vectors, run, groups=groups)


@plays("UnitNormalization")
def _unit_norm(at, x):
  places = _axes(at, x)

  def run(x, _):
    return x * lax.rsqrt(jnp.maximum((x**2).sum(places, keepdims=True), 1e-12))

  return at.m.normalise(x, places, {}, run)


@plays("Normalization")
def _normalization(at, x):
  places = [] if at.config.get("axis", -1) is None else _axes(at, x)
  if at.config.get("mean") is not None or at.config.get("invert"):
    return pinned(at, x)  # Its statistics are numbers in the settings.
  w = at.take("mean", "variance")
  sizes = tuple(x.shape[p] for p in places)
  vectors = {
    kind: at.m.reshape(w[name], sizes)
    for kind, name in (("norm_mean", "mean"), ("norm_var", "variance"))
  }

  def run(x, v):
    return (x - v["norm_mean"]) / jnp.maximum(jnp.sqrt(v["norm_var"]), 1e-7)

  return at.m.normalise(x, places, vectors, run, running=True)


@plays("LayerScale")
def _layer_scale(at, x):
  gamma = at.take("gamma")["gamma"]
  at.expect(gamma.shape == x.shape[-1:], "it scales other channels")
  shape = (*[1] * (len(x.shape) - 1), *gamma.shape)
  return at.m.combine("multiply", x, at.m.reshape(gamma, shape))
