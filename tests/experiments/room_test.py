"""A disk that fills at any write: one line, and the same end with room."""

import errno
import os
import shutil

import pytest

from sne_jax import atomic, room
from tests.broken import trees


@pytest.fixture(scope="module")
def unbroken(launch, tiny_zoo, tmp_path_factory):
  """A run, a copy of what it left, and how many files it wrote in one go."""
  workdir, writes = tmp_path_factory.mktemp("unbroken") / "run", []
  with pytest.MonkeyPatch.context() as patch:
    fsync = os.fsync
    count = lambda number: (writes.append(number), fsync(number))
    patch.setattr(atomic.os, "fsync", count)
    ended = launch(workdir, tiny_zoo)
  assert ended.code == 0, ended.err
  copy = workdir.with_name("copy")
  shutil.copytree(workdir, copy)
  return workdir, copy, len(writes)


@pytest.mark.parametrize(
  "share",
  [
    *(pytest.param(share, marks=pytest.mark.slow) for share in (0.01, 0.2)),
    0.6,
    *(pytest.param(share, marks=pytest.mark.slow) for share in (0.8, 0.95)),
  ],
)
def test_a_disk_that_fills_is_one_line_and_loses_nothing(
  share, unbroken, launch, tiny_zoo, monkeypatch
):
  workdir, copy, writes = unbroken
  shutil.rmtree(workdir)
  left = [int(share * writes)]

  def full(number):
    left[0] -= 1
    if left[0] < 0:
      raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(os, "fsync", full)
    ended = launch(workdir, tiny_zoo)
  assert left[0] < 0
  assert ended.code == room.EXIT_CODE
  assert str(workdir) in ended.error and "the disk is full" in ended.error
  ended = launch(workdir, tiny_zoo)
  assert ended.code == 0, ended.err
  assert trees.difference(copy, workdir) == []
