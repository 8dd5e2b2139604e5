"""A zoo as a data set of Hugging Face's `datasets`: Parquet files and a card.

`datasets.load_dataset(folder)` reads it, from the disk or, uploaded, from the
Hub; writing it takes no library but Arrow. A row is a member: `id`, `spec`, its
properties, and `weights`, a list as long as its spec says. `specs.json` holds
the specs, by number, as `NetworkSpec.from_json` reads them.

Dimensions: `P` weights of a member.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from sne_jax import atomic, errors, room
from sne_jax.zoo.store import store

SPECS_FILE = "specs.json"
PART_NAMES = {"val": "validation"}
"""What `datasets` calls parts."""

GROUP_BYTES = 2**26
"""Weights that are written at once."""

MOST_OFFSET = 2**31 - 1
"""Weights that lists of Arrow hold, other than large ones."""

FILE_BYTES = 2**29
"""Weights of a file, about; a part may take several."""


def export(
  zoo: store.Zoo,
  out: str | os.PathLike,
  *,
  split: str = "default",
  progress: Callable[[int, int], None] | None = None,
) -> pathlib.Path:
  """Writes a zoo as a data set; members that are not valid are left out.

  Args:
    zoo: the zoo.
    out: folder; must be empty, or not there.
    split: whose parts become those of the data set.
    progress: is told the members that are written, and how many there are.

  Returns:
    The folder. Nothing half-written is left where it fails.

  Raises:
    ZooError: no such split, or a folder that holds something.
    NoRoom: the disk is full.
  """
  folder = pathlib.Path(out)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise errors.fault(
      str(folder), "", "it holds something already", "name a new folder"
    )
  parts = {p: n for p, n in zoo.split(split).items() if len(n)}
  sizes = [spec.num_weights for spec in zoo.specs]
  specs = np.concatenate([zoo.members["spec"][n] for n in parts.values()])
  size = 4 * sum(sizes[spec] for spec in specs)
  room.check(folder, size, "the data set")
  told, total = 0, sum(map(len, parts.values()))
  with _whole(folder) as temporary, room.writing(folder):
    (temporary / "data").mkdir()
    for part, numbers in parts.items():
      name = PART_NAMES.get(part, part)
      files = _files(zoo, numbers)
      for place, some in enumerate(files):
        path = f"{name}-{place:05d}-of-{len(files):05d}.parquet"
        for count in _write(temporary / "data" / path, zoo, some):
          told += count
          if progress is not None:
            progress(told, total)
    known = {str(n): spec.to_json() for n, spec in enumerate(zoo.specs)}
    (temporary / SPECS_FILE).write_text(json.dumps(known, indent=1) + "\n")
    names = {part: PART_NAMES.get(part, part) for part in parts}
    (temporary / "README.md").write_text(_card(zoo, split, names, total))
  return folder


@contextlib.contextmanager
def _whole(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a folder to fill, which takes its name when it is whole."""
  temporary = folder.with_name(f".{folder.name}.partial")
  with atomic.made_folders(folder):
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
      yield temporary
      if folder.exists():
        folder.rmdir()  # It is empty.
      temporary.rename(folder)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)


def _files(zoo: store.Zoo, numbers: np.ndarray) -> list[np.ndarray]:
  """Returns the members of each file of a part, in their order."""
  sizes = np.array([spec.num_weights for spec in zoo.specs])
  ends = np.cumsum(4 * sizes[zoo.members["spec"][numbers]])
  cuts = np.flatnonzero(np.diff((ends - 1) // FILE_BYTES)) + 1
  return [some for some in np.split(numbers, cuts) if len(some)]


def _write(path: pathlib.Path, zoo: store.Zoo, numbers: np.ndarray):
  """Writes members, some at a time; yields how many."""
  sizes = np.array([spec.num_weights for spec in zoo.specs])
  most = int(sizes[zoo.members["spec"][numbers]].max())
  step = max(1, GROUP_BYTES // (4 * most))
  names = [n for n in zoo.members if n not in ("row", "valid")]
  writer = None
  try:
    for start in range(0, len(numbers), step):
      some = numbers[start : start + step]
      columns: dict[str, Any] = {}
      for name in names:
        values = zoo.members[name][some]
        columns[name] = values.tolist() if values.dtype.kind == "U" else values
      columns["weights"] = _lists(zoo.vectors(some), most > MOST_OFFSET)
      table = pa.table(columns)
      writer = writer or parquet.ParquetWriter(path, table.schema)
      writer.write_table(table)
      yield len(some)
  finally:
    if writer is not None:
      writer.close()


def _lists(vectors: Sequence[np.ndarray], is_large: bool) -> pa.Array:
  """Returns vectors of any lengths as lists, without one Python number."""
  offsets = np.cumsum([0, *(len(vector) for vector in vectors)])
  values = pa.array(np.concatenate(vectors).astype(np.float32, copy=False))
  if is_large:
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)
  return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _card(zoo: store.Zoo, split: str, names: dict[str, str], total: int) -> str:
  """Returns the page of the data set, whose head says where its parts are."""
  lines = ["---", "configs:", "- config_name: default", "  data_files:"]
  for name in names.values():
    lines += [f"  - split: {name}", f"    path: data/{name}-*.parquet"]
  lines += ["---", "", f"# A zoo of {total} trained networks", ""]
  lines += [
    f"Made by `sne_jax` from a zoo of {len(zoo.specs)} specs, split `{split}`."
    f" Licence: {zoo.licence}.",
    "",
    "`weights` is one vector; `specs.json` says, by the number in `spec`, which"
    " tensors it holds, in which order: `sne_jax.NetworkSpec.from_json`.",
    "",
    "| property | means | units |",
    "|---|---|---|",
  ]
  for name, about in zoo.properties.items():
    said, units = about.get("description", ""), about.get("units", "")
    lines.append(f"| {name} | {said} | {units} |")
  return "\n".join(lines) + "\n"
