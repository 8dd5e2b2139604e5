"""The split of the small CNN zoo that the NFN authors published, done right.

References:
  Zhou et al., Permutation Equivariant Neural Functionals, NeurIPS 2023,
  arXiv:2302.14040.
"""

import os
import random
from collections.abc import Sequence

import numpy as np

from sne_jax.zoo.public import listing


def find(folder: str, given: str) -> str | None:
  """Returns the file of the split `nfn`: given, or the only one there is."""
  if given:
    return listing.required(
      os.path.dirname(os.path.abspath(given)), os.path.basename(given)
    )
  files = listing.names(folder, r".*_split\.csv")
  if len(files) > 1:
    raise listing.fault(
      folder,
      f"{len(files)} split files: {', '.join(files)}",
      "name one by --split_file",
    )
  return os.path.join(folder, files[0]) if files else None


def read_order(file: str, count: int) -> list[int]:
  """Reads the published order of the rows, a column of row numbers.

  The files begin with the name of the column, `0`. Readers that take it for
  data have row 0 twice, and one row more than there are.

  Raises:
    ZooError: it is not an order of `count` rows.
  """
  lines = listing.read_lines(file)
  if len(lines) == count + 1 and lines[0] == "0":
    lines = lines[1:]
  try:
    order = [int(line) for line in lines]
  except ValueError:
    order = []
  if sorted(order) != list(range(count)):
    raise listing.fault(
      file,
      f"{len(lines)} lines that do not name each of {count} rows once",
      "take the split file of this image set",
    )
  return order


def split(order: Sequence[int], last: np.ndarray) -> dict[str, list[int]]:
  """Returns the rows of each part of the split `nfn`.

  Args:
    order: of all rows.
    last: whether a row is of the last epoch, bool `[R]`.
  """
  rows = [row for row in order if last[row]]
  middle = len(rows) // 2
  places = list(range(middle))
  random.Random(0).shuffle(places)
  end = int(0.8 * middle)
  return {
    "train": [rows[place] for place in places[:end]],
    "val": [rows[place] for place in places[end:]],
    "test": rows[middle:],
  }
