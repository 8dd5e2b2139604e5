"""Predicts properties of networks from their weights, over several seeds."""

import dataclasses
import functools
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
from absl import logging as log

from experiments import options as options_lib
from experiments.tasks import beginning, classes, members
from sne_jax import atomic
from sne_jax import predictor as predictor_lib
from sne_jax.encoders import table
from sne_jax.learning import (
  invariance,
  logging,
  metrics,
  notes,
  optimizers,
  parallel,
  pipeline,
  training,
)
from sne_jax.networks import chunking

MONITORS = ("loss", "kendall_tau")
"""What is measured on the validation part while training."""

METRICS = ("mse", "r_squared", "kendall_tau", "spearman", "mae")
RESULT_FILE = "result.json"
CODES_FILE = "codes.npz"
"""Codes `[M, D]` of the members of every part but `train`, of the best step."""


class Trainer:
  """What all seeds of a run share: data, model, and one compiled update."""

  def __init__(self, options: options_lib.Options, data: members.Data):
    """Builds encoder, model, loss and update.

    Raises:
      ValueError: options that do not go together, or with this zoo.
    """
    self.options = options
    self.data = data
    self.description = describe(options, data)
    self.notes = _notes(options, data, self.description)
    if options.run.init_from:
      self.description |= beginning.measured(options, data, self.description)
    self._encoder = predictor_lib.build_encoder(self.description)
    self._net = predictor_lib.build_model(self.description, self._encoder)
    self._train = _scaled_targets(data.parts["train"], self.description)
    task = options.run.loss
    if data.classes and options.data.augment_mixup != "none":
      task = "soft_classes"  # A mixed network is between classes.
      numbers = self._train.targets
      probable = classes.certain(numbers, len(data.classes))
      self._train = self._train._replace(targets=probable)
    self._mesh = parallel.make_mesh(options.run.devices or None)
    loss = invariance.make_loss(self._net, task, options.invariance)
    steps = options.train.num_steps
    self._schedule = optimizers.make_schedule(options.optimizer, steps)
    self._tx = optimizers.make_optimizer(options.optimizer, steps)
    self._update = training.make_update_fn(
      loss,
      self._tx,
      ema_decay=options.optimizer.ema_decay,
      mesh=self._mesh,
    )
    known = classes.MONITORS if data.classes else MONITORS
    if options.train.monitor not in known:
      raise ValueError(
        f"monitor is {options.train.monitor!r}, and loss is {options.run.loss};"
        f" choose {' or '.join(known)}"
      )
    self._init = make_init_fn(self._net, self._encoder, self._train.specs[0])
    # One for all seeds and steps, so that it is compiled once.
    self._judge = predictor_lib.Predictor(self.description, None)
    self._validation = self._judge.batches(data.parts["val"])

  def run(self, folder: pathlib.Path, seed: int) -> dict[str, Any]:
    """Trains with one seed, or returns what an earlier run of it has given."""
    if (folder / RESULT_FILE).exists():
      log.info("seed %d is finished already", seed)
      return logging.read_json(folder / RESULT_FILE)
    options = self.options
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / predictor_lib.MODEL_FILE, self.description)
    state, batch_fn = self.start(seed)
    result = training.fit(
      state,
      self._update,
      batch_fn,
      self._evaluate,
      options.train,
      folder,
      schedule=self._schedule,
      title=f"seed {seed}",
    )
    report, codes = self._report(jax.device_get(result.best_params), seed)
    np.savez(folder / CODES_FILE, **codes)
    steps = int(result.state.step)
    report |= {
      "seed": seed,
      "num_params": sum(x.size for x in jax.tree.leaves(result.state.params)),
      "best_step": result.best_step,
      "steps": steps,
      "stopped_early": result.stopped_early,
      "train_seconds": result.seconds,
      "networks_per_second": (
        steps * options.data.batch_size / max(result.seconds, 1e-9)
      ),
    }
    _write_json(folder / RESULT_FILE, report)
    return report

  def start(self, seed: int):
    """Returns the state before the first update, and the batches."""
    options, specs = self.options, self._train.specs
    params = self._init(seed)
    if options.run.init_from:
      params = beginning.with_encoder(options.run.init_from, seed, params)
    state = training.init_state(
      params,
      self._tx,
      jax.random.key(seed),
      ema_decay=options.optimizer.ema_decay,
      mesh=self._mesh,
    )
    batch_fn = pipeline.Pipeline(
      self._train,
      self._encoder.make_packer(specs),
      options.data,
      seed=seed,
      pairs=options.invariance.invariance_weight > 0,
      devices=self._mesh.size,
      place=lambda batch: parallel.shard(batch, self._mesh),
    )
    return state, batch_fn

  def _evaluate(self, params) -> dict[str, float]:
    """Measures parameters on the validation part, the mean over targets."""
    networks = self.data.parts["val"]
    logits, _ = self._judge.run(
      jax.device_get(params), self._validation, len(networks.numbers)
    )
    if self.data.classes:
      return classes.monitored(networks.targets[:, 0], logits)
    pairs = list(
      zip(networks.targets.T, self._judge.scaled(logits).T, strict=True)
    )
    return {
      "loss": float(np.mean([metrics.mse(*pair) for pair in pairs])),
      "kendall_tau": float(np.mean([metrics.kendall_tau(*p) for p in pairs])),
    }

  def _report(self, params, seed: int):
    """Predicts the held-out parts, and measures the predictions.

    Returns:
      What the result file holds of it, and the codes `[M, D]` of every part.
    """
    best = self._judge
    best.params = params
    report: dict[str, Any] = {"metrics": {}, "predictions": {}}
    report["notes"] = self.notes
    codes = {}
    for part in ("val", *self.data.tests()):
      networks = self.data.parts[part]
      logits, codes[part] = best.run(
        params, best.batches(networks), len(networks.numbers)
      )
      found = best.scaled(logits)
      report["predictions"][part] = found.tolist()
      clusters = self.data.clusters(part)
      report["metrics"][part] = {
        name: classes.measured(networks.targets[:, t], found, clusters)
        if self.data.classes
        else metrics.evaluate(
          networks.targets[:, t], found[:, t], METRICS, clusters=clusters
        )
        for t, name in enumerate(best.targets)
      }
    report["seconds_per_network"] = self._cost(params)
    report["invariance"] = invariance.measure(
      best.logits,
      as_list(self.data.parts["test"]),
      self.description["chunk_options"]["chunk_size"],
      seed=seed,
    )
    return report, codes

  def _cost(self, params) -> float:
    """Returns the seconds that a prediction takes, compiled and packed."""
    networks = self.data.parts["test"]
    count = len(networks.numbers)
    begun = time.perf_counter()
    self._judge.run(params, self._judge.batches(networks), count)
    return (time.perf_counter() - begun) / count


