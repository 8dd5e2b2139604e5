"""Losses without labels: contrast of two views, and reconstruction.

`total` mixes them: `gamma` times contrast plus `1 - gamma` times
reconstruction; at the ends of gamma the other is left out altogether.

Dimensions: `B` networks, each with two views; `D` width of a projection; `P`
weights of a network; `...` any axes.

References:
  Chen et al., A Simple Framework for Contrastive Learning of Visual
  Representations, ICML 2020, arXiv:2002.05709 (NT-Xent); Schuerholt et al.,
  NeurIPS 2021, arXiv:2110.15288, and ICML 2024, arXiv:2406.09997 (masks).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sne_jax.networks.checked import Checked, option

_SMALL = 1e-8  # Norms below it count as this in a cosine.
_OFF = 1e-10  # A share of the loss below it is left out.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastOptions(Checked):
  """Which losses are mixed, and how.

  Attributes:
    gamma: share of contrast: 0 reconstructs, 1 contrasts only.
    contrast: nt_xent: pairs against all others. positive: pairs alone are drawn
      together. positive_reference: as coded by the authors; it makes pairs
      orthogonal.
    temperature: cosines are divided by it.
    over: entries whose squared errors are averaged: real ones, or all, padding
      too (as the authors do; padded batches then count less).

  Raises:
    ValueError: a value is out of its range; the message names it.
  """

  gamma: float = option(0.05, least=0, most=1)
  contrast: str = option(
    "nt_xent", choices=("nt_xent", "positive", "positive_reference")
  )
  temperature: float = option(0.1, above=0)
  over: str = option("real", choices=("real", "all"))


def nt_xent(
  first: Float[Array, "B D"],
  second: Float[Array, "B D"],
  *,
  temperature: float = 0.1,
) -> Float[Array, ""]:
  """Normalised temperature-scaled cross-entropy of pairs of views, in nats.

  Each view is to be told, by its cosine, which of the `2 B - 1` others is its
  pair.

  Args:
    first: projections of the first views.
    second: of the second views, in the same order.
    temperature: cosines are divided by it.

  Returns:
    The mean over views; 0 for a single network, which has no negatives.
  """
  _check_pair(first, second)
  count = first.shape[0]
  z = _unit(jnp.concatenate([first, second]))
  others = ~np.eye(2 * count, dtype=bool)
  raised = jnp.where(others, z @ z.T / temperature, -jnp.inf)
  pair = jnp.sum(z * jnp.roll(z, count, axis=0), axis=1) / temperature
  return jnp.mean(jax.nn.logsumexp(raised, axis=1) - pair)


def positive(
  first: Float[Array, "B D"],
  second: Float[Array, "B D"],
  *,
  temperature: float = 0.1,
) -> Float[Array, ""]:
  """Minus the mean cosine of pairs, over the temperature; no negatives."""
  _check_pair(first, second)
  return -jnp.mean(jnp.sum(_unit(first) * _unit(second), axis=1)) / temperature


def positive_reference(
  first: Float[Array, "B D"],
  second: Float[Array, "B D"],
  *,
  temperature: float = 0.1,
) -> Float[Array, ""]:
  """What the authors' code has for `positive`; for parity.

  The mean squared cosine over the temperature, divided by `2 B`: least where
  pairs are orthogonal.
  """
  _check_pair(first, second)
  cosine = jnp.sum(_unit(first) * _unit(second), axis=1) / temperature
  return jnp.mean(jnp.square(cosine)) / (2 * first.shape[0])


_CONTRASTS = {
  "nt_xent": nt_xent,
  "positive": positive,
  "positive_reference": positive_reference,
}


def contrast(
  options: ContrastOptions,
  first: Float[Array, "B D"],
  second: Float[Array, "B D"],
) -> Float[Array, ""]:
  """Returns the contrast loss that the options name."""
  function = _CONTRASTS[options.contrast]
  return function(first, second, temperature=options.temperature)


def masked_mse(
  prediction: Float[Array, "..."],
  target: Float[Array, "..."],
  mask: Bool[Array | np.ndarray, "..."],
  *,
  over: str = "real",
) -> Float[Array, ""]:
  """Mean squared error of the entries where the mask is True.

  Args:
    prediction: anything finite or not where the mask is False.
    target: true entries.
    mask: entries that count.
    over: the sum is divided by the number of real entries, or (all, as the
      authors do) of all entries, padding included.
  """
  mask = jnp.broadcast_to(mask, prediction.shape)
  error = jnp.where(mask, prediction, 0.0) - jnp.where(mask, target, 0.0)
  count = mask.size if over == "all" else jnp.maximum(jnp.sum(mask), 1)
  return jnp.sum(jnp.square(error)) / count


def reconstruction(
  options: ContrastOptions,
  prediction: Float[Array, "..."],
  target: Float[Array, "..."],
  mask: Bool[Array | np.ndarray, "..."],
) -> Float[Array, ""]:
  """Returns the reconstruction loss that the options name."""
  return masked_mse(prediction, target, mask, over=options.over)


def total(
  gamma: float, contrast: Float[Array, ""], reconstruction: Float[Array, ""]
) -> Float[Array, ""]:
  """Returns `gamma contrast + (1 - gamma) reconstruction`.

  A part whose share is 0 is left out: not even its nan gets in.
  """
  if gamma < _OFF:
    return reconstruction
  if 1 - gamma < _OFF:
    return contrast
  return gamma * contrast + (1 - gamma) * reconstruction


def explained(
  prediction: Float[Array, "..."],
  target: Float[Array, "..."],
  mask: Bool[Array | np.ndarray, "..."],
  baseline: Float[Array, "..."] | Float[np.ndarray, "..."],
) -> Float[Array, ""]:
  """R^2 of reconstructions: 1 - squared error over that of a baseline.

  Args:
    prediction: reconstructions.
    target: what was to be reconstructed.
    mask: entries that count.
    baseline: a prediction without an encoder, of the shape of the target: the
      mean of the training networks, for example.
  """
  error = masked_mse(prediction, target, mask)
  whole = masked_mse(jnp.broadcast_to(baseline, target.shape), target, mask)
  return 1 - error / jnp.where(whole > 0, whole, 1.0)


def _unit(z):
  """Scales rows to norm 1; rows of zeros stay, with finite gradients."""
  square = jnp.sum(jnp.square(z), axis=1, keepdims=True)
  return z / jnp.sqrt(jnp.maximum(square, _SMALL**2))


def _check_pair(first, second) -> None:
  """Raises unless both views are of as many networks."""
  if first.ndim != 2 or first.shape != second.shape:
    raise ValueError(
      "the views must both be of one shape [B, D], got"
      f" {first.shape} and {second.shape}"
    )
