"""What is raised where a file is not what it should be, in one line."""

import os

BROKEN = "restore the file from its source, or make the zoo anew"
"""The remedy where a file is not what it was."""

DAMAGED = "restore the file from its source"
"""The same for a checkpoint."""


class ZooError(ValueError):
  """A zoo that cannot be read or written. One line: where, what, remedy."""


def fault(path, file: str, problem: str, remedy: str = BROKEN) -> ZooError:
  """Returns a `ZooError` of one line, to be raised by the caller.

  Args:
    path: folder of the zoo.
    file: file within the folder; empty if the folder itself is at fault.
    problem: what is wrong, with the value seen.
    remedy: what the user can do.
  """
  where = os.path.join(os.fspath(path), file) if file else os.fspath(path)
  return ZooError(" ".join(f"{where}: {problem}; {remedy}".split()))


class DamagedError(ValueError):
  """A file that is not what was written. One line: file, what, remedy."""


def damaged(path, problem: str, remedy: str) -> DamagedError:
  """Returns a `DamagedError` of one line, to be raised by the caller."""
  text = f"{os.fspath(path)}: {problem}; {remedy}"
  return DamagedError(" ".join(text.split()))


class CheckpointError(ValueError):
  """A checkpoint that cannot be read. One line: file, what, remedy.

  Attributes:
    problem: what is wrong, without the file.
  """

  problem: str = ""


def unreadable(path, problem: str, remedy: str = DAMAGED) -> CheckpointError:
  """Returns a `CheckpointError` of one line, to be raised by the caller.

  What comes from the file itself (names, numbers) may be long or hold control
  characters; the line is cut and cleaned.

  Args:
    path: file or folder at fault.
    problem: what is wrong, with the value seen.
    remedy: what the user can do.
  """
  text = " ".join(f"{os.fspath(path)}: {problem[:600]}; {remedy}".split())
  clean = "".join(c if c.isprintable() else "?" for c in text)
  error = CheckpointError(clean)
  error.problem = problem
  return error
