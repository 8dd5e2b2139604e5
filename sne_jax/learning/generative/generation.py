"""New networks from those of a zoo: anchors, codes, draws, and what is kept.

A codec turns networks into codes and back. Anchors are the best of the
training networks; densities over their codes are drawn from (`sampling`), and
draws become networks again. Whatever is chosen (anchors, candidates, the
bandwidth) is chosen by one score of networks, which the caller makes with
validation images: nothing here can see any other.

Dimensions: `M` networks of `P` weights, `E` anchors, `R` samples, `N` tokens of
`D` numbers.

References:
  Schuerholt et al., NeurIPS 2022, arXiv:2209.14733, and ICML 2024,
  arXiv:2406.09997.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sne_jax.encoders.tokens import sane_networks
from sne_jax.learning.generative import densities
from sne_jax.learning.selfsup import methods, pretraining
from sne_jax.networks import standardise, tokens
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec

Score = Callable[[np.ndarray], np.ndarray]
"""From networks `[M, P]` to a number each `[M]`, higher is better."""


class Codec(NamedTuple):
  """How networks are coded; weights as they run on both sides.

  Attributes:
    encode: from networks `[M, P]` to codes `[M, N, D]`.
    decode: from codes to networks.
    reference: [P], in whose order of neurons networks are coded; None: as
      they are.
  """

  encode: Callable[[np.ndarray], np.ndarray]
  decode: Callable[[np.ndarray], np.ndarray]
  reference: np.ndarray | None = None


class Sampled(NamedTuple):
  """Sampled networks, best first where they were chosen.

  Attributes:
    weights: float32 [R, P].
    scores: float64 [R], what they were chosen by.
    bandwidth: the one of `GenerationOptions.bandwidths` that was best.
  """

  weights: np.ndarray
  scores: np.ndarray
  bandwidth: float


ALGORITHMS = ("kde", "subsample", "bootstrap", "gauss")
"""Draws as they come; the best of many; the same again and again; a control:
anchors that no network has."""

COUPLED = "_coupled"
"""What follows an algorithm whose draws are near copies of single anchors."""

ON_WEIGHTS = "weights_"
"""What precedes an algorithm that has the weights themselves for codes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationOptions(Checked):
  """How networks are sampled.

  Attributes:
    networks: networks of each method.
    anchors: share of the training networks that are anchors: the best by
      validation.
    bandwidths: deviations of the noise on codes, separated by commas; each
      method takes the one whose samples are best on validation images.
    mode: what is drawn independently: joint, token or individual. joint: a draw
      takes one anchor for the whole code; that it is the default is our choice.
      token: each token its own, as in the authors' examples. individual: each
      number its own. Coupled draws are those of token where this is joint.
    candidates: drawn by subsample and bootstrap, to keep the best of.
    rounds: of bootstrap: the best of a round are the next anchors.
    gauss_deviation: of the control's anchors.

  Raises:
    ValueError: a value is out of its range; the message names it.
  """

  networks: int = option(10, least=1)
  anchors: float = option(0.3, above=0, most=1)
  bandwidths: str = "0.2"
  mode: str = option("joint", choices=densities.MODES)
  candidates: int = option(50, least=1)
  rounds: int = option(5, least=1)
  gauss_deviation: float = option(10.0, above=0, flag=False)

  def __post_init__(self):
    super().__post_init__()
    if self.candidates < self.networks:
      raise ValueError(
        f"candidates is {self.candidates}, but {self.networks} networks are to"
        " be kept of them; draw at least as many"
      )
    _ = self.bandwidth_values  # Raises.

  @property
  def bandwidth_values(self) -> tuple[float, ...]:
    """The numbers in `bandwidths`."""
    try:
      widths = tuple(float(word) for word in self.bandwidths.split(","))
    except ValueError:
      widths = (-1.0,)
    if not all(0 <= value < math.inf for value in widths):
      raise ValueError(
        "bandwidths must be numbers of at least 0, separated by commas, got"
        f" {self.bandwidths!r}"
      )
    return widths


def parse(method: str) -> tuple[bool, str, bool]:
  """Returns whether a method samples weights, its algorithm, if it is coupled.

  Raises:
    ValueError: there is no such method.
  """
  on_weights = method.startswith(ON_WEIGHTS)
  algorithm = method.removeprefix(ON_WEIGHTS)
  coupled = algorithm.endswith(COUPLED)
  algorithm = algorithm.removesuffix(COUPLED)
  if algorithm not in ALGORITHMS or (coupled and algorithm == "gauss"):
    raise ValueError(
      f"unknown sampler {method!r}; known are {', '.join(ALGORITHMS)}, those"
      f" but gauss with {COUPLED} at the end, all with {ON_WEIGHTS} in front"
    )
  return on_weights, algorithm, coupled


