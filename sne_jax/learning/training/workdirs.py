"""Work directories of trainings: what they are of, and what is left in them.

Dimensions: none.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax import atomic, digests
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import calibration
from sne_jax.learning.training import claims, records

MODEL_FILE = "model.json"
RESULT_FILE = "result.json"
FIT_FILE = "fit.json"
"""The options of a training, and checksums of its networks."""

PRETRAINED_FILE = "pretrained.json"
"""What describes an encoder that was trained without labels."""

EDITOR_FILE = "editor.json"
"""What describes an editor."""

MASKER_FILE = "masker.json"
"""What describes what predicts masks."""

OF_SEED = (
  *(MODEL_FILE, PRETRAINED_FILE, EDITOR_FILE, MASKER_FILE),
  *(calibration.CODES_FILE, records.FILE, RESULT_FILE),
)
"""Files of a seed that has finished, beside its checkpoints."""

OF_RUN = ("*.json", calibration.NEWCOMERS_FILE, f"*/{digests.FILE}")
"""Patterns of the files of a run, beside those of its seeds."""

FREE = (
  *("training.log_every", "training.save_every", "training.keep"),
  *("training.wandb", "devices"),
)
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
    claims.WorkdirError: it holds one of others; the message names them.
  """
  claims.claim_workdir(workdir, config, ignore=FREE, file=FIT_FILE)


def tidy(workdir: pathlib.Path) -> None:
  """Removes what killed writes have left in a run that nobody writes in."""
  atomic.remove_left(workdir, "figures", "seed*", "seed*/checkpoints")


def finished(workdir: pathlib.Path) -> list[int]:
  """Returns the seeds of a run that have finished."""
  folders = (path.parent.name for path in workdir.glob(f"seed*/{RESULT_FILE}"))
  numbers = (name.removeprefix("seed") for name in folders)
  return sorted(int(number) for number in numbers if number.isdecimal())


def finish(folder: pathlib.Path, contents: Mapping[str, str | bytes]) -> None:
  """Writes the last files of a seed, and the digests of all of them."""
  pins = f"checkpoints/*/*/{digests.FILE}"
  digests.put(folder, contents, also=(*OF_SEED, pins))


def verify_seed(
  folder: pathlib.Path,
  names: Sequence[str] = OF_SEED,
  *,
  remedy: str = digests.REMEDY,
) -> None:
  """Compares files of a seed with their digests, if it has any.

  Args:
    folder: of the seed, finished or not.
    names: of the files. The best checkpoint's digests always are; its files
      are compared where they are read.
    remedy: what the user can do.

  Raises:
    errors.DamagedError: a file is not what was written, or the digests of a
      seed that has finished are missing.
  """
  best = f"checkpoints/best/*/{digests.FILE}"
  if (folder / RESULT_FILE).exists() and any(folder.glob(best)):
    digests.need(folder, remedy=remedy)
  digests.check(folder, [*names, best], remedy=remedy)


def verify_run(
  folder: pathlib.Path,
  names: Sequence[str] = (calibration.FILE, calibration.NEWCOMERS_FILE),
  *,
  remedy: str = digests.REMEDY,
) -> None:
  """Compares files of a run with their digests, if it has any.

  Args:
    folder: of the run.
    names: of its files. The digests of seeds have to be those that it knows.
    remedy: what the user can do.

  Raises:
    errors.DamagedError: a file is not what was written, or the digests of a
      run that has finished are missing.
  """
  seeds = f"seed*/{digests.FILE}"
  if (folder / calibration.FILE).exists() and any(folder.glob(seeds)):
    digests.need(folder, remedy=remedy)
  digests.check(folder, [*names, seeds], remedy=remedy)


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
    claims.WorkdirError: it does.
  """
  if (workdir / FIT_FILE).exists():
    claims.claim_workdir(workdir, config, ignore=(*FREE, *free), file=FIT_FILE)
    return
  now = json.loads(json.dumps(description))
  for folder in (workdir, *sorted(workdir.glob("seed*"))):
    if not (folder / MODEL_FILE).exists():
      continue
    before = records.read_json(folder / MODEL_FILE)
    names = sorted(n for n in now | before if before.get(n) != now.get(n))
    mine = folder.name == f"seed{seed}"
    if names or (mine and not (folder / RESULT_FILE).exists()):
      raise claims.WorkdirError(
        f"{workdir} holds a model that this training has not made"
        + (f" (its {names[0]} differs)" if names else "")
        + "; choose another workdir"
      )
