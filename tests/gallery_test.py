"""Notebooks of the gallery: committed with outputs, and run as they stand."""

import json
import pathlib
import re
import resource

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "gallery"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 240
"""Of processor time: two minutes of two cores, however busy they are."""


def code_cells(path):
  cells = json.loads(path.read_text())["cells"]
  return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_committed(path):
  cells = code_cells(path)
  counts = [cell["execution_count"] for cell in cells]
  assert counts == list(range(1, len(cells) + 1))  # In order, and all of them.
  outputs = [output for cell in cells for output in cell["outputs"]]
  kinds = [output["output_type"] for output in outputs]
  assert "error" not in kinds
  assert not [o for o in outputs if o.get("name") == "stderr"]
  assert any("image/png" in o.get("data", {}) for o in outputs)
  assert path.stat().st_size < 200_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_a_machine_is_in_them(path):
  text = path.read_text()
  assert not re.search(r"/(tmp|home|root|work)/", text)
  assert '"execution": {' not in text  # Times, which differ with each run.


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_run(path):
  pytest.importorskip("nbclient", reason="needs requirements-docs.txt")
  pytest.importorskip("ipykernel", reason="needs requirements-docs.txt")
  from tests import gallery

  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  made = gallery.executed(path)  # Raises where a cell does.
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  assert used < SECONDS, f"{used:.0f} seconds of one core"
  now = [cell for cell in made.cells if cell.cell_type == "code"]
  for cell, committed in zip(now, code_cells(path), strict=True):
    kinds = [o.output_type for o in cell.outputs]
    assert kinds.count("error") == 0
    assert bool(kinds) == bool(committed["outputs"])
