"""The training loop: batches in, a state out. It knows no task and no model.

A run is a function of its options: batches derive from the step, keys from the
state, and a run that was killed continues to the same numbers, bit for bit.
`step` counts completed updates everywhere.

Dimensions: none of its own; see `parallel` for batches of several devices.
"""

import collections
import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from sne_jax import room
from sne_jax.learning.data import prefetch
from sne_jax.learning.evaluation import metrics as measures
from sne_jax.learning.training import (
  observing,
  optimizers,
  parallel,
  train_state,
  wandb_run,
)
from sne_jax.learning.training import progress as progress_lib
from sne_jax.learning.training import records as metric_logging
from sne_jax.networks.checked import Checked, option

NUM_IN_FLIGHT = 2
"""Updates that may be queued on the device."""


class TrainingDiverged(RuntimeError):
  """Training has left the finite numbers.

  Attributes:
    step: completed updates when it was noticed.
    loss: the loss then.
    results: of `sne_jax.fit`: what is known of each seed, where all failed.
  """

  def __init__(self, step: int, loss: float, detail: str):
    """Words the message; `detail` says what is not finite."""
    super().__init__(
      f"training diverged: at step {step} the loss is {loss:g} and {detail}."
      " Lower the learning rate, or clip gradients (clip_norm), and start in"
      " another workdir; what was saved before is untouched"
    )
    self.step = step
    self.loss = loss
    self.results: list[dict[str, Any]] = []


class TrainState(NamedTuple):
  """Everything that changes during training, and nothing that does not."""

  step: Int[Array, ""]  # Completed updates.
  params: Any
  opt_state: optax.OptState
  key: PRNGKeyArray  # Constant; update `step` draws from it folded with `step`.
  ema: Any = None  # Averaged parameters; None where they are off.

  @property
  def eval_params(self) -> Any:
    """The parameters to evaluate and keep: the averaged ones where on."""
    return self.params if self.ema is None else self.ema


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(Checked):
  """How long to train, and what to do on the way.

  The last step is always logged, evaluated and saved.

  Attributes:
    num_steps: updates of the whole training.
    log_every: steps between records of training metrics.
    eval_every: steps between evaluations on the validation part.
    save_every: steps between checkpoints.
    keep: latest checkpoints that are kept; where the last is damaged, a resume
      takes the one before.
    patience: evaluations without a new best before training stops. 0: never.
    monitor: the validation metric that chooses the best parameters, such as
      loss, kendall_tau or accuracy.
    wandb: name of a project of Weights & Biases, which is written too, offline,
      into the folder of each seed and of the run; empty: none.

  Raises:
    ValueError: a value is out of its range; the message names it.
  """

  num_steps: int = option(10_000, least=1)
  log_every: int = option(100, least=1)
  eval_every: int = option(1_000, least=1)
  save_every: int = option(1_000, least=1)
  keep: int = option(2, least=1)
  patience: int = option(0, least=0)
  monitor: str = "loss"
  wandb: str = ""

  def __post_init__(self):
    super().__post_init__()
    wandb_run.check_installed(self.wandb)
    if self.monitor.startswith("test"):
      raise ValueError(
        f"monitor is {self.monitor!r}: choosing by test metrics spoils them;"
        " monitor a validation metric"
      )

  @property
  def sign(self) -> int:
    """What the monitored value is times, to be the better the lower: 1, -1."""
    return -1 if measures.HIGHER_IS_BETTER.get(self.monitor, False) else 1


class FitResult(NamedTuple):
  """What a training has given.

  Attributes:
    state: the state after the last update.
    best_params: of the best evaluation; the last ones if there was none.
    best_step: completed updates of `best_params`.
    best_metrics: the evaluation of `best_params`; empty if there was none.
    history: all records of metrics, those before a restart included.
    seconds: of training, restarts included, evaluating and saving excluded.
    stopped_early: whether patience ended it.
  """

  state: TrainState
  best_params: Any
  best_step: int
  best_metrics: dict[str, float]
  history: list[metric_logging.Record]
  seconds: float
  stopped_early: bool


def init_state(
  params,
  tx: optax.GradientTransformation,
  key: PRNGKeyArray,
  *,
  ema_decay: float = 0.0,
  mesh: jax.sharding.Mesh | None = None,
) -> TrainState:
  """Returns the state before the first update.

  The state owns copies: updates consume it, and `params` and `key` stay
  usable.

  Args:
    params: initial parameters.
    tx: the optimizer.
    key: root of all randomness of the updates; not consumed.
    ema_decay: above 0, averaged parameters are kept.
    mesh: devices to replicate the state on; None leaves it where it is.
  """
  copy = functools.partial(jax.tree.map, jnp.array)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=copy(params),
    opt_state=tx.init(params),
    key=jax.random.clone(key),
    ema=copy(params) if ema_decay else None,
  )
  return parallel.replicate(state, mesh)


