"""How far predictions of a run may be off, kept for `predict.py`.

The mean prediction of all seeds is compared with the truth on the validation
part, which was not trained on, though it chose the checkpoints. That the
intervals cover what they say is checked on the test part, and reported.

Dimensions: `N` members, `T` targets.
"""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from experiments import options as options_lib
from experiments.tasks import members
from sne_jax import atomic
from sne_jax.learning import conformal, novelty

FILE = "calibration.json"
LEVELS = (0.5, 0.8, 0.9, 0.95)


def measure(
  options: options_lib.Options,
  data: members.Data,
  seeds: list[dict[str, Any]],
) -> dict[str, Any]:
  """Returns the errors on the validation part, and coverage on the tests.

  Args:
    options: of the run.
    data: its networks, with targets that are numbers.
    seeds: results of the seeds that have finished, at least one.
  """
  train = data.parts["train"]
  seen = {novelty.architecture(train.specs[n]) for n in set(train.numbers)}
  found: dict[str, Any] = {
    "seeds": [e["seed"] for e in seeds],
    "architectures": sorted(seen),
    "targets": {},
  }
  for t, name in enumerate(members.target_labels(options.run)):
    mean = {
      part: np.mean([np.array(e["predictions"][part]) for e in seeds], 0)[:, t]
      for part in ("val", *data.tests())
    }
    truth = {part: data.parts[part].targets[:, t] for part in mean}
    errors = np.abs(truth["val"] - mean["val"])
    if not np.isfinite(errors).all():
      continue
    found["targets"][name] = {
      "errors": sorted(errors.tolist()),
      "coverage": {
        part: {
          f"{level:g}": conformal.covered(
            truth[part], mean[part], conformal.half_width(errors, level)
          )
          for level in LEVELS
        }
        for part in data.tests()
      },
    }
  return found


def write(workdir: pathlib.Path, found: dict[str, Any]) -> None:
  """Writes the file that `read` reads."""
  atomic.write_atomically(workdir / FILE, json.dumps(found, indent=2) + "\n")


class Calibration(NamedTuple):
  """What a run has left for those who predict with it."""

  errors: dict[str, np.ndarray]  # By target, of the validation part, [N].
  architectures: frozenset[str]  # Of the training networks; empty: unknown.


def read(workdir: pathlib.Path) -> Calibration:
  """Returns what `write` wrote; nothing where a run has not left any.

  Raises:
    ValueError: the file is not what `write` writes.
  """
  path = workdir / FILE
  if not path.exists():
    return Calibration({}, frozenset())
  try:
    found = json.loads(path.read_text())
    return Calibration(
      {n: np.array(t["errors"], float) for n, t in found["targets"].items()},
      frozenset(found["architectures"]),
    )
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{path} is damaged ({error!r}); delete it and start the run again"
    ) from error
