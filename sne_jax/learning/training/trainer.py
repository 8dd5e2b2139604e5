"""Trains one seed after another: what they share, and what each gives.

Dimensions: `N` networks, `D` width of a code, `T` targets.
"""

import functools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging as log

from sne_jax import atomic, digests
from sne_jax.learning.data import pipeline
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import calibration, classes, metrics, notes
from sne_jax.learning.objectives import invariance
from sne_jax.learning.selfsup import pretraining
from sne_jax.learning.training import (
  loop,
  optimizers,
  parallel,
  records,
  train_state,
  workdirs,
)
from sne_jax.learning.training import recipe as recipe_lib
from sne_jax.learning.training.workdirs import RESULT_FILE
from sne_jax.networks import chunking


class Trained(NamedTuple):
  """What one seed has given.

  Attributes:
    params: of the best step, on the host.
    result: what `result.json` holds: metrics, predictions, seconds.
    codes: of every part that was predicted, `[N, D]`.
  """

  params: Any
  result: dict[str, Any]
  codes: Mapping[str, np.ndarray]


class Trainer:
  """What all seeds of a training share: networks, model, compiled update.

  Args:
    train: the networks to train on.
    val: those that choose the checkpoint.
    recipe: how.
    tests: further parts to be predicted; on the first, the cost of a
      prediction is measured, and how it changes under symmetries.
    seeds: that are going to be trained.
    programs: see `fit`.

  Raises:
    ValueError: networks, targets or options that do not go together.
  """

  def __init__(
    self,
    train: Networks,
    val: Networks,
    recipe: recipe_lib.Recipe,
    *,
    tests: Mapping[str, Networks] | None = None,
    seeds: Sequence[int] = (0,),
    programs: dict[str, Any] | None = None,
  ):
    train, val, tests = recipe_lib.checked(train, val, tests or {}, recipe)
    self.recipe, self.train, self._seeds = recipe, train, seeds
    self.parts = {"val": val, **tests}
    self.description = recipe_lib.describe(train, recipe, seeds)
    self._moving = recipe_lib.scaled_targets(
      train, self.description, recipe.data.augment_mixup != "none"
    )
    programs = {} if programs is None else programs
    key = recipe_lib.key(self.description, recipe, train)
    if key not in programs:
      programs[key] = recipe_lib.compiled(self.description, recipe, train)
    self.model, self._init, self.update, self._mesh = programs[key]
    steps = recipe.training.num_steps
    self._schedule = optimizers.make_schedule(recipe.optimizer, steps)
    self._tx = optimizers.make_optimizer(recipe.optimizer, steps)
    self._validation = self.model.batches(val)
    self._notes = self._log_notes()

  def _log_notes(self) -> list[str]:
    """Logs the notes on symmetries, and returns them for reports."""
    recipe, sne = self.recipe, self.recipe.encoder == "sne"
    chunk = chunking.ChunkOptions(**self.description["chunk_options"])
    if sne and not recipe.chunks.chunk_size:
      log.info("chunk_size %d, derived from the networks", chunk.chunk_size)
    lines = notes.of_training(
      recipe.options if sne else None,
      chunk,
      recipe.data,
      [self.train, *self.parts.values()],
      recipe.invariance.invariance_weight,
    )
    lines += recipe_lib.collapsed_note(self.train, self.description)
    for line in lines:
      log.warning("%s", line)
    return lines

  @functools.cached_property
  def config(self) -> dict[str, Any]:
    """What decides the results, as plain values."""
    return workdirs.config_of(self.recipe, {"train": self.train, **self.parts})

  def run(self, seed: int, folder: pathlib.Path | None = None) -> Trained:
    """Trains with one seed, or returns what an earlier call has given.

    Args:
      seed: of parameters, batches, augmentations and dropout.
      folder: of this seed; None keeps nothing on disk.

    Raises:
      TrainingDiverged: the loss has left the finite numbers.
      ValueError: the folder above holds a training of other options, or this
        one files that are not what was written.
    """
    if folder is not None:
      workdirs.check(folder.parent, self.config, seed, self.description)
      if (folder / RESULT_FILE).exists():
        log.info("seed %d is finished already", seed)
        return _read(folder)
    state, batch_fn = self.start(seed)
    ahead = 1
    if folder is not None:
      workdirs.claim(folder.parent, self.config)
      ahead = len(set(self._seeds) - set(workdirs.finished(folder.parent)))
      folder.mkdir(parents=True, exist_ok=True)
      digests.drop(folder)
      file = folder / workdirs.MODEL_FILE
      atomic.write_json(file, self.description, allow_nan=True)
    fitted = loop.fit(
      state,
      self.update,
      batch_fn,
      self.evaluate,
      self.recipe.training,
      folder,
      schedule=self._schedule,
      title=f"seed {seed}",
      ahead=ahead,
    )
    params = jax.device_get(fitted.best_params)
    report, codes = self._report(params, seed)
    steps = int(fitted.state.step)
    report |= {
      "seed": seed,
      "num_params": sum(x.size for x in jax.tree.leaves(params)),
      "best_step": fitted.best_step,
      "best_metrics": fitted.best_metrics,
      "steps": steps,
      "stopped_early": fitted.stopped_early,
      "train_seconds": fitted.seconds,
      "networks_per_second": (
        steps * self.recipe.data.batch_size / max(fitted.seconds, 1e-9)
      ),
    }
    if folder is not None:
      contents = {
        calibration.CODES_FILE: calibration.codes_content(codes),
        RESULT_FILE: atomic.json_text(report, allow_nan=True, sort=False),
      }
      workdirs.finish(folder, contents)
    return Trained(params, report, codes)

  def start(self, seed: int):
    """Returns the state before the first update, and the batches."""
    params = self._init(seed)
    if self.recipe.init_from:
      params = pretraining.with_encoder(self.recipe.init_from, seed, params)
    state = loop.init_state(
      params,
      self._tx,
      jax.random.key(seed),
      ema_decay=self.recipe.optimizer.ema_decay,
      mesh=self._mesh,
    )
    batch_fn = pipeline.Pipeline(
      self._moving,
      self.model.encoder.make_packer(self.train.specs),
      self.recipe.data,
      seed=seed,
      pairs=self.recipe.invariance.invariance_weight > 0,
      devices=self._mesh.size,
      place=lambda batch: parallel.shard(batch, self._mesh),
    )
    return state, batch_fn

  def evaluate(self, params) -> dict[str, float]:
    """Measures parameters on the validation part, the mean over targets."""
    networks = self.parts["val"]
    logits, _ = self.model.run(
      jax.device_get(params), self._validation, len(networks)
    )
    if networks.classes:
      return classes.monitored(networks.targets[:, 0], logits)
    pairs = list(
      zip(networks.targets.T, self.model.scaled(logits).T, strict=True)
    )
    return {
      "loss": float(np.mean([metrics.mse(*pair) for pair in pairs])),
      "kendall_tau": float(np.mean([metrics.kendall_tau(*p) for p in pairs])),
    }

  def predict(self, params, networks: Networks):
    """Returns predictions `[N, T]` or `[N, K]`, and codes `[N, D]`."""
    logits, codes = self.model.run(
      params, self.model.batches(networks), len(networks)
    )
    return self.model.scaled(logits), codes

  def mean_prediction(
    self, params: Sequence[Any], networks: Networks
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a predictor of several seeds does: their mean, all codes."""
    batches = self.model.batches(networks)
    runs = [self.model.run(one, batches, len(networks)) for one in params]
    predictions = [self.model.scaled(logits) for logits, _ in runs]
    codes = np.concatenate([codes for _, codes in runs], axis=-1)
    return np.mean(predictions, axis=0), codes

  def _report(self, params, seed: int):
    """Predicts the held-out parts, and measures the predictions.

    Returns:
      What the result file holds of it, and the codes `[N, D]` of every part.
    """
    report: dict[str, Any] = {"metrics": {}, "predictions": {}}
    report["notes"] = self._notes
    codes = {}
    for part, networks in self.parts.items():
      predictions, codes[part] = self.predict(params, networks)
      report["predictions"][part] = predictions.tolist()
      report["metrics"][part] = calibration.evaluate(networks, predictions)
    if len(self.parts) == 1:  # For novelty there must be two parts.
      return report, {"train": self.predict(params, self.train)[1], **codes}
    _, probed, *_ = self.parts.values()
    begun = time.perf_counter()
    self.predict(params, probed)
    seconds = time.perf_counter() - begun
    report["seconds_per_network"] = seconds / len(probed)
    report["invariance"] = invariance.measure(
      lambda pairs: self.model.run_networks([params], pairs)[0][0],
      probed.pairs(),
      self.description["chunk_options"]["chunk_size"],
      seed=seed,
    )
    return report, codes


def _read(folder: pathlib.Path) -> Trained:
  """Returns what a seed that has finished has left."""
  remedy = f"restore the file, or remove {folder} and start the run again"
  workdirs.verify_seed(folder, remedy=remedy)
  params, _ = train_state.load_best(folder, remedy=remedy)
  codes = {}
  if (folder / calibration.CODES_FILE).exists():
    codes = dict(np.load(folder / calibration.CODES_FILE))
  return Trained(params, records.read_json(folder / RESULT_FILE), codes)
