"""Columns as a data frame of pandas or Polars, or a table of Arrow.

Dimensions: `N` rows.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

LIBRARIES = ("pandas", "polars", "arrow")


def frame(columns: Mapping[str, Any], library: str = "pandas") -> Any:
  """Returns columns `[N]` as a data frame; None and nan stay as they are.

  Args:
    columns: by name.
    library: pandas, polars, or arrow for a `pyarrow.Table`, which others read.

  Raises:
    ValueError: another library, or one that is not installed.
  """
  module = check(library)
  plain = {name: _plain(values) for name, values in columns.items()}
  if module is None:
    return pa.table({name: pa.array(v) for name, v in plain.items()})
  return module.DataFrame(plain)


def check(library: str) -> Any:
  """Returns the module of a library, None of Arrow; before long work.

  Raises:
    ValueError: another library, or one that is not installed.
  """
  if library not in LIBRARIES:
    raise ValueError(
      f"library is {library!r}; choose one of {', '.join(LIBRARIES)}"
    )
  if library == "arrow":
    return None
  try:
    return importlib.import_module(library)
  except ImportError:
    raise ValueError(
      f"library is {library!r}, which is not installed: pip install"
      f" {library}, or ask for library='arrow'"
    ) from None


def _plain(values: Any) -> Any:
  """Returns a column that every library knows: texts as Python's own."""
  values = np.asarray(values)
  return values.tolist() if values.dtype.kind in "UO" else values