def make_init_fn(net, encoder, spec):
  """Returns the jitted `init(seed) -> params`; networks like `spec` do."""
  return jax.jit(
    functools.partial(predictor_lib.init_params, net, encoder, spec)
  )


def describe(
  options: options_lib.Options, data: members.Data
) -> dict[str, Any]:
  """Returns what `model.json` holds: all that a `Predictor` must know."""
  train = data.parts["train"]
  name = options.run.encoder
  own = options.encoder_options(name)
  measured = table.measure(name, own, as_list(train))
  trained = [train.specs[n] for n in sorted(set(train.numbers))]
  chunk = chunking.resolved(options.chunk, trained)
  spread = train.targets.std(axis=0)
  scaling = {
    "target_mean": train.targets.mean(axis=0).tolist(),
    "target_spread": np.where(spread > 0, spread, 1.0).tolist(),
  }
  return {
    "encoder": name,
    "encoder_options": dataclasses.asdict(own),
    "chunk_options": dataclasses.asdict(chunk),
    **measured,
    "head": {
      "hidden_width": options.run.head_width,
      "dropout": options.run.head_dropout,
    },
    "targets": list(members.target_labels(options.run)),
    "loss": options.run.loss,
    **({"classes": list(data.classes)} if data.classes else scaling),
    "max_level": max(spec.num_levels for spec in trained) - 1,
  }


def _notes(
  options: options_lib.Options, data: members.Data, description: dict[str, Any]
) -> list[str]:
  """Logs, and returns for the report, what is to be said of symmetries."""
  sne = options.run.encoder == "sne"
  chunk = chunking.ChunkOptions(**description["chunk_options"])
  if sne and not options.chunk.chunk_size:
    log.info("chunk_size %d, derived from the networks", chunk.chunk_size)
  parts = [data.parts[part] for part in ("train", "val", *data.tests())]
  found = notes.of_training(
    options.sne if sne else None,
    chunk,
    options.data,
    parts,
    options.invariance.invariance_weight,
  )
  for line in found:
    log.warning("%s", line)
  return found


def as_list(networks: pipeline.Networks) -> list:
  """Returns `(spec, weights)` of every network."""
  return [
    (networks.specs[n], np.asarray(v))
    for n, v in zip(networks.numbers, networks.vectors, strict=True)
  ]


def _scaled_targets(networks: pipeline.Networks, description):
  """Standardises the targets of a regression; bce and classes keep them."""
  if description["loss"] == classes.LOSS:
    return networks
  if description["loss"] == "bce":
    low, high = networks.targets.min(), networks.targets.max()
    if low < 0 or high > 1:
      raise ValueError(
        f"loss bce needs targets in [0, 1], but {description['targets']} go"
        f" from {low:g} to {high:g}; use --loss=mse"
      )
    return networks
  mean = np.asarray(description["target_mean"])[None, :]
  spread = np.asarray(description["target_spread"])[None, :]
  return networks._replace(targets=(networks.targets - mean) / spread)


def _write_json(path: pathlib.Path, value: Any) -> None:
  atomic.write_atomically(path, json.dumps(value, indent=2, sort_keys=True))
