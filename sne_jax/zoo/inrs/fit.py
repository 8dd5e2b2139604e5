"""Fits many sine INRs at once, each to its own sine wave.

Networks are trained together by `vmap`, every one as if it were alone. Those
that are done are set aside, and when enough are, the rest is moved into a
smaller array, of a few fixed sizes, so that compilations are few.

Dimensions: `S` slots (networks trained together), `P` weights of a network,
`X` points of a wave.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import sine
from sne_jax.zoo.store import partial

SHRINK = 0.7
"""Each size that a batch may shrink to is this share of the one before."""

SMALLEST = 8
"""Below this many networks, shrinking is not worth a compilation."""


class Fit(NamedTuple):
  """What became of a batch of networks."""

  weights: Float[np.ndarray, "S P"]
  error: Float[np.ndarray, "S"]  # Mean squared, of `weights`.
  steps: Int[np.ndarray, "S"]


def in_parts(
  folder: str,
  total: int,
  batch: int,
  num_weights: int,
  fit: Callable[[int, int], Mapping[str, np.ndarray]],
  progress: partial.Progress,
) -> Fit:
  """Fits the batches that are not there yet; returns all networks.

  Args:
    folder: of what is not finished.
    total: number of networks.
    batch: of one part.
    num_weights: `P`.
    fit: from the first network of a part and their number to the fields of
      `Fit`.
    progress: told how many are there.
  """
  parts = []
  for first in range(0, total, batch):
    count = min(batch, total - first)
    shapes = {"weights": (count, num_weights)}
    shapes |= {"error": (count,), "steps": (count,)}
    arrays, there = partial.part(
      folder, first, shapes, functools.partial(fit, first, count)
    )
    if there:
      progress(first + count, total, "batch was there already")
    parts.append(Fit(**arrays))
  return Fit(*map(np.concatenate, zip(*parts, strict=True)))


class FitState(NamedTuple):
  """Networks in training.

  The weights are kept as tensors: the gradient with respect to a flat vector,
  put together from slices, would double the time of a step.
  """

  tensors: dict[str, Float[Array, "S ..."]]
  optimizer: optax.OptState


def forward(
  spec: spec_lib.NetworkSpec,
  tensors: dict[str, Float[Array, "..."]],
  x: Float[Array, "X"],
) -> Float[Array, "X"]:
  """Runs one INR of one input and one output, with the fast sine.

  The same function as `families.forward`, to float rounding.
  """
  w0 = spec.option("w0")
  values = x[:, None]
  for level in range(spec.num_levels):
    weight = tensors[f"layer{level}.weight"]
    bias = tensors[f"layer{level}.bias"]
    if level == 0:
      values = values * weight.T
    else:
      values = jnp.matmul(values, weight.T, precision="highest")
    values = values + bias[None, :]
    if level < spec.num_levels - 1:
      values = sine.sine(w0 * values)
  return values[:, 0] + spec.option("output_offset")


def make_fit_fn(
  spec: spec_lib.NetworkSpec,
  x: Float[np.ndarray, "X"],
  *,
  learning_rate: float,
  weight_decay: float,
) -> tuple[Callable, Callable]:
  """Returns the compiled functions that start and advance a batch.

  The optimiser is Adam with PyTorch's `weight_decay`: it is added to the
  gradient, not taken from the weights.

  Returns:
    `start(keys [S]) -> FitState` and `advance(state, targets [S, X], count)
    -> (state, errors [S])`, which takes `count` steps; the errors are of the
    weights returned. Whatever a slot holds has no effect on another.
  """
  optimizer = optax.chain(
    optax.add_decayed_weights(weight_decay), optax.adam(learning_rate)
  )
  points = jnp.asarray(x, jnp.float32)

  def loss_fn(tensors, target):
    return jnp.mean((forward(spec, tensors, points) - target) ** 2)

  @jax.jit
  def start(keys):
    weights = jax.vmap(lambda key: families.init(spec, key))(keys)
    tensors = spec.unflatten(weights)
    return FitState(tensors, optimizer.init(tensors))

  @jax.jit
  def advance(state, targets, count):
    def step(_, state):
      gradients = jax.vmap(jax.grad(loss_fn))(state.tensors, targets)
      updates, inner = optimizer.update(
        gradients, state.optimizer, state.tensors
      )
      tensors: Any = optax.apply_updates(state.tensors, updates)
      return FitState(tensors, inner)

    state = jax.lax.fori_loop(0, count, step, state)
    return state, jax.vmap(loss_fn)(state.tensors, targets)

  return start, advance


def batch_sizes(largest: int, num_devices: int) -> list[int]:
  """Returns the sizes a batch may have, descending; each divides evenly.

  Args:
    largest: networks of a full batch.
    num_devices: over which a batch is cut, `largest` being rounded up.
  """
  sizes, share = [], float(largest)
  while not sizes or share >= SMALLEST:
    size = math.ceil(share / num_devices) * num_devices
    if not sizes or size < sizes[-1]:
      sizes.append(size)
    share *= SHRINK
  return sizes


def fit_batch(
  spec: spec_lib.NetworkSpec,
  start: Callable,
  advance: Callable,
  keys: Any,
  targets: Float[np.ndarray, "S *X"],
  *,
  sizes: list[int],
  devices: Sequence[Any],
  max_steps: int | Int[np.ndarray, "S"],
  check_every: int,
  tolerance: float | Float[np.ndarray, "S"],
  on_done: Callable[[int], None],
) -> Fit:
  """Trains a batch until every network is done.

  A network is done when its error is at most `tolerance`, when it took
  `max_steps` steps, or when its error is no longer finite.

  Args:
    spec: of the networks.
    start: of `make_fit_fn`.
    advance: of `make_fit_fn`.
    keys: what `start` takes: arrays `[S, ...]`, one key per network for one.
    targets: the signals; of a wave its points.
    sizes: of `batch_sizes`; the first must hold all networks.
    devices: the slots are cut over these.
    max_steps: at least 1; one for all, or one for each. Networks are looked at
      every `check_every` steps, and end then.
    check_every: steps between two looks at the errors, at least 1.
    tolerance: mean squared error that is good enough; likewise.
    on_done: is told how many networks are done whenever some are.
  """
  count = len(targets)
  limits = np.broadcast_to(max_steps, count)
  enough = np.broadcast_to(np.asarray(tolerance, np.float64), count)
  slots = _fill(np.arange(count), sizes)  # the network in each slot
  alive = np.arange(len(slots)) < count  # False: done, or there as padding
  state = partial.place(start(jax.tree.map(lambda a: a[slots], keys)), devices)
  waves = partial.place(targets[slots], devices)
  weights = np.zeros((count, spec.num_weights), np.float32)
  error, steps = np.zeros(count, np.float32), np.zeros(count, np.int64)
  taken = 0
  while alive.any():
    take = min(check_every, int(limits.max()) - taken)
    state, errors = advance(state, waves, take)
    taken += take
    now = np.asarray(errors)
    # Not `now <= enough or not finite`: a comparison with NaN is False.
    over = ~(now > enough[slots]) | np.isinf(now) | (taken >= limits[slots])
    done = np.flatnonzero(alive & over)
    if not done.size:
      continue
    tensors = jax.tree.map(np.asarray, state.tensors)
    weights[slots[done]] = spec.flatten(tensors, np)[done]
    error[slots[done]], steps[slots[done]] = now[done], taken
    alive[done] = False
    on_done(count - int(alive.sum()))
    left = np.flatnonzero(alive)
    places = _fill(left, sizes)
    if left.size and len(places) < len(slots):
      state, waves = partial.place(_take((state, waves), places), devices)
      slots = slots[places]
      alive = np.arange(len(slots)) < left.size
  return Fit(weights, error, steps)


def _fill(places: np.ndarray, sizes: list[int]) -> np.ndarray:
  """Pads places up to the next size by repeating the first."""
  if not places.size:
    return places
  size = min(size for size in sizes if size >= places.size)
  return np.concatenate(
    [places, np.full(size - places.size, places[0], places.dtype)]
  )


def _take(tree, places: np.ndarray):
  """Gathers slots, on the host: no compilation for every pair of sizes."""
  return jax.tree.map(
    lambda a: np.asarray(a)[places] if a.ndim else np.asarray(a), tree
  )
