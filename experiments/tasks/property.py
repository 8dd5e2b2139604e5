"""Predicts properties of networks from their weights, over several seeds."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import optax

from experiments import options as options_lib
from experiments.tasks import members
from sne_jax import predictor as predictor_lib
from sne_jax.learning import (
  logging,
  invariance,
  metrics,
  optimizers,
  parallel,
  pipeline,
  training,
)
from sne_jax.networks import symmetry

METRICS = ("mse", "r_squared", "kendall_tau", "spearman", "mae")
RESULT_FILE = "result.json"
NOT_IDENTITY = ("run.workdir", "run.only", "run.title", "run.seeds")


def describe(options, data: members.Data) -> dict[str, Any]:
  """Returns what `model.json` holds: all that a `Predictor` must know."""
  train = data.parts["train"]
  squares, count = 0.0, 0
  for number, vector in zip(train.numbers, train.vectors, strict=True):
    spec = train.specs[number]
    fan_in = np.repeat(
      [t.fan_in for t in spec.tensors], [t.size for t in spec.tensors]
    )
    scale = fan_in if options.sne.fan_in_scale else 1.0
    squares += float(np.sum(np.square(vector, dtype=np.float64) * scale))
    count += len(vector)
  spread = train.targets.std(axis=0)
  return {
    "encoder": options.run.encoder,
    "encoder_options": dataclasses.asdict(options.sne),
    "chunk_options": dataclasses.asdict(options.chunk),
    "global_scale": float(np.sqrt(squares / count)),
    "head": {
      "hidden_width": options.run.head_width,
      "dropout": options.run.head_dropout,
    },
    "targets": list(members.target_names(options.run)),
    "loss": options.run.loss,
    "target_mean": train.targets.mean(axis=0).tolist(),
    "target_spread": np.where(spread > 0, spread, 1.0).tolist(),
    "max_level": max(s.num_levels for s in train.specs) - 1,
  }


def train_seed(
  options, data: members.Data, folder: pathlib.Path, seed: int
) -> dict[str, Any]:
  """Trains with one seed, or returns what an earlier run of it has given."""
  if (folder / RESULT_FILE).exists():
    return json.loads((folder / RESULT_FILE).read_text())
  description = describe(options, data)
  folder.mkdir(parents=True, exist_ok=True)
  text = json.dumps(description, indent=2, sort_keys=True)
  logging.write_atomically(folder / predictor_lib.MODEL_FILE, text)
  encoder = predictor_lib.build_encoder(description)
  net = predictor_lib.build_model(description, encoder)
  train = _scaled_targets(data.parts["train"], description)
  specs = train.specs
  mesh = parallel.make_mesh(options.run.devices or None)
  paired = options.invariance.invariance_weight > 0
  on_device = options.data.symmetry_on == "device"
  if on_device and len(specs) > 1:
    raise ValueError(
      f"symmetry_on is device, but the zoo has {len(specs)} architectures;"
      " use --symmetry_on=host"
    )
  loss = invariance.make_loss(
    net,
    options.run.loss,
    options.invariance,
    sampler=symmetry.make_permutation_sampler(specs[0]) if on_device else None,
    permute=options.data.augment_permutation,
  )
  schedule = optimizers.make_schedule(options.optimizer, options.train.num_steps)
  tx = optimizers.make_optimizer(options.optimizer, options.train.num_steps)
  decay = options.optimizer.ema_decay
  params = predictor_lib.init_params(net, encoder, specs[0], seed)["params"]
  state = training.init_state(
    params, tx, jax.random.key(seed), ema_decay=decay, mesh=mesh
  )
  batch_fn = pipeline.Pipeline(
    train,
    encoder.make_packer(specs),
    options.data,
    seed=seed,
    pairs=paired,
    devices=mesh.size,
    place=lambda batch: parallel.shard(batch, mesh),
  )
  judge = predictor_lib.Predictor(description, params)
  validation = data.parts["val"]
  batches = judge.batches(validation)

  def evaluate(now) -> dict[str, float]:
    now = jax.device_get(now)
    logits, _ = judge.run(now, batches, len(validation.numbers))
    found = judge.scaled(logits)
    mse = [
      metrics.mse(y, p) for y, p in zip(validation.targets.T, found.T, strict=True)
    ]
    tau = [
      metrics.kendall_tau(y, p)
      for y, p in zip(validation.targets.T, found.T, strict=True)
    ]
    return {"loss": float(np.mean(mse)), "kendall_tau": float(np.mean(tau))}

  update = training.make_update_fn(loss, tx, ema_decay=decay, mesh=mesh)
  result = training.fit(
    state,
    update,
    batch_fn,
    evaluate,
    options.train,
    folder,
    schedule=schedule,
    title=f"seed {seed}",
  )
  best = predictor_lib.Predictor(description, jax.device_get(result.best_params))
  report = _report(options, data, best, seed)
  report |= {
    "seed": seed,
    "num_params": sum(x.size for x in jax.tree.leaves(params)),
    "best_step": result.best_step,
    "steps": int(result.state.step),
    "stopped_early": result.stopped_early,
    "train_seconds": result.seconds,
    "networks_per_second": int(result.state.step)
    * options.data.batch_size
    / max(result.seconds, 1e-9),
  }
  logging.write_atomically(
    folder / RESULT_FILE, json.dumps(report, indent=2, sort_keys=True)
  )
  return report


def _scaled_targets(networks: pipeline.Networks, description):
  """Standardises the targets of a regression; bce keeps them."""
  if description["loss"] == "bce":
    low, high = networks.targets.min(), networks.targets.max()
    if low < 0 or high > 1:
      raise ValueError(
        f"loss bce needs targets in [0, 1], but {description['targets']} go"
        f" from {low:g} to {high:g}; use --loss=mse"
      )
    return networks
  mean = np.asarray(description["target_mean"])
  spread = np.asarray(description["target_spread"])
  return networks._replace(targets=(networks.targets - mean) / spread)


def _report(options, data: members.Data, best, seed: int) -> dict[str, Any]:
  """Predicts the held-out parts and measures the predictions."""
  report: dict[str, Any] = {"metrics": {}, "predictions": {}}
  for part in ("val", "test"):
    networks = data.parts[part]
    found = best.predict(as_list(networks))
    report["predictions"][part] = found.tolist()
    report["metrics"][part] = {
      name: metrics.evaluate(networks.targets[:, t], found[:, t], METRICS)
      for t, name in enumerate(best.targets)
    }
  report["invariance"] = invariance.measure(
    best.logits,
    as_list(data.parts["test"]),
    options.chunk.chunk_size,
    seed=seed,
  )
  return report


def as_list(networks: pipeline.Networks) -> list:
  """Returns `(spec, weights)` of every network."""
  return [
    (networks.specs[n], np.asarray(v))
    for n, v in zip(networks.numbers, networks.vectors, strict=True)
  ]
