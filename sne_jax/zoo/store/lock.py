"""A lock on a folder, so that two processes do not write into it at once.

The lock is the operating system's (`flock`): it ends with its process, however
that dies, so a stale lock cannot exist. The file beside the folder only
carries it, and the holder's process number for the message.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from sne_jax import errors, room


@contextlib.contextmanager
def folder_lock(path: str | os.PathLike) -> Iterator[None]:
  """Holds the lock `<path>.lock` while the body runs.

  Raises:
    ZooError: another process (or another thread) holds it.
  """
  name = f"{os.fspath(path)}.lock"
  number = _acquire(path, name)
  try:
    with room.writing(name):
      os.ftruncate(number, 0)
      os.write(number, str(os.getpid()).encode())
    yield
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(name)  # while held: whoever waits for it sees the change
    os.close(number)


def _acquire(path, name: str) -> int:
  """Opens and locks the file that bears `name`; returns its descriptor."""
  while True:
    number = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
      with contextlib.suppress(FileNotFoundError):
        if os.stat(name).st_ino == os.fstat(number).st_ino:
          return number
    except BlockingIOError as error:
      holder = os.pread(number, 20, 0).decode(errors="replace") or "unknown"
      os.close(number)
      raise errors.fault(
        path,
        "",
        f"process {holder} is writing here",
        "wait until it has ended, or choose another folder",
      ) from error
    os.close(number)  # the holder before us removed the file; try anew
