"""Makes the file system list folders in another order."""

import contextlib
import os
from unittest import mock

_SCANDIR = os.scandir


class _Reversed:
  def __init__(self, path):
    with _SCANDIR(path) as found:
      self._found = sorted(found, key=lambda entry: entry.name, reverse=True)

  def __enter__(self):
    return iter(self._found)

  def __exit__(self, *_):
    pass


@contextlib.contextmanager
def reversed_folders():
  """Lists every folder backwards while the body runs."""
  with mock.patch.object(os, "scandir", _Reversed):
    yield
