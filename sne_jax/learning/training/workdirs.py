"""Work directories of trainings: what they are of, and what is left in them.

Dimensions: none.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.training import records, train_state

MODEL_FILE = "model.json"
RESULT_FILE = "result.json"
FIT_FILE = "fit.json"
"""The options of a training, and checksums of its networks."""

FREE = ("training.log_every", "training.save_every", "training.keep", "devices")
"""Options that may change when a training is resumed."""


def config_of(recipe: Any, parts: Mapping[str, Networks]) -> dict[str, Any]:
  """Returns what decides the results of a training, as plain values.

  Args:
    recipe: a dataclass of options, of options objects too.
    parts: the networks, by part.
  """
  config: dict[str, Any] = {}
  for field in dataclasses.fields(recipe):
    value = getattr(recipe, field.name)
    nested: Any = value if dataclasses.is_dataclass(value) else None
    config[field.name] = dataclasses.asdict(nested) if nested else value
  config["networks"] = {part: digest(n) for part, n in parts.items()}
  return json.loads(json.dumps(config))


def digest(networks: Networks) -> str:
  """Returns a checksum of networks and targets."""
  sums = hashlib.sha256()
  specs = [spec.digest for spec in networks.specs]
  sums.update("".join(specs[n] for n in networks.numbers).encode())
  for vector in networks.vectors:
    sums.update(np.ascontiguousarray(vector).data)
  sums.update(repr((networks.labels, networks.targets.tolist())).encode())
  return sums.hexdigest()


def claim(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Makes a work directory the home of a training, of these options alone.

  Raises:
    train_state.WorkdirError: it holds one of others; the message names them.
  """
  train_state.claim_workdir(workdir, config, ignore=FREE, file=FIT_FILE)


def check(
  workdir: pathlib.Path,
  config: Mapping[str, Any],
  seed: int,
  description: Mapping[str, Any],
  *,
  free: tuple[str, ...] = (),
) -> None:
  """Refuses a work directory that holds another model; claims nothing.

  Args:
    workdir: the folder above those of the seeds.
    config: of `config_of`.
    seed: that is going to be trained.
    description: what its `model.json` is going to hold. A model of an earlier
      version, without `fit.json`, is known by that.
    free: options that may differ, as `FREE`.

  Raises:
    train_state.WorkdirError: it does.
  """
  if (workdir / FIT_FILE).exists():
    train_state.claim_workdir(
      workdir, config, ignore=(*FREE, *free), file=FIT_FILE
    )
    return
  now = json.loads(json.dumps(description))
  for folder in (workdir, *sorted(workdir.glob("seed*"))):
    if not (folder / MODEL_FILE).exists():
      continue
    before = records.read_json(folder / MODEL_FILE)
    names = sorted(n for n in now | before if before.get(n) != now.get(n))
    mine = folder.name == f"seed{seed}"
    if names or (mine and not (folder / RESULT_FILE).exists()):
      raise train_state.WorkdirError(
        f"{workdir} holds a model that this training has not made"
        + (f" (its {names[0]} differs)" if names else "")
        + "; choose another workdir"
      )
