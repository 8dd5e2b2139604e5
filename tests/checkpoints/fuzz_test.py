"""Damaged files of every format: read, or refused by our own error alone.

`fuzz.py` does the same for as long as one likes.
"""

import os

import hypothesis
import hypothesis.strategies as st
import pytest

from sne_jax import checkpoints, errors
from sne_jax.checkpoints import reading, tensors
from tests.checkpoints import mutations, samples

FORMATS = samples.all_formats()
UNIT = st.floats(0, 1, exclude_max=True, width=16)
EDITS = st.lists(st.tuples(UNIT, UNIT, UNIT), min_size=1, max_size=4)


def try_file(path):
  """Reads everything in a file; only our own error may be raised.

  What can be read is then inferred, where the file's graph is played.
  """
  try:
    found = reading.read(path)
    tensors.check_finite(found)
    for entry in found.entries.values():
      entry.read()
  except errors.CheckpointError as error:
    _check_line(error, path)
    return False
  try:
    checkpoints.load(path)
  except errors.CheckpointError as error:
    _check_line(error, path)
  return True


def _check_line(error, path):
  line = str(error)
  assert line.startswith(str(path)[:20]) or "announced" in line
  assert line.isprintable() and len(line) < 2000


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_refused_or_harmless(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / name
  outcomes = set()

  @hypothesis.settings(max_examples=60, database=None)
  @hypothesis.given(edits=EDITS, other=st.sampled_from(sorted(FORMATS)))
  def run(edits, other):
    path.write_bytes(mutations.mutate(FORMATS[name], edits, FORMATS[other]))
    outcomes.add(try_file(path))

  run()
  assert False in outcomes, "control: some damage is found"
  assert os.listdir(tmp_path) == [name], "nothing else was written"


@pytest.mark.parametrize("name", FORMATS)
def test_every_length_short_of_the_whole_is_refused(name, tmp_path):
  data, path = FORMATS[name], tmp_path / name
  for length in {*range(0, len(data), max(1, len(data) // 40)), len(data) - 1}:
    path.write_bytes(data[:length])
    assert not try_file(path), length
