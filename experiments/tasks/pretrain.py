"""Trains encoders without labels, and measures what their codes hold.

`--pretrain=sane`, `hyper_representation` or `sne` trains one on the training
networks of a zoo; validation loss chooses the parameters. Linear probes then
read every target from the codes: labels are for them alone. The baselines
`sne_untrained`, `statistics`, `pca` and `weights` go through the same probes.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging as log

import sne_jax
from experiments.cli import options as options_lib
from experiments.cli import run_options
from experiments.tasks import ceilings, members, outcome
from sne_jax import unlabelled
from sne_jax.cli.reports import report, run_report
from sne_jax.encoders.baselines import statistics
from sne_jax.learning.evaluation import calibration, linear_probes, metrics
from sne_jax.learning.selfsup import methods
from sne_jax.learning.training import loop, records, workdirs
from sne_jax.networks import tokens
from sne_jax.networks.spec import NetworkSpec

METRICS = ("r_squared", "kendall_tau")
RESULT_FILE = "result.json"
RESPLIT = (
  "Every seed has drawn its own split of the zoo, of whole networks; sizes are"
  " about those of the zoo's."
)


def train(
  options: options_lib.Options,
  data: members.Data,
  workdir: pathlib.Path,
  programs: dict[str, Any],
) -> list[dict[str, Any]]:
  """Trains and probes all seeds of a run; returns what is known of each.

  Args:
    options: of the run.
    data: its networks.
    workdir: its folder; seeds that are finished there are taken as they are.
    programs: compiled programs, to share with other runs.

  Raises:
    ValueError: of `check`.
  """
  check(options, data)
  first, results = options.run.first_seed, []
  for seed in range(first, first + options.run.seeds):
    folder = workdir / f"seed{seed}"
    try:
      results.append(_one(options, data, folder, seed, programs))
    except loop.TrainingDiverged as error:
      log.error("seed %d failed: %s", seed, error)
      results.append({"seed": seed, "failed": str(error)})
  return results


def check(options: options_lib.Options, data: members.Data) -> None:
  """Looks at the networks, before anything is trained.

  Raises:
    ValueError: networks of several architectures, or options that do not go
      together, or do not fit the networks.
  """
  _one_layout(data)
  how = unlabelled.PretrainRecipe(**fields_of(options))
  if options.run.pretrain in run_options.PRETRAINED:
    how.check_batches(len(data.parts["train"]))
    parts = (data.parts["train"], data.parts["val"])
    methods.build(unlabelled.describe(*parts, how))


def fields_of(options: options_lib.Options) -> dict[str, Any]:
  """Returns the options of a run as the fields of a `PretrainRecipe`."""
  kind = options.run.pretrain
  method = kind if kind in run_options.PRETRAINED else "sne"
  return {
    "method": method,
    "encoder": options.encoder_options(method),
    "chunks": options.chunk,
    "view": options.view,
    "losses": options.contrast,
    "options": options.pretrain,
    "data": options.data,
    "optimizer": options.optimizer,
    "training": options.train,
    "devices": options.run.devices,
  }


def _one(options, data, folder, seed: int, programs) -> dict[str, Any]:
  """Trains and probes one seed, or returns what an earlier run has given."""
  path = folder / RESULT_FILE
  if path.exists():
    remedy = f"restore the file, or remove {folder} and start the run again"
    workdirs.verify_seed(folder, remedy=remedy)
  if path.exists() and "metrics" in (done := records.read_json(path)):
    log.info("seed %d is finished already", seed)
    return done
  folder.mkdir(parents=True, exist_ok=True)
  if options.pretrain.resplit:
    data = members.resplit(data, seed)
  kind, weights = options.run.pretrain, {}
  for part, networks in data.parts.items():
    weights[part] = unlabelled.stacked(networks)
  result: dict[str, Any] = {"seed": seed}
  if kind in ("statistics", "pca", "weights"):
    codes = _plain_codes(kind, _one_layout(data), weights, options)
    result |= {"best_step": 0, "train_seconds": 0.0, "num_params": 0}
    result |= {"networks_per_second": 0.0}
  else:
    model = sne_jax.pretrain(
      data.parts["train"],
      data.parts["val"],
      seed=seed,
      workdir=folder,
      programs=programs,
      untrained=kind not in run_options.PRETRAINED,
      seen=sorted(members.identities(data, ("train", "val"))),
      **fields_of(options),
    )
    inputs = {part: model.prepare(x) for part, x in weights.items()}
    codes = {
      part: model.method.encode(model.params, x) for part, x in inputs.items()
    }
    result |= model.results
    if model.method.reconstruct is not None:
      result["reconstruction"] = _reconstruction(model, inputs)
  result |= probed(options, data, codes)
  contents = {
    calibration.CODES_FILE: calibration.codes_content(codes),
    RESULT_FILE: json.dumps(report.to_json(result), indent=2),
  }
  workdirs.finish(folder, contents)
  return result


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
  scores: dict[str, Any] = {}
  penalties = {}
  truth = {part: networks.targets for part, networks in data.parts.items()}
  parts = ("val", *data.tests())
  for t, name in enumerate(members.target_labels(options.run)):
    probe = linear_probes.fit(
      codes["train"],
      truth["train"][:, t],
      (codes["val"], truth["val"][:, t]),
    )
    penalties[name] = probe.penalty
    for part in parts:
      scores.setdefault(part, {})[name] = metrics.evaluate(
        truth[part][:, t],
        probe.predict(codes[part]),
        METRICS,
        clusters=data.clusters(part),
        num_resamples=200,
      )
  return {"metrics": scores, "penalties": penalties}


def _plain_codes(kind, spec, weights, options) -> dict[str, np.ndarray]:
  """Returns the codes of a baseline that has no parameters to draw."""
  weights = {part: x.astype(np.float64) for part, x in weights.items()}
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


def _reconstruction(model, inputs) -> dict[str, Any]:
  """R^2 of reconstructions by part and layer, over the training mean."""
  layers = tokens.rows(model.spec)
  mean = inputs["train"].astype(np.float64).mean(axis=0)
  shares = {}
  for part, x in inputs.items():
    if part == "train":
      continue
    error = np.square(
      model.method.reconstruct(model.params, x).astype(np.float64) - x
    )
    error, whole = error.sum(axis=0), np.square(mean - x).sum(axis=0)
    places = {layer.name: layer.index.reshape(-1) for layer in layers}
    places["all"] = np.arange(x.shape[1])
    shares[part] = {
      name: float(1 - error[index].sum() / max(whole[index].sum(), 1e-12))
      for name, index in places.items()
    }
  return shares


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
  results = outcome.of_training(options, data, seeds, seconds, named=True) | {
    "target": "properties by linear probes",
    "references": {},
    "invariance": {},
    "notes": [RESPLIT] if options.pretrain.resplit else [],
  }
  results["summaries"] = {
    part: outcome.summary(results, part) for part in data.tests()
  }
  results["reconstruction"] = _mean_reconstruction(report.finished(seeds))
  results |= {"summary": outcome.summary(results)}
  return ceilings.added(results, options, data)


def _mean_reconstruction(good) -> dict[str, Any]:
  """Returns the means over seeds, with intervals, by part and layer."""
  rows = [e["reconstruction"] for e in good if "reconstruction" in e]
  return {
    part: {
      layer: metrics.mean_interval([row[part][layer] for row in rows])
      for layer in rows[0][part]
    }
    for part in (rows[0] if rows else ())
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
  names = [("train/loss", "training loss"), ("val/loss", "validation loss")]
  if options.run.pretrain != "sne":
    names += [("val/reconstruction", "validation reconstruction")]
    names += [("val/contrast", "validation contrast")]
  results["tables"] = _reconstruction_table(results)
  drawn = outcome.draw_curves(workdir, seeds, names)
  run_report.write(workdir, results, drawn)


def _reconstruction_table(results) -> list[dict[str, Any]]:
  parts = results["reconstruction"]
  if not parts:
    return []
  layers = next(iter(parts.values()))
  return [
    {
      "title": "Reconstruction",
      "text": "R^2 of whole networks, standardised, against the mean of the"
      " training networks; mean over seeds with a 95 % t interval.",
      "header": ["layer", *parts],
      "rows": [
        [layer, *(report.with_interval(row[layer]) for row in parts.values())]
        for layer in layers
      ],
    }
  ]
