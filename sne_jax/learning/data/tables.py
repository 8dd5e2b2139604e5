"""Targets as people hold them: columns of files, data frames and arrays.

Dimensions: `N` networks, `T` targets.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet


def columns_of(given: Any, text: str = "") -> dict[str, np.ndarray]:
  """Returns targets or a table as columns by name, not looked at yet.

  Args:
    given: as for `Networks.of` and `Networks.from_files`.
    text: a column of a CSV file that is text whatever it looks like: names of
      files, such as 000.
  """
  label = "the table"
  if given is None:
    return {}
  if isinstance(given, (str, os.PathLike)):
    label = path = os.fspath(given)
    parquet = path.endswith(".parquet")
    # Only an empty cell is missing: "null" may be the name of a class.
    cells = pyarrow.csv.ConvertOptions(
      column_types={text: pyarrow.string()} if text else None,
      null_values=[""],
      strings_can_be_null=True,
    )
    try:
      if parquet:
        given = pyarrow.parquet.read_table(path)
      else:
        given = pyarrow.csv.read_csv(path, convert_options=cells)
    except (pyarrow.ArrowException, OSError) as error:
      raise ValueError(
        f"{path} is no {'Parquet' if parquet else 'CSV'} file that can be read"
        f" ({' '.join(str(error).split())})"
      ) from error
  if isinstance(given, Mapping):
    return {str(name): np.asarray(values) for name, values in given.items()}
  # Of Arrow, or of a data frame.
  heads = getattr(given, "column_names", None)
  heads = getattr(given, "columns", ()) if heads is None else heads
  names = [str(name) for name in heads]
  twice = [name for name in names if names.count(name) > 1]
  if twice:
    raise ValueError(
      f"{label} has {names.count(twice[0])} columns {twice[0]!r}; give each a"
      " name of its own"
    )
  if hasattr(given, "column_names"):
    return {name: given[name].to_numpy() for name in given.column_names}
  if hasattr(given, "columns"):
    return {str(name): np.asarray(given[name]) for name in given.columns}
  values = np.asarray(given)
  if values.ndim not in (1, 2):
    raise ValueError(f"targets have shape {values.shape}; give [N] or [N, T]")
  if values.ndim == 1 or values.shape[1] == 1:
    return {"target": values.reshape(len(values))}
  return {f"target {n}": column for n, column in enumerate(values.T)}


def values_of(
  columns: Mapping[str, np.ndarray], count: int, names: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Returns columns as targets `[N, T]`, and their names."""
  called = lambda row: names[row] if names else f"network {row}"
  targets = []
  for name, values in columns.items():
    if values.shape != (count,):
      raise ValueError(
        f"target {name!r} has shape {values.shape}, but there are {count}"
        " networks; give one value for each"
      )
    if values.dtype.kind in "biuf":
      values = values.astype(np.float64)
      missing = np.flatnonzero(~np.isfinite(values))
      if missing.size:
        raise ValueError(
          f"target {name!r} is {values[missing[0]]} for {called(missing[0])}"
          f" ({missing.size} in all); leave such networks out"
        )
    else:
      values = _text(name, values, called)
      if len(columns) > 1:
        raise ValueError(
          f"target {name!r} is text (first: {str(values[0])!r}), beside other"
          " targets; name the targets, and classes alone"
        )
    targets.append(values)
  if not targets:
    return np.zeros((count, 0)), ()
  return np.stack(targets, axis=-1), tuple(columns)


def _text(name: str, values: np.ndarray, called) -> np.ndarray:
  """Returns a column as text; refuses numbers with text among them."""
  numbers, words = 0, []
  for row, value in enumerate(values):
    if is_missing(value):
      raise ValueError(
        f"target {name!r} is missing for {called(row)}; leave it out"
      )
    try:
      float(value)
      numbers += 1
    except (TypeError, ValueError):
      words.append(row)
  if numbers and words:
    raise ValueError(
      f"target {name!r} holds numbers, but {str(values[words[0]])!r} for"
      f" {called(words[0])} ({len(words)} of {len(values)} are text); mend the"
      " column, or leave such networks out"
    )
  return values.astype(str)


def is_missing(value: Any) -> bool:
  """Whether a cell is empty, as tables of any library have it."""
  if isinstance(value, str):
    return not value.strip()
  return str(value) in ("None", "nan", "NaT", "<NA>")
