"""A predictor in a folder, to be given away: safetensors and JSON alone.

  README.md            the model card, for people; nothing reads it back
  card.json            the facts on it; may be edited likewise
  model.json           encoder, options, head and targets
  model.safetensors    parameters of each seed, by their names
  calibration.json     errors of the training, for intervals
  codes.safetensors    codes of two parts, to tell strangers by
  strangers.safetensors  what else tells them, of models that know it
  sha256.json          the SHA-256 of all but the card and its facts

Dimensions: `N` networks, `S` seeds, `D` width of a code.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from flax import traverse_util

from sne_jax import atomic, digests
from sne_jax.learning.evaluation import calibration, newcomers
from sne_jax.learning.training.workdirs import MODEL_FILE
from sne_jax.sharing import card
from sne_jax.sharing.runs import PredictorError

WEIGHTS_FILE = "model.safetensors"
CODES_FILE = "codes.safetensors"
STRANGERS_FILE = "strangers.safetensors"
FILES = (
  *(card.PAGE, card.FILE, MODEL_FILE, WEIGHTS_FILE),
  *(calibration.FILE, CODES_FILE, STRANGERS_FILE, digests.FILE),
)
"""All that such a folder holds."""

REMEDY = (
  "get the model again from where it came; verify=False, or --noverify, reads"
  " it as it is"
)
_SEED = "seed"


class Model(NamedTuple):
  """What such a folder holds.

  Attributes:
    description: see `Predictor`.
    params: of each seed.
    known: of the training.
  """

  description: dict[str, Any]
  params: list[Any]
  known: calibration.Calibration


def write(
  folder: str | os.PathLike,
  description: Mapping[str, Any],
  params: Sequence[Any],
  known: calibration.Calibration,
  facts: card.Facts,
) -> Path:
  """Writes a folder, whole or not at all.

  Args:
    folder: new, or empty.
    description: see `Predictor`.
    params: trees of arrays, of each seed.
    known: of the training.
    facts: what its card says.

  Returns:
    The folder.

  Raises:
    ValueError: it holds something already.
  """
  folder = Path(folder)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise ValueError(f"{folder} is there already; choose another folder")
  facts = dataclasses.replace(facts, seeds=len(params))
  named = {
    f"{_SEED}{number}/{name}": np.asarray(array)
    for number, tree in zip(
      known.seeds or range(len(params)), params, strict=True
    )
    for name, array in traverse_util.flatten_dict(tree, sep="/").items()
  }
  contents: dict[str, str | bytes] = {
    MODEL_FILE: json.dumps(description, indent=2) + "\n",
    WEIGHTS_FILE: safetensors.numpy.save(named),
  }
  if known.codes:
    codes = {
      f"{place}/{part}": _halved(np.asarray(values, np.float32))
      for place, (part, values) in enumerate(known.codes.items())
    }
    contents[CODES_FILE] = safetensors.numpy.save(codes)
  if known.made is not None:
    contents[STRANGERS_FILE] = safetensors.numpy.save(
      {n: np.asarray(a, order="C") for n, a in known.made.arrays().items()}
    )
  folder.parent.mkdir(parents=True, exist_ok=True)
  whole = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
  try:
    digests.put(whole, contents)
    calibration.write(whole, known.described(), None)
    page = card.page(facts, description, sorted(known.architectures))
    atomic.write_atomically(whole / card.PAGE, page)
    atomic.write_atomically(whole / card.FILE, card.text(facts))
    whole.replace(folder)
  finally:
    shutil.rmtree(whole, ignore_errors=True)
  return folder


def is_one(folder: str | os.PathLike) -> bool:
  """Whether a folder holds a model of `write`."""
  return (Path(folder) / WEIGHTS_FILE).exists()


def read(folder: str | os.PathLike, *, verify: bool = True) -> Model:
  """Reads what `write` wrote; the card, which people edit, aside.

  Args:
    folder: that holds a model.
    verify: whether to compare all files with their digests.

  Raises:
    DamagedError: a file is not what was written.
    PredictorError: the folder holds no such model.
  """
  folder = Path(folder)
  if not is_one(folder):
    raise PredictorError(
      f"{folder} holds no {WEIGHTS_FILE}; give a folder that save_pretrained"
      " has written (Predictor.load, or --workdir, reads the folder of a run)"
    )
  if verify:
    digests.need(folder, remedy=REMEDY)
    digests.check(folder, remedy=REMEDY)
  try:
    description = json.loads((folder / MODEL_FILE).read_text())
    trees = _trees(safetensors.numpy.load_file(folder / WEIGHTS_FILE))
    known = calibration.read(folder)._replace(
      codes=_codes(folder), made=_made(folder)
    )
  except (
    *(OSError, KeyError, ValueError),
    safetensors.SafetensorError,
  ) as error:
    raise PredictorError(
      f"{folder} holds no model that can be read ({error}); {REMEDY}"
    ) from error
  numbers = known.seeds or sorted(trees)
  if sorted(trees) != sorted(numbers):
    raise PredictorError(
      f"{folder}: {WEIGHTS_FILE} is of the seeds {sorted(trees)}, and"
      f" {calibration.FILE} of {sorted(numbers)}; {REMEDY}"
    )
  return Model(description, [trees[n] for n in numbers], known)


def read_facts(folder: str | os.PathLike) -> card.Facts:
  """Returns the facts on a model's card.

  Raises:
    ValueError: the file holds none.
  """
  path = Path(folder) / card.FILE
  if not path.exists():
    return card.Facts()
  try:
    return card.of(json.loads(path.read_text()))
  except (ValueError, TypeError, AttributeError) as error:
    raise ValueError(
      f"{path} holds no facts of a model card ({error}); restore the file, or"
      " delete it: the model works without"
    ) from error


def _trees(named: Mapping[str, np.ndarray]) -> dict[int, Any]:
  """Returns the parameters of each seed, by its number.

  Raises:
    ValueError: names are none of `write`.
  """
  seeds: dict[int, dict[str, np.ndarray]] = {}
  for name, array in named.items():
    seed, _, rest = name.partition("/")
    number = seed.removeprefix(_SEED)
    if not rest or not number.isdecimal():
      raise ValueError(f"{name!r} is no name of a parameter")
    seeds.setdefault(int(number), {})[rest] = array
  if not seeds:
    raise ValueError("no parameters")
  return {
    number: traverse_util.unflatten_dict(flat, sep="/")
    for number, flat in seeds.items()
  }


def _made(folder: Path) -> newcomers.Newcomers | None:
  """Returns what is known of strangers; None: models of before know nothing."""
  path = folder / STRANGERS_FILE
  if not path.exists():
    return None
  return newcomers.of_arrays(safetensors.numpy.load_file(path))


def _halved(codes: np.ndarray) -> np.ndarray:
  """Returns codes in half precision, where it holds their range.

  Distances between them are compared to a per cent at best, and they may be
  most of what such a folder holds.
  """
  if np.abs(codes).max(initial=0) > np.finfo(np.float16).max:
    return codes
  return codes.astype(np.float16)


def _codes(folder: Path) -> dict[str, np.ndarray]:
  """Returns the codes of two parts, the reference first; empty: none kept."""
  path = folder / CODES_FILE
  if not path.exists():
    return {}
  read_ = safetensors.numpy.load_file(path)
  return {
    name.partition("/")[2]: read_[name].astype(np.float64)
    for name in sorted(read_)
  }
