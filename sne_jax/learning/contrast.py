"""Losses without labels: contrast of two views, and reconstruction.

`total` mixes them: `gamma` times contrast plus `1 - gamma` times
reconstruction; at the ends of gamma the other is left out altogether.

Dimensions: `B` networks, each with two views; `D` width of a projection; `P`
weights of a network, `L` layers; `...` any axes.

References:
  Chen et al., A Simple Framework for Contrastive Learning of Visual
  Representations, ICML 2020, arXiv:2002.05709 (NT-Xent); Schuerholt et al.,
  NeurIPS 2021, arXiv:2110.15288, NeurIPS 2022, arXiv:2209.14733 (layer-wise
  normalisation) and ICML 2024, arXiv:2406.09997 (masks).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

CONTRASTS = ("nt_xent", "positive", "positive_reference")
RECONSTRUCTIONS = ("mse", "normalised")
WEIGHTINGS = ("global_mean", "layer_mean")
OVER = ("real", "all")

_SMALL = 1e-8  # Norms below it count as this in a cosine.
_OFF = 1e-10  # A share of the loss below it is left out.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastOptions:
  """Which losses are mixed, and how.

  Raises:
    ValueError: a value is out of its range; the message names it.
  """

  gamma: float = 0.05  # Share of contrast: 0 reconstructs, 1 contrasts only.
  # nt_xent: pairs against all others. positive: pairs alone are drawn together.
  # positive_reference: as coded by the authors; it makes pairs orthogonal.
  contrast: str = "nt_xent"
  temperature: float = 0.1  # Cosines are divided by it.
  # mse, or normalised: by the mean and deviation of the batch's real targets,
  # for zoos that were not standardised.
  reconstruction: str = "mse"
  # Entries whose squared errors are averaged: real ones, or all, padding too
  # (as the authors do; padded batches then count less).
  over: str = "real"
  code_variance: float = 0.0  # Weight of the codes' variance over the batch.
  code_norm: float = 0.0  # Weight of the codes' mean norm.

  def __post_init__(self):
    if not 0 <= self.gamma <= 1:
      raise ValueError(f"gamma is a share in [0, 1], got {self.gamma}")
    if not self.temperature > 0:
      raise ValueError(f"temperature must be above 0, got {self.temperature}")
    _one_of("contrast", self.contrast, CONTRASTS)
    _one_of("reconstruction", self.reconstruction, RECONSTRUCTIONS)
    _one_of("over", self.over, OVER)
    for name in ("code_variance", "code_norm"):
      if not getattr(self, name) >= 0:
        raise ValueError(
          f"{name} must be at least 0 (0: off), got {getattr(self, name)}"
        )


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
  _one_of("over", over, OVER)
  mask = jnp.broadcast_to(mask, prediction.shape)
  error = jnp.where(mask, prediction, 0.0) - jnp.where(mask, target, 0.0)
  count = mask.size if over == "all" else jnp.maximum(jnp.sum(mask), 1)
  return jnp.sum(jnp.square(error)) / count


def normalised_mse(
  prediction: Float[Array, "..."],
  target: Float[Array, "..."],
  mask: Bool[Array | np.ndarray, "..."],
  *,
  over: str = "real",
  epsilon: float = 1e-4,
) -> Float[Array, ""]:
  """`masked_mse` over the variance of the batch's real targets.

  Both are standardised by the mean and deviation of the real targets, so zoos
  of any scale give losses of one scale; the mean cancels. No gradient flows
  into the statistics.

  Args:
    prediction: as in `masked_mse`.
    target: as in `masked_mse`.
    mask: as in `masked_mse`.
    over: as in `masked_mse`.
    epsilon: added to the deviation.
  """
  mask = jnp.broadcast_to(mask, target.shape)
  spread = jnp.std(target, where=mask) + epsilon
  error = masked_mse(prediction, target, mask, over=over)
  return error / jnp.square(spread)


def layerwise_mse(
  prediction: Float[Array, "B P"],
  target: Float[Array, "B P"],
  layer: Int[np.ndarray, "P"],
  deviation: Float[np.ndarray, "L"],
  *,
  weighting: str = "global_mean",
) -> Float[Array, ""]:
  """Squared error of each layer over the layer's variance.

  Args:
    prediction: reconstructed networks.
    target: the networks.
    layer: each weight's layer (`tokens.layer_of`); weights of -1 count for
      nothing.
    deviation: of each layer, of training networks (`standardise.measure`).
    weighting: global_mean (all weights count alike) or layer_mean (all layers
      count alike; their means are added up).

  Raises:
    ValueError: unknown weighting, or a layer without deviation.
  """
  _one_of("weighting", weighting, WEIGHTINGS)
  if layer.max() >= len(deviation):
    raise ValueError(
      f"{len(deviation)} deviations for {layer.max() + 1} layers; give one each"
    )
  sizes = np.bincount(layer[layer >= 0], minlength=len(deviation))
  count = (
    sizes if weighting == "layer_mean" else np.full_like(sizes, sizes.sum())
  )
  share = np.where(layer >= 0, (1 / np.maximum(count, 1))[layer], 0)
  inverse = np.where(layer >= 0, (1 / np.asarray(deviation))[layer], 0)
  error = (prediction - target) * inverse.astype(prediction.dtype)[None]
  error = jnp.square(error)
  return jnp.mean(jnp.sum(error * share.astype(error.dtype)[None], axis=1))


def reconstruction(
  options: ContrastOptions,
  prediction: Float[Array, "..."],
  target: Float[Array, "..."],
  mask: Bool[Array | np.ndarray, "..."],
) -> Float[Array, ""]:
  """Returns the reconstruction loss that the options name."""
  normalised = options.reconstruction == "normalised"
  function = normalised_mse if normalised else masked_mse
  return function(prediction, target, mask, over=options.over)


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


def penalty(
  options: ContrastOptions, codes: Float[Array, "B D"]
) -> Float[Array, ""]:
  """Returns the penalties on codes: their variance, and their mean norm."""
  found = jnp.zeros((), codes.dtype)
  if options.code_variance:
    spread = jnp.var(codes, axis=0, ddof=min(1, codes.shape[0] - 1))
    found = found + options.code_variance * jnp.mean(spread)
  if options.code_norm:
    square = jnp.sum(jnp.square(codes), axis=1)
    found = found + options.code_norm * jnp.mean(jnp.sqrt(square + _SMALL**2))
  return found


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


def _one_of(name, value, known):
  if value not in known:
    raise ValueError(f"unknown {name} {value!r}; known are {', '.join(known)}")
