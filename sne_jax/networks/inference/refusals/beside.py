"""Recognises a network that lies beside another one without a prefix.

`fc1, fc2` and `ema.fc1, ema.fc2`: what follows the prefix repeats names and
shapes of the rest, which layers of one network hardly do.

Dimensions: none; shapes are tuples of sizes.
"""

import json
import re

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.refusals.seen import Refusal, Seen

_SHARE = 2 / 3
"""Of the names on either side, that the other has with the same shapes."""

_Shapes = dict[str, tuple[int, ...]]


def networks(seen: Seen) -> Refusal | None:
  """Networks under prefixes that repeat what has none."""
  if seen.override.order:  # A person says that it is one chain.
    return None
  starts = _starts(seen)
  everything = _behind(seen, seen.matrices)
  found: dict[str, _Shapes] = {}
  for start, inner in starts.items():
    last = re.split(r"[./_]+", start.rstrip("./_"))[-1]
    if not last.isdecimal() and _repeats(inner, everything, len(inner)):
      found[start] = inner
  rest = [name for name in seen.matrices if not name.startswith((*found,))]
  plain = _behind(seen, rest)
  heads = {
    _head(starts, start): None
    for start, inner in found.items()
    if _repeats(inner, plain, max(len(inner), len(plain)))
  }
  return _ask(list(heads)) if heads else None


def _starts(seen: Seen) -> dict[str, _Shapes]:
  """What lies behind each start of names, `ema.` or `ema_`, by what follows."""
  starts: dict[str, _Shapes] = {}
  for name, shape in seen.matrices.items():
    for match in re.finditer(r"[./]+|_+", name):
      start, rest = name[: match.end()], name[match.end() :]
      if len(naming.components(start)) > len(seen.top) and rest:
        inner = starts.setdefault(start, {})
        inner["/".join(naming.components(rest))] = shape
  return starts


def _behind(seen: Seen, names) -> _Shapes:
  """Shapes by names without the first words that all have."""
  return {
    "/".join(naming.components(name)[len(seen.top) :]): seen.matrices[name]
    for name in names
  }


def _repeats(one: _Shapes, other: _Shapes, most: int) -> bool:
  """Whether nearly all of `most` names are in both, with the same shapes."""
  return len(one.items() & other.items()) >= max(2, _SHARE * most)


def _head(starts: dict[str, _Shapes], start: str) -> str:
  """The shortest start of the same names: `ema.` of `ema.module.`."""
  same = [
    other
    for other, inner in starts.items()
    if start.startswith(other) and len(inner) == len(starts[start])
  ]
  whole = [other for other in same if other[-1] != "_"]
  return min(whole or same, key=len)


def _ask(heads: list[str]) -> Refusal:
  """Asks for one of them, or for the one that has no prefix."""
  names = ", ".join(head.rstrip("./_") for head in heads[:6])
  names += ", ..." if len(heads) > 6 else ""
  rest = json.dumps({"leave_out": [f"{head}*" for head in heads]})
  remedy = f"read the one without a prefix with the override {rest}"
  parts = [head.rstrip("./") for head in heads if head[-1] != "_"]
  if parts:
    remedy += f', or another with part="{parts[0]}" (--part={parts[0]})'
  return Refusal(
    f"it holds several networks, not one: {names}, and one without a prefix",
    remedy,
  )
