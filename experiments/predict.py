r"""Predicts properties of trained networks from their files.

  python experiments/predict.py --workdir=runs/cross_dataset/sne__mnist_arch1 \
    my_models/ other.safetensors

`--workdir` is a finished run of experiments/run.py. Files may be safetensors,
PyTorch, Flax, Orbax, Keras, ONNX or npz; folders are searched. Nothing in them
is executed. What network a file holds is found out from names and shapes of its
tensors; experiments/inspect_network.py shows what was found, and --override
settles what was not. Networks above --stream_above weights are not loaded: they
are encoded part by part, within --memory_limit.

Every prediction has an interval that holds the truth for --coverage of the
networks, if they are like those of the zoo: it is measured on networks that
were not trained on. `unlike` says how far a network is from these, by its code:
above 1 it is unlike anything seen, and the prediction is a guess. A mark stands
behind networks of which there is more to say; the warnings below say it.
"""

import csv
import dataclasses
import io
import json
import math
import pathlib
from typing import Any

import numpy as np
from absl import flags

from experiments import (
  config,
  console,
  encoder_options,
  given_files,
  memory,
  report,
)
from experiments.tasks import calibration
from experiments.tasks.property import CODES_FILE
from sne_jax import predictor as predictor_lib
from sne_jax.atomic import write_atomically
from sne_jax.learning import conformal, novelty
from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(Checked):
  """Which model, and what to write.

  Attributes:
    workdir: folder of a finished run of experiments/run.py, or of one of its
      seeds; all seeds are asked, and their mean is taken.
    encoder_file: Python files that register encoders of your own, separated by
      commas, for a model of one; they are run first.
    coverage: share of networks whose interval holds the truth.
    sort: list the networks by their first prediction, the highest first.
    csv: file for the table; empty: none.
    json: file for the table, with all digits and what was found out about the
      networks; empty: none.
  """

  workdir: str = ""
  encoder_file: str = ""
  coverage: float = option(0.9, above=0, below=1)
  sort: bool = True
  csv: str = ""
  json: str = ""

  def __post_init__(self):
    super().__post_init__()
    if not self.workdir:
      raise ValueError(
        "workdir is empty; name the folder of a finished run with --workdir"
      )


CLASSES = (PredictOptions, given_files.FileOptions, memory.MemoryOptions)


def main(
  argv: list[str], flag_values: flags.FlagValues = flags.FLAGS
) -> int | None:
  """Reads the flags and the files, and prints what is predicted.

  Returns:
    The exit code: 1 if a file could not be read.

  Raises:
    ValueError: no model, or no files.
  """
  options = config.from_flags(PredictOptions, flag_values=flag_values)
  encoder_options.load_files(options.encoder_file)
  how = config.from_flags(given_files.FileOptions, flag_values=flag_values)
  held = config.from_flags(memory.MemoryOptions, flag_values=flag_values)
  paths = given_files.paths_of(argv[1:])
  given_files.check_outputs([options.csv, options.json], paths)
  predictor = held.load(options.workdir)
  judge = Judge(predictor, pathlib.Path(options.workdir), options.coverage)
  rows: list[dict[str, Any]] = []

  def handle(networks, weights):
    pairs = [(n.spec, w) for n, w in zip(networks, weights, strict=True)]
    rows.extend(judge.rows(networks, pairs))

  lazy_above = held.stream_above if predictor.can_stream else math.inf
  failures = given_files.each(
    paths, how, handle, "reading networks", lazy_above=lazy_above
  )
  if options.sort and rows and predictor.targets:
    first = judge.columns[0]
    rows.sort(key=lambda row: row[first], reverse=True)
  if rows:
    print(table(rows, judge.columns))  # noqa: T201
  for text in judge.notes:
    print(f"note: {text}")  # noqa: T201
  said: dict[str, list[str]] = {}
  for row in rows:
    for text in row["warnings"]:
      said.setdefault(text, []).append(row["file"])
  for text, files in said.items():
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    print(f"warning: {files[0]}{more}: {text}")  # noqa: T201
  if options.csv:
    write_csv(options.csv, rows, judge.header)
  if options.json:
    found = {"workdir": options.workdir, "coverage": options.coverage}
    found |= {"networks": rows, "failed": failures}
    write_atomically(
      pathlib.Path(options.json), json.dumps(report.to_json(found), indent=2)
    )
  return given_files.report_failures(failures)


