"""Encoders that begin where a pretraining without labels has ended.

What `--init_from` names: the parameters of the encoder are taken, and what it
has measured on its training networks; the head is new. Whatever would make it
another encoder is refused, and so is a pretraining that has seen the networks
that are now to be tested on.
"""

import pathlib
from typing import Any

import jax
import numpy as np

from experiments import options as options_lib
from experiments.tasks import members
from sne_jax.learning import logging, pretraining


def measured(
  options: options_lib.Options, data: members.Data, description: dict[str, Any]
) -> dict[str, Any]:
  """Returns what the pretrained encoder has measured, to be kept.

  Args:
    options: of the run, with `init_from`.
    data: its networks.
    description: of its model, of `property.describe`.

  Raises:
    ValueError: there is no such pretraining, not of this encoder with these
      options, or it has seen what is now to be tested on.
  """
  first = options.run.first_seed
  found: dict[str, Any] = {}
  for seed in range(first, first + options.run.seeds):
    folder = folder_of(options.run.init_from, seed)
    if not (folder / pretraining.FILE).exists():
      raise ValueError(
        f"init_from: {folder} holds no {pretraining.FILE}; run --pretrain=sne"
        f" with --workdir={options.run.init_from} and as many seeds first"
      )
    theirs = logging.read_json(folder / pretraining.FILE)
    _check_options(folder, theirs, description)
    _check_split(folder, theirs, data)
    own = theirs["encoder_measured"]
    if found and own != found:
      raise ValueError(
        f"init_from: the seeds of {options.run.init_from} have measured"
        " different training networks; name the folder of one of them"
      )
    found = own
  return found


def with_encoder(init_from: str, seed: int, params: Any) -> Any:
  """Returns parameters whose encoder is the pretrained one.

  Args:
    init_from: of the run.
    seed: of the training.
    params: of the whole model, fresh.

  Raises:
    ValueError: the pretraining has not finished, or its parameters have other
      shapes.
  """
  folder = folder_of(init_from, seed)
  there = pretraining.Pretrained.load(folder).params["params"]["encoder"]
  here = params["params"]["encoder"]
  shapes = lambda tree: jax.tree.map(np.shape, tree)
  if shapes(there) != shapes(here):
    raise ValueError(
      f"init_from: the encoder in {folder} has parameters of other shapes than"
      " this run's; give both runs the same encoder options"
    )
  return {**params, "params": {**params["params"], "encoder": there}}


def folder_of(init_from: str, seed: int) -> pathlib.Path:
  """Returns the folder of the pretraining that a seed begins with."""
  folder = pathlib.Path(init_from)
  return (
    folder if (folder / pretraining.FILE).exists() else (folder / f"seed{seed}")
  )


def _check_options(folder, theirs, description) -> None:
  """Raises unless the encoder is the same, option by option."""
  if theirs["method"] != "sne":
    raise ValueError(
      f"init_from: {folder} holds a pretraining of {theirs['method']}, and the"
      " encoder is sne; name one of --pretrain=sne"
    )
  for group in ("encoder_options", "chunk_options"):
    for name, value in description[group].items():
      before = theirs[group].get(name)
      if before != value:
        raise ValueError(
          f"init_from: {name} is {before!r} in {folder}, and {value!r} here;"
          f" set --{name}={before}"
        )


def _check_split(folder, theirs, data: members.Data) -> None:
  """Raises if the pretraining may have seen networks that are now held out."""
  seen = set(theirs["seen"]) & members.identities(data, data.tests())
  if seen:
    raise ValueError(
      f"init_from: {folder} was pretrained on {len(seen)} of the networks that"
      " are now tested on; pretrain it on the same split, without resplit"
    )
