"""What benchmarks share: their tables, their turns, and how they write."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import machine
from sne_jax import atomic
from sne_jax.cli import environment
from sne_jax.cli.reports import report


class Turns(NamedTuple):
  """Speeds of two programs that were run in turns, `[turns]` each.

  Attributes:
    ours: units of work per second of this library.
    theirs: of the other.
  """

  ours: list[float]
  theirs: list[float]

  @property
  def medians(self) -> tuple[float, float]:
    """Of both."""
    return statistics.median(self.ours), statistics.median(self.theirs)

  @property
  def ratios(self) -> list[float]:
    """How many times as fast this library is, turn by turn, ascending."""
    return sorted(a / b for a, b in zip(self.ours, self.theirs, strict=True))


def in_turns(
  ours: Callable[[], float], theirs: Callable[[], float], turns: int
) -> Turns:
  """Runs both programs, one after the other, again and again.

  Args:
    ours: runs, and returns the units of work that it did.
    theirs: likewise.
    turns: of each, at least 1. Compile and warm up beforehand.
  """
  speeds = Turns([], [])
  for _ in range(turns):
    for run, measured in zip((ours, theirs), speeds, strict=True):
      start = time.perf_counter()
      work = run()
      measured.append(work / (time.perf_counter() - start))
  return speeds


def block(
  run: Callable[[], Any], count: int, seconds: float
) -> Callable[[], float]:
  """Returns what runs a program of `count` units of work for about so long."""
  run()
  start = time.perf_counter()
  run()
  calls = max(1, round(seconds / (time.perf_counter() - start)))

  def block() -> float:
    for _ in range(calls):
      run()
    return calls * count

  return block


def head() -> dict[str, Any]:
  """Returns what every file of results says of the machine."""
  return {
    "device": machine.device_name(),
    "environment": environment.environment(),
  }


def table(
  rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]
) -> str:
  """Returns rows as text, the first column to the left, others to the right.

  Args:
    rows: values by name.
    columns: for each title, the name of the values and their format.
  """
  cells = [list(columns)]
  for row in rows:
    cells.append([format(row[key], form) for key, form in columns.values()])
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  lines = []
  for line in cells:
    first, *rest = zip(line, widths, strict=True)
    texts = [first[0].ljust(first[1]), *(c.rjust(w) for c, w in rest)]
    lines.append(" ".join(texts))
  return "\n".join(lines)


def write(path: str | os.PathLike, value: Any) -> None:
  """Writes a value as JSON, and makes the folder where there is none."""
  text = json.dumps(report.to_json(value), indent=2, allow_nan=False)
  atomic.write_atomically(path, text + "\n")
