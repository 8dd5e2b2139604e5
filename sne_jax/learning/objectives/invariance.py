"""Logit Invariance: the loss that teaches a symmetry, and its measurement.

With F the predictor before its last nonlinearity and G the hidden-neuron
permutations,

  L = L_task + beta / 2 E_x E_{g in G} |F(x) - F(g x)|^2.

Which output F is (logit or code), whether one branch is held fixed, and beta
are not settled by the SNE paper: they are options, and the defaults are ours.

Dimensions: `B` networks, `T` targets (or logits of classes), `P` weights.

References: Moskalev et al., On genuine invariance learning without weight
tying, arXiv:2308.03904; Andreis et al., arXiv:2305.16625.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.learning.data.pipeline import Batch
from sne_jax.learning.objectives import losses
from sne_jax.networks import symmetry
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvarianceOptions(Checked):
  """Options of the Logit Invariance regulariser.

  Attributes:
    invariance_weight: weight beta of Logit Invariance; 0: none. Above 0, every
      network is in the batch twice, once with its neurons permuted: their
      logits are drawn together, and both are trained on.
  """

  invariance_weight: float = option(0.0, least=0)


TASK_LOSSES = {
  "mse": losses.mse,
  "bce": losses.bce_with_logits,
  "classes": losses.cross_entropy_with_logits,
  "soft_classes": losses.soft_cross_entropy_with_logits,
}


def make_loss(
  model,
  task: str,
  options: InvarianceOptions,
  collapsed: tuple[np.ndarray, np.ndarray] | None = None,
) -> Callable:
  """Returns `loss(params, batch, key) -> (loss, metrics)` for training.

  Args:
    model: a `PropertyModel`.
    task: mse, bce, classes, or soft_classes (targets are probabilities).
    options: of the regulariser. If its weight is above 0, a batch holds every
      network twice, the second time moved.
    collapsed: values and widths of `losses.or_collapsed`; None: another head.
  """
  task_loss = TASK_LOSSES[task]
  if collapsed is not None:
    task_loss = losses.or_collapsed(task_loss, *collapsed)
  paired = options.invariance_weight > 0
  task_loss = _of_readers(task_loss)

  def loss_fn(params, batch: Batch, key):
    _, key_ids, key_drop = jax.random.split(key, 3)
    count = batch.targets.shape[0]
    logits, _ = model.apply(
      params,
      batch.packed,
      False,
      rngs={"identifiers": key_ids, "dropout": key_drop},
    )
    plain = task_loss(logits[..., :count, :], batch.targets)
    metrics = {"task": plain}
    if not paired:
      return plain, metrics
    error = losses.invariance_error(
      *(x.reshape(-1, x.shape[-1]) for x in jnp.split(logits, [count], axis=-2))
    )
    metrics["invariance"] = error
    both = (plain + task_loss(logits[..., count:, :], batch.targets)) / 2
    return both + options.invariance_weight * error, metrics

  return loss_fn


def _of_readers(loss):
  """Returns a loss that also takes logits `[R, B, T]`, as a mean over `R`."""

  def mean(logits, targets):
    if logits.ndim < 3:
      return loss(logits, targets)
    return jnp.mean(jax.vmap(loss, (0, None))(logits, targets))

  return mean


def chunk_shuffle(
  spec: NetworkSpec, chunk_size: int, rng: np.random.Generator
) -> np.ndarray:
  """Draws a FALSE symmetry: whole chunks of every weight tensor change places.

  Tensors are cut flat; the tail that fills no chunk stays. Returns an index
  `[P]`. An encoder that cuts tensors flat, without index features, cannot tell
  the difference.
  """
  index = np.arange(spec.num_weights)
  for tensor, start in zip(spec.tensors, spec.offsets, strict=True):
    whole = tensor.size // chunk_size
    if len(tensor.shape) < 2 or whole < 2:
      continue
    block = index[start : start + whole * chunk_size].reshape(whole, -1)
    index[start : start + whole * chunk_size] = rng.permutation(block).ravel()
  return index


def input_shuffle(
  spec: NetworkSpec, chunk_size: int, rng: np.random.Generator
) -> np.ndarray:
  """Draws `symmetry.draw_input_shuffle`; the identity where there is none."""
  del chunk_size
  try:
    return symmetry.draw_input_shuffle(spec, rng)
  except ValueError:  # No layer reads hidden neurons.
    return symmetry.identity(spec)


MOVES = {
  "true permutation": lambda spec, size, rng: symmetry.draw_permutation(
    spec, rng
  ),
  "shuffled chunks": chunk_shuffle,
  "shuffled inputs of neurons": input_shuffle,
}
"""What predictions are probed with: one true symmetry, two false ones."""


def measure(predict, networks, chunk_size: int, *, draws: int = 4, seed: int):
  """Measures how predictions change under true and false symmetries.

  Args:
    predict: from a list of `(spec, weights)` to logits `[B, T]`.
    networks: a list of `(spec, weights)` unseen in training.
    chunk_size: size of the chunks that are shuffled.
    draws: group elements per network.
    seed: of the group elements.

  Returns:
    For each move of `MOVES`: `error`, the mean of `|F(x) - F(g x)|^2 / 2`, and
    `ratio`, the same over the variance of `F` over the networks. A ratio near
    0 under the true symmetry is invariance; near 0 under a false one is
    blindness (or spectral decay). Networks that a move leaves as they are do
    not count; both numbers are nan where no network is moved.
  """
  rng = np.random.default_rng(seed)
  plain = np.asarray(predict(networks), np.float64)
  variance = float(np.sum(np.var(plain, axis=0)))
  report: dict[str, Any] = {"variance": variance}
  for name, move in MOVES.items():
    errors = []
    for _ in range(draws):
      index = [move(s, chunk_size, rng) for s, _ in networks]
      moved = [(s, w[i]) for (s, w), i in zip(networks, index, strict=True)]
      change = np.asarray(predict(moved), np.float64) - plain
      changed = [bool((i != np.arange(len(i))).any()) for i in index]
      errors += (0.5 * np.sum(change**2, axis=-1))[changed].tolist()
    error = float(np.mean(errors)) if errors else float("nan")
    ratio = error / variance if variance > 0 else float("nan")
    report[name] = {"error": error, "ratio": ratio}
  return report
