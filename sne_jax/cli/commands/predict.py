"""Predicts properties of trained networks from their files.

  sne-jax predict --workdir=RUN my_models/ other.safetensors

`--workdir` is a finished run of `sne-jax train` or of experiments/run.py. Files
may be safetensors, PyTorch, Flax, Orbax, Keras, ONNX or npz; folders are
searched. Nothing in them is executed. What network a file holds is inferred
from names and shapes of its tensors; `sne-jax inspect` shows what was inferred,
and --override settles what was not. Networks above --stream_above weights are
not loaded: they are encoded part by part, within --memory_limit.

Every prediction has an interval that holds the truth for --coverage of the
networks, if they are like those of the zoo: it is measured on networks that
were not trained on. `unlike` says how far a network is from these, by its
weights and its code: above 1, which one in twenty of them is, it is a stranger,
and its interval is wider. Of one that is too strange nothing is promised, and
no interval is given. A mark follows networks of which there is more to say; the
warnings below say it.
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

from sne_jax.atomic import write_atomically
from sne_jax.cli import config, encoder_options, given_files, memory
from sne_jax.cli.reports import report
from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(Checked):
  """What to write; of several seeds, the mean.

  Attributes:
    coverage: share of networks whose interval holds the truth.
    sort: list the networks by their first prediction, the highest first.
    csv: file for the table; empty: none.
    json: file for the table, with all digits and what was found out about the
      networks; empty: none.
  """

  coverage: float = option(0.9, above=0, below=1)
  sort: bool = True
  csv: str = ""
  json: str = ""


CLASSES = (memory.ModelOptions, PredictOptions, given_files.FileOptions)


def main(
  argv: list[str], flag_values: flags.FlagValues = flags.FLAGS
) -> int | None:
  """Reads the flags and the files, and prints what is predicted.

  Returns:
    The exit code: 1 if a file could not be read.

  Raises:
    ValueError: no model, or no files.
  """
  model = config.from_flags(memory.ModelOptions, flag_values=flag_values)
  options = config.from_flags(PredictOptions, flag_values=flag_values)
  how = config.from_flags(given_files.FileOptions, flag_values=flag_values)
  encoder_options.load_files(model.encoder_file)
  paths = given_files.paths_of(argv[1:])
  predictor = model.load()
  given_files.check_outputs([options.csv, options.json], paths)
  judged = Table(predictor, options.coverage)
  rows: list[dict[str, Any]] = []

  def handle(networks, weights):
    pairs = [(n.spec, w) for n, w in zip(networks, weights, strict=True)]
    rows.extend(judged.rows(networks, pairs))

  lazy_above = model.stream_above if predictor.can_stream else math.inf
  failures = given_files.each(
    *(paths, how, handle, "reading networks"),
    lazy_above=lazy_above,
    familiar=predictor.known.is_familiar,
  )
  if options.sort and rows and predictor.targets:
    first = judged.columns[0]
    rows.sort(key=lambda row: row[first], reverse=True)
  if rows:
    print(table(rows, judged.columns))  # noqa: T201
  for text in judged.notes:
    print(f"note: {text}")  # noqa: T201
  given_files.say(
    "warning", [(row["file"], text) for row in rows for text in row["warnings"]]
  )
  if options.csv:
    write_csv(options.csv, rows, judged.header)
  if options.json:
    content = {"workdir": model.workdir, "coverage": options.coverage}
    content |= {"networks": rows, "failed": failures}
    write_atomically(
      pathlib.Path(options.json), json.dumps(report.to_json(content), indent=2)
    )
  return given_files.report_failures(failures)


class Table:
  """What is said of each network, in rows."""

  def __init__(self, predictor: Any, coverage: float):
    """Names the columns of a `Predictor`.

    Raises:
      ValueError: a coverage that is none.
    """
    self._predictor, self._coverage = predictor, coverage
    self.columns = tuple(predictor.classes or predictor.targets)
    half = predictor.known.half_widths(self.columns, coverage)
    self._bounded = np.isfinite(half)
    self.notes = tuple(
      f"{len(predictor.known.errors[name])} validation networks are too few for"
      f" intervals of {name} that hold {coverage:.0%}; ask for less with"
      " --coverage"
      for name, width in zip(self.columns, half, strict=True)
      if np.isinf(width)
    )
    if collapsed := predictor.description.get("collapsed"):
      self.notes += tuple(
        f"{name} is exactly {value:g} where the model's head for collapsed"
        " networks says that a network has collapsed"
        for name, value in zip(self.columns, collapsed["values"], strict=True)
      )
    self.header = ["file", "architecture", "parameters"]
    for name, bounded in zip(self.columns, self._bounded, strict=True):
      bounds = [f"{name} low", f"{name} high"] if bounded else []
      self.header += [name, *bounds]
    self.header += ["unlike", "promised", "warnings"]

  def rows(self, networks, pairs) -> list[dict[str, Any]]:
    """Returns what is said of each network."""
    judged = self._predictor.judge(pairs, coverage=self._coverage)
    if not np.isfinite(judged.predictions).all():
      raise ValueError("the prediction is not finite")
    remarks = self._predictor.remarks(pairs)
    each = zip(networks, remarks, *judged, strict=True)
    return [self._row(*columns) for columns in each]

  def _row(self, network, remark, *judged) -> dict[str, Any]:
    values, low, high, unlike, known, p_value, promised = judged
    warnings = [remark] if remark else []
    if not known:
      warnings.append(
        "of an architecture that no network of the training had: its"
        " prediction may be far off, and its interval promises nothing"
      )
      warnings += [network.unbiased] if network.unbiased else []
    if unlike > 1:
      share = "" if np.isnan(p_value) else f" ({p_value:.1%} of these are)"
      warnings.append(
        f"unlike the networks of the training{share}: its prediction may be far"
        " off"
      )
    if any(self._bounded) and not promised:
      warnings.append(
        "nothing is promised of its prediction: it is more unlike than any"
        " network that the training could speak for"
      )
    warnings += network.inferred.guesses
    warnings += network.notes
    row = {
      "file": network.path,
      "architecture": given_files.architecture(network.spec),
      "parameters": network.spec.num_parameters,
    }
    for t, name in enumerate(self.columns):
      row[name] = float(values[t])
      if self._bounded[t] and promised:
        row[f"{name} low"], row[f"{name} high"] = float(low[t]), float(high[t])
    row |= {"unlike": float(unlike), "promised": bool(promised)}
    return row | {"warnings": warnings}


def table(rows: list[dict[str, Any]], columns) -> str:
  """Returns the table that is printed."""
  header = ["file", "architecture found", "parameters", *columns, "unlike"]
  lines = []
  for row in rows:
    name, size = given_files.shown(row["file"]), f"{row['parameters']:,}"
    cells = [name, row["architecture"], size]
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
