"""The model of a run: which seeds have finished, and what each holds.

Dimensions: `N` networks, `D` width of a code.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging as log

from sne_jax.learning.evaluation import calibration
from sne_jax.learning.training import train_state, workdirs
from sne_jax.learning.training.workdirs import MODEL_FILE, RESULT_FILE


class PredictorError(ValueError):
  """A folder that holds no usable model; the message says why."""


def read(
  folder: Path, verify: bool
) -> tuple[Path, dict[str, Any], list[Any], calibration.Calibration]:
  """Reads the model of a run, of one of its seeds, or of `save`.

  Returns:
    The folder of its first seed, the description, the parameters of each seed,
    and what is known of the training.

  Raises:
    DamagedError: a file is not what was written.
    PredictorError: there is no finished model in that folder.
  """
  if verify:
    workdirs.verify_run(folder, remedy=train_state.UNVERIFIED)
  known = calibration.read(folder)
  if (folder / MODEL_FILE).exists():
    seeds = [folder]
  else:
    seeds = finished(folder, known.seeds)
  if not seeds:
    raise PredictorError(
      f"{folder} holds no {MODEL_FILE}, nor do folders seed* in it; give the"
      " workdir of a run, or the folder of a saved predictor"
    )
  described = [(seed, *read_seed(seed, verify)) for seed in seeds]
  description = described[0][1]
  for seed, other, _ in described:
    if other != description:
      name = next(n for n in description if description[n] != other.get(n))
      raise PredictorError(
        f"{seeds[0]} and {seed} hold different models (their {name} differ);"
        " load each by itself"
      )
  known = known._replace(codes=calibration.read_codes(seeds))
  params = [p for *_, p in described]
  return seeds[0], description, params, known


def save(
  folder: str | Path,
  description: Mapping[str, Any],
  params: Sequence[Any],
  known: calibration.Calibration,
) -> None:
  """Writes a model as `read` reads it.

  Raises:
    ValueError: the folder holds a model already.
  """
  folder = Path(folder)
  if (folder / MODEL_FILE).exists() or any(folder.glob(f"seed*/{MODEL_FILE}")):
    raise ValueError(f"{folder} holds a model already; choose another folder")
  numbers = known.seeds or range(len(params))
  widths = len(params)
  for place, (number, one) in enumerate(zip(numbers, params, strict=True)):
    seed = folder / f"seed{number}"
    seed.mkdir(parents=True)
    seed_codes = {
      part: np.split(values, widths, axis=-1)[place]
      for part, values in known.codes.items()
    }
    train_state.Checkpoints(seed).save_best(0, one, {})
    contents: dict[str, str | bytes] = {}
    if seed_codes:
      content = calibration.codes_content(seed_codes)
      contents[calibration.CODES_FILE] = content
    contents[MODEL_FILE] = json.dumps(description, indent=2)
    workdirs.finish(seed, contents)
  calibration.write(folder, known.described(), known.made, workdirs.OF_RUN)


def finished(folder: Path, numbers: Sequence[int]) -> list[Path]:
  """Returns the folders of the seeds to load, of a run of several.

  Args:
    folder: of the run.
    numbers: seeds that its calibration is of; empty: unknown. A seed that has
      failed, or is still at work, is in no calibration.
  """
  seeds = sorted(path.parent for path in folder.glob(f"seed*/{MODEL_FILE}"))
  if numbers:
    names = {f"seed{number}" for number in numbers}
    return [seed for seed in seeds if seed.name in names]
  # A run that has not finished: seeds with results, if any; a saved model of
  # unknown calibration has seeds without results.
  done = [seed for seed in seeds if (seed / RESULT_FILE).exists()]
  if not done or len(done) == len(seeds):
    return seeds
  others = [seed.name for seed in seeds if seed not in done]
  log.warning(
    "%s has not finished: %s left out, without a %s",
    folder,
    ", ".join(others),
    RESULT_FILE,
  )
  return done


def read_seed(folder: Path, verify: bool) -> tuple[dict[str, Any], Any]:
  """Returns description and best parameters of a seed.

  Raises:
    PredictorError: it has no trained model, or none that can be read.
    DamagedError: a file is not what was written.
  """
  if verify:
    names = (MODEL_FILE, calibration.CODES_FILE)
    workdirs.verify_seed(folder, names, remedy=train_state.UNVERIFIED)
  try:
    params, _ = train_state.load_best(folder, verify=verify)
  except train_state.CheckpointError as error:
    raise PredictorError(
      f"{folder} has no trained model yet ({error})"
    ) from error
  try:
    return json.loads((folder / MODEL_FILE).read_text()), params
  except ValueError as error:
    raise PredictorError(
      f"{folder / MODEL_FILE} describes no model that this version of sne_jax"
      f" can build: {error!r}"
    ) from error


def results(folder: str | Path) -> list[dict[str, Any]]:
  """Returns what is reported of each finished seed of a run, of `fit`."""
  folder = Path(folder)
  numbers = calibration.read(folder).seeds
  paths = [seed / RESULT_FILE for seed in finished(folder, numbers)]
  return [json.loads(p.read_text()) for p in paths if p.exists()]
