"""Room on a disk: how much something takes, and one line where it is short.

A full disk, a quota, a read-only folder and limits of the system are shortages:
nothing is wrong with the data, and the same command continues once they are
mended. See docs/design/0013-room.md.

Dimensions: none.
"""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence

MARGIN = 1.1
"""Times the bytes that are expected have to be free."""

AGAIN = "and give the same command again; it continues"

_KINDS = {
  errno.ENOSPC: ("the disk is full", "free space there"),
  errno.EDQUOT: ("the quota of the disk is used up", "free space there"),
  errno.EFBIG: (
    "a file may not become so large (ulimit -f)",
    "raise the limit (ulimit -f unlimited)",
  ),
  errno.EROFS: ("the folder is read-only", "make it writable"),
  errno.EACCES: ("there is no permission", "change it (chmod, chown)"),
  errno.EPERM: ("it is not permitted", "change its owner or attributes"),
  errno.EMFILE: (
    "too many files are open in this process (ulimit -n)",
    "raise the limit (ulimit -n 4096)",
  ),
  errno.ENFILE: ("too many files are open on this machine", "close some"),
  errno.ENOMEM: ("memory has run out", "free memory"),
}
"""What each number says, and the remedy."""

_TEXTS = {os.strerror(number).lower(): number for number in _KINDS}
"""How libraries spell them that hide the number."""

OF_FILES = (errno.EMFILE, errno.ENFILE)
"""Shortages in which a file that cannot be read is not at fault."""

EXIT_CODE = 75
"""Of programs that end by a shortage: try again (EX_TEMPFAIL)."""

_UNKNOWN = 1 << 62

_RECORD = 1000
"""Bytes that a record of metrics takes, as a line and for TensorBoard."""

_OF_ROOM = (errno.ENOSPC, errno.EDQUOT)

_OF_DEVICE = "RESOURCE_EXHAUSTED: "
"""How JAX begins to say that a device has no memory left."""


class NoRoom(OSError):
  """Something could not be written for want of room. One line."""

  def __str__(self) -> str:
    """Returns the line, without the number."""
    return str(self.strerror)


