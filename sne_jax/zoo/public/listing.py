"""Looks at the files of a published zoo; faults take one line.

Lists are sorted, so that nothing depends on the order of a file system.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from sne_jax import digests, errors
from sne_jax.zoo.store import splits

UNPACKED = "point --source to the unpacked folder of the published archive"
FOREIGN = "this is a network of another zoo"
MAX_TEXT_BYTES = 1 << 28
"""Bytes of a file of JSON or CSV that is read at once, at most."""


def fault(
  path: str, problem: str, remedy: str = errors.DAMAGED
) -> errors.ZooError:
  """Returns an error of one line about a file of a published zoo.

  What comes from the file may be long or hold control characters; the line is
  cut and cleaned.
  """
  return errors.ZooError(str(errors.unreadable(path, problem, remedy)))


def folder(source: str | os.PathLike) -> str:
  """Returns a folder's absolute path; raises `ZooError` if it is none."""
  path = os.path.abspath(source)
  if not os.path.isdir(path):
    problem = "not a folder" if os.path.exists(path) else "no such folder"
    raise fault(path, problem, UNPACKED)
  return path


def names(path: str, pattern: str = "", *, folders: bool = False) -> list[str]:
  """Returns names in a folder, sorted: files, or folders. No links.

  Args:
    path: the folder.
    pattern: regular expression that the whole name must match; empty: all.
    folders: whether to list folders rather than files.
  """
  with os.scandir(path) as entries:
    matches = [
      entry.name
      for entry in entries
      if (
        entry.is_dir(follow_symlinks=False)
        if folders
        else entry.is_file(follow_symlinks=False)
      )
      and (not pattern or re.fullmatch(pattern, entry.name))
    ]
  return sorted(matches)


def required(path: str, *choices: str) -> str:
  """Returns the first of some files that a folder has.

  Raises:
    ZooError: it has none.
  """
  for name in choices:
    if os.path.isfile(os.path.join(path, name)):
      return os.path.join(path, name)
  raise fault(os.path.join(path, choices[0]), "file is missing", UNPACKED)


def read_json(file: str) -> Any:
  """Reads a JSON file.

  Raises:
    ZooError: it is missing, too long, or not JSON.
  """
  text = _text(file)
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as error:
    raise fault(file, f"not JSON ({error})") from None


def read_split(file: str) -> Iterator[tuple[str, Any, list[str]]]:
  """Yields each part of a split, what the file says of it, and the paths.

  The paths are that list itself, or its entry `path`.

  Raises:
    ZooError: as of `read_json`, or a part has no list of paths.
  """
  value = read_json(file)
  for part in splits.PARTS:
    entry = value.get(part) if isinstance(value, dict) else None
    paths = entry.get("path") if isinstance(entry, dict) else entry
    if not isinstance(paths, list) or not all(
      isinstance(name, str) for name in paths
    ):
      raise fault(file, f"no list of paths for part {part!r}")
    yield part, entry, paths


def read_lines(file: str) -> list[str]:
  """Reads the lines of a text file that are not blank; faults as above."""
  return [line.strip() for line in _text(file).splitlines() if line.strip()]


def read_csv(file: str, columns: Iterable[str]) -> list[dict[str, str]]:
  """Reads a short CSV file with a header.

  Raises:
    ZooError: it is missing, too long, or lacks a column or a cell.
  """
  rows = list(csv.DictReader(_text(file).splitlines()))
  for column in columns:
    if any(not row.get(column) for row in rows) or not rows:
      header = ", ".join(map(str, rows[0])) if rows else "none"
      raise fault(file, f"no column {column!r}; it has {header}")
  return rows


def _text(file: str) -> str:
  try:
    size = os.path.getsize(file)
    if size > MAX_TEXT_BYTES:
      raise fault(
        file,
        f"{size} bytes, where at most {MAX_TEXT_BYTES} are expected",
      )
    with open(file, encoding="utf-8") as opened:
      return opened.read()
  except OSError as error:
    raise fault(file, f"cannot be read ({error.strerror})", UNPACKED) from None
  except UnicodeDecodeError as error:
    raise fault(file, f"not text ({error})") from None


def digest(parts: Iterable[object]) -> str:
  """Returns sixteen hexadecimal digits that name a list of plain values."""
  sha = hashlib.sha256()
  for part in parts:
    sha.update(repr(part).encode())
  return sha.hexdigest()[:16]


def file_digest(file: str | None) -> str:
  """Returns such digits of a file's content; empty where there is no file."""
  return digests.of_file(file)[:16] if file else ""


def last(path: str, count: int) -> str:
  """Returns the last names of a path, of any system's form, with slashes."""
  return "/".join(re.split(r"[/\\]+", path.strip())[-count:])
