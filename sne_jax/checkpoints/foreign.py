"""What every reader does with bytes of a stranger: map, guard, parse JSON."""

import contextlib
import importlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from typing import Any

import numpy as np

from sne_jax import errors
from sne_jax.checkpoints import tensors


@contextlib.contextmanager
def guard(
  path: str,
  what: str,
  kinds: type[Exception] | tuple[type[Exception], ...] = Exception,
  remedy: str = errors.DAMAGED,
) -> Iterator[None]:
  """Turns what a parser raises into one line.

  Args:
    path: file that is read.
    what: what is done, for example "its header cannot be read".
    kinds: what may be raised. Everything, around parsers of other libraries:
      on damaged bytes they raise what they like.
    remedy: what the user can do.

  Raises:
    CheckpointError: in place of any of `kinds`; one raised inside passes.
  """
  try:
    yield
  except errors.CheckpointError:
    raise
  except kinds as error:
    text = str(error)[:300] or type(error).__name__
    raise errors.unreadable(path, f"{what} ({text})", remedy) from error


def file_size(path: str) -> int:
  """Returns the size of an ordinary file.

  Raises:
    CheckpointError: there is none, or it is a pipe, a device or a folder.
  """
  with guard(path, "no file that can be read", OSError, "check the path"):
    status = os.stat(path)
  if not stat.S_ISREG(status.st_mode):
    raise errors.unreadable(path, "no ordinary file", "check the path")
  return status.st_size


def read_head(path: str, num_bytes: int = -1) -> bytes:
  """Returns the first bytes of a file; all by default.

  Raises:
    CheckpointError: it cannot be read.
  """
  with (
    guard(path, "cannot be read", OSError, "check the path"),
    open(path, "rb") as file,
  ):
    return file.read(num_bytes)


def library(name: str, path: str, what: str) -> Any:
  """Imports an optional library.

  Args:
    name: of the module, and of its distribution.
    path: file that needs it.
    what: what cannot be done without it, for the error.

  Raises:
    CheckpointError: it is not installed.
  """
  try:
    return importlib.import_module(name)
  except ImportError:
    raise errors.unreadable(path, what, f"pip install {name}") from None


def map_array(
  path: str,
  offset: int,
  dtype: np.dtype,
  shape: tuple[int, ...],
) -> np.ndarray:
  """Maps a stretch of a file as an array, read-only; nothing is read yet.

  Args:
    path: the file.
    offset: of the first byte; need not be aligned.
    dtype: of the numbers.
    shape: of the array, row-major.

  Raises:
    CheckpointError: the file ends before the array does.
  """
  num_bytes = math.prod(shape) * dtype.itemsize
  if num_bytes == 0:
    return np.zeros(shape, dtype)
  if offset + num_bytes > (size := file_size(path)):
    raise errors.unreadable(
      path, f"cut short: {size} of {offset + num_bytes} bytes"
    )
  with guard(path, "cannot be mapped", (OSError, ValueError)):
    raw = np.asarray(np.memmap(path, np.uint8, "r", offset, (num_bytes,)))
  return raw.view(dtype).reshape(shape)


def swap(raw: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """Returns bytes `[B]` of big-endian numbers with their order reversed."""
  width = dtype.itemsize // (2 if dtype.kind == "c" else 1)
  return raw.view(f"u{width}").byteswap().view(np.uint8)


def parse_json(text: bytes | str, path: str, what: str) -> Any:
  """Parses JSON in which no name occurs twice.

  Raises:
    CheckpointError: it is none, is nested too deep, or repeats a name.
  """

  def unique(pairs):
    values = dict(pairs)
    if len(values) < len(pairs):
      names = [name for name, _ in pairs]
      twice = next(name for name in names if names.count(name) > 1)
      raise ValueError(f"name {twice!r} occurs twice")
    return values

  with guard(path, f"{what} is not sound JSON", (ValueError, RecursionError)):
    return json.loads(text, object_pairs_hook=unique)


def is_count(value: Any) -> bool:
  """Whether a value of a file is a whole number from 0 on that fits a file."""
  return type(value) is int and 0 <= value < 1 << 62


def is_shape(value: Any) -> bool:
  """Whether a value of a file is a list of sizes that NumPy can have."""
  return (
    isinstance(value, list | tuple)
    and len(value) <= 32
    and all(is_count(size) for size in value)
    and math.prod(size for size in value if size) < 1 << 58
  )


def dtype_bytes(name: str) -> int:
  """Returns the bytes of one number of a dtype of `tensors.DTYPES`."""
  return tensors.DTYPES[name].itemsize


def check_inside(path: str, folder: str, file: str) -> None:
  """Refuses a file that lies outside a folder, through links too.

  In a cache of the Hugging Face Hub the files of a snapshot are links to
  `blobs` beside it; they count as inside.

  Args:
    path: what names the file, for the error.
    folder: that it has to lie in.
    file: the path.

  Raises:
    CheckpointError: it lies elsewhere.
  """
  real, root = os.path.realpath(file), os.path.realpath(folder)
  parts = root.split(os.sep)
  if "snapshots" in parts:
    at = len(parts) - 1 - parts[::-1].index("snapshots")
    if parts[at - 1].startswith("models--"):
      root = os.sep.join(parts[:at])
  if os.path.commonpath([real, root]) != root:
    raise errors.unreadable(
      path,
      f"{os.path.basename(file)!r} is a link that leads out of the folder",
      "put the file itself there",
    )


def natural(name: str) -> list[tuple[int, str]]:
  """A key that sorts names with the numbers in them as numbers."""
  return [
    (int(text), "") if text.isdecimal() and len(text) < 19 else (-1, text)
    for text in re.split(r"(\d+)", name)
  ]
