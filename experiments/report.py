"""What a run leaves behind: `results.json` and `report.md`.

`results` is a dictionary of plain values. Every entry is optional, and what is
missing is said to be missing rather than left out in silence:

* `title`, `description`: text.
* `target`: name of the property; `unit`: its unit.
* `config`: `{class: {option: value}}`, `flagfile`: text (`config`).
* `environment`: of `environment.environment`.
* `seconds`: `{what: wall-clock seconds}`.
* `sizes`: `{part: number of networks}`.
* `num_params`: of the encoder and its head.
* `select`: the name of the metric that chose the checkpoint, if any.
* `seeds`: one entry per training seed: `{"seed": int, "metrics": {part:
  {metric: {"value", "low", "high"}}}}`, or `{"seed": int, "failed": text}`.
* `references`: `{name: {part: {metric: {"value", "low", "high"}}}}`.
* `invariance`: `{name: number}`, measured on networks never trained on.
* `confusion`: of classes, `{"classes": names, "counts": [K, K]}`: true by
  predicted, the mean over seeds.
* `costs`: list of `{"model", "seconds_per_network", "flops_per_network"}`.
* `maps`: `{name: number}`, how labels are mixed in code space.
* `tables`: list of `{"title", "text", "header", "rows"}`, printed as they are.
* `notes`: list of text.

The text is a function of the results and figures alone.
"""

import dataclasses
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.learning import metrics

MISSING = "n/a"
"""What stands in a table for a value that is unknown or undefined."""

FEW_SEEDS = 3
"""Fewer training seeds than this are remarked upon."""


MIXING = (
  "Of the nearest neighbours of a code, the share with another label over the"
  " share that chance gives: 1 is mixed like chance, 0 is apart."
)
"""What the numbers of `maps` are."""


def write_results(
  workdir: str | os.PathLike, results: Mapping[str, Any]
) -> pathlib.Path:
  """Writes `results.json`; a reader sees the old file or the whole new one.

  Numbers that are not finite become null, arrays lists, and dataclasses
  dictionaries.

  Raises:
    ValueError: a value that JSON cannot hold; the message says where.
  """
  text = json.dumps(to_json(results), indent=2, allow_nan=False) + "\n"
  return write_text(pathlib.Path(workdir) / "results.json", text)


def write_report(
  workdir: str | os.PathLike,
  results: Mapping[str, Any],
  figures: Mapping[str, str | os.PathLike] | None = None,
) -> pathlib.Path:
  """Writes `report.md`.

  Args:
    workdir: where the report goes.
    results: see the module.
    figures: pictures by caption; paths inside `workdir` become relative.
  """
  workdir = pathlib.Path(workdir)
  links = {}
  for caption, path in (figures or {}).items():
    path = pathlib.Path(path)
    inside = path.resolve().is_relative_to(workdir.resolve())
    if inside:
      path = path.resolve().relative_to(workdir.resolve())
    links[caption] = path.as_posix()
  return write_text(workdir / "report.md", report_text(results, links))


