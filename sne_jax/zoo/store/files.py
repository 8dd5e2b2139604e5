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

from sne_jax import atomic, errors
from sne_jax.checkpoints import limits
from sne_jax.checkpoints.formats import safetensors_file

TENSOR = "weights"
BLOCK_BYTES = 1 << 23
"""Bytes read at a time where a whole file is gone through."""

LIMITS = limits.Limits(max_header_bytes=1 << 20)
"""A longer header is no header of ours."""


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

  atomic.replace_file(path, write, end)
  return digest.hexdigest()


def map_rows(path: str) -> Float[np.ndarray, "N P"]:
  """Maps a weights file: read-only float32 `[N, P]`, nothing is read yet.

  Raises:
    CheckpointError: there is no such file, or it is cut short, too long, or no
      weights file.
  """
  entries = safetensors_file.read(path, LIMITS).entries
  entry = entries.get(TENSOR)
  if entry is None or entry.dtype != "float32" or len(entry.shape) != 2:
    raise errors.unreadable(
      path,
      f"not a weights file: it holds {list(entries.values())}, where a tensor"
      f" {TENSOR!r} of float32 and 2 axes is due",
    )
  return entry.read()


def scan_rows(
  path: str, rows: Float[np.ndarray, "N P"]
) -> tuple[str, Bool[np.ndarray, "N"]]:
  """Goes through a weights file once: its SHA-256, and which rows are finite.

  Args:
    path: the file.
    rows: what `map_rows` gave for it.
  """
  start = os.path.getsize(path) - rows.nbytes
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
