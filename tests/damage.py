"""Damages files of a folder, and asks whether its readers notice.

What is read after a damage has to equal what was read before, or the reader has
to refuse in one line; anything else is a fault.
"""

import collections
import dataclasses
import itertools
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import numpy as np

PLACES = int(os.environ.get("DAMAGE_PLACES", "20"))
"""Of every file, in the slow tests."""

REFUSED, HARMLESS = "refused", "harmless"


def plain(value):
  """Returns nested values in a form in which equal means equal bits."""
  if dataclasses.is_dataclass(value):
    return repr(value)
  if isinstance(value, dict):
    return tuple((str(k), plain(v)) for k, v in value.items())
  if isinstance(value, list | tuple):
    return tuple(map(plain, value))
  if hasattr(value, "shape"):
    array = np.asarray(value)
    content = array.tolist() if array.dtype.kind == "U" else array.tobytes()
    return str(array.dtype), array.shape, content
  return repr(value)


def judged(folder, read: Callable, expected, what: str) -> str:
  """Returns whether a damage is refused or harmless.

  Raises:
    AssertionError: it is neither.
  """
  try:
    found = plain(read(folder))
  except (ValueError, RuntimeError) as error:
    text = str(error)
    assert "\n" not in text and text.startswith(str(folder)), (what, text)
    assert "; " in text or ". " in text, (what, text)
    return REFUSED
  assert found == expected, f"{what}: other values were read without a word"
  return HARMLESS


def paths_of(folder) -> list[pathlib.Path]:
  return sorted(p for p in pathlib.Path(folder).rglob("*") if p.is_file())


def flips(
  folder, read, count: int, every: int = 1, seed=0
) -> dict[str, collections.Counter]:
  """Flips single bits: `count` places of each `every`th file, at random."""
  rng = np.random.default_rng(seed)
  expected, table = plain(read(folder)), {}
  for path in paths_of(folder)[::every]:
    name = str(path.relative_to(folder))
    whole = path.read_bytes()
    table[name] = collections.Counter()
    for place in rng.integers(8 * len(whole), size=count if whole else 0):
      data = bytearray(whole)
      data[place // 8] ^= 1 << (place % 8)
      path.write_bytes(bytes(data))
      what = f"{name}, bit {place}"
      table[name][judged(folder, read, expected, what)] += 1
    path.write_bytes(whole)
  return table


def larger(folder, other, seed=0) -> Iterator[tuple[str, Callable]]:
  """Yields damages by name; each is given the folder, and is not undone.

  Every file is cut and removed, swapped with the next of its kind and with the
  one beside it, and replaced by that of another folder, made in the same way.
  """
  rng = np.random.default_rng(seed)
  names = [p.relative_to(folder) for p in paths_of(folder)]
  for name in names:
    size = int(rng.integers((folder / name).stat().st_size or 1))
    yield (
      f"{name} cut to {size}",
      lambda to, n=name, s=size: (to / n).write_bytes(
        (to / n).read_bytes()[:s]
      ),
    )
    yield f"{name} removed", lambda to, n=name: (to / n).unlink()
    if (other / name).exists() and not _equal(folder / name, other / name):
      yield (
        f"{name} of another",
        lambda to, n=name: shutil.copy(other / n, to / n),
      )
  kinds = sorted(names, key=lambda n: (n.name, str(n)))
  pairs = {*itertools.pairwise(names), *itertools.pairwise(kinds)}
  for one, two in sorted(pairs):
    if _equal(folder / one, folder / two):
      continue

    def swap(to, one=one, two=two):
      first, second = (to / one).read_bytes(), (to / two).read_bytes()
      (to / one).write_bytes(second)
      (to / two).write_bytes(first)

    yield f"{one} and {two} swapped", swap


def _equal(one, two) -> bool:
  return one.read_bytes() == two.read_bytes()


def outcomes(folder, other, read, every: int = 1) -> collections.Counter:
  """Applies the damages of `larger`, or each `every`th; counts the outcomes."""
  folder, other = pathlib.Path(folder), pathlib.Path(other)
  expected, found = plain(read(folder)), collections.Counter()
  kept = folder.with_name(folder.name + ".kept")
  shutil.copytree(folder, kept)
  for what, damage in itertools.islice(larger(kept, other), 0, None, every):
    damage(folder)
    kind = what.rsplit(" ", 1)[-1]
    kind = "cut" if kind.isdigit() else kind
    found[kind, judged(folder, read, expected, what)] += 1
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
  return found


def lines(table: dict[str, collections.Counter]) -> str:
  """Returns the table of `flips`, one line a file."""
  return "\n".join(
    f"{counts[REFUSED]:6} {counts[HARMLESS]:6}  {name}"
    for name, counts in table.items()
  )
