"""Tables of a zoo: plain columns in Parquet files."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sne_jax import atomic, errors


def read_table(
  path: str, name: str, file: str, columns: Sequence[str]
) -> dict[str, np.ndarray]:
  """Reads columns of a Parquet file as numpy arrays: float64, int64, bool, str.

  Args:
    path: folder.
    name: what errors call the folder.
    file: name of the file.
    columns: those to read.

  Raises:
    ZooError: no such file or column, or a column of another type.
  """
  try:
    table = pq.read_table(os.path.join(path, file), memory_map=False)
  except FileNotFoundError as error:
    raise errors.fault(name, file, "file is missing") from error
  except (pa.ArrowException, OSError) as error:
    raise errors.fault(name, file, f"not a Parquet file ({error})") from error
  try:
    return _columns(name, file, columns, table)
  except UnicodeDecodeError as error:
    raise errors.fault(name, file, f"no text ({error})") from error


def _columns(
  name: str, file: str, columns: Sequence[str], table: pa.Table
) -> dict[str, np.ndarray]:
  """Returns columns of a table as numpy arrays."""
  missing = [column for column in columns if column not in table.column_names]
  if missing:
    raise errors.fault(
      name,
      file,
      f"no column {missing[0]!r}; it has " + ", ".join(table.column_names),
    )
  return {column: _to_numpy(name, file, column, table) for column in columns}


def write_table(path: str, columns: Mapping[str, np.ndarray]) -> None:
  """Writes columns as Parquet, atomically."""
  arrays = {
    name: pa.array(values.tolist(), _arrow_type(values))
    for name, values in columns.items()
  }
  table = pa.table(arrays)
  atomic.replace_file(path, lambda temporary: pq.write_table(table, temporary))


def plain_column(path: str, file: str, name: str, values) -> np.ndarray:
  """Returns values as float64, int64, bool or str.

  Args:
    path: folder, for messages.
    file: file, for messages.
    name: of the column.
    values: a sequence or array.

  Raises:
    ZooError: the values are of another type.
  """
  array = np.asarray(values)
  kinds = {"f": np.float64, "i": np.int64, "u": np.int64, "b": bool, "U": str}
  if array.dtype.kind not in kinds:
    raise errors.fault(
      path,
      file,
      f"property {name!r} is of type {array.dtype}",
      "give float, int, bool or str values",
    )
  return array.astype(kinds[array.dtype.kind])


def _to_numpy(name: str, file: str, column: str, table: pa.Table) -> np.ndarray:
  values = table.column(column)
  kind = values.type
  if pa.types.is_floating(kind):
    return values.to_numpy().astype(np.float64)  # a null becomes NaN
  if values.null_count:
    raise errors.fault(
      name, file, f"column {column!r} has {values.null_count} nulls"
    )
  if pa.types.is_integer(kind):
    return values.to_numpy().astype(np.int64)
  if pa.types.is_boolean(kind):
    return values.to_numpy().astype(bool)
  if pa.types.is_string(kind) or pa.types.is_large_string(kind):
    return np.array(values.to_pylist(), dtype=str)
  raise errors.fault(name, file, f"column {column!r} is of type {kind}")


def _arrow_type(values: np.ndarray) -> pa.DataType:
  kinds = {"f": pa.float64(), "i": pa.int64(), "b": pa.bool_()}
  return kinds.get(values.dtype.kind, pa.string())
