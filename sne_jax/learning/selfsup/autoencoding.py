"""What the self-supervised models are trained on: views, and their losses.

A loss is a function of parameters, two views and a key; it returns the total
and its parts, so that any training loop can take its gradient.

Dimensions: `B` networks of `P` weights; windows of `T` tokens of `C` entries.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sne_jax.encoders.tokens import hyper_representation, sane
from sne_jax.learning.selfsup import contrast, views
from sne_jax.networks import tokens, windows

Parts = dict[str, Float[Array, ""]]
"""Losses by name: `contrast`, `reconstruction`, `explained`."""


class WindowViews(NamedTuple):
  """The same window of two views of networks.

  Attributes:
    first: tokens of the first views.
    second: of the second.
    mask: where there are weights; the same in both.
    positions: likewise.
  """

  first: Float[Array, "*B T C"]
  second: Float[Array, "*B T C"]
  mask: Bool[Array, "*B T C"]
  positions: Int[Array, "*B T 3"]


def make_window_sampler(
  layout: tokens.TokenLayout,
  size: int,
  first: views.ViewOptions,
  second: views.ViewOptions,
) -> Callable[[PRNGKeyArray, Float[Array, "P"]], WindowViews]:
  """Returns `sample(key, weights) -> WindowViews`, of one network. Pure.

  As intended by the authors, the first view is canonical (`permute=False`,
  on aligned networks) and the second permuted.

  Args:
    layout: tokens of the networks.
    size: tokens of a window; a network of fewer is padded.
    first: of the first view.
    second: of the second view.
  """
  spec = layout.spec
  if len(layout) < size:
    layout = tokens.pad(layout, size)
  samplers = [
    views.make_view_sampler(spec, options) for options in (first, second)
  ]
  positions, mask = jnp.asarray(layout.positions), jnp.asarray(layout.mask)

  def sample(key: PRNGKeyArray, weights: Float[Array, "P"]) -> WindowViews:
    key_window, *keys = jax.random.split(key, 3)
    window = windows.draw(key_window, len(layout), size)
    index, real = jnp.asarray(layout.index)[window], mask[window]
    one, other = (
      jnp.where(real, draw(key_view, weights)[index], 0.0)
      for draw, key_view in zip(samplers, keys, strict=True)
    )
    return WindowViews(one, other, real, positions[window])

  return sample


def sane_loss(
  module: sane.SANE,
  params: Any,
  options: contrast.ContrastOptions,
  batch: WindowViews,
) -> tuple[Float[Array, ""], Parts]:
  """Returns the loss of SANE, and its parts.

  Both views are encoded, projected and reconstructed; each is its own target.

  Args:
    module: the autoencoder.
    params: its parameters.
    options: of the loss.
    batch: windows, stacked over networks.
  """
  both = jnp.concatenate([batch.first, batch.second])
  positions = jnp.concatenate([batch.positions] * 2)
  mask = jnp.concatenate([batch.mask] * 2)
  outputs: Any = module.apply({"params": params}, both, positions, mask.any(-1))
  _, y, projected = outputs
  one, other = jnp.split(projected, 2)
  contrasted = contrast.contrast(options, one, other)
  error = contrast.reconstruction(options, y, both, mask)
  mean = jnp.mean(both, axis=0, where=mask, keepdims=True)
  mean = jnp.where(mask.any(axis=0, keepdims=True), mean, 0.0)
  explained = contrast.explained(y, both, mask, mean)
  return _total(options, contrasted, error, explained)


def hyper_loss(
  module: hyper_representation.Autoencoder,
  params: Any,
  options: contrast.ContrastOptions,
  first: Float[Array, "B P"],
  second: Float[Array, "B P"],
  key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, ""], Parts]:
  """Returns the loss of hyper-representations, and its parts.

  Each view is its own target. The views are projected one after the other, so
  each is normed by its own statistics.

  Args:
    module: the autoencoder.
    params: its parameters.
    options: of the loss.
    first: first views.
    second: second views of the same networks.
    key: of dropout; None: none is dropped.
  """
  both = jnp.concatenate([first, second])
  rngs = None if key is None else {"dropout": key}

  def apply(method: str, *args) -> Any:
    return module.apply({"params": params}, *args, method=method, rngs=rngs)

  z = apply("encode", both, key is None)
  y = apply("decode", z, key is None)
  one, other = (apply("project", part) for part in jnp.split(z, 2))
  contrasted = contrast.contrast(options, one, other)
  everything = np.ones((1, 1), bool)
  error = contrast.reconstruction(options, y, both, everything)
  mean = jnp.mean(both, axis=0, keepdims=True)
  explained = contrast.explained(y, both, everything, mean)
  return _total(options, contrasted, error, explained)


def _total(
  options: contrast.ContrastOptions, contrasted, error, explained
) -> tuple[Float[Array, ""], Parts]:
  """Returns the mixed loss, and its parts."""
  loss = contrast.total(options.gamma, contrasted, error)
  names = ("contrast", "reconstruction", "explained")
  return loss, dict(zip(names, (contrasted, error, explained), strict=True))
