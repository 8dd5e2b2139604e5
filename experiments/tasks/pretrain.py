"""Trains encoders without labels, and measures what their codes hold.

`--pretrain=sane`, `hyper_representation` or `sne` trains one on the training
networks of a zoo; validation loss chooses the parameters. Linear probes then
read every target from the codes: labels are for them alone. The baselines
`sne_untrained`, `statistics`, `pca` and `weights` go through the same probes.
"""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging as log

from experiments import comparison, figures, report, run_report
from experiments import options as options_lib
from experiments.tasks import members, outcome
from sne_jax import atomic
from sne_jax.encoders import statistics
from sne_jax.learning import (
  logging,
  metrics,
  optimizers,
  parallel,
  pretrain_methods,
  pretraining,
  probes,
  training,
)
from sne_jax.networks import tokens
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo import batching

METRICS = ("r_squared", "kendall_tau")
RESULT_FILE = "result.json"
CODES_FILE = "codes.npz"
"""Codes `[M, D]` of the members of every part, `train` too."""


class Trainer:
  """What all seeds of a pretraining share: networks, and compiled updates."""

  def __init__(self, options: options_lib.Options, data: members.Data):
    """Looks at the networks.

    Raises:
      ValueError: networks of several architectures, or options that do not go
        together, or do not fit the networks.
    """
    self.options = options
    self.data = data
    self.kind = options.run.pretrain
    self.spec = _one_layout(data)
    if options.train.monitor != "loss":
      raise ValueError(
        f"monitor is {options.train.monitor!r}, but pretraining knows no labels"
        " and chooses by validation loss; use --monitor=loss"
      )
    if self.kind in options_lib.PRETRAINED:
      self._check_batches()
      pretrain_methods.build(self.description(data))
    self._mesh = parallel.make_mesh(options.run.devices or None)
    self._built: dict[str, tuple] = {}

  def data_of(self, seed: int) -> members.Data:
    """Returns the networks of a seed, in its parts."""
    if self.options.pretrain.resplit:
      return members.resplit(self.data, seed)
    return self.data

  def description(self, data: members.Data) -> dict[str, Any]:
    """Returns what `pretrain_methods.build` must know."""
    method = "sne" if self.kind == "sne_untrained" else self.kind
    return pretraining.describe(
      method,
      self.spec,
      stacked(data, "train"),
      encoder=self.options.encoder_options(method),
      chunk=self.options.chunk,
      view=self.options.view,
      losses=self.options.contrast,
      options=self.options.pretrain,
    )

  def run(self, folder: pathlib.Path, seed: int) -> dict[str, Any]:
    """Trains with one seed, or returns what an earlier run of it has given."""
    if (folder / RESULT_FILE).exists():
      log.info("seed %d is finished already", seed)
      return logging.read_json(folder / RESULT_FILE)
    folder.mkdir(parents=True, exist_ok=True)
    data = self.data_of(seed)
    found: dict[str, Any] = {"seed": seed}
    if self.kind in ("statistics", "pca", "weights"):
      codes = _plain_codes(self.kind, self.spec, data, self.options)
      found |= {"best_step": 0, "train_seconds": 0.0, "num_params": 0}
      found |= {"networks_per_second": 0.0}
    else:
      codes, more = self._trained(folder, seed, data)
      found |= more
    np.savez(folder / CODES_FILE, **codes)
    found |= probed(self.options, data, codes)
    text = json.dumps(report.to_json(found), indent=2, sort_keys=True)
    atomic.write_atomically(folder / RESULT_FILE, text)
    return found

  def _trained(self, folder, seed: int, data: members.Data):
    """Trains; returns codes by part, and what is to be reported."""
    options, description = self.options, self.description(data)
    seen = sorted(members.identities(data, ("train", "val")))
    text = json.dumps(description | {"seen": seen}, sort_keys=True)
    atomic.write_atomically(folder / pretraining.FILE, text)
    method, init, update, evaluate = self._compiled(description)
    inputs = {
      part: pretraining.prepared(description, stacked(data, part))
      for part in data.parts
    }
    state = training.init_state(
      init(seed),
      self._tx,
      jax.random.key(seed),
      ema_decay=options.optimizer.ema_decay,
      mesh=self._mesh,
    )
    more: dict[str, Any] = {}
    if self.kind not in options_lib.PRETRAINED:
      params = state.params
      more |= {"best_step": 0, "train_seconds": 0.0, "networks_per_second": 0.0}
    else:
      result = training.fit(
        state,
        update,
        self._batches(method, inputs["train"], seed),
        functools.partial(evaluate, inputs["val"]),
        options.train,
        folder,
        schedule=self._schedule,
        title=f"{self.kind} seed {seed}",
      )
      params, steps = result.best_params, int(result.state.step)
      more |= {
        "best_step": result.best_step,
        "train_seconds": result.seconds,
        "networks_per_second": (
          steps * options.data.batch_size / max(result.seconds, 1e-9)
        ),
        "val_loss": result.best_metrics.get("loss"),
      }
    params = jax.device_get(params)
    more["num_params"] = sum(x.size for x in jax.tree.leaves(params))
    codes = {part: method.encode(params, x) for part, x in inputs.items()}
    if method.reconstruct is not None:
      more["reconstruction"] = _reconstruction(
        method, params, self.spec, inputs
      )
    return codes, more

  def _compiled(self, description):
    """Returns method, init, update and evaluation; built once if possible."""
    changing = dict(description)
    if self.kind in ("sane", "hyper_representation"):
      del changing["measured"], changing["reference"]  # Of the data alone.
    key = json.dumps(changing, sort_keys=True)
    if key in self._built:
      return self._built[key]
    options = self.options
    steps = options.train.num_steps
    self._schedule = optimizers.make_schedule(options.optimizer, steps)
    self._tx = optimizers.make_optimizer(options.optimizer, steps)
    method = pretrain_methods.build(description)
    update = training.make_update_fn(
      lambda params, batch, key: method.loss(params, batch, key, True),
      self._tx,
      ema_decay=options.optimizer.ema_decay,
      mesh=self._mesh,
    )
    built = method, jax.jit(method.init), update, self._evaluation(method)
    self._built[key] = built
    return built

  def _evaluation(self, method: pretrain_methods.Method):
    """Returns `evaluate(weights, params)`: mean losses of fixed views."""
    count = self.options.data.batch_size
    compiled = jax.jit(
      lambda params, batch, key: method.loss(params, batch, key, False)
    )
    placed = functools.cache(lambda n: jax.device_put(method.template(n)))

    def evaluate(weights: np.ndarray, params) -> dict[str, float]:
      size = min(count, len(weights))
      order = batching.epoch_order(0, 0, len(weights))
      params = jax.device_get(params)
      found = []
      for place in range(len(weights) // size):
        rows = weights[order[place * size : (place + 1) * size]]
        batch = pretrain_methods.Batch(rows, placed(size))
        loss, parts = compiled(params, batch, jax.random.key(place))
        found.append(jax.device_get(parts | {"loss": loss}))
      return {k: float(np.mean([f[k] for f in found])) for k in found[0]}

    return evaluate

  def _batches(self, method: pretrain_methods.Method, weights, seed: int):
    """Returns the batch of a step, `[D, b, ...]`, on the devices."""
    count, devices = self.options.data.batch_size, self._mesh.size
    own = method.template(count // devices)
    stack = lambda *leaves: np.stack(leaves)
    template = parallel.shard(jax.tree.map(stack, *[own] * devices), self._mesh)
    rows = np.arange(len(weights))

    def batch(step: int) -> pretrain_methods.Batch:
      chosen = batching.batch_rows(seed, step, count, rows)
      part = weights[chosen].reshape(devices, count // devices, -1)
      return pretrain_methods.Batch(parallel.shard(part, self._mesh), template)

    return batch

  def _check_batches(self):
    """Raises unless batches divide, and have somebody to contrast with."""
    count = self.options.data.batch_size
    if self.options.data.micro_batches > 1:
      raise ValueError(
        f"micro_batches is {self.options.data.micro_batches}, but pretraining"
        " contrasts the networks of a batch with each other; use"
        " --micro_batches=1"
      )
    networks = len(self.data.parts["train"].numbers)
    if count > networks:
      raise ValueError(
        f"batch_size is {count}, but there are {networks} training networks,"
        " and a network is not contrasted with itself; use --batch_size="
        f"{networks} or less"
      )
    devices = parallel.make_mesh(self.options.run.devices or None).size
    if count % devices or count // devices < 2:
      raise ValueError(
        f"batch_size is {count} over {devices} devices; contrast needs a"
        " multiple of the devices, and at least 2 networks on each"
      )


def stacked(data: members.Data, part: str) -> np.ndarray:
  """Returns the weights `[M, P]` of a part."""
  return np.stack([np.asarray(v) for v in data.parts[part].vectors])


def probed(
  options: options_lib.Options,
  data: members.Data,
  codes: Mapping[str, np.ndarray],
) -> dict[str, Any]:
  """Fits a probe for each target, and measures it on every held-out part.

  Training fits, validation chooses the penalty, and nothing else is looked at.

  Returns:
    `metrics` by part and target, and the `penalties` that were chosen.
  """
  found: dict[str, Any] = {}
  penalties = {}
  truth = {part: networks.targets for part, networks in data.parts.items()}
  parts = ("val", *data.tests())
  for t, name in enumerate(members.target_labels(options.run)):
    probe = probes.fit(
      codes["train"],
      truth["train"][:, t],
      (codes["val"], truth["val"][:, t]),
    )
    penalties[name] = probe.penalty
    for part in parts:
      found.setdefault(part, {})[name] = metrics.evaluate(
        truth[part][:, t],
        probe.predict(codes[part]),
        METRICS,
        clusters=data.clusters(part),
        num_resamples=200,
      )
  return {"metrics": found, "penalties": penalties}


def _plain_codes(kind, spec, data, options) -> dict[str, np.ndarray]:
  """Returns the codes of a baseline that has no parameters to draw."""
  weights = {
    part: stacked(data, part).astype(np.float64) for part in data.parts
  }
  if kind == "weights":
    return weights
  if kind == "statistics":
    return {
      part: statistics.tensor_statistics(spec, x) for part, x in weights.items()
    }
  mean = weights["train"].mean(axis=0)
  _, _, axes = np.linalg.svd(weights["train"] - mean, full_matrices=False)
  axes = axes[: options.pretrain.components]
  return {part: (x - mean) @ axes.T for part, x in weights.items()}


def _reconstruction(method, params, spec, inputs) -> dict[str, Any]:
  """R^2 of reconstructions by part and layer, over the training mean."""
  layers = tokens.rows(spec)
  mean = inputs["train"].astype(np.float64).mean(axis=0)
  found = {}
  for part, x in inputs.items():
    if part == "train":
      continue
    error = np.square(method.reconstruct(params, x).astype(np.float64) - x)
    error, whole = error.sum(axis=0), np.square(mean - x).sum(axis=0)
    places = {layer.name: layer.index.reshape(-1) for layer in layers}
    places["all"] = np.arange(x.shape[1])
    found[part] = {
      name: float(1 - error[own].sum() / max(whole[own].sum(), 1e-12))
      for name, own in places.items()
    }
  return found


def _one_layout(data: members.Data) -> NetworkSpec:
  """Returns the layout of all networks.

  Raises:
    ValueError: there are several; two are named, with the zoo of the second.
  """
  first = data.parts["train"].specs[data.parts["train"].numbers[0]].layout
  for part, networks in data.parts.items():
    for place, number in enumerate(networks.numbers):
      other = networks.specs[number].layout
      if other != first:
        zoo = data.names[data.members[part].zoo[place]]
        raise ValueError(
          "pretraining and its probes are about one architecture, here"
          f" {first.describe()}, but {zoo} has {other.describe()}; name zoos of"
          " one architecture"
        )
  return first


def collect(
  options: options_lib.Options,
  data: members.Data,
  seeds: list[dict[str, Any]],
  seconds: dict[str, float],
) -> dict[str, Any]:
  """Returns the results of a pretraining, for `results.json` and the report."""
  good = outcome.finished(seeds)
  rows = [
    entry
    | {
      "metrics": {
        part: {
          f"{name} {metric}": value
          for name, row in by_target.items()
          for metric, value in row.items()
        }
        for part, by_target in entry["metrics"].items()
      }
    }
    for entry in good
  ]
  results = {
    **comparison.heading(options),
    "target": "properties by linear probes",
    "seconds": seconds
    | {f"training seed {e['seed']}": e["train_seconds"] for e in good},
    "sizes": data.sizes(),
    "num_params": good[0]["num_params"] if good else None,
    "networks_per_second": good[0]["networks_per_second"] if good else None,
    "select": options.train.monitor,
    "seeds": rows + [entry for entry in seeds if "failed" in entry],
    "references": {},
    "invariance": {},
    "notes": _notes(options),
  }
  results["summaries"] = {
    part: outcome.summary(results, part) for part in data.tests()
  }
  results["reconstruction"] = _mean_reconstruction(good)
  return results | {"summary": outcome.summary(results)}


def _notes(options) -> list[str]:
  if not options.pretrain.resplit:
    return []
  return [
    "Every seed has drawn its own split of the zoo, of whole networks; sizes"
    " are about those of the zoo's."
  ]


def _mean_reconstruction(good) -> dict[str, Any]:
  """Returns the means over seeds, with intervals, by part and layer."""
  found = [e["reconstruction"] for e in good if "reconstruction" in e]
  return {
    part: {
      layer: metrics.mean_interval([f[part][layer] for f in found])
      for layer in found[0][part]
    }
    for part in (found[0] if found else ())
  }


def write(
  workdir: pathlib.Path,
  options: options_lib.Options,
  data: members.Data,
  seeds: list[dict[str, Any]],
  results: dict[str, Any],
) -> None:
  """Writes results, figures and report of a pretraining."""
  del data
  folder = workdir / "figures"
  folder.mkdir(parents=True, exist_ok=True)
  drawn = {}
  names = [("train/loss", "training loss"), ("val/loss", "validation loss")]
  if options.run.pretrain != "sne":
    names += [("val/reconstruction", "validation reconstruction")]
    names += [("val/contrast", "validation contrast")]
  curves = outcome.curves(workdir, seeds, names)
  if curves:
    drawn["Learning curves"] = figures.learning_curves(
      folder / "learning_curves.png", curves
    )
  results["tables"] = _reconstruction_table(results)
  report.write_results(workdir, results)
  run_report.write(workdir, results, drawn)


def _reconstruction_table(results) -> list[dict[str, Any]]:
  found = results["reconstruction"]
  if not found:
    return []
  layers = next(iter(found.values()))
  return [
    {
      "title": "Reconstruction",
      "text": "R^2 of whole networks, standardised, against the mean of the"
      " training networks; mean over seeds with a 95 % t interval.",
      "header": ["layer", *found],
      "rows": [
        [layer, *(report.with_interval(found[part][layer]) for part in found)]
        for layer in layers
      ],
    }
  ]