class Judge:
  """Predictions with intervals, and how unlike the zoo a network is."""

  def __init__(self, predictor, workdir: pathlib.Path, coverage: float):
    """Reads what a run has left beside its model.

    Raises:
      ValueError: a damaged file of the run.
    """
    self._predictor = predictor
    errors, self._seen = calibration.read(workdir)
    half = {
      name: conformal.half_width(values, coverage)
      for name, values in errors.items()
    }
    self._half = {n: h for n, h in half.items() if np.isfinite(h)}
    self.notes = tuple(
      f"{len(errors[name])} validation networks are too few for intervals of"
      f" {name} that hold {coverage:.0%}; ask for less with --coverage"
      for name in half
      if name not in self._half
    )
    self._codes = codes_of(workdir)
    self.columns = tuple(predictor.classes or predictor.targets)
    self.header = ["file", "architecture", "parameters"]
    for name in self.columns:
      bounds = [f"{name} low", f"{name} high"] if name in self._half else []
      self.header += [name, *bounds]
    self.header += ["unlike", "warnings"]

  def rows(self, networks, pairs) -> list[dict[str, Any]]:
    """Returns what is said of each network."""
    predicted, codes = self._predictor.predict_and_encode(pairs)
    if not np.isfinite(predicted).all():
      raise ValueError("the prediction is not finite")
    unlike = np.full(len(pairs), np.nan)
    if self._codes is not None:
      unlike = novelty.unlikeness(codes.astype(np.float64), *self._codes)
    return [
      self._row(network, values, ratio)
      for network, values, ratio in zip(
        networks, predicted, unlike, strict=True
      )
    ]

  def _row(self, network, values, unlike) -> dict[str, Any]:
    found, warnings = network.found, []
    if self._seen and novelty.architecture(network.spec) not in self._seen:
      warnings.append(
        "of an architecture that no network of the training had: its"
        " prediction may be far off, and its interval promises nothing"
      )
    if unlike > 1:
      warnings.append(
        "unlike the networks of the training, by its code: its prediction may"
        " be far off"
      )
    warnings += found.guesses
    if found.left_out:
      names = ", ".join(list(found.left_out)[:3])
      warnings.append(f"{len(found.left_out)} tensors left out ({names})")
    row = {
      "file": network.path,
      "architecture": given_files.architecture(network.spec),
      "parameters": network.spec.num_weights,
    }
    for name, value in zip(self.columns, values, strict=True):
      row[name] = float(value)
      half = self._half.get(name)
      if half is not None:
        bounded = self._predictor.description["loss"] == "bce"
        low, high = value - half, value + half
        if bounded:
          low, high = max(low, 0.0), min(high, 1.0)
        row |= {f"{name} low": float(low), f"{name} high": float(high)}
    return row | {"unlike": float(unlike), "warnings": warnings}


def codes_of(workdir: pathlib.Path):
  """Returns the codes of validation and test networks; None without any."""
  if (workdir / CODES_FILE).exists():
    files = [workdir / CODES_FILE]
  else:
    files = [
      path.parent / CODES_FILE
      for path in sorted(workdir.glob(f"seed*/{predictor_lib.MODEL_FILE}"))
    ]
  if not files or not all(path.exists() for path in files):
    return None
  parts = {"val": [], "test": []}
  for path in files:
    with np.load(path) as archive:
      for name, found in parts.items():
        found.append(archive[name].astype(np.float64))
  return tuple(np.concatenate(found, axis=-1) for found in parts.values())


def table(rows: list[dict[str, Any]], columns) -> str:
  """Returns the table that is printed."""
  header = ["file", "architecture found", "parameters", *columns, "unlike"]
  lines = []
  for row in rows:
    cells = [row["file"], row["architecture"], f"{row['parameters']:,}"]
    cells += [
      report.with_interval(
        {
          "value": row[name],
          "low": row.get(f"{name} low"),
          "high": row.get(f"{name} high"),
        }
      )
      for name in columns
    ]
    mark = " !" if row["warnings"] else ""
    lines.append([*cells, report.number(row["unlike"]) + mark])
  return report.markdown_table(header, lines)


def write_csv(path: str, rows: list[dict[str, Any]], header) -> None:
  """Writes the rows as a table; warnings joined by semicolons."""
  text = io.StringIO(newline="")
  writer = csv.DictWriter(text, header)
  writer.writeheader()
  for row in rows:
    writer.writerow(row | {"warnings": "; ".join(row["warnings"])})
  write_atomically(pathlib.Path(path), text.getvalue())


if __name__ == "__main__":
  config.define_flags(*CLASSES)
  console.setup()
  config.run_main(main, positional=True)