def make_update_fn(
  loss_fn: parallel.LossFn,
  tx: optax.GradientTransformation,
  *,
  ema_decay: float = 0.0,
  mesh: jax.sharding.Mesh | None = None,
):
  """Returns the jitted `update(state, batch) -> (state, metrics)`.

  The given state is consumed. Update `s` (from 0) draws from the key of the
  state folded with `s`. The metrics are those of `loss_fn`, `loss`, and
  `grad_norm`, the norm of the gradient before clipping, all before the update.

  Args:
    loss_fn: `loss_fn(params, batch, key) -> (loss, metrics)`, all scalars.
    tx: the optimizer, as given to `init_state`.
    ema_decay: decay of the averaged parameters; as given to `init_state`.
    mesh: devices that share every batch; see `parallel.value_and_grad`.
  """
  grad_fn = parallel.value_and_grad(loss_fn, mesh)

  @functools.partial(jax.jit, donate_argnames="state")
  def update(state: TrainState, batch):
    key = jax.random.fold_in(state.key, state.step)
    (loss, metrics), grads = grad_fn(state.params, batch, key)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
      ema = optimizers.update_ema(ema, params, decay=ema_decay, step=state.step)
    metrics = metrics | {"loss": loss, "grad_norm": optax.tree.norm(grads)}
    state = TrainState(state.step + 1, params, opt_state, state.key, ema)
    return state, metrics

  return update


def fit(
  state: TrainState,
  update: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
  batch_fn: Callable[[int], Any],
  evaluate: Callable[[Any], Mapping[str, float]] | None,
  options: TrainOptions,
  workdir: str | os.PathLike | None = None,
  *,
  schedule: optax.Schedule | None = None,
  title: str = "training",
  ahead: int = 1,
) -> FitResult:
  """Trains, or continues a training that was interrupted.

  Args:
    state: of `init_state`; consumed. Ignored where `workdir` holds a later one.
    update: of `make_update_fn`.
    batch_fn: gives the batch of update `s`, from 0; a pure function of `s`. It
      is called in order from one background thread.
    evaluate: gives validation metrics of parameters; only these choose the
      best parameters and end training. None: the last are the best. Names
      without a slash are recorded under `val/`.
    options: how long to train, and what to do on the way.
    workdir: folder of checkpoints and metrics; None keeps nothing on disk.
    schedule: learning rate by completed updates, to record it.
    title: what the progress line calls this.
    ahead: trainings of this size that the disk has to hold, this one and those
      that come.

  Raises:
    NoRoom: the disk has no room for them; nothing was begun.
    TrainingDiverged: loss, gradient or parameters are not finite. This is
      tested where metrics are recorded, and before anything is saved.
    ValueError: `evaluate` does not give the monitored metric.
    train_state.CheckpointError: a checkpoint could not be written or read.
  """
  checkpoints = None
  record = train_state.LoopRecord()
  if workdir is not None:
    _check_room(workdir, state, options, ahead)
    checkpoints = train_state.Checkpoints(workdir, keep=options.keep)
    state, record = checkpoints.restore_or_init(state)
  best = None
  if checkpoints is not None and record.best_value is not None:
    best = checkpoints.restore_best(state.eval_params, record)
  first = step = int(state.step)
  num_steps = first if record.stopped_early else options.num_steps

  with contextlib.ExitStack() as stack:
    writer = stack.enter_context(
      metric_logging.MetricWriter(
        workdir,
        resume_step=step,
        num_records=record.num_records,
        wandb=options.wandb,
      )
    )
    progress = stack.enter_context(progress_lib.Progress(title))
    batches = stack.enter_context(
      contextlib.closing(prefetch.prefetch(batch_fn, first, num_steps))
    )
    observer = observing.Observer(
      options, writer, checkpoints, record, best, first
    )
    queue = collections.deque()
    for batch in batches:
      state, metrics = update(state, batch)
      step += 1
      # Let the host run ahead of the device, but not far.
      queue.append(metrics["loss"])
      if len(queue) > NUM_IN_FLIGHT:
        queue.popleft().block_until_ready()
      message = ", ".join(f"{k} {v:.4g}" for k, v in observer.shown.items())
      progress.update(step, options.num_steps, message)
      log, test, save = (
        step == num_steps or step % every == 0
        for every in (options.log_every, options.eval_every, options.save_every)
      )
      if not (log or test or save):
        continue

      # Wait for the device; what follows is not time of training.
      values = {k: float(v) for k, v in jax.device_get(metrics).items()}
      observer.clock.stop()
      _check_finite(step, values, state if test or save else None)
      if log:
        observer.log(step, values, schedule)
      if test and evaluate is not None:
        observer.evaluate(step, state.eval_params, evaluate)
      stopped = observer.record.stopped_early
      if save or stopped:
        observer.save(step, state)
      if stopped:
        break
      observer.clock.start()
    observer.clock.stop()

  best_params, best_step = observer.choose(step, state, evaluate is not None)
  record = observer.record
  return FitResult(
    *(state, best_params, best_step, dict(record.best_metrics)),
    *(writer.records, observer.clock.seconds, record.stopped_early),
  )


def _check_room(workdir, state, options: TrainOptions, ahead: int) -> None:
  """Raises `NoRoom` if trainings are not going to fit on the disk."""
  size = room.of_training(
    train_state.num_bytes(state.params),
    train_state.num_bytes(state),
    seeds=ahead,
    keep=options.keep,
    records=options.num_steps // options.log_every
    + options.num_steps // options.eval_every,
  )
  what = "the training" if ahead == 1 else f"the training of {ahead} seeds"
  room.check(workdir, size, what, there=room.taken(workdir))


def _check_finite(step, values, state):
  """Raises `TrainingDiverged` if metrics or parameters are not finite."""
  for name in ("loss", "grad_norm"):
    if not math.isfinite(values[name]):
      raise TrainingDiverged(
        step, values["loss"], f"{name} is {values[name]:g}"
      )
  if state is None:
    return
  for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
    if not bool(jnp.isfinite(leaf).all()):
      why = f"the parameters{jax.tree_util.keystr(path)} are not finite"
      raise TrainingDiverged(step, values["loss"], why)
