"""Files of weights, whose rows are mapped.

A weights file is a safetensors file of one float32 tensor, `weights [N, P]`.
It is written row block by row block and read through a memory map, so that
neither needs the whole file in memory.

Dimensions: `N` rows of a weights file, `P` weights of one network.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from sne_jax import atomic

TENSOR = "weights"
BLOCK_BYTES = 1 << 23
"""Bytes read at a time where a whole file is gone through."""

MAX_HEADER_BYTES = 1 << 20
"""A longer header is no header of ours."""


def file_digest(path: str) -> str:
  """Returns the SHA-256 of a file, in hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def write_rows(path: str, rows: Float[Any, "N P"]) -> str:
  """Writes a weights file, atomically, and returns its SHA-256.

  Args:
    path: file to write.
    rows: what has a shape and slices to float32 blocks, a memory map for one.
  """
  num_rows, num_weights = rows.shape
  end = 4 * num_rows * num_weights
  entry = {"dtype": "F32", "shape": [num_rows, num_weights]}
  entry["data_offsets"] = [0, end]
  header = json.dumps({TENSOR: entry}).encode()
  header += b" " * (-len(header) % 8)  # so that the rows are aligned
  digest = hashlib.sha256()

  def write(temporary):
    with open(temporary, "wb") as file:
      head = struct.pack("<Q", len(header)) + header
      digest.update(head)
      file.write(head)
      for block in _blocks(num_rows, num_weights):
        part = np.ascontiguousarray(rows[block], dtype="<f4")
        digest.update(part.data)
        file.write(part.data)

  atomic.replace_file(path, write)
  return digest.hexdigest()


def map_rows(path: str) -> Float[np.ndarray, "N P"]:
  """Maps a weights file: read-only float32 `[N, P]`, nothing is read yet.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is cut short, too long, or no weights file. The
      message says what is wrong, but not which file.
  """
  start, shape = _read_header(path)
  want, have = start + 4 * shape[0] * shape[1], os.path.getsize(path)
  if have != want:
    state = "cut short" if have < want else "too long"
    raise ValueError(f"{state}: {have} bytes where {want} are due")
  if 0 in shape:
    return np.zeros(shape, np.float32)
  return np.memmap(path, dtype="<f4", mode="r", offset=start, shape=shape)


def scan_rows(
  path: str, rows: Float[np.ndarray, "N P"]
) -> tuple[str, Bool[np.ndarray, "N"]]:
  """Goes through a weights file once: its SHA-256, and which rows are finite.

  Args:
    path: the file.
    rows: what `map_rows` gave for it.
  """
  start, _ = _read_header(path)
  finite = np.ones(len(rows), bool)
  with open(path, "rb") as file:
    digest = hashlib.sha256(file.read(start))
  for block in _blocks(*rows.shape):
    part = np.asarray(rows[block])
    digest.update(part.data)
    finite[block] = np.isfinite(part).all(axis=1)
  return digest.hexdigest(), finite


def _blocks(num_rows: int, num_weights: int) -> Iterator[slice]:
  """Cuts the rows into blocks of about `BLOCK_BYTES`."""
  step = max(1, BLOCK_BYTES // max(1, 4 * num_weights))
  for start in range(0, num_rows, step):
    yield slice(start, min(start + step, num_rows))


def _read_header(path: str) -> tuple[int, tuple[int, int]]:
  """Returns where the rows of a weights file begin, and their shape."""
  with open(path, "rb") as file:
    head = file.read(8)
    if len(head) < 8:
      raise ValueError(f"cut short: {len(head)} bytes")
    (length,) = struct.unpack("<Q", head)
    if length > MAX_HEADER_BYTES:
      raise ValueError(f"not a weights file: header of {length} bytes")
    text = file.read(length)
  if len(text) < length:
    raise ValueError(f"cut short: {8 + len(text)} bytes, header is {length}")
  try:
    entry = json.loads(text)[TENSOR]
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    first = entry["data_offsets"][0]
  except (ValueError, KeyError, TypeError, IndexError) as error:
    raise ValueError(
      f"not a weights file: no tensor {TENSOR!r} in its header"
    ) from error
  plain = all(type(size) is int and size >= 0 for size in shape)
  if dtype != "F32" or len(shape) != 2 or not plain or first != 0:
    raise ValueError(
      f"tensor {TENSOR!r} is {dtype} of shape {list(shape)} at {first},"
      " where F32 of 2 axes at 0 is due"
    )
  return 8 + length, shape
