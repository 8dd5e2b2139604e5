"""Reports: `report.md`, its page, `results.json` and figures, of anything.

`results` is a dictionary of plain values, and `results.json` holds all of it:
the `title`, `config` (`{class: {option: value}}`), `flagfile` (text) and
`environment`; for a run see also `run_report`, for several `comparison`.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax import digests
from sne_jax.atomic import write_atomically as write_text
from sne_jax.cli.atlas import content
from sne_jax.cli.reports import html_report
from sne_jax.learning.training import records, workdirs

MISSING = "n/a"
"""What stands in a table for a value that is unknown or undefined."""


class Picture(NamedTuple):
  """A picture of a report: drawn when the report is written.

  Attributes:
    name: of its file in the folder `figures`, without a suffix.
    caption: what it shows.
    draw: is called with the path.
  """

  name: str
  caption: str
  draw: Callable[[pathlib.Path], Any]


def write_page(
  workdir: pathlib.Path,
  blocks: Sequence[str | Picture],
  results: Mapping[str, Any],
) -> None:
  """Writes `report.md` from blocks of markdown and pictures, and the results.

  What was run comes last.
  """
  text, drawn = [f"# {results['title']}"], {}
  for block in blocks:
    if isinstance(block, Picture):
      path = workdir / "figures" / f"{block.name}.png"
      block.draw(path)
      drawn[block.caption] = path
      block = image(block.caption, f"figures/{path.name}")
    text.append(block)
  text += run_sections(results)
  publish(workdir, results, drawn)
  write_report(workdir, "\n\n".join(text) + "\n")
  write_results(workdir, results)


def publish(
  workdir: pathlib.Path,
  results: Mapping[str, Any],
  figures: Mapping[str, str | os.PathLike],
) -> None:
  """Gives figures and options of a run to TensorBoard, and others."""
  options = to_json(results.get("config") or {})
  records.publish(
    workdir,
    title=results["title"],
    figures=figures,
    options=options,
    wandb=(options.get("TrainOptions") or {}).get("wandb") or "",
  )


def write_report(
  workdir: pathlib.Path, text: str, atlas: content.Atlas | None = None
) -> pathlib.Path:
  """Writes `report.md`, and beside it `report.html`; returns the former."""
  html_report.write(workdir, text, atlas)
  return write_text(workdir / "report.md", text)


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
  digests.put(workdir, {"results.json": text}, workdirs.OF_RUN)
  return pathlib.Path(workdir) / "results.json"


def section(
  title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], text=""
) -> list[str]:
  """Returns a table under a heading and a text; nothing if it has no rows."""
  if not rows:
    return []
  return [
    f"## {title}",
    *([text] if text else ()),
    markdown_table(header, rows),
  ]


def table(
  name: str,
  rows: Mapping[str, Any],
  columns: Mapping[str, Callable[[Any], Any]],
) -> str:
  """Returns a table with a row for each label.

  Args:
    name: what a label is.
    rows: what is known of each.
    columns: by heading, a function of it that returns the cell.
  """
  return markdown_table(
    [name, *columns],
    [
      [label, *(of(row) for of in columns.values())]
      for label, row in rows.items()
    ],
  )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Returns a table, its columns padded; numbers to the right.

  A mapping is written with its interval (`with_interval`), None as missing.

  Raises:
    ValueError: a row has more or fewer cells than the header.
  """
  cells = [[_cell(value) for value in row] for row in (header, *rows)]
  for row in cells:
    if len(row) != len(header):
      raise ValueError(f"row {row} has {len(row)} cells, not {len(header)}")
  columns = []
  for place, texts in enumerate(zip(*cells, strict=True)):
    width = max(3, *map(len, texts))
    right = bool(rows) and all(_is_number(row[place]) for row in rows)
    padded = [t.rjust(width) if right else t.ljust(width) for t in texts]
    rule = "-" * (width - 1) + ":" if right else "-" * width
    columns.append([padded[0], rule, *padded[1:]])
  lines = zip(*columns, strict=True)
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_interval(row: Mapping[str, Any] | None) -> str:
  """Writes `{"value" or "mean", "low", "high"}` as `0.93 [0.91, 0.95]`."""
  row = row or {}
  value = number(row["value"] if "value" in row else row.get("mean"))
  low, high = number(row.get("low")), number(row.get("high"))
  if MISSING in (value, low, high):
    return value
  return f"{value} [{low}, {high}]"


def finished(seeds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns the entries of the seeds that have not failed."""
  return [entry for entry in seeds if "failed" not in entry]


def sizes(parts: Mapping[str, int]) -> str:
  """Writes how many networks each part has."""
  return ", ".join(f"{part} {count}" for part, count in parts.items())


def number(value: Any) -> str:
  """Writes a number with four significant digits."""
  if value is None or (isinstance(value, float) and not math.isfinite(value)):
    return MISSING
  if isinstance(value, int):
    return str(value)
  return f"{float(value):.4g}"


def to_json(value: Any, where: str = "results") -> Any:
  """Returns plain values; what is not finite becomes None.

  Raises:
    ValueError: a value of a type that has no plain form, with its place.
  """
  if value is None or isinstance(value, bool | int | str):
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    value = dataclasses.asdict(value)
  if isinstance(value, Mapping):
    return {str(k): to_json(v, f"{where}.{k}") for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [to_json(v, f"{where}[{i}]") for i, v in enumerate(value)]
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if hasattr(value, "__array__"):
    array = np.asarray(value)
    if array.dtype.kind == "V":  # bfloat16 and its kin
      array = array.astype(np.float64)
    if array.dtype.kind in "biufUS":
      return to_json(array.tolist(), where)
  raise ValueError(
    f"{where} is of type {type(value).__name__}, which JSON cannot hold; give"
    " numbers, text, lists or dictionaries"
  )


def run_sections(results: Mapping[str, Any]) -> list[str]:
  """Returns how to repeat a run, and what it ran on."""
  blocks = [
    "## What was run",
    "The options are in [flags.txt](<flags.txt>), which `--flagfile` takes to"
    " repeat it, and in [results.json](<results.json>) with all numbers.",
  ]
  facts = []
  if results.get("num_params") is not None:
    facts.append(["parameters", results["num_params"]])
  for what, seconds in (results.get("seconds") or {}).items():
    facts.append([f"{what} [s]", seconds])
  environment = list(_flat(results.get("environment") or {}))
  for header, rows in (("what", facts), ("environment", environment)):
    if rows:
      blocks.append(markdown_table([header, "value"], rows))
  return blocks


def image(caption: str, link: str) -> str:
  """Returns a picture with its caption below."""
  return f"![{caption}](<{link}>)\n\n*{caption}*"


def _flat(table: Mapping[str, Any], lead: str = "") -> Iterator[list[Any]]:
  for name, value in table.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f"{lead}{name}.")
    else:
      yield [lead + name, value]


def _cell(value: Any) -> str:
  if value is None:
    return MISSING
  if isinstance(value, Mapping):
    return with_interval(value)
  text = number(value) if isinstance(value, float) else str(value)
  return " ".join(text.replace("|", "\\|").split())


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)
