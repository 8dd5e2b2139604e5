"""Files that are there whole or not at all, whenever a process is killed."""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from sne_jax import room


def replace_file(
  path: str | os.PathLike,
  write: Callable[[str], Any],
  size: int | None = None,
) -> pathlib.Path:
  """Writes a file so that, at any moment, either the old or the new is there.

  Args:
    path: file to make or replace; its folder is created where missing.
    write: is given the name of a file to write; it lies beside `path`.
    size: bytes that it takes, where they are known.

  Returns:
    The path.

  Raises:
    NoRoom: it cannot be written, because a disk is full for one.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  with room.writing(path, size=size):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      write(str(temporary))
      with open(temporary, "rb") as file:
        os.fsync(file.fileno())
      temporary.replace(path)
    finally:
      with contextlib.suppress(OSError):
        temporary.unlink()
    sync_folder(path.parent)
  return path


def write_atomically(
  path: str | os.PathLike, content: str | bytes
) -> pathlib.Path:
  """Writes bytes, or text in UTF-8; names of files in it stay as they are."""
  if isinstance(content, str):
    content = content.encode("utf-8", errors="surrogateescape")
  write = lambda temporary: pathlib.Path(temporary).write_bytes(content)
  return replace_file(path, write, len(content))


def write_json(
  path: str | os.PathLike, value: Any, allow_nan: bool = False
) -> pathlib.Path:
  """Writes plain values as JSON: equal values, equal bytes.

  Args:
    path: file to make or replace.
    value: dicts, lists, strings and numbers.
    allow_nan: whether numbers may be NaN or infinite, as Python reads them.

  Raises:
    ValueError: a number is NaN or infinite, and may not be.
  """
  return write_atomically(path, json_text(value, allow_nan))


def json_text(value: Any, allow_nan: bool = False, *, sort: bool = True) -> str:
  """Returns what `write_json` writes; or entries in the order they have."""
  text = json.dumps(value, indent=1, sort_keys=sort, allow_nan=allow_nan)
  return text + "\n"


def remove_left(folder: str | os.PathLike, *below: str) -> None:
  """Removes what killed writes have left in a folder that nobody writes in.

  Args:
    folder: that is looked at.
    *below: patterns of folders in it that are, too.
  """
  folder = pathlib.Path(folder)
  for place in (
    folder,
    *(p for pattern in below for p in folder.glob(pattern)),
  ):
    for path in place.glob(".*.tmp"):
      path.unlink()


@contextlib.contextmanager
def made_folders(path: str | os.PathLike) -> Iterator[None]:
  """Makes the folders above a path; where the body fails, none is left empty.

  Those that were there before stay, and those that hold something.
  """
  path = pathlib.Path(path)
  made = [p for p in (path, *path.parents) if not p.exists()]
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield
  except (Exception, SystemExit):
    for folder in made:  # The path itself may never have been made.
      with contextlib.suppress(OSError):
        folder.rmdir()
    raise


def sync_folder(path: str | os.PathLike) -> None:
  """Makes the entries of a folder survive a crash of the machine."""
  number = os.open(path, os.O_RDONLY)
  try:
    os.fsync(number)
  finally:
    os.close(number)
