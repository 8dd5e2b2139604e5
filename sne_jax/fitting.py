"""Trains encoders to predict properties of networks, over several seeds.

The work directory of `fit` is what the programs of `experiments/` read:

  fit.json               the options, and checksums of the networks
  calibration.json       errors on the validation part, for intervals
  strangers.npz          what those of others are known by
  seed*/                 model.json, checkpoints/, metrics.jsonl, codes.npz, and
                         result.json where the seed has finished

Dimensions: `N` networks, `T` targets.
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging as log

from sne_jax import predictor as predictor_lib
from sne_jax.learning.data import pipeline
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import calibration, newcomers
from sne_jax.learning.objectives import invariance as invariance_lib
from sne_jax.learning.objectives.model import HeadOptions
from sne_jax.learning.training import loop as training_lib
from sne_jax.learning.training import optimizers, workdirs
from sne_jax.learning.training.recipe import Recipe
from sne_jax.learning.training.trainer import Trained, Trainer
from sne_jax.networks.chunking import ChunkOptions

SEARCH = "search"
"""Folder of the trainings that choose a rate."""


def fit(
  train: Networks,
  val: Networks,
  *,
  encoder: str = "sne",
  options: Any = None,
  chunks: ChunkOptions | None = None,
  head: HeadOptions | None = None,
  loss: str = "mse",
  data: pipeline.DataOptions | None = None,
  optimizer: optimizers.OptimizerOptions | None = None,
  training: training_lib.TrainOptions | None = None,
  invariance: invariance_lib.InvarianceOptions | None = None,
  init_from: str = "",
  devices: int = 0,
  seeds: int | Sequence[int] = 1,
  rates: Sequence[float] = (),
  search_share: float = 1.0,
  tests: Mapping[str, Networks] | None = None,
  workdir: str | os.PathLike | None = None,
  programs: dict[str, Any] | None = None,
) -> predictor_lib.Predictor:
  """Trains a model that predicts the targets of networks.

  Args:
    train: the networks to train on, with targets.
    val: others, which choose the checkpoint, and calibrate intervals.
    encoder: name of the encoder, of `encoders/table.py`.
    options: its options, such as `SNEOptions`; None: the defaults, here and
      below.
    chunks: how layers are cut into chunks, where the encoder does so.
    head: the head on the code.
    loss: mse for numbers; bce for numbers in [0, 1]; classes for one target
      that is text or whole numbers.
    data: batches and augmentations.
    optimizer: how parameters follow gradients.
    training: how long to train; its `monitor` chooses the checkpoint.
    invariance: the regulariser that teaches a symmetry.
    init_from: folder of a pretraining of SNE (`sne_jax.pretrain`), or of a run
      with one for each seed: the encoder begins with its parameters and keeps
      what it has measured; the head is new. Empty: it begins at random.
    devices: local devices that share every batch; 0: all.
    seeds: number of independent trainings, or their seeds. Predictions of
      several are their mean. One that diverges is left out, and logged.
    rates: learning rates to try with the first seed; the one with the best
      validation result gets all seeds. Empty: that of `optimizer`. A
      `probe_rate` stays as it is.
    search_share: share of its steps that a training of that search takes.
    tests: further parts by name, which are predicted and measured when a seed
      has finished, and nothing else.
    workdir: folder for checkpoints and results; a training that was killed is
      resumed there, to the same numbers. None leaves nothing behind.
    programs: compiled programs to share with other calls; a dict that the
      caller holds and `fit` fills.

  Returns:
    The predictor; its `results` hold what is known of each seed.

  Raises:
    ValueError: networks, targets or options that do not go together, or
      `workdir` holds a model of others.
    TrainingDiverged: no seed has finished; its `results` say why.
  """
  # What is not given keeps the default of `Recipe`.
  given = {
    **{"encoder": encoder, "options": options, "chunks": chunks, "head": head},
    **{"loss": loss, "data": data, "optimizer": optimizer},
    **{"training": training, "invariance": invariance},
    **{"init_from": init_from, "devices": devices},
  }
  how = Recipe(**{k: v for k, v in given.items() if v is not None})
  programs = {} if programs is None else programs
  folder = None if workdir is None else pathlib.Path(workdir)
  numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
  if not numbers:
    raise ValueError(f"seeds is {seeds!r}; give at least one")
  if len(set(numbers)) < len(numbers):
    raise ValueError(f"seeds are {numbers}; give each once")
  if rates:
    how = _best_rate(
      *(train, val, how, tests, numbers[0], list(rates), search_share),
      *(folder, programs),
    )
  trainer = Trainer(
    train, val, how, tests=tests, seeds=numbers, programs=programs
  )
  if rates and folder is not None and search_share == 1:
    rate = how.optimizer.learning_rate
    _take_over(trainer, numbers[0], folder, folder / SEARCH / f"rate{rate:g}")
  done, results = _trained(trainer, numbers, folder)
  return _predictor(trainer, done, results, folder)


def _predictor(
  trainer: Trainer,
  done: Sequence[Trained],
  results: Sequence[dict[str, Any]],
  folder: pathlib.Path | None,
) -> predictor_lib.Predictor:
  """Returns the predictor of seeds that have finished, calibrated."""
  # Errors of the mean prediction of all seeds, and their codes, are what
  # intervals and novelty are judged by.
  known = calibration.measure(
    trainer.train,
    trainer.parts,
    [one.result["seed"] for one in done],
    [one.result["predictions"] for one in done],
  )
  params = [one.params for one in done]
  made = newcomers.measure(
    *(trainer.train, trainer.parts["val"]),
    lambda networks: trainer.mean_prediction(params, networks),
    trainer.model.read,
  )
  if folder is not None:
    calibration.write(folder, known, made, workdirs.OF_RUN)
  codes = [calibration.two_parts(one.codes) for one in done]
  return predictor_lib.Predictor(
    trainer.description,
    params,
    known=calibration.of_measured(known, calibration.joined(codes), made),
    results=results,
    compiled=trainer.model,
  )


def _trained(trainer: Trainer, seeds: Sequence[int], folder):
  """Trains all seeds; returns those that have finished, and all results.

  Raises:
    TrainingDiverged: none has finished.
  """
  done, results = [], []
  last = None
  for seed in seeds:
    try:
      done.append(
        trainer.run(seed, None if folder is None else folder / f"seed{seed}")
      )
      results.append(done[-1].result)
    except training_lib.TrainingDiverged as error:
      log.error("seed %d failed: %s", seed, error)
      results.append({"seed": seed, "failed": str(error)})
      last = error
  if not done and last is not None:
    last.results = results
    raise last
  return done, results


def _best_rate(
  train, val, recipe, tests, seed, rates, share, folder, programs
) -> Recipe:
  """Returns the recipe at the rate that validation prefers.

  Of equals the first rate wins; one that diverges never does.
  """
  if not 0 < share <= 1 or any(not rate > 0 for rate in rates):
    raise ValueError(
      f"rates are {rates} and search_share is {share}; rates must be above 0,"
      " and the share in (0, 1]"
    )
  # A rate is an argument of the program: all rates share one compilation.
  steps = max(1, round(share * recipe.training.num_steps))
  best, best_value, failed = None, np.inf, None
  for rate in rates:
    changed = dataclasses.replace(
      recipe,
      optimizer=dataclasses.replace(recipe.optimizer, learning_rate=rate),
      training=dataclasses.replace(recipe.training, num_steps=steps),
    )
    trainer = Trainer(
      train, val, changed, tests=tests, seeds=(seed,), programs=programs
    )
    if folder is not None:  # What the search varies aside, it must be ours.
      workdirs.check(
        *(folder, trainer.config, seed, trainer.description),
        free=("optimizer.learning_rate", "training.num_steps"),
      )
    place = None if folder is None else folder / SEARCH / f"rate{rate:g}"
    try:
      [trained], _ = _trained(trainer, [seed], place)
    except training_lib.TrainingDiverged as error:
      failed = error
      continue
    monitor, values = recipe.training.monitor, trained.result["best_metrics"]
    log.info("rate %g: %s %g", rate, monitor, values.get(monitor, np.nan))
    value = np.inf
    if monitor in values:  # It was a number once.
      value = recipe.training.sign * values[monitor]
    if best is None or value < best_value:
      best, best_value = changed, value
  if best is None:
    assert failed is not None
    raise failed
  return dataclasses.replace(best, training=recipe.training)


def _take_over(
  trainer: Trainer, seed: int, folder: pathlib.Path, search: pathlib.Path
) -> None:
  """Makes the training of a search that took all steps that of its seed."""
  place, copy = folder / f"seed{seed}", folder / f".seed{seed}.copy"
  workdirs.check(folder, trainer.config, seed, trainer.description)
  if (place / workdirs.RESULT_FILE).exists():
    return
  workdirs.claim(folder, trainer.config)
  shutil.rmtree(copy, ignore_errors=True)
  shutil.copytree(search / place.name, copy)
  shutil.rmtree(place, ignore_errors=True)  # Begun, of the same options.
  copy.rename(place)
