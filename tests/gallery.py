"""Executes notebooks of the gallery in place: `python -m tests.gallery NAME`.

They are committed with their outputs, so that the site is built without a
kernel. Times of execution, which differ each time, are not kept.
"""

import os
import pathlib
import sys

import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "gallery"
SECONDS = 600
"""Limit of a cell, on a machine that others use too."""


def executed(path: pathlib.Path) -> nbformat.NotebookNode:
  """Returns a notebook with its outputs made anew, by a kernel of its own."""
  notebook = nbformat.read(path, as_version=4)
  for cell in notebook.cells:
    if cell.cell_type == "code":
      cell.outputs, cell.execution_count = [], None
  client = nbclient.NotebookClient(
    notebook, timeout=SECONDS, record_timing=False, kernel_name="python3"
  )
  return client.execute(env=os.environ | {"JAX_PLATFORMS": "cpu"})


if __name__ == "__main__":
  for path in sorted(FOLDER.glob("*.ipynb")):
    if path.stem in sys.argv[1:] or not sys.argv[1:]:
      nbformat.write(executed(path), path)
