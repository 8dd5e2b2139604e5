"""What of a network's answers is read: of outputs, of units, of levels.

Nothing here knows the order of a level's units. With `invariant` features
nothing knows the order of classes either, so that what is learned on one data
set says something on another, of any number of classes. `survey` and its like
know no order of inputs either: they say how answers are distributed.

Dimensions: `N` networks, `K` inputs, `O` outputs, `U` units, `G` places of a
grid, `R` learned mixtures of inputs.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SORTED = 10
"""Log-probabilities of an input that are kept, the largest first."""

LEAST = -20.0
"""Log-probabilities are cut off here."""

UNIT_STATISTICS = 7


def squeezed(x):
  """Returns `x` where it is small, and its logarithm where it is large."""
  return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def values(outputs, count: int, *, classes: bool):
  """Returns outputs in their order, `[N, K * count]`, cut or filled with 0.

  Args:
    outputs: `[N, K, O]`.
    count: outputs of an input that are kept.
    classes: whether they are logits: log-probabilities are given then.
  """
  if classes:
    outputs = jnp.maximum(jax.nn.log_softmax(outputs), LEAST)
  return in_order(squeezed(outputs), count)


def in_order(outputs, count: int):
  """Returns outputs `[N, K, O]` as `[N, K * count]`, cut or filled with 0."""
  outputs = outputs[..., :count]
  missing = count - outputs.shape[-1]
  outputs = jnp.pad(outputs, ((0, 0), (0, 0), (0, missing)))
  return outputs.reshape(len(outputs), -1)


def spread(logits, mixture):
  """Returns what does not name a class, `[N, F]`.

  Per input: the largest log-probabilities, sorted, and the entropy as a share
  of the most that so many classes allow. Between inputs: how far they are given
  the same classes, as products of mixtures of their probabilities. Over all:
  the size of logits, mean confidence, and how many classes are ever chosen.

  Args:
    logits: `[N, K, O]`.
    mixture: `[K, R]`, learned.
  """
  count, inputs, classes = logits.shape
  log_p = jnp.maximum(jax.nn.log_softmax(logits), LEAST)
  p = jnp.exp(log_p)
  top = -jnp.sort(-log_p, axis=-1)[..., :SORTED]
  pad = ((0, 0), (0, 0), (0, SORTED - top.shape[-1]))
  top = jnp.pad(top, pad, constant_values=LEAST)
  most = np.log(max(classes, 2))
  entropy = -(p * log_p).sum(axis=-1) / most
  mixed = jnp.einsum("nko,kr->nro", p, mixture)
  mean = p.mean(axis=1)
  centred = logits - logits.mean(axis=-1, keepdims=True)
  size = jnp.sqrt(jnp.mean(centred**2, axis=(1, 2)) + 1e-8)
  overall = [
    jnp.log(size),
    p.max(axis=-1).mean(axis=-1),
    -(mean * jnp.log(mean + 1e-9)).sum(axis=-1) / most,
  ]
  return jnp.concatenate(
    [
      squeezed(top.reshape(count, -1)),
      entropy.reshape(count, inputs),
      products(mixed) * classes,
      jnp.stack(overall, axis=-1),
    ],
    axis=-1,
  )


def survey(outputs, *, classes: bool):
  """Returns how outputs are distributed over the inputs, `[N, F]`.

  Of classes, their moments and extremes over the inputs: of log-probabilities,
  sorted, and of the entropy; how far inputs are given the same class; the size
  of logits; how many classes are ever chosen. Of signals, those of each output.

  Args:
    outputs: `[N, K, O]`.
    classes: whether they are logits.
  """
  if not classes:
    return _steep(_pooled(outputs, 1))
  log_p = jnp.maximum(jax.nn.log_softmax(outputs), LEAST)
  p = jnp.exp(log_p)
  most = np.log(max(outputs.shape[-1], 2))
  top = -jnp.sort(-log_p, axis=-1)[..., :SORTED]
  pad = ((0, 0), (0, 0), (0, SORTED - top.shape[-1]))
  top = jnp.pad(top, pad, constant_values=LEAST)
  entropy = -(p * log_p).sum(axis=-1, keepdims=True) / most
  same = jnp.einsum("nko,nlo->nkl", p, p)
  mean = p.mean(axis=1)
  centred = outputs - outputs.mean(axis=-1, keepdims=True)
  overall = [
    same.mean(axis=(1, 2)),
    _deviation(same, (1, 2)),
    0.5 * jnp.log(jnp.mean(centred**2, axis=(1, 2)) + 1e-8),
    -(mean * jnp.log(mean + 1e-9)).sum(axis=-1) / most,
  ]
  pooled = _pooled(jnp.concatenate([top, entropy], axis=-1), 1)
  return _steep(jnp.concatenate([pooled, jnp.stack(overall, -1)], axis=-1))


def survey_units(before, after, mask):
  """Returns statistics of the units of one level over inputs, `[N, U, F]`.

  Args:
    before: pre-activations, `[N, U, G, K]`.
    after: activations, likewise.
    mask: `[N, U]`, where there is a unit.
  """
  sizes = [_root_mean_square(answers, mask) for answers in (before, after)]
  scaled = after.mean(axis=2) / sizes[1][:, None, None]
  of_level = jnp.log(jnp.stack(sizes, axis=-1))[:, None, :]
  of_level = jnp.broadcast_to(of_level, (*mask.shape, 2))
  parts = [_steep(_statistics(scaled, mask)), _steep(of_level)]
  return jnp.concatenate(parts, axis=-1)


def survey_level(before, after, mask):
  """Returns how the answers of a level are distributed, `[N, F]`.

  Moments and extremes over units of what `_statistics` says of each; sizes
  before and after the activation; how much of it differs between inputs, in how
  many directions, and how alike inputs are; how much places differ.

  Args:
    before: pre-activations, `[N, U, G, K]`.
    after: activations, likewise.
    mask: `[N, U]`, where there is a unit.
  """
  sizes = [_root_mean_square(answers, mask) for answers in (before, after)]
  scaled = after / sizes[1][:, None, None, None]
  statistics = _statistics(scaled.mean(axis=2), mask)
  scaled = jnp.where(mask[..., None, None], scaled, 0)
  count = jnp.maximum(mask.sum(axis=1), 1) * after.shape[2]
  flat = scaled.reshape(len(after), -1, after.shape[-1])  # [N, UG, K]
  centred = flat - flat.mean(axis=-1, keepdims=True)
  gram = jnp.einsum("nuk,nul->nkl", centred, centred) / count[:, None, None]
  trace = jnp.trace(gram, axis1=1, axis2=2)
  directions = trace**2 / ((gram**2).sum(axis=(1, 2)) + 1e-8)
  length = jnp.sqrt((flat**2).sum(axis=1, keepdims=True) + 1e-8)
  alike = jnp.einsum("nuk,nul->nkl", flat / length, flat / length)
  places = jnp.where(mask[..., None], _deviation(scaled, 2), 0)
  overall = [
    *(jnp.log(size) for size in sizes),
    jnp.log(trace + 1e-6),
    jnp.log1p(directions),
    alike.mean(axis=(1, 2)),
    _deviation(alike, (1, 2)),
    places.sum(axis=(1, 2)) / (count / after.shape[2]) / after.shape[-1],
  ]
  pooled = _pooled(statistics, 1, mask[..., None])
  return _steep(jnp.concatenate([pooled, jnp.stack(overall, -1)], axis=-1))


def _steep(x):
  """Returns half of `squeezed(10 x)`: numbers of 0.1 and of 10 are told."""
  return squeezed(10 * x) / 2


def _deviation(x, axis):
  """Returns the standard deviation, of finite gradient at 0."""
  square = jnp.square(x - x.mean(axis=axis, keepdims=True))
  return jnp.sqrt(square.mean(axis=axis) + 1e-8)


def _pooled(x, axis: int, mask=None):
  """Returns mean, deviation, least and most of `[N, ..., F]`, `[N, 4 F]`."""
  mask = jnp.ones((), bool) if mask is None else mask
  real = jnp.broadcast_to(mask, x.shape)
  count = jnp.maximum(real.sum(axis=axis, keepdims=True), 1)
  mean = jnp.where(real, x, 0).sum(axis=axis, keepdims=True) / count
  square = jnp.where(real, jnp.square(x - mean), 0).sum(axis=axis)
  count, mean = count.squeeze(axis), mean.squeeze(axis)
  any_real = real.any(axis=axis)
  least = jnp.where(real, x, jnp.inf).min(axis=axis)
  most = jnp.where(real, x, -jnp.inf).max(axis=axis)
  ends = [jnp.where(any_real, end, 0) for end in (least, most)]
  deviation = jnp.sqrt(square / count + 1e-8)
  return jnp.concatenate([mean, deviation, *ends], axis=-1)


def products(rows):
  """Returns the scalar products of rows `[N, R, D]`, each pair once."""
  gram = jnp.einsum("nrd,nsd->nrs", rows, rows)
  above = np.triu_indices(rows.shape[1])
  return gram[:, above[0], above[1]]


def units(before, after, mask):
  """Returns the features of the units of one level, `[N, U, F]`.

  Their answers, divided by the root mean square of the level's; statistics
  over the inputs; and the logarithms of both root mean squares.

  Args:
    before: pre-activations, `[N, U, G, K]`.
    after: activations, likewise.
    mask: `[N, U]`, where there is a unit.
  """
  parts, sizes = [], []
  for answers in (before, after):
    size = _root_mean_square(answers, mask)
    parts.append(answers / size[:, None, None, None])
    sizes.append(jnp.log(size))
  statistics = _statistics(parts[1].mean(axis=2), mask)
  flat = [squeezed(p.reshape(*p.shape[:2], -1)) for p in parts]
  of_level = jnp.stack(sizes, axis=-1)[:, None, :]
  of_level = jnp.broadcast_to(of_level, (*mask.shape, 2))
  return jnp.concatenate([*flat, squeezed(statistics), of_level], axis=-1)


def level(after, mask, mixture):
  """Returns how the answers of a level differ between inputs, `[N, F]`.

  Products of mixtures of what all units answer, less each unit's mean, over
  their mean square: the same for any number and order of units.

  Args:
    after: activations, `[N, U, G, K]`.
    mask: `[N, U]`, where there is a unit.
    mixture: `[K, R]`, learned.
  """
  centred = after - after.mean(axis=-1, keepdims=True)
  size = _root_mean_square(centred, mask)
  centred = jnp.where(mask[..., None, None], centred, 0)
  centred = centred / size[:, None, None, None]
  mixed = jnp.einsum("nugk,kr->nrug", centred, mixture)
  mixed = mixed.reshape(*mixed.shape[:2], -1)
  count = jnp.maximum(mask.sum(axis=1), 1) * after.shape[2]
  return squeezed(
    jnp.concatenate(
      [products(mixed) / count[:, None], jnp.log(size)[:, None]], axis=-1
    )
  )


def _root_mean_square(answers: Any, mask: Any):
  """Returns that of the answers of real units, `[N]`, above 0."""
  square = jnp.mean(answers**2, axis=(2, 3))
  total = jnp.where(mask, square, 0).sum(axis=1)
  return jnp.sqrt(total / jnp.maximum(mask.sum(axis=1), 1) + 1e-8)


def _statistics(answers, mask):
  """Returns statistics of units `[N, U, K]` over the inputs, `[N, U, 7]`.

  Mean, deviation, share of inputs where it is silent, least, most, the largest
  correlation with another unit of the level (copies have 1), and the mean
  square of these.
  """
  mean = answers.mean(axis=-1)
  deviation = jnp.sqrt(jnp.mean((answers - mean[..., None]) ** 2, -1) + 1e-8)
  z = (answers - mean[..., None]) / (deviation + 1e-3)[..., None]
  correlation = jnp.einsum("nuk,nvk->nuv", z, z) / answers.shape[-1]
  other = mask[:, None, :] & ~jnp.eye(mask.shape[1], dtype=bool)[None]
  square = jnp.where(other, correlation**2, 0)
  count = jnp.maximum(other.sum(axis=-1), 1)
  return jnp.stack(
    [
      mean,
      deviation,
      jnp.mean(jnp.abs(answers) < 1e-3, axis=-1, dtype=answers.dtype),
      answers.min(axis=-1),
      answers.max(axis=-1),
      jnp.sqrt(square.max(axis=-1) + 1e-12),
      square.sum(axis=-1) / count,
    ],
    axis=-1,
  )
