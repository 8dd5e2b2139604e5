"""Sine INRs as different people make them: first weights, optimisers, lengths.

Networks of one zoo are made alike, and those of somebody else are not: biases
that one framework begins with 0 another draws, and most of a prediction's error
on strangers can come from there. A zoo of several makers knows more ways.

A maker of these draws the weights of sine layers as SIREN does, and what that
leaves open, biases and the last layer, as a framework does by itself; `linear`
draws everything as `nn.Linear` does. The optimiser, its rate, the length and
whether a small error ends the training are drawn for each network.

Dimensions: `S` networks trained together, `M` members, `P` weights of one, `K`
makers.

References:
  Sitzmann et al., Implicit Neural Representations with Periodic Activation
  Functions, NeurIPS 2020, arXiv:2006.09661.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.inrs import fit as inr_fit

PUBLISHED = "published"
MAKERS = (PUBLISHED, "sitzmann", "pytorch", "keras", "flax", "linear")
"""published: biases 0, last weights U(+-1 / sqrt(fan_in)); sitzmann: first
weights U(+-1 / fan_in), the last as those between, biases of PyTorch; pytorch,
keras, flax: biases and last weights are the framework's; linear: all weights
and biases are those of `nn.Linear`, chaotic at `w0 = 30`."""

OPTIMIZERS = ("adam", "adamw")
RATES = (4 / 5, 5 / 4)  # Times the rate that is given; even in the logarithm.
SHORTEST = 100
DECAY = 1e-2  # Of adamw; of the others `weight_decay` is in the gradient.

_CUT_STD = 0.87962566  # Of a standard normal cut at two deviations.


class Hyper(NamedTuple):
  """What differs between networks; arrays over them."""

  maker: Int[Array | np.ndarray, "S"]  # Place in `MAKERS`.
  rate: Float[Array | np.ndarray, "S"]
  in_gradient: Float[Array | np.ndarray, "S"]  # Weight decay added to it.
  apart: Float[Array | np.ndarray, "S"]  # Weight decay times the rate.


class Members(NamedTuple):
  """How the networks of a zoo are made, `[M]` each."""

  hyper: Hyper
  maker: list[str]
  optimizer: list[str]
  max_steps: Int[np.ndarray, "M"]
  tolerance: Float[np.ndarray, "M"]


def names(text: str) -> tuple[str, ...]:
  """Returns the makers of a list.

  Raises:
    ValueError: one is unknown, or named twice.
  """
  found = tuple(word.strip() for word in text.split(","))
  for word in found:
    if word not in MAKERS or found.count(word) > 1:
      raise ValueError(
        f"makers must be of {', '.join(MAKERS)}, each once, separated by"
        f" commas; got {text!r}"
      )
  return found


def draw(
  makers: tuple[str, ...],
  seed: int,
  count: int,
  *,
  max_steps: int,
  check_every: int,
  tolerance: float,
  rate: float,
  weight_decay: float,
) -> Members:
  """Draws how each network is made, by its number alone.

  Lengths are multiples of `check_every` from `SHORTEST` to `max_steps`; every
  other network, by chance, ends before at `tolerance`.
  """
  words = np.stack(
    [
      np.random.PCG64(np.random.SeedSequence((seed, n, 1))).random_raw(5)
      for n in range(count)
    ]
  )
  share = ((words >> np.uint64(11)) * 2.0**-53).T  # [5, M], in [0, 1)
  maker = [makers[int(s * len(makers))] for s in share[0]]
  optimizer = [OPTIMIZERS[int(s * len(OPTIMIZERS))] for s in share[1]]
  is_adamw = np.array(optimizer) == "adamw"
  shortest = min(SHORTEST, max_steps)
  lengths = _between(shortest, max_steps, share[3])
  hyper = Hyper(
    np.array([MAKERS.index(name) for name in maker], np.int32),
    (rate * _between(*RATES, share[2])).astype(np.float32),
    np.where(is_adamw, 0.0, weight_decay).astype(np.float32),
    np.where(is_adamw, DECAY, 0.0).astype(np.float32),
  )
  steps = np.maximum(1, np.rint(lengths / check_every)) * check_every
  return Members(
    hyper,
    maker,
    optimizer,
    np.minimum(steps, max_steps).astype(np.int64),
    np.where(share[4] < 0.5, tolerance, 0.0),
  )


def _between(low, high, share: np.ndarray) -> np.ndarray:
  """Returns values between two ends, evenly in the logarithm."""
  return np.exp(math.log(low) + math.log(high / low) * share)


def spreads(
  spec: spec_lib.NetworkSpec,
) -> tuple[Float[np.ndarray, "K P"], Float[np.ndarray, "K P"]]:
  """Returns how wide first weights are drawn: evenly, and by a cut normal.

  A weight is the sum of both, of which one is 0.
  """
  w0, last = spec.option("w0"), spec.num_levels - 1
  uniform, normal = [], []
  for maker in MAKERS:
    for t in spec.tensors:
      of = spec.tensor(t.of) if t.of else t
      linear, sine = of.fan_in**-0.5, math.sqrt(6 / of.fan_in) / w0
      wide, deviation = linear, 0.0
      if t is not of:
        wide = 0.0 if maker in (PUBLISHED, "keras", "flax") else linear
      elif maker == "sitzmann":
        wide = sine if t.level else 1 / t.fan_in
      elif t.level < last and maker != "linear":
        wide = sine
      elif maker == "keras":
        wide = math.sqrt(6 / (t.fan_in + t.size // t.fan_in))
      elif maker == "flax":
        wide, deviation = 0.0, linear
      uniform.append(np.full(t.size, wide, np.float32))
      normal.append(np.full(t.size, deviation, np.float32))
  shape = (len(MAKERS), spec.num_weights)
  wide_of = np.concatenate(uniform).reshape(shape)
  return wide_of, np.concatenate(normal).reshape(shape)


def make_fit_fn(
  spec: spec_lib.NetworkSpec, x: Float[np.ndarray, "X"]
) -> tuple[Callable, Callable]:
  """Returns what `inr_fit.make_fit_fn` does, for networks of `Hyper`.

  Returns:
    `start((keys [S], hyper))` and `advance(state, targets [S, X], count)`; a
    state carries its hyper-parameters.
  """
  points = jnp.asarray(x, jnp.float32)
  wide, deviation = map(jnp.asarray, spreads(spec))

  optimizer = optax.scale_by_adam()

  def loss_fn(tensors, target):
    return jnp.mean((inr_fit.forward(spec, tensors, points) - target) ** 2)

  def start_fn(key, hyper):
    keys = jax.random.split(key)
    evenly = jax.random.uniform(keys[0], (spec.num_weights,), minval=-1.0)
    cut = jax.random.truncated_normal(keys[1], -2.0, 2.0, (spec.num_weights,))
    tensors = spec.unflatten(
      wide[hyper.maker] * evenly + deviation[hyper.maker] * cut / _CUT_STD
    )
    return inr_fit.FitState(tensors, (hyper, optimizer.init(tensors)))

  def step_fn(state, target):
    hyper, inner = state.optimizer
    gradients = jax.grad(loss_fn)(state.tensors, target)
    gradients = jax.tree.map(
      lambda g, w: g + hyper.in_gradient * w, gradients, state.tensors
    )
    updates, inner = optimizer.update(gradients, inner)
    tensors: Any = jax.tree.map(
      lambda w, u: w - hyper.rate * (u + hyper.apart * w),
      state.tensors,
      updates,
    )
    return inr_fit.FitState(tensors, (hyper, inner))

  @jax.jit
  def start(given):
    return jax.vmap(start_fn)(*given)

  @jax.jit
  def advance(state, targets, count):
    body = lambda _, state: jax.vmap(step_fn)(state, targets)
    state = jax.lax.fori_loop(0, count, body, state)
    return state, jax.vmap(loss_fn)(state.tensors, targets)

  return start, advance
