"""How far predictions may be off, and what the training networks were like.

The mean prediction of all seeds is compared with the truth on the validation
part, which was not trained on, though it chose the checkpoints. Codes of two
parts say how unlike others a network is. Both are kept with a model.

Dimensions: `N` networks, `T` targets, `S` seeds, `D` width of a code.
"""

import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax import digests
from sne_jax.encoders.responses import programs
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import (
  classes,
  conformal,
  metrics,
  newcomers,
  novelty,
  strangers,
)
from sne_jax.networks.spec import NetworkSpec

FILE = "calibration.json"
CODES_FILE = "codes.npz"
"""Codes `[N, D]` of one seed, by part, of the best step."""

NEWCOMERS_FILE = "strangers.npz"
"""What a run knows of strangers; runs of before have none."""

METRICS = ("mse", "r_squared", "kendall_tau", "spearman", "mae")
"""What is measured of targets that are numbers."""

MOST_RUNS = 64
"""Kinds of networks whose way to be run is kept with a model."""

LEVELS = (0.5, 0.8, 0.9, 0.95)


class Calibration(NamedTuple):
  """What those who predict with a model must know of its training.

  Attributes:
    errors: by target, absolute errors on the validation part, `[N]`.
    architectures: of the training networks; empty: unknown.
    anatomies: digests of their `NetworkSpec.anatomy`; empty: unknown.
    runs: how training networks of an anatomy are run, by its digest: the spec
      of one of them, where all of that anatomy are run alike.
    codes: of two parts of networks, `[N, S * D]`: the reference first, then
      the others, whose distances from it are usual. Empty: unknown.
    seeds: whose mean prediction it is about; empty: unknown.
    made: what is known of strangers; None: as models of before, which
      have their codes alone for it.
  """

  errors: Mapping[str, np.ndarray] = {}
  architectures: frozenset[str] = frozenset()
  anatomies: frozenset[str] = frozenset()
  runs: Mapping[str, NetworkSpec] = {}
  codes: Mapping[str, np.ndarray] = {}
  seeds: tuple[int, ...] = ()
  made: newcomers.Newcomers | None = None

  def is_familiar(self, spec: NetworkSpec) -> bool:
    """Whether training had networks of that anatomy, as far as is known."""
    if self.anatomies:
      return spec.anatomy.digest in self.anatomies
    return novelty.architecture(spec) in self.architectures

  def as_run(self, spec: NetworkSpec) -> NetworkSpec:
    """Returns a spec that says how it is run, as training networks are.

    A file may hold tensors alone. One of the anatomy of training networks that
    are all run alike is taken for one of these; any other is left as it is.
    """
    if programs.is_runnable(spec) or not self.runs:
      return spec
    return self.runs.get(spec.anatomy.digest, spec)

  def half_widths(self, targets: Sequence[str], coverage: float) -> np.ndarray:
    """Returns half the width of an interval of each target, `[T]`.

    It is nan where nothing is known, and infinite where errors are too few.

    Raises:
      ValueError: `coverage` is not within (0, 1).
    """
    return np.array(
      [
        conformal.half_width(self.errors[name], coverage)
        if name in self.errors
        else np.nan
        for name in targets
      ]
    )

  def measured(
    self, networks: Sequence[Any], codes: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns how unlike others networks are, `[N]` each.

    Args:
      networks: `(spec, weights)` of each.
      codes: of them.

    Returns:
      How unlike, in units of what is usual; the p-value of being of the kind
      of the training networks; and that of a newcomer, of a maker that was
      left out. nan where that is not known.
    """
    unknown = np.full(len(codes), np.nan)
    if self.made is not None:
      known = self.made.known
      unlike = known.unlike(newcomers.sample_of(networks, codes))
      return unlike, known.own_p(unlike), known.newcomer_p(unlike)
    if not self.codes:
      return unknown, unknown, unknown
    reference, others = self.codes.values()
    unlike = novelty.unlikeness(codes.astype(np.float64), reference, others)
    return unlike, unknown, unknown

  def widths(
    self,
    targets: Sequence[str],
    coverage: float,
    unlike: np.ndarray,
    newcomer_p: np.ndarray,
  ) -> np.ndarray:
    """Returns half the width of the interval of each network, `[N, T]`.

    It grows with how unlike a network is, and is infinite, which promises
    nothing, where it is more unlike than any newcomer that is known.

    Args:
      targets: their names.
      coverage: within (0, 1).
      unlike: of `measured`, `[N]`.
      newcomer_p: likewise.
    """
    half = np.tile(self.half_widths(targets, coverage), (len(unlike), 1))
    if self.made is None:
      return half
    made = self.made
    for t, name in enumerate(targets):
      if name in self.errors and made.errors.shape[1] > t:
        half[:, t] = conformal.localised(
          *(unlike, self.errors[name]),
          *((made.unlike, made.errors[:, t]), coverage),
        )
    return np.where(newcomer_p[:, None] < strangers.ALPHA, np.inf, half)

  def described(self) -> dict[str, Any]:
    """Returns what `write` takes."""
    return {
      "seeds": list(self.seeds),
      "architectures": sorted(self.architectures),
      "anatomies": sorted(self.anatomies),
      "runs": _described(self.runs),
      "targets": {
        name: {"errors": errors.tolist()}
        for name, errors in self.errors.items()
      },
    }


def measure(
  train: Networks,
  parts: Mapping[str, Networks],
  seeds: Sequence[int],
  predictions: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
  """Returns the errors on the validation part, and coverage on the others.

  Args:
    train: the training networks.
    parts: the others, "val" among them.
    seeds: those that have finished.
    predictions: of each seed, by part, `[N, T]` in the targets' own units. Of
      classes there are no intervals.
  """
  seen = [train.specs[n] for n in sorted(set(train.numbers))]
  known: dict[str, Any] = {
    "seeds": list(seeds),
    "architectures": sorted(set(map(novelty.architecture, seen))),
    "anatomies": sorted({spec.anatomy.digest for spec in seen}),
    "runs": _described(_runs(seen)),
    "targets": {},
  }
  for t, name in enumerate(() if train.classes else train.labels):
    mean = {
      part: np.mean([np.array(p[part]) for p in predictions], axis=0)[:, t]
      for part in parts
    }
    truth = {part: networks.targets[:, t] for part, networks in parts.items()}
    errors = np.abs(truth["val"] - mean["val"])
    if not np.isfinite(errors).all():
      continue
    known["targets"][name] = {
      "errors": sorted(errors.tolist()),
      "coverage": {
        part: {
          f"{level:g}": conformal.covered(
            truth[part], mean[part], conformal.half_width(errors, level)
          )
          for level in LEVELS
        }
        for part in parts
        if part != "val"
      },
    }
  return known


def _runs(specs: Sequence[NetworkSpec]) -> dict[str, NetworkSpec]:
  """Returns `Calibration.runs`; empty of more kinds than are worth keeping."""
  found: dict[str, NetworkSpec] = {}
  several = set()
  for spec in specs:
    if programs.is_runnable(spec):
      other = found.setdefault(spec.anatomy.digest, spec)
      ways = {(s.family, s.options, s.activations) for s in (spec, other)}
      several |= {spec.anatomy.digest} if len(ways) > 1 else set()
  found = {key: spec for key, spec in found.items() if key not in several}
  return found if len(found) <= MOST_RUNS else {}


def _described(runs: Mapping[str, NetworkSpec]) -> dict[str, Any]:
  """Returns specs as plain values."""
  return {digest: spec.to_json() for digest, spec in runs.items()}


def of_measured(
  known: Mapping[str, Any],
  codes: Mapping[str, np.ndarray] | None = None,
  made: newcomers.Newcomers | None = None,
) -> Calibration:
  """Returns what `measure` gives as a `Calibration`.

  Args:
    known: of `measure`.
    codes: of two parts.
    made: what is known of strangers.

  Raises:
    KeyError, TypeError, ValueError: it is none of `measure`.
  """
  return Calibration(
    {n: np.array(t["errors"], float) for n, t in known["targets"].items()},
    frozenset(known["architectures"]),
    frozenset(known.get("anatomies", ())),
    {
      digest: NetworkSpec.from_json(value)
      for digest, value in known.get("runs", {}).items()
    },
    codes or {},
    tuple(known.get("seeds", ())),
    made,
  )


def evaluate(networks: Networks, predictions: np.ndarray) -> dict[str, Any]:
  """Returns metrics with 95 % intervals, by target, then by metric.

  Args:
    networks: with numbers as targets, those of classes too.
    predictions: `[N, T]` in their own units, or probabilities `[N, K]`.
  """
  if networks.classes:
    guess = classes.most_probable(predictions)[:, None]
  else:
    guess = predictions
  return {
    name: metrics.evaluate(
      networks.targets[:, t],
      guess[:, t],
      classes.METRICS if networks.classes else METRICS,
      clusters=networks.clusters,
    )
    for t, name in enumerate(networks.labels)
  }


def write(
  folder: pathlib.Path,
  known: Mapping[str, Any],
  made: newcomers.Newcomers | None,
  also: Sequence[str] = (),
) -> None:
  """Writes the files that `read` reads, and their digests.

  Args:
    folder: of the run.
    known: of `measure`, or `Calibration.described`.
    made: what is known of strangers.
    also: other files of the folder, see `digests.put`.
  """
  contents: dict[str, str | bytes] = {}
  if made is not None:
    contents[NEWCOMERS_FILE] = made.content()
  contents[FILE] = json.dumps(known, indent=2) + "\n"
  digests.put(folder, contents, also)


def read(folder: pathlib.Path) -> Calibration:
  """Returns what `write` wrote, without codes; nothing where nobody did.

  Raises:
    ValueError: the file is not what `write` writes.
  """
  path = folder / FILE
  if not path.exists():
    return Calibration()
  made = None
  try:
    known = json.loads(path.read_text())
    if (folder / NEWCOMERS_FILE).exists():
      path = folder / NEWCOMERS_FILE
      made = newcomers.read(path.read_bytes())
    return of_measured(known, made=made)
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{path} is damaged ({error!r}); delete it and start the run again"
    ) from error


def codes_content(codes: Mapping[str, np.ndarray]) -> bytes:
  """Returns what `CODES_FILE` of a seed holds: its codes, by part."""
  held, arrays = io.BytesIO(), dict[str, Any](codes)
  np.savez(held, **arrays)
  return held.getvalue()


def two_parts(codes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the reference and the others: held-out parts where there are two.

  Empty where there are no two parts.
  """
  for names in (("val", "test"), ("train", "val")):
    if all(name in codes for name in names):
      return {name: np.asarray(codes[name], np.float64) for name in names}
  return {}


def read_codes(folders: Sequence[pathlib.Path]) -> dict[str, np.ndarray]:
  """Returns `two_parts` of all seeds, concatenated; empty if one has none."""
  files = [folder / CODES_FILE for folder in folders]
  if not files or not all(path.exists() for path in files):
    return {}
  return joined([two_parts(dict(np.load(path))) for path in files])


def joined(seeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Returns codes of several seeds, concatenated by part."""
  return {
    part: np.concatenate([codes[part] for codes in seeds], axis=-1)
    for part in (seeds[0] if seeds else ())
  }