def shortage(error: BaseException | None) -> int | None:
  """Returns the number of the shortage that has caused an error, if any."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in _KINDS:
      return error.errno
    text = str(error).lower()
    for spelled, number in _TEXTS.items():
      if spelled in text and not isinstance(error, FileNotFoundError):
        return number
    error = error.__cause__ or error.__context__
  return None


@contextlib.contextmanager
def writing(
  path: str | os.PathLike, what: str = "", size: int | None = None
) -> Iterator[None]:
  """Words shortages that the body meets.

  Args:
    path: file or folder that is being written.
    what: it is; empty: its name says so.
    size: bytes that it takes, where they are known.

  Raises:
    NoRoom: there is a shortage. Other errors stay as they are.
  """
  try:
    yield
  except NoRoom:
    raise
  except Exception as error:
    number = shortage(error)
    if number is None:
      raise
    raise _worded(number, pathlib.Path(path), what, size) from error


def explained(
  error: BaseException, folders: Sequence[str | os.PathLike] = ()
) -> str:
  """Returns the line of a shortage; empty where an error is none.

  Args:
    error: from anywhere.
    folders: that may be concerned, where the error names no file: the one with
      the least room is taken; of memory, the first.
  """
  if isinstance(error, NoRoom):
    return str(error)
  number = shortage(error)
  if number in (None, errno.ENOMEM):
    short = number or _is_of_memory(error)
    return _of_memory(error, folders) if short else ""
  name = _named(error)
  if name:
    return str(_worded(number, pathlib.Path(name), "", None, "opened"))
  if folders:
    least = min(map(pathlib.Path, folders), key=free)
    return str(_worded(number, least / "a file", "", None))
  reason, remedy = _KINDS[number]
  return f"{reason} ({error}); {remedy}, {AGAIN}"


def check(
  folder: str | os.PathLike, size: int, what: str, *, there: int = 0
) -> None:
  """Refuses to begin what is not going to fit.

  Args:
    folder: that is going to be written; need not be there.
    size: bytes that are expected.
    what: they are of.
    there: bytes of them that are there already.

  Raises:
    NoRoom: fewer are free than are missing, and a tenth.
  """
  missing, room = int(MARGIN * max(0, size - there)), free(folder)
  if missing > room:
    raise _worded(errno.ENOSPC, pathlib.Path(folder), what, missing)


def of_zoo(members: int, weights: int, columns: int) -> int:
  """Returns the bytes that the making of a zoo takes, at most.

  Finished parts lie beside the zoo until it is complete, so weights count
  twice.

  Args:
    members: networks and their snapshots.
    weights: of one network.
    columns: that are known of each.
  """
  names = 64  # An identifier, in the members and in a split.
  return members * (2 * 4 * weights + 2 * 8 * columns + names)


def of_training(
  params: int, state: int, *, seeds: int, keep: int, records: int
) -> int:
  """Returns the bytes that trainings take, about, without their reports.

  Args:
    params: bytes of a checkpoint of the best parameters.
    state: bytes of a checkpoint of all that training needs.
    seeds: trainings.
    keep: states that are kept of each, and the best parameters that they name;
      a further one of each is there before the oldest are removed.
    records: of metrics, of one training.
  """
  return seeds * ((keep + 1) * (state + params) + _RECORD * records)


def free(folder: str | os.PathLike) -> int:
  """Returns the bytes that are free where a folder is, or is going to be.

  A great many where the system does not say.
  """
  path = pathlib.Path(folder).absolute()
  for place in (path, *path.parents):
    with contextlib.suppress(OSError):
      usage = shutil.disk_usage(place)
      return usage.free if usage.total else _UNKNOWN
  return _UNKNOWN


def taken(*folders: str | os.PathLike) -> int:
  """Returns the bytes of the files in folders that are there."""
  total = 0
  for folder in folders:
    for path in pathlib.Path(folder).rglob("*"):
      with contextlib.suppress(OSError):
        total += path.stat().st_size if path.is_file() else 0
  return total


def shown(size: int) -> str:
  """Returns a number of bytes, as people say it."""
  value, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
  while value >= 1000 and len(units) > 1:
    value, _ = value / 1000, units.pop(0)
  digits = ".3g" if value < 1000 else ".0f"
  return f"{value:{digits}} {units[0]}"


def _named(error: BaseException | None) -> str:
  """Returns the file that a chain of errors names, if any."""
  while error is not None:
    name = getattr(error, "filename", None)
    if isinstance(name, str | bytes):
      return os.fsdecode(name)
    error = error.__cause__ or error.__context__
  return ""


def _is_of_memory(error: BaseException) -> bool:
  """Whether memory has run out, that of a device included."""
  return isinstance(error, MemoryError) or str(error).startswith(_OF_DEVICE)


def _of_memory(error: BaseException, folders) -> str:
  """Returns the line of an error of memory."""
  where = "".join(f"{os.fspath(folder)}: " for folder in folders[:1])
  said = " ".join(str(error).removeprefix(_OF_DEVICE).split())
  return (
    f"{where}memory has run out ({said[:200] or 'nobody says for what'}); free"
    f" memory {AGAIN} (or begin in another folder with a smaller batch_size, or"
    " batch_members of a zoo)"
  )


def _worded(
  number: int,
  path: pathlib.Path,
  what: str,
  size: int | None,
  verb: str = "written",
) -> NoRoom:
  """Returns the error of a shortage."""
  reason, remedy = _KINDS[number]
  folder = path if path.is_dir() else path.parent
  what = what or path.name.removeprefix(".").removesuffix(".tmp")
  verb = "written" if number in _OF_ROOM else verb
  parts = [f"{what} cannot be {verb}"]
  if size is not None:
    parts.append(f"{shown(size)} are needed")
  if number in _OF_ROOM:
    parts.append(f"{shown(free(folder))} are free")
  text = f"{folder}: {reason}: {', '.join(parts)}; {remedy}, {AGAIN}"
  return NoRoom(number, " ".join(text.split()))