def report_text(
  results: Mapping[str, Any], figures: Mapping[str, str] | None = None
) -> str:
  """Returns the report as markdown. `figures` are links by caption."""
  results = to_json(results)
  sections = [f"# {results.get('title', 'Results')}"]
  if results.get("description"):
    sections.append(str(results["description"]).strip())
  sections += _metric_sections(results)
  sections += _table_sections(results) + _invariance_section(results)
  sections += cost_section(results.get("costs") or ())
  sections += _map_section(results) + _coverage_section(results)
  if figures:
    sections.append("## Figures")
    sections += [
      f"![{caption}](<{link}>)\n\n*{caption}*"
      for caption, link in figures.items()
    ]
  sections += ["## Notes", "\n".join(f"- {n}" for n in notes(results))]
  sections += _run_sections(results)
  return "\n\n".join(sections) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Returns a table, its columns padded; numbers to the right.

  Raises:
    ValueError: a row has more or fewer cells than the header.
  """
  cells = [[_cell(value) for value in row] for row in (header, *rows)]
  for row in cells:
    if len(row) != len(header):
      raise ValueError(f"row {row} has {len(row)} cells, not {len(header)}")
  numeric = [
    bool(rows) and all(_is_number(row[column]) for row in rows)
    for column in range(len(header))
  ]
  widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
  lines = [
    "| "
    + " | ".join(
      text.rjust(width) if right else text.ljust(width)
      for text, width, right in zip(row, widths, numeric, strict=True)
    )
    + " |"
    for row in cells
  ]
  rule = [
    "-" * (width - 1) + ":" if right else "-" * width
    for width, right in zip(widths, numeric, strict=True)
  ]
  lines.insert(1, "| " + " | ".join(rule) + " |")
  return "\n".join(lines)


def with_interval(row: Mapping[str, Any] | None) -> str:
  """Writes `{"value" or "mean", "low", "high"}` as `0.93 [0.91, 0.95]`."""
  row = row or {}
  value, low, high = (
    number(row.get(name)) for name in ("value", "low", "high")
  )
  if "value" not in row:
    value = number(row.get("mean"))
  if value == MISSING or MISSING in (low, high):
    return value
  return f"{value} [{low}, {high}]"


def number(value: Any) -> str:
  """Writes a number with four significant digits."""
  if value is None or (isinstance(value, float) and not math.isfinite(value)):
    return MISSING
  if isinstance(value, int):
    return str(value)
  return f"{float(value):.4g}"


def notes(results: Mapping[str, Any]) -> list[str]:
  """Returns what a reader must know to judge the numbers."""
  results = to_json(results)
  found = []
  sizes = results.get("sizes") or {}
  if sizes:
    parts = ", ".join(f"{part} {size}" for part, size in sizes.items())
    found.append(f"Networks: {parts}.")
  else:
    found.append("The sizes of the parts were not recorded.")
  good, failed = _seeds(results)
  names = ", ".join(str(entry.get("seed")) for entry in good) or "none"
  found.append(f"Training seeds that finished: {names}.")
  if len(good) < FEW_SEEDS:
    found.append(
      f"**Only {len(good)} finished seed(s)**: the spread between trainings is"
      " hardly known; differences between runs may be chance."
    )
  for entry in failed:
    found.append(
      f"**Seed {entry.get('seed')} failed** and is in no mean:"
      f" {' '.join(str(entry['failed']).split())}"
    )
  found += _undefined(good)
  found += _beaten(results, good)
  if not results.get("references"):
    found.append("**No reference was run** on this split.")
  if not results.get("invariance"):
    found.append("Invariance was not measured.")
  if results.get("select"):
    found.append(
      f"The checkpoint was chosen by validation {results['select']}: the"
      " validation numbers are therefore a little too good."
    )
  revision = (results.get("environment") or {}).get("revision")
  if revision is None:
    found.append("The revision of the code is unknown.")
  elif revision.endswith("-dirty"):
    found.append(f"**The code differs from its revision** ({revision}).")
  return found + [str(note) for note in results.get("notes") or ()]


def to_json(value: Any) -> Any:
  """Returns plain values; what is not finite becomes None.

  Raises:
    ValueError: a value of a type that has no plain form, with its place.
  """
  return _plain(value, "results")


def _plain(value: Any, where: str) -> Any:
  if value is None or isinstance(value, bool | int | str):
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    value = dataclasses.asdict(value)
  if isinstance(value, Mapping):
    return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if hasattr(value, "__array__"):
    array = np.asarray(value)
    if array.dtype.kind in "biufUS":
      return _plain(array.tolist(), where)
    if array.dtype.kind == "V":  # bfloat16 and its kin
      return _plain(array.astype(np.float64).tolist(), where)
  raise ValueError(
    f"{where} is of type {type(value).__name__}, which JSON cannot hold; give"
    " numbers, text, lists or dictionaries"
  )


def _metric_sections(results: Mapping[str, Any]) -> list[str]:
  """One table per part: seeds, their mean, and the references."""
  good, _ = _seeds(results)
  references = results.get("references") or {}
  parts = _ordered(
    [entry["metrics"] for entry in good] + list(references.values())
  )
  if not parts:
    return ["**There are no metrics to report.**"]
  name = results.get("target", "property")
  unit = f" in {results['unit']}" if results.get("unit") else ""
  sections = [
    f"Metrics of the predicted {name}{unit}. A seed and a reference have a 95 %"
    " bootstrap interval over networks; the mean has a 95 % t interval over"
    " seeds."
  ]
  for part in parts:
    own = [(e.get("seed"), e["metrics"].get(part) or {}) for e in good]
    others = {
      key: table[part] for key, table in references.items() if part in table
    }
    names = _ordered([row for _, row in own] + list(others.values()))
    rows = []
    if own:
      means = [with_interval(_mean(own, metric)) for metric in names]
      rows.append([f"**mean of {len(own)} seed(s)**", *means])
    for seed, row in own:
      rows.append([f"seed {seed}", *(with_interval(row.get(m)) for m in names)])
    for key, row in others.items():
      rows.append(
        [f"reference: {key}", *(with_interval(row.get(m)) for m in names)]
      )
    size = (results.get("sizes") or {}).get(part)
    title = f"## {part}" + (f" ({size} networks)" if size else "")
    sections += [title, markdown_table(["model", *names], rows)]
  return sections


def _table_sections(results: Mapping[str, Any]) -> list[str]:
  return [
    section
    for table in results.get("tables") or ()
    for section in (
      f"## {table['title']}",
      table["text"],
      markdown_table(table["header"], table["rows"]),
    )
  ]


def _invariance_section(results: Mapping[str, Any]) -> list[str]:
  rows = list((results.get("invariance") or {}).items())
  if not rows:
    return []
  table = markdown_table(
    ["what", "measured"], [[k, number(v)] for k, v in rows]
  )
  return ["## Measured invariance", table]


def cost_section(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns the table of `costs`; nothing where there are none."""
  if not rows:
    return []
  names = ("seconds_per_network", "flops_per_network")
  table = markdown_table(
    ["model", "seconds per network", "floating-point operations per network"],
    [[row["model"], *(number(row.get(n)) for n in names)] for row in rows],
  )
  return [
    "## Cost of a prediction",
    "Once compiled, in batches. The encoder needs no images.",
    table,
  ]