def best_share(
  scores: Sequence[float] | np.ndarray, share: float
) -> Int[np.ndarray, "E"]:
  """Returns the places of the best scores, best first: anchors.

  At least one, where a score is finite. Ties keep their order.

  Raises:
    ValueError: no score is finite.
  """
  scores = np.asarray(scores, np.float64)
  finite = np.flatnonzero(np.isfinite(scores))
  if not len(finite):
    raise ValueError(
      f"no anchors: none of {len(scores)} training networks has a finite score;"
      " choose a zoo, split or snapshots with training networks that work"
    )
  count = max(1, round(share * len(finite)))
  order = np.argsort(-scores[finite], kind="stable")[:count]
  return finite[order]


def weight_codec(spec: NetworkSpec, measured: Mapping[str, Any]) -> Codec:
  """Codes that are the weights: standardised rows, a neuron each.

  Densities over them are the baseline of a density over learned codes.

  Args:
    spec: of the networks; with `measured` of all its layers.
    measured: `standardise.measure` of training networks.
  """
  layout = tokens.layout(spec)

  def encode(weights):
    scaled = standardise.standardise(spec, measured, np.asarray(weights))
    return np.asarray(tokens.tokenise(layout, scaled))

  def decode(codes):
    flat = tokens.detokenise(layout, np.asarray(codes))
    return np.asarray(standardise.restore(spec, measured, flat))

  return Codec(encode, decode)


def trained_codec(model: pretraining.Pretrained, spec: NetworkSpec) -> Codec:
  """Codes of a trained autoencoder: of every token, or of the whole network.

  Args:
    model: the autoencoder.
    spec: of the networks to be coded and written.

  Raises:
    ValueError: it has no decoder, or it reads other networks.
  """
  method = model.method
  if method.reconstruct is None:
    raise ValueError(
      f"{model.description['method']} has no decoder to sample from; pretrain"
      " sane or hyper_representation"
    )
  if spec.anatomy != model.spec.anatomy:
    raise ValueError(
      f"the autoencoder is of {model.spec.describe()}, and the networks to be"
      f" written are {spec.describe()}; sample around networks of the zoo that"
      " it was trained on"
    )
  module, apply = method.module, method.module.apply
  if method.layout is None or method.tiling is None:
    encode = lambda p, x: apply({"params": p}, x, method="encode")[:, None]
    decode = lambda p, z: apply({"params": p}, z[:, 0], method="decode")
  else:
    layout, tiling = method.layout, method.tiling
    encode = lambda p, x: sane_networks.encode(module, p, layout, tiling, x)
    decode = lambda p, z: sane_networks.decode(module, p, layout, tiling, z)
  encode, decode = map(methods.by_parts, (encode, decode))
  reference = model.description.get("reference")
  return Codec(
    lambda weights: encode(model.params, model.prepare(weights)),
    lambda codes: model.restore(decode(model.params, codes)),
    None if reference is None else np.asarray(reference, np.float32),
  )


def sample(
  key: PRNGKeyArray,
  method: str,
  codec: Codec,
  codes: Float[Array | np.ndarray, "E N D"],
  score: Score,
  options: GenerationOptions,
) -> Sampled:
  """Samples networks by one method, at the best bandwidth.

  Args:
    key: consumed.
    method: see `parse`.
    codec: of the codes.
    codes: of the anchors, by `codec.encode`.
    score: of networks, on validation images.
    options: how many, and how.

  Raises:
    ValueError: unknown method, or no anchors.
  """
  _, algorithm, coupled = parse(method)
  densities.check_anchors(codes)
  widths = options.bandwidth_values
  mode = "token" if coupled and options.mode == "joint" else options.mode
  key_gauss, *keys = jax.random.split(key, 1 + len(widths))
  if algorithm == "gauss":
    drawn = jax.random.normal(key_gauss, codes.shape)
    codes = options.gauss_deviation * drawn
  score_codes = lambda codes: score(_decoded(codec, codes))
  samples = []
  for key_draw, bandwidth in zip(keys, widths, strict=True):
    how = {"bandwidth": bandwidth, "mode": mode, "coupled": coupled}
    if algorithm in ("kde", "gauss"):
      drawn = densities.kde(key_draw, codes, options.networks, **how)
      weights = _decoded(codec, drawn)
      scores = np.asarray(score(weights), np.float64)
    else:
      how |= {"num": options.candidates, "keep": options.networks}
      if algorithm == "bootstrap":
        how["rounds"] = options.rounds
      kept = densities.subsample(key_draw, codes, score_codes, **how)
      weights, scores = _decoded(codec, kept.codes), kept.scores
    samples.append(Sampled(weights, scores, bandwidth))
  means = [np.nan_to_num(s.scores, nan=-np.inf).mean() for s in samples]
  return samples[int(np.argmax(means))]


def nearest(
  weights: Float[np.ndarray, "R P"], others: Float[np.ndarray, "M P"]
) -> Float[np.ndarray, "R"]:
  """Returns the distance of each network to the nearest of others."""
  one, two = (np.asarray(x, np.float64) for x in (weights, others))
  square = (one**2).sum(1)[:, None] + (two**2).sum(1)[None] - 2 * one @ two.T
  return np.sqrt(np.maximum(square, 0.0).min(axis=1))


def _decoded(codec: Codec, codes) -> np.ndarray:
  return np.asarray(codec.decode(np.asarray(codes, np.float32)), np.float32)
