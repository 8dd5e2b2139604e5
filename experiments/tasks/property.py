"""Predicts properties of networks from their weights, over several seeds."""

import dataclasses
import pathlib
from typing import Any

import sne_jax
from experiments.cli import options as options_lib
from experiments.tasks import members
from sne_jax.learning.objectives import model
from sne_jax.learning.selfsup import pretraining
from sne_jax.learning.training import loop, recipe, records, workdirs
from sne_jax.learning.training import trainer as trainer_lib


def train(
  options: options_lib.Options,
  data: members.Data,
  workdir: pathlib.Path,
  programs: dict[str, Any],
) -> list[dict[str, Any]]:
  """Trains all seeds of a run; returns what is known of each.

  Args:
    options: of the run.
    data: its networks.
    workdir: its folder; seeds that are finished there are taken as they are.
    programs: compiled programs, to share with other runs.

  Raises:
    ValueError: options that do not go together, or with this zoo.
  """
  if options.run.init_from:
    _check_split(options, data)
  try:
    return sne_jax.fit(
      **parts_of(data),
      seeds=seeds_of(options),
      workdir=workdir,
      programs=programs,
      **fields_of(options),
    ).results
  except loop.TrainingDiverged as error:
    return error.results


def _check_split(options: options_lib.Options, data: members.Data) -> None:
  """Refuses a pretraining that may have seen what is now to be tested on."""
  tested = members.identities(data, data.tests())
  for seed in seeds_of(options):
    path = pretraining.folder_of(options.run.init_from, seed) / pretraining.FILE
    if not path.exists():
      continue  # `fit` says so.
    workdirs.verify_seed(path.parent, (pretraining.FILE,))
    seen = tested.intersection(records.read_json(path)["seen"])
    if seen:
      raise ValueError(
        f"init_from: {path.parent} was pretrained on {len(seen)} of the"
        " networks that are now tested on; pretrain it on the same split,"
        " without resplit"
      )


def parts_of(data: members.Data) -> dict[str, Any]:
  """Returns the networks of a run as `fit` takes them."""
  parts = {
    part: dataclasses.replace(networks, clusters=data.clusters(part))
    for part, networks in data.parts.items()
  }
  first = {part: parts.pop(part) for part in ("train", "val")}
  return {**first, "tests": parts}


def seeds_of(options: options_lib.Options) -> range:
  """Returns the seeds of a run."""
  first = options.run.first_seed
  return range(first, first + options.run.seeds)


def fields_of(options: options_lib.Options) -> dict[str, Any]:
  """Returns the options of a run as the fields of a `Recipe`."""
  run = options.run
  return {
    "encoder": run.encoder,
    "options": options.encoder_options(run.encoder),
    "chunks": options.chunk,
    "head": model.HeadOptions(
      hidden_width=run.head_width,
      dropout=run.head_dropout,
      collapsed=run.head_collapsed,
      collapsed_within=run.head_collapsed_within,
    ),
    "loss": run.loss,
    "data": options.data,
    "optimizer": options.optimizer,
    "training": options.train,
    "invariance": options.invariance,
    "init_from": run.init_from,
    "devices": run.devices,
  }


def trainer(
  options: options_lib.Options, data: members.Data
) -> trainer_lib.Trainer:
  """Returns what trains the seeds of a run.

  Raises:
    ValueError: options that do not go together, or with this zoo.
  """
  how = recipe.Recipe(**fields_of(options))
  return trainer_lib.Trainer(
    **parts_of(data), recipe=how, seeds=seeds_of(options)
  )


def describe(
  options: options_lib.Options, data: members.Data
) -> dict[str, Any]:
  """Returns what `model.json` holds; see `recipe.describe`."""
  how = recipe.Recipe(**fields_of(options))
  return recipe.describe(data.parts["train"], how, seeds_of(options))
