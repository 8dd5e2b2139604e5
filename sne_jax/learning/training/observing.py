"""What is done where a training pauses: records, evaluations, checkpoints.

Dimensions: none; scalars, and trees of parameters.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from sne_jax.learning.training import progress as progress_lib


class Observer:
  """Records, evaluates and saves a training where its loop pauses.

  Attributes:
    record: what is saved beside the state.
    clock: of training alone.
    shown: the latest metrics, for the progress line.
  """

  def __init__(self, options, writer, checkpoints, record, best, step):
    self._options, self._writer = options, writer
    self._checkpoints = checkpoints  # None keeps nothing on disk.
    self._best = best  # On the host: the state is donated at every update.
    self.record = record
    self.clock = progress_lib.Stopwatch(record.seconds)
    self.shown: dict[str, float] = {}
    self._logged = (step, record.seconds)

  def log(self, step, values, schedule):
    """Records training metrics, the speed, and the learning rate."""
    steps, seconds = self._logged
    self._logged = (step, self.clock.seconds)
    speed = (step - steps) / max(self.clock.seconds - seconds, 1e-9)
    if schedule is not None:
      # The rate of the update that gave these values.
      values["learning_rate"] = float(jnp.asarray(schedule(step - 1)))
    times = {
      "time/steps_per_second": speed,
      "time/seconds": self.clock.seconds,
    }
    named = {f"train/{k}": v for k, v in values.items()}
    self._writer.write(step, named | times)
    self.shown["train loss"] = values["loss"]

  def evaluate(self, step, params, evaluate):
    """Evaluates parameters, and keeps them where they are the best so far."""
    metrics = {k: float(v) for k, v in evaluate(params).items()}
    self._writer.write(
      step, {k if "/" in k else f"val/{k}": v for k, v in metrics.items()}
    )
    self.record = judge(self.record, step, metrics, self._options)
    if self.record.best_step == step:  # Written before the state names it.
      self._best = jax.tree.map(np.array, params)
      if self._checkpoints is not None:
        self._checkpoints.save_best(step, self._best, metrics)
    monitor = self._options.monitor
    self.shown[monitor] = metrics[monitor]
    if self.record.stopped_early:
      logging.info(
        "stopped at step %d: %s has not improved since step %d",
        *(step, monitor, self.record.best_step),
      )

  def save(self, step, state):
    """Saves the state, after the records of metrics that it counts."""
    if self._checkpoints is None:
      return
    self._writer.sync()
    self.record = dataclasses.replace(
      self.record,
      seconds=self.clock.seconds,
      num_records=len(self._writer.records),
    )
    self._checkpoints.save(step, state, self.record)

  def choose(self, step, state, evaluated):
    """Returns the best parameters, placed as the state's, and their step.

    Where no evaluation gave a number, these are the last ones.
    """
    if self._best is not None:
      placed = jax.tree.map(
        lambda x, y: jax.device_put(x, y.sharding),
        *(self._best, state.eval_params),
      )
      return placed, self.record.best_step
    if self._checkpoints is not None:
      self._checkpoints.save_best(step, state.eval_params, {})
    if evaluated:
      logging.warning(
        "%s was never a number; keeping the last parameters",
        self._options.monitor,
      )
    return jax.tree.map(jnp.copy, state.eval_params), step


def judge(record, step, metrics, options):
  """Returns the record after one more evaluation."""
  if options.monitor not in metrics:
    raise ValueError(
      f"monitor is {options.monitor!r}, which the evaluation does not give; it"
      f" gives {', '.join(sorted(metrics))}"
    )
  value = metrics[options.monitor]
  sign = options.sign
  before = record.best_value
  better = math.isfinite(value) and (
    before is None or sign * value < sign * before
  )
  if better:
    return dataclasses.replace(
      record,
      best_value=value,
      best_step=step,
      best_metrics=metrics,
      bad_evaluations=0,
    )
  bad = record.bad_evaluations + 1
  return dataclasses.replace(
    record,
    bad_evaluations=bad,
    stopped_early=0 < options.patience <= bad,
  )
