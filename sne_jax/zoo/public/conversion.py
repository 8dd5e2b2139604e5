"""Converts the networks of a published zoo into a zoo of ours, streamed.

They are read one after another, in parts that lie in `<path>.partial` until
all are there (see `zoo.partial`). A conversion that was stopped resumes after
its last part. No more than one part is in memory.

Dimensions: `M` networks of a source, `N` of one spec, `P` weights.
"""

import collections
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sne_jax import errors, room
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.public import listing, parts
from sne_jax.zoo.public import options as options_lib
from sne_jax.zoo.public import source as source_lib
from sne_jax.zoo.store import partial, splits, store, writing

PART_BYTES = 1 << 26
"""Bytes of weights in a part, about."""

PART_MEMBERS = 4096
"""Networks of a part, at most."""

NOT_FINITE = "a weight is NaN or infinite"
DAMAGED = "its file is damaged (skip_damaged)"
NAMED = 20
"""Names of left-out networks in `zoo.json`, for each reason, at most."""


def convert(
  path: str | os.PathLike,
  source: source_lib.Source,
  *,
  skip_damaged: bool = False,
  progress: partial.Progress | None = None,
) -> store.Zoo:
  """Converts a published zoo, resumes a conversion, or opens what is there.

  Networks with weights that are not finite are left out. What is left out is
  counted in the provenance (`left_out`), with the reason and the first names.
  Equal files and options give equal bytes, however often it was broken off.

  Args:
    path: folder of the zoo to make.
    source: what to convert.
    skip_damaged: leave out networks whose file cannot be read, rather than
      stop.
    progress: is told the networks that are read; the caller draws it.

  Returns:
    The zoo, opened.

  Raises:
    ZooError: a file is damaged, no network is left, another process converts
      here, or `path` or `<path>.partial` hold another zoo.
  """
  if not len(source.ids):
    raise errors.fault(
      path, "", "no network is chosen", "look at the source and the options"
    )
  provenance = {"generator": source.generator, "options": dict(source.options)}
  told = progress or (lambda *_: None)

  def make(folder: str, _: int) -> store.Zoo:
    try:
      networks = list(_read_all(folder, source, skip_damaged, told))
      return _write(path, folder, source, provenance, networks)
    except errors.ZooError:
      if not parts.any_there(folder):
        shutil.rmtree(folder)  # Nothing to resume from.
      raise

  return partial.make_zoo(
    path, provenance, batch_members=1, find_batch_members=lambda: 1, make=make
  )


def reader(
  describe: Callable[[str, options_lib.ConvertOptions], source_lib.Source],
) -> Callable[..., store.Zoo]:
  """Returns `convert(source, path, options, progress=None)` of a published zoo.

  It converts the folder `source` into a zoo at `path`; see `convert`. Beyond
  its errors it raises `ValueError` for an option that the zoo has no use for.

  Args:
    describe: from the folder and the options to what there is to convert.
  """

  def read(source, path, options, progress=None) -> store.Zoo:
    return convert(
      path,
      describe(listing.folder(source), options),
      skip_damaged=options.skip_damaged,
      progress=progress,
    )

  return read


def grouped_splits(
  ids: Sequence[str], groups: Sequence | np.ndarray, seed: int
) -> Callable[[np.ndarray], source_lib.Splits]:
  """Returns how to split what is kept of `ids`, as `Source.splits`.

  Split `default`: 70 % train, 15 % val, 15 % test; no group is parted. Empty
  where there are too few groups for three parts.
  """
  parts_ = {"train": 0.7, "val": 0.15, "test": 0.15}

  def split(kept: np.ndarray) -> source_lib.Splits:
    named, owners = np.array(ids, str)[kept], np.array(groups)[kept]
    try:
      drawn = splits.random_split(named, seed=seed, parts=parts_, groups=owners)
    except ValueError:
      drawn = {}
    return {"default": drawn}

  return split


def _read_all(folder, source, skip_damaged, told) -> Iterator[parts.Part]:
  """Yields all parts, reading what is not yet there."""
  first, total = 0, len(source.ids)
  while first < total:
    part = parts.read(folder, first)
    if part is None or first + len(part.places) > total:
      networks = _read_part(source, first, skip_damaged, told)
      part = parts.write(folder, first, networks)
      if first == 0:  # Now it is known how large they are.
        size = 2 * room.taken(folder) * total // len(part.places)
        room.check(folder, size, "the zoo", there=room.taken(folder))
    first += len(part.places)
    told(first, total, "networks")
    yield part


