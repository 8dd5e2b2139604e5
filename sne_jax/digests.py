"""Digests of files: what is read is what was written, or is refused.

A folder has a manifest, `sha256.json`: the SHA-256 of files in it, by name, and
over all of that one of its own. Files and manifest cannot change at once, so
for as long as a file is being written the manifest accepts the old content and
the new one; see docs/design/0011-digests.md. Folders without a manifest are of
before there were any: nothing is claimed of them.

Dimensions: none.
"""

import contextlib
import fnmatch
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sne_jax import atomic, errors

FILE = "sha256.json"
SEAL = "sha256"
"""The field that holds the digest of all others."""

FORMAT = "sne_jax digests"
VERSION = 1
REMEDY = "restore the file, or train again"

Accepted = tuple[str | None, ...]
"""Digests that a file may have; None: it may be absent."""


def of_bytes(content: bytes) -> str:
  """Returns the SHA-256 of a content, in hexadecimal."""
  return hashlib.sha256(content).hexdigest()


def of_file(path: str | os.PathLike) -> str:
  """Returns the SHA-256 of a file, in hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
  """Returns plain values with a digest of them, in the field `SEAL`."""
  rest = {name: entry for name, entry in value.items() if name != SEAL}
  text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
  return rest | {SEAL: of_bytes(text.encode())}


def unsealed(value: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the values that were sealed.

  Raises:
    ValueError: they are not what they were; the message says only that.
  """
  due = sealed(value)[SEAL]
  if value.get(SEAL) != due:
    there = str(value.get(SEAL))[:12]
    raise ValueError(
      f"contents changed: their SHA-256 is {due[:12]}..., and not {there}..."
    )
  return {name: entry for name, entry in value.items() if name != SEAL}


def read(folder: str | os.PathLike) -> dict[str, Accepted] | None:
  """Reads a manifest: the digests that each file may have; None: there is none.

  Raises:
    DamagedError: it is no manifest.
  """
  path = pathlib.Path(folder) / FILE
  try:
    value = json.loads(path.read_bytes())
    files = unsealed(value)["files"]
    if value["format"] != FORMAT or value["version"] > VERSION:
      raise ValueError(f"version {value['version']} of {value['format']!r}")
    outside = [n for n in files if ".." in n.split("/") or os.path.isabs(n)]
    if outside:
      raise ValueError(f"{outside[0]!r} is no name of a file in the folder")
    return {name: tuple(accepted) for name, accepted in files.items()}
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.damaged(path, f"no manifest ({error})", REMEDY) from error


def check(
  folder: str | os.PathLike,
  names: Sequence[str] = ("*",),
  *,
  remedy: str = REMEDY,
) -> None:
  """Compares files with the manifest of their folder, if it has one.

  Args:
    folder: that is going to be read.
    names: files that are, or patterns of them; of one that the manifest does
      not name, nothing is claimed.
    remedy: what the user can do.

  Raises:
    DamagedError: a file is missing, or is not what was written.
  """
  folder = pathlib.Path(folder)
  known = read(folder)
  while known is not None:
    try:
      for name, accepted in known.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in names):
          _compare(folder / name, accepted, remedy)
      return
    except errors.DamagedError:
      before, known = known, read(folder)
      if known == before:  # Nobody is writing here.
        raise


def need(folder: str | os.PathLike, *, remedy: str = REMEDY) -> None:
  """Refuses a folder that has lost its manifest.

  Raises:
    DamagedError: it has none.
  """
  path = pathlib.Path(folder) / FILE
  if not path.exists():
    raise errors.damaged(path, "file is missing", remedy)


def put(
  folder: str | os.PathLike,
  contents: Mapping[str, str | bytes],
  also: Iterable[str] = (),
) -> None:
  """Writes files and their digests; a kill at any moment leaves both in order.

  Args:
    folder: created where missing.
    contents: of the files, by name, in the order they are written in.
    also: names and patterns of files that are there and become known; those
      that are known already stay as they are.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  _forget(folder)
  found = {
    path.relative_to(folder).as_posix()
    for pattern in also
    for path in folder.glob(pattern)
  }
  before = read(folder) or {}
  known = {
    name: accepted
    for name, accepted in before.items()
    # Folders that were removed, or are written anew, are known no more.
    if pathlib.PurePath(name).name != FILE or name in found
  }
  for name in sorted(found - known.keys() - contents.keys()):
    known[name] = (of_file(folder / name),)
  both, new = dict(known), dict(known)
  for name, content in contents.items():
    data = content.encode() if isinstance(content, str) else content
    path, digest = folder / name, of_bytes(data)
    there = of_file(path) if path.exists() else None
    both[name] = tuple(dict.fromkeys((there, digest)))
    new[name] = (digest,)
  if both != before:
    _write(folder, both)
  for name, content in contents.items():
    atomic.write_atomically(folder / name, content)
  if new != both:
    _write(folder, new)


def seal_folder(folder: str | os.PathLike) -> None:
  """Writes the manifest of a folder that is whole: all files in it."""
  folder = pathlib.Path(folder)
  paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != FILE)
  _write(
    folder,
    {p.relative_to(folder).as_posix(): (of_file(p),) for p in paths},
  )


def drop(folder: str | os.PathLike) -> None:
  """Removes the manifest of a folder whose files are going to change."""
  _forget(pathlib.Path(folder))
  with contextlib.suppress(FileNotFoundError):
    (pathlib.Path(folder) / FILE).unlink()


def _forget(folder: pathlib.Path) -> None:
  """Takes the manifest of a folder out of that of the folder above."""
  folder = folder.absolute()
  with contextlib.suppress(errors.DamagedError):  # Not ours to judge here.
    known = read(folder.parent) or {}
    if known.pop(f"{folder.name}/{FILE}", None):
      _write(folder.parent, known)


def _write(folder: pathlib.Path, files: Mapping[str, Accepted]) -> None:
  value = {"format": FORMAT, "version": VERSION, "files": files}
  atomic.write_json(folder / FILE, sealed(value))


def _compare(path: pathlib.Path, accepted: Accepted, remedy: str) -> None:
  """Raises unless a file is as one of its digests says."""
  try:
    found = of_file(path)
  except (FileNotFoundError, NotADirectoryError):
    found = None
  if found in accepted:
    return
  if found is None:
    raise errors.damaged(path, "file is missing", remedy)
  due = " or ".join(f"{d[:12]}..." for d in accepted if d) or "no such file"
  raise errors.damaged(
    path,
    f"changed or damaged since it was written (SHA-256 is {found[:12]}...,"
    f" {FILE} says {due})",
    remedy,
  )
