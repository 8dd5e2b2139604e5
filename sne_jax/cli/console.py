"""What a program of ours says to its terminal."""

import contextlib
import io
import logging as python_logging
import pathlib
import sys
from collections.abc import Sequence

from absl import logging

import sne_jax


def setup(more: Sequence[str] = ()) -> None:
  """Keeps log lines to those of this project, and to warnings of others.

  `--verbosity=1` shows everything. What the terminal cannot show, such as names
  of files in another encoding, is escaped.

  Args:
    more: folders besides that of the library whose code may say what it does.
  """
  with contextlib.suppress(AttributeError, io.UnsupportedOperation):
    sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore
  ours = [pathlib.Path(f).resolve() for f in (*sne_jax.__path__, *more)]

  def is_worth_showing(record: python_logging.LogRecord) -> bool:
    if record.levelno >= python_logging.WARNING or logging.get_verbosity() >= 1:
      return True
    path = pathlib.Path(record.pathname).resolve()
    return any(path.is_relative_to(folder) for folder in ours)

  handler = logging.get_absl_handler()
  handler.setFormatter(
    python_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
  )
  handler.addFilter(is_worth_showing)
