"""Optimizers and learning rate schedules, built from plain options.

Dimensions: none; scalars only. An *update* is one call of the jitted update
function.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sne_jax.encoders import interface
from sne_jax.networks.checked import Checked, option

ONE_CYCLE_START = 1 / 25
"""Where one-cycle starts, as a share of the peak learning rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions(Checked):
  """How parameters follow gradients.

  Attributes:
    optimizer: adamw; adam: no decay; sgd: momentum beta1.
    learning_rate: the peak of the schedule.
    probe_rate: the peak of learned inputs (`interface.LEARNED_INPUTS`), whose
      schedule is otherwise the same; a search over `rates` leaves it as it is.
      0: learning_rate, which such a search varies for them too.
    weight_decay: decoupled, of all but biases and scales; used by adamw and
      sgd. 0: none.
    schedule: warmup_cosine, constant or one_cycle.
    warmup_fraction: share of training in which the rate rises.
    final_learning_rate: where the rate ends, as a share of the peak.
    clip_norm: longer gradients are scaled to this norm. 0: none.
    beta1: decay of the mean gradient; momentum of sgd.
    beta1_low: of one_cycle: beta1 falls to this while the rate rises, and rises
      again while it falls, as published (with beta1 0.95, to 0.85). 0: beta1
      stays.
    beta2: decay of the mean squared gradient (adam, adamw).
    epsilon: added to the root of the mean squared gradient.
    ema_decay: of averaged parameters (such as 0.999), by which the best are
      chosen, and which are kept; see `update_ema`. 0: none.

  Raises:
    ValueError: a value is out of its range; the message names it.
  """

  optimizer: str = option("adamw", choices=("adamw", "adam", "sgd"))
  learning_rate: float = option(1e-3, above=0)
  probe_rate: float = option(0.0, least=0)
  weight_decay: float = option(1e-2, least=0)
  schedule: str = option(
    "warmup_cosine", choices=("warmup_cosine", "constant", "one_cycle")
  )
  warmup_fraction: float = option(0.05, least=0, most=1)
  final_learning_rate: float = option(0.0, least=0, most=1)
  clip_norm: float = option(1.0, least=0)
  beta1: float = option(0.9, least=0, below=1)
  beta1_low: float = option(0.0, least=0, below=1)
  beta2: float = option(0.999, least=0, below=1)
  epsilon: float = option(1e-8, above=0)
  ema_decay: float = option(0.0, least=0, below=1)

  def __post_init__(self):
    super().__post_init__()
    if self.beta1_low and (
      self.schedule != "one_cycle" or self.beta1_low > self.beta1
    ):
      raise ValueError(
        f"beta1_low {self.beta1_low} is for the schedule one_cycle and at most"
        f" beta1; got schedule {self.schedule!r} and beta1 {self.beta1}"
      )


def make_schedule(options: OptimizerOptions, num_steps: int) -> optax.Schedule:
  """Returns the learning rate as a function of completed updates.

  The rate is that of the next update. `warmup_cosine` rises linearly over the
  first `warmup_fraction` of training, never from 0, then falls as a half
  cosine. `one_cycle` rises as a half cosine from 1/25 of the peak, then falls
  as one; `beta1_low` cycles beta1 too. The rate ends where training does, so
  the `n` updates of PyTorch's schedule are the first of ours of `n - 1`.

  Args:
    options: the options of the optimizer.
    num_steps: updates of the whole training, at least 1.

  References:
    Smith and Topin, Super-Convergence, arXiv:1708.07120 (one_cycle).
  """
  course = _course(options, num_steps)
  return lambda step: _rate(options, step, course)


def make_optimizer(
  options: OptimizerOptions, num_steps: int
) -> optax.GradientTransformation:
  """Returns the optimizer: clip, direction, weight decay, learning rate.

  Peak rates and the length of the schedule are values of its state, not
  constants of its update: options that differ in `learning_rate`, `probe_rate`
  (not 0) and `num_steps` alone share one compiled update, each with a state of
  its own `init`. (With `beta1_low`, in rates alone.)

  With `probe_rate`, its `init` raises `ValueError` where parameters have no
  learned inputs.

  Args:
    options: the options.
    num_steps: updates of the whole training; fixes the schedule.
  """
  parts = []
  if options.clip_norm:
    parts.append(optax.clip_by_global_norm(options.clip_norm))
  parts += _direction(options, num_steps)
  if options.weight_decay and options.optimizer != "adam":
    parts.append(optax.add_decayed_weights(options.weight_decay, _is_matrix))
  rest = _scale_by_rate(options, num_steps)
  if options.probe_rate:
    own = dataclasses.replace(options, learning_rate=options.probe_rate)
    rest = optax.partition(
      {"probes": _scale_by_rate(own, num_steps), "rest": rest},
      functools.partial(_labels, own),
    )
  return optax.chain(*parts, rest)


def constants(options: OptimizerOptions, num_steps: int) -> dict[str, Any]:
  """Returns what an update depends on: options of equal ones can share it."""
  values = dataclasses.asdict(options) | {"num_steps": num_steps}
  del values["learning_rate"]
  values["probe_rate"] = options.probe_rate > 0
  if not options.beta1_low:
    del values["num_steps"]
  return values