def _read_part(
  source: source_lib.Source, first: int, skip_damaged: bool, told
) -> list[source_lib.Network | str]:
  """Reads networks from `first` on, as many as a part holds."""
  networks, size = [], 0
  for number in range(first, min(first + PART_MEMBERS, len(source.ids))):
    if number % 64 == 63:
      told(number, len(source.ids), "networks")
    try:
      network = _checked(source.read(number))
      size += network.weights.nbytes
    except source_lib.LeftOut as reason:
      network = str(reason)
    except Exception as error:
      if not skip_damaged and isinstance(error, errors.ZooError):
        raise
      if room.shortage(error) in room.OF_FILES:
        raise
      if not skip_damaged:
        raise errors.fault(
          str(source.ids[number]),
          "",
          f"cannot be read ({type(error).__name__}: {str(error)[:300]})",
          "restore it, or leave out what is damaged (skip_damaged)",
        ) from error
      network = DAMAGED
    networks.append(network)
    if size >= PART_BYTES:
      break
  return networks


def _checked(network: source_lib.Network) -> source_lib.Network:
  """Returns a network in float32; raises `LeftOut` if that is not finite."""
  with np.errstate(over="ignore"):
    weights = np.asarray(network.weights, np.float32)
  assert weights.shape == (network.spec.num_weights,), weights.shape
  if not np.isfinite(weights).all():
    raise source_lib.LeftOut(NOT_FINITE)
  return network._replace(weights=weights)


def _write(
  path,
  folder: str,
  source: source_lib.Source,
  provenance,
  contents: list[parts.Part],
) -> store.Zoo:
  """Writes the zoo from its parts."""
  specs, spec_numbers, rows, weights = _gather(contents)
  places = [place for part in contents for place in part.places]
  kept = np.array([place >= 0 for place in places], bool)
  left_out = _left_out(source, contents)
  if not specs:
    raise errors.fault(
      path,
      "",
      f"none of {len(source.ids)} networks is left: "
      + ", ".join(f"{e['count']} as {e['reason']}" for e in left_out),
      "look at the source and at what is chosen from it",
    )
  columns: dict[str, Any] = {
    name: values[kept] for name, values in source.columns.items()
  }
  for part in contents:
    for name, values in part.properties.items():
      columns.setdefault(name, []).extend(values)
  ids = np.array(source.ids, str)
  return writing.write_zoo(
    path,
    specs=specs,
    weights=weights,
    ids=ids[kept],
    spec_numbers=spec_numbers,
    rows=rows,
    properties={
      name: writing.Property(values, source.descriptions[name])
      for name, values in columns.items()
    },
    splits=_only_kept(source.splits(kept), set(ids[kept].tolist())),
    provenance={
      **provenance,
      "published": source.published._asdict(),
      "left_out": left_out,
      **source.facts,
    },
    licence=source.published.licence,
    staging=partial.staging(folder),
  )


def _gather(contents: Sequence[parts.Part]):
  """Returns specs, spec number and row of the members, and weights by spec."""
  numbers: dict[spec_lib.NetworkSpec, int] = {}
  pieces: list[list[tuple[str, str, int]]] = []
  sizes: list[int] = []
  spec_numbers, rows = [], []
  for part in contents:
    here = collections.Counter(part.places)
    mine = []  # Number of the spec at each place.
    for place, spec in enumerate(part.specs):
      mine.append(numbers.setdefault(spec, len(numbers)))
      if mine[-1] == len(pieces):
        pieces.append([])
        sizes.append(0)
      pieces[mine[-1]].append((part.file, str(place), here[place]))
    for place in part.places:
      if place >= 0:
        spec_numbers.append(mine[place])
        rows.append(sizes[mine[place]])
        sizes[mine[place]] += 1
  weights: list[Any] = [
    parts.Rows(some, spec.num_weights)
    for spec, some in zip(numbers, pieces, strict=True)
  ]
  return list(numbers), spec_numbers, rows, weights


def _left_out(source: source_lib.Source, contents) -> list[dict[str, Any]]:
  """Returns reasons, how many networks each, and the first names."""
  names: dict[str, list[str]] = {}
  for name, reason in source.left_out:
    names.setdefault(reason, []).append(name)
  first = 0
  for part in contents:
    for number, reason in sorted(part.reasons.items()):
      names.setdefault(reason, []).append(str(source.ids[first + number]))
    first += len(part.places)
  return [
    {"reason": reason, "count": len(some), "names": some[:NAMED]}
    for reason, some in sorted(names.items())
  ]


def _only_kept(splits: source_lib.Splits, ids: set[str]):
  """Returns the splits without what was left out, and without empty ones."""
  kept = {
    name: {
      part: [str(i) for i in some if str(i) in ids]
      for part, some in parts_.items()
    }
    for name, parts_ in splits.items()
  }
  return {name: p for name, p in kept.items() if any(p.values())}
