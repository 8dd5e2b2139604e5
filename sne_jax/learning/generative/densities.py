"""New networks from the codes of others: densities, and what is kept.

Codes of good networks (*anchors*) are points of a density from which new codes
are drawn; a decoder turns these into networks. Which draws are kept is decided
by a score of the caller, for example accuracy on validation images. Scores
must never be made with test data: then their choice is what is tested.

Dimensions: `E` anchors, `R` draws, `N` tokens of `D` numbers (a code of one
vector is one token).

References:
  Schuerholt et al., NeurIPS 2022, arXiv:2209.14733 (densities of codes), and
  ICML 2024, arXiv:2406.09997 (per token; subsampling and bootstrapping).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

MODES = ("token", "individual", "joint")
"""Whose draws are independent: each token's, each number's, or whole codes'."""


class Kept(NamedTuple):
  """Codes by descending score.

  Attributes:
    codes: float [R, N, D].
    scores: float64 [R].
  """

  codes: np.ndarray
  scores: np.ndarray


def kde(
  key: PRNGKeyArray,
  anchors: Float[Array | np.ndarray, "E N D"],
  num: int,
  *,
  bandwidth: float = 0.2,
  mode: str = "token",
  coupled: bool = False,
) -> Float[Array, "R N D"]:
  """Draws codes from Gaussian kernel densities over anchors.

  A draw takes an anchor, uniformly, and adds normal noise: for each token, for
  each number, or once for the whole code. So a code of `token` mixes anchors.

  Args:
    key: consumed.
    anchors: codes of good networks.
    num: `R`.
    bandwidth: deviation of the noise.
    mode: one of `MODES`.
    coupled: as in the authors' code, where every density is drawn from with
      one seed: all tokens (numbers) of a code take the same anchor and the
      same noise, so codes are near copies of single anchors.

  Raises:
    ValueError: there are no anchors, or an argument is out of its range.
  """
  check_anchors(anchors)
  _check_count("num", num)
  if mode not in MODES:
    raise ValueError(f"unknown mode {mode!r}; known are {', '.join(MODES)}")
  if not bandwidth >= 0:
    raise ValueError(f"bandwidth must be at least 0, got {bandwidth}")
  anchors = jnp.asarray(anchors)
  count, tokens, width = anchors.shape
  key_anchor, key_noise = jax.random.split(key)
  one = {"token": (num, 1, width), "individual": (num, 1, 1)}
  each = {"token": (num, tokens, 1), "individual": (num, tokens, width)}
  whole = (num, tokens, width)
  noise_shape = one.get(mode, whole) if coupled else whole
  choice_shape = (num, 1, 1) if coupled else each.get(mode, (num, 1, 1))
  choice = jax.random.randint(key_anchor, choice_shape, 0, count)
  choice = jnp.broadcast_to(choice, whole)
  drawn = jnp.take_along_axis(anchors, choice, axis=0)
  noise = jax.random.normal(key_noise, noise_shape, anchors.dtype)
  return drawn + bandwidth * noise


def best(
  codes: Float[Array | np.ndarray, "R N D"],
  scores: Sequence[float] | np.ndarray,
  keep: int,
) -> Kept:
  """Returns the codes of highest score, best first.

  Ties keep their order; a score that is nan is below all others.

  Raises:
    ValueError: scores are not one per code, or fewer codes than are kept.
  """
  values = np.asarray(scores, np.float64)
  if values.shape != (len(codes),):
    raise ValueError(
      f"{len(codes)} codes need as many scores, got an array of shape"
      f" {values.shape}"
    )
  _check_count("keep", keep)
  if keep > len(codes):
    raise ValueError(f"cannot keep {keep} of {len(codes)} codes; draw more")
  ranked = np.where(np.isnan(values), -np.inf, values)
  order = np.argsort(-ranked, kind="stable")[:keep]
  return Kept(np.asarray(codes)[order], values[order])


def subsample(
  key: PRNGKeyArray,
  anchors: Float[Array | np.ndarray, "E N D"],
  score: Callable[[Float[Array, "R N D"]], Sequence[float] | np.ndarray],
  *,
  rounds: int = 1,
  num: int = 50,
  keep: int = 10,
  **density: Any,
) -> Kept:
  """Draws codes and keeps the best; those of a round are the next's anchors.

  Args:
    key: consumed.
    anchors: of the first round, see `kde`.
    score: from codes to a number each, higher is better. It decodes, restores
      and tries the networks, on data that nothing is tested on.
    rounds: at least 1; of more than one it is bootstrapping.
    num: codes drawn in each.
    keep: codes kept of each.
    **density: bandwidth, mode and coupled of `kde`.

  Returns:
    What the last round keeps, best first.

  Raises:
    ValueError: as `kde` and `best`, or no rounds.
  """
  _check_count("rounds", rounds)
  keys = jax.random.split(key, rounds) if rounds > 1 else [key]
  for key_round in keys:
    drawn = kde(key_round, anchors, num, **density)
    kept = best(drawn, score(drawn), keep)
    anchors = kept.codes
  return kept


def check_anchors(anchors: Float[Array | np.ndarray, "E N D"]) -> None:
  """Raises `ValueError` if there are no anchors."""
  if len(anchors) < 1:
    raise ValueError(
      "no anchors to sample around (the array has shape"
      f" {tuple(anchors.shape)}); give the codes of at least 1 training"
      " network, or lower the accuracy that anchors must have"
    )


def _check_count(name: str, value: int) -> None:
  if value < 1:
    raise ValueError(f"{name} must be at least 1, got {value}")