def update_ema(ema, params, *, decay: float, step):
  """Moves averaged parameters towards `params`.

  The decay starts low, `min(decay, (1 + step) / (10 + step))`: the average is
  over the last tenth or so of the steps until that is `1 / (1 - decay)` steps,
  so it follows a short training too, and forgets the initial parameters.

  Args:
    ema: the average before; a tree of the shapes of `params`.
    params: the parameters after the update.
    decay: share of the old average that stays, in [0, 1).
    step: completed updates before this one, int scalar.
  """
  step = jnp.asarray(step, jnp.float32)
  stay = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(
    lambda a, b: (stay * a + (1 - stay) * b).astype(a.dtype), ema, params
  )


def make_beta1_schedule(
  options: OptimizerOptions, num_steps: int
) -> optax.Schedule:
  """Returns beta1 as a function of the optimizer's own steps.

  Args:
    options: with `beta1_low` above 0, beta1 moves opposite to the rate, as a
      half cosine; else it stays.
    num_steps: updates of the whole training, at least 1.
  """
  if not options.beta1_low:
    return optax.constant_schedule(options.beta1)
  total, warmup = _lengths(options, num_steps)
  warmup = max(warmup, 1)
  share = options.beta1_low / options.beta1
  return optax.piecewise_interpolate_schedule(
    "cosine",
    options.beta1,
    {warmup: share, max(total, warmup + 1): 1 / share},
  )


def _direction(options, num_steps):
  """Returns what makes a direction of a gradient."""
  beta1: Any = options.beta1
  make: Any = optax.scale_by_adam
  others = {"b2": options.beta2, "eps": options.epsilon}
  if options.optimizer == "sgd":
    make, others = optax.trace, {}
    if not beta1:
      return []
  if options.beta1_low:
    make = optax.inject_hyperparams(make)
    beta1 = make_beta1_schedule(options, num_steps)
  return [make(beta1, **others)]


def _lengths(options, num_steps):
  """Returns the optimizer's own steps, and those in which the rate rises."""
  return num_steps, min(
    round(options.warmup_fraction * num_steps), num_steps - 1
  )


class Course(NamedTuple):
  """What a schedule is told: float32 scalars."""

  peak: Any  # The highest rate.
  warmup: Any  # Steps of the optimizer in which the rate rises.
  total: Any  # All of them.


class RateState(NamedTuple):
  """State of what scales updates by the rate."""

  count: Any  # Steps of the optimizer so far.
  course: Course


def _course(options, num_steps) -> Course:
  """Returns peak and lengths of a schedule."""
  total, warmup = _lengths(options, num_steps)
  values = (options.learning_rate, warmup, total)
  return Course(*(jnp.asarray(value, jnp.float32) for value in values))


def _rate(options, count, course: Course):
  """Returns the learning rate after `count` steps of the optimizer."""
  peak, warmup, total = course
  count, final = jnp.asarray(count, jnp.float32), options.final_learning_rate
  if options.schedule == "constant":
    return jnp.broadcast_to(peak, count.shape)
  if options.schedule == "one_cycle":
    warmup = jnp.maximum(warmup, 1)
    total = jnp.maximum(total, warmup + 1)
    rise = _cosine(count / warmup, ONE_CYCLE_START, 1.0)
  else:
    first = 1 / (warmup + 1)
    rise = first + (1 - first) * count / jnp.maximum(warmup, 1)
  fall = _cosine((count - warmup) / (total - warmup), 1.0, final)
  return peak * jnp.where(count < warmup, rise, fall)


def _cosine(share, start, end):
  """Goes from `start` to `end` as a half cosine while `share` goes to 1."""
  angle = jnp.pi * jnp.clip(share, 0, 1)
  return end + (start - end) * (1 + jnp.cos(angle)) / 2


def _scale_by_rate(options, num_steps) -> optax.GradientTransformation:
  """Scales updates by minus the rate, whose course is held in the state."""

  def init(params):
    del params
    return RateState(jnp.zeros((), jnp.int32), _course(options, num_steps))

  def update(updates, state, params=None):
    del params
    rate = _rate(options, state.count, state.course)
    updates = jax.tree.map(lambda u: -rate.astype(u.dtype) * u, updates)
    return updates, RateState(state.count + 1, state.course)

  return optax.GradientTransformation(init, update)


def _labels(options, params):
  """Tells learned inputs from the rest, by the names on the way to a leaf."""

  def label(path, leaf):
    del leaf
    names = {str(getattr(key, "key", key)) for key in path}
    return "probes" if names & set(interface.LEARNED_INPUTS) else "rest"

  labels = jax.tree_util.tree_map_with_path(label, params)
  if "probes" not in jax.tree.leaves(labels):
    raise ValueError(
      f"probe_rate is {options.probe_rate:g}, but the model has no learned"
      f" inputs ({' or '.join(interface.LEARNED_INPUTS)} among its parameters);"
      " leave it 0, or choose an encoder that has some"
    )
  return labels


def _is_matrix(params):
  """Marks the leaves of two axes or more: all but biases and scales."""
  return jax.tree.map(lambda x: x.ndim >= 2, params)
