"""Splits of a zoo's members into parts, as a function of ids and seed alone."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

PARTS = ("train", "val", "test")


def random_split(
  ids: Sequence[str] | np.ndarray,
  *,
  seed: int,
  parts: Mapping[str, int | float],
  groups: Sequence | np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """Splits members at random into disjoint parts.

  Members are put in the order of a hash of seed and id (or group). So the
  split does not depend on the order of `ids` nor on any library's random
  numbers, and of a zoo that grows no two old members change their order.

  Args:
    ids: member ids, unique.
    seed: another seed, another split.
    parts: for each part, its number of members (int), or its share of all
      members (float in [0, 1]); all of one type. What is left over is in no
      part.
    groups: for each member, a value that members share which must not be
      parted, such as a training run. Parts then have about their size, each
      group going to the part in which its middle falls.

  Returns:
    For each part, its member ids, sorted.

  Raises:
    ValueError: a part is unknown, more members are asked for than there are,
      ids repeat, or a part would be empty that should not.
  """
  names = [str(member) for member in ids]
  if len(set(names)) != len(names):
    raise ValueError("ids must be unique; some occur more than once")
  labels = names if groups is None else [str(group) for group in groups]
  if len(labels) != len(names):
    raise ValueError(
      f"{len(labels)} groups for {len(names)} ids; want one each"
    )
  ends = _ends(parts, len(names))
  runs: dict[str, list[str]] = {}
  for name, label in zip(names, labels, strict=True):
    runs.setdefault(label, []).append(name)
  chosen: dict[str, list[str]] = {part: [] for part in parts}
  start = 0
  for label in sorted(runs, key=lambda label: _hash(seed, label)):
    middle = start + len(runs[label]) / 2
    start += len(runs[label])
    for part, end in ends.items():
      if middle < end:
        chosen[part] += runs[label]
        break
  for part, size in parts.items():
    if size and not chosen[part]:
      raise ValueError(
        f"part {part!r} of size {size} would be empty ({len(names)} members in"
        f" {len(runs)} groups); make it larger"
      )
  return {part: np.array(sorted(some), str) for part, some in chosen.items()}


def _ends(
  parts: Mapping[str, int | float], count: int
) -> dict[str, int | float]:
  """Returns where each part ends in the order of all members."""
  unknown = [part for part in parts if part not in PARTS]
  if unknown or not parts:
    raise ValueError(
      f"parts must be of {', '.join(PARTS)}, got {', '.join(parts) or 'none'}"
    )
  if any(size < 0 for size in parts.values()):
    raise ValueError(f"sizes of parts must not be negative, got {dict(parts)}")
  shares = [isinstance(size, float) for size in parts.values()]
  if any(shares) and not all(shares):
    raise ValueError(
      f"sizes of parts must be all counts (int) or all shares (float), got"
      f" {dict(parts)}"
    )
  total = sum(parts.values())
  most = 1 + 1e-9 if any(shares) else count
  if total > most:
    raise ValueError(
      f"parts {dict(parts)} sum to {total}; there are {count} members"
    )
  ends, end = {}, 0.0
  for part, size in parts.items():
    end += size
    ends[part] = round(end * count) if any(shares) else end
  return ends


def _hash(seed: int, label: str) -> bytes:
  """Returns the place of a label in the order of a seed."""
  return hashlib.sha256(f"{seed}/{label}".encode()).digest()
