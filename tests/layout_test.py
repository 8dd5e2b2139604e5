"""A house to find one's way in: short files, few to a folder."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MOST_LINES = 400
MOST_FILES = 14
FILES = sorted(
  path
  for part in ("sne_jax", "experiments", "benchmarks")
  for path in (ROOT / part).rglob("*.py")
)


def test_no_file_is_long():
  long = {p: len(p.read_text().splitlines()) for p in FILES}
  assert not {str(p): n for p, n in long.items() if n > MOST_LINES}


@pytest.mark.parametrize(
  "folder", sorted({p.parent.relative_to(ROOT).as_posix() for p in FILES})
)
def test_no_folder_is_crowded(folder):
  names = {p.name for p in (ROOT / folder).glob("*.py")} - {"__init__.py"}
  assert len(names) <= MOST_FILES
  init = ROOT / folder / "__init__.py"
  assert init.exists() or folder == "benchmarks"