def _map_section(results: Mapping[str, Any]) -> list[str]:
  rows = list((results.get("maps") or {}).items())
  if not rows:
    return []
  table = markdown_table(
    ["what", "measured"], [[k, number(v)] for k, v in rows]
  )
  return ["## Mixing of the codes", MIXING, table]


def _coverage_section(results: Mapping[str, Any]) -> list[str]:
  found = results.get("coverage") or {}
  rows = [
    [name, part, *(number(share) for share in levels.values())]
    for name, parts in found.items()
    for part, levels in parts.items()
  ]
  if not rows:
    return []
  levels = next(iter(next(iter(found.values())).values()))
  text = (
    "Intervals are as wide as the errors of the mean of all seeds on the"
    " validation part say; this is the share of networks whose truth they hold."
  )
  header = ["target", "part", *(f"{float(level):.0%}" for level in levels)]
  return ["## Coverage of intervals", text, markdown_table(header, rows)]


def _run_sections(results: Mapping[str, Any]) -> list[str]:
  """How to repeat the run, and what it ran on."""
  sections = ["## What was run"]
  facts = []
  if results.get("num_params") is not None:
    facts.append(["parameters", results["num_params"]])
  for what, seconds in (results.get("seconds") or {}).items():
    facts.append([f"{what} [s]", number(seconds)])
  if facts:
    sections.append(markdown_table(["what", "value"], facts))
  if results.get("flagfile"):
    sections += [
      "Repeat it with `--flagfile` and this file:",
      f"```\n{results['flagfile'].strip()}\n```",
    ]
  config = [
    [f"{group}.{name}", value]
    for group, options in (results.get("config") or {}).items()
    for name, value in options.items()
  ]
  if config:
    sections.append(markdown_table(["option", "value"], config))
  environment = list(_flat(results.get("environment") or {}))
  if environment:
    sections.append(markdown_table(["environment", "value"], environment))
  if len(sections) == 1:
    sections.append("Neither options nor environment were recorded.")
  return sections


def _seeds(results: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
  """Parts the seeds into finished and failed ones."""
  good, failed = [], []
  for entry in results.get("seeds") or ():
    if entry.get("failed"):
      failed.append(entry)
    elif not entry.get("metrics"):
      failed.append({**entry, "failed": "it left no metrics"})
    else:
      good.append(entry)
  return good, failed


def _ordered(tables: Sequence[Mapping[str, Any]]) -> list[str]:
  """Keys of all tables, in the order of their first occurrence."""
  return list(dict.fromkeys(key for table in tables for key in table))


def _mean(own, metric: str) -> dict[str, float]:
  values = [(row.get(metric) or {}).get("value") for _, row in own]
  filled = [float("nan") if value is None else value for value in values]
  return metrics.mean_interval(filled)


def _undefined(good) -> list[str]:
  return [
    f"**Undefined**: {metric} of seed {entry.get('seed')} on {part} (constant"
    " or not finite prediction, or too few networks)."
    for entry in good
    for part, row in entry["metrics"].items()
    for metric, value in row.items()
    if value.get("value") is None
  ]


def _beaten(results, good) -> list[str]:
  """Names every test metric in which a reference is at least as good."""
  found = []
  own = [(e.get("seed"), e["metrics"].get("test") or {}) for e in good]
  for metric in _ordered([row for _, row in own]):
    higher = metrics.HIGHER_IS_BETTER.get(metric)
    mean = _mean(own, metric)["mean"]
    if higher is None or not math.isfinite(mean):
      continue
    for name, table in (results.get("references") or {}).items():
      value = ((table.get("test") or {}).get(metric) or {}).get("value")
      if value is None:
        continue
      if (value >= mean) if higher else (value <= mean):
        found.append(
          f"**The reference `{name}` is no worse** in test {metric}:"
          f" {number(value)} against {number(mean)}."
        )
  return found


def _flat(table: Mapping[str, Any], lead: str = "") -> Iterator[list[Any]]:
  for name, value in table.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f"{lead}{name}.")
    else:
      yield [lead + name, value]


def _cell(value: Any) -> str:
  if value is None:
    return MISSING
  text = number(value) if isinstance(value, float) else str(value)
  return " ".join(text.replace("|", "\\|").split())


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def write_text(path: pathlib.Path, text: str) -> pathlib.Path:
  """Writes a text file by replacing it whole."""
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
  try:
    with os.fdopen(handle, "w", encoding="utf-8") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise
  return path
