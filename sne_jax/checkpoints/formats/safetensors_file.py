"""Safetensors files: the header is parsed and checked here, then mapped.

Layout: 8 bytes of header length, a JSON header of that length that gives each
tensor a dtype, a shape and a stretch of what follows, then the numbers.

References:
  The format's description, github.com/huggingface/safetensors.
"""

import dataclasses
import struct

from sne_jax.checkpoints import foreign
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import DTYPES, OWN_KEYS, Entry, Tensors
from sne_jax.errors import unreadable

NAMES = {
  **{"BOOL": "bool", "C64": "complex64", "BF16": "bfloat16"},
  **{f"I{n}": f"int{n}" for n in (8, 16, 32, 64)},
  **{f"U{n}": f"uint{n}" for n in (8, 16, 32, 64)},
  **{f"F{n}": f"float{n}" for n in (16, 32, 64)},
  **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
  **{"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"},
  "F8_E8M0": "float8_e8m0fnu",
}
"""Their names of dtypes -> ours."""


def read(path: str, limits: Limits) -> Tensors:
  """Opens a safetensors file. Metadata: its own, `__metadata__`.

  A key of `tensors.OWN_KEYS` in it is put after "its ". What is no tensor, but
  has the name of one in its place, is a second name of that: writers keep one
  of several names of a tensor so.

  Raises:
    CheckpointError: the header is damaged, or says what the file does not
      hold: stretches that overlap, leave gaps or lie outside.
  """
  size = foreign.file_size(path)
  budget = Budget(path, limits)
  start, header = _header(path, size, budget)
  metadata = header.pop("__metadata__", {})
  if not isinstance(metadata, dict) or not all(
    isinstance(value, str) for value in metadata.values()
  ):
    raise unreadable(path, "its __metadata__ is no table of texts")
  names = {k: n for k, n in metadata.items() if k not in header and n in header}
  metadata = {
    f"its {key}" if key in OWN_KEYS else key: text
    for key, text in metadata.items()
  }
  entries, stretches = {}, []
  for name, item in header.items():
    dtype, shape, (first, last) = _item(path, name, item)
    due = foreign.dtype_bytes(dtype)
    for axis in shape:
      due *= axis
    if last - first != due:
      raise unreadable(
        path,
        f"tensor {name!r} has {last - first} bytes where"
        f" {dtype}{list(shape)} takes {due}",
      )
    budget.take(name, due, stored=size)
    stretches.append((first, last, name))
    entries[name] = _entry(path, name, start + first, dtype, shape)
  _check_stretches(path, stretches, size - start)
  for second, name in names.items():
    entry = entries[name]
    entries[second] = dataclasses.replace(entry, name=second, tied_to=name)
  return Tensors(entries, "safetensors", path, metadata)


def _entry(path, name, offset, dtype, shape) -> Entry:
  return Entry(
    name,
    shape,
    dtype,
    lambda: foreign.map_array(path, offset, DTYPES[dtype], shape),
  )


def _header(path: str, size: int, budget: Budget) -> tuple[int, dict]:
  """Returns where the numbers begin, and the parsed header."""
  head = foreign.read_head(path, 8)
  if len(head) < 8:
    raise unreadable(path, f"cut short: {len(head)} bytes, not even a header")
  (length,) = struct.unpack("<Q", head)
  if length > size - 8:
    raise unreadable(
      path, f"cut short: {size} bytes, where its header has {length}"
    )
  budget.check_header("a header", length)
  text = foreign.read_head(path, 8 + length)[8:]
  header = foreign.parse_json(text, path, "its header")
  if not isinstance(header, dict):
    raise unreadable(path, "its header is no table")
  return 8 + length, header


def _item(path: str, name: str, item) -> tuple[str, tuple, tuple[int, int]]:
  """Returns dtype, shape and stretch of one tensor of the header."""
  if not isinstance(item, dict):
    raise unreadable(
      path, f"tensor {name!r} is described by {type(item).__name__}"
    )
  dtype, shape = item.get("dtype"), item.get("shape")
  offsets = item.get("data_offsets")
  if not isinstance(dtype, str) or dtype not in NAMES:
    raise unreadable(
      path,
      f"tensor {name!r} has dtype {dtype!r}",
      f"save it as one of {', '.join(NAMES)}",
    )
  if not isinstance(shape, list) or not foreign.is_shape(shape):
    raise unreadable(path, f"tensor {name!r} has shape {shape!r}")
  if (
    not isinstance(offsets, list)
    or len(offsets) != 2
    or not all(map(foreign.is_count, offsets))
    or offsets[0] > offsets[1]
  ):
    raise unreadable(path, f"tensor {name!r} has offsets {offsets!r}")
  return NAMES[dtype], tuple(shape), (offsets[0], offsets[1])


def _check_stretches(path: str, stretches: list, room: int) -> None:
  """Refuses stretches that overlap, leave gaps, or leave the file."""
  end, before = 0, "the header"
  for first, last, name in sorted(stretches):
    if first < end:
      raise unreadable(path, f"tensors {before!r} and {name!r} overlap")
    if first > end:
      raise unreadable(
        path, f"{first - end} bytes before {name!r} are of no tensor"
      )
    end, before = last, name
  if end != room:
    state = "cut short" if end > room else "too long"
    raise unreadable(
      path, f"{state}: {room} bytes of numbers where {end} are due"
    )
