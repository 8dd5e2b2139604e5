"""MessagePack, walked over: values, and where the bytes of arrays lie.

The library `msgpack` would copy every array; a walk over a mapped file leaves
them where they are.

References:
  The MessagePack specification, github.com/msgpack/msgpack/blob/master/spec.md.
"""

import dataclasses
import struct
from typing import Any

_NUMBERS = {
  code: struct.Struct(">" + form)
  for code, form in zip(
    (0xCA, 0xCB, 0xCC, 0xCD, 0xCE, 0xCF, 0xD0, 0xD1, 0xD2, 0xD3),
    "fdBHIQbhiq",
    strict=True,
  )
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_BINARY = {0xC4: 1, 0xC5: 2, 0xC6: 4}  # Code -> bytes of the length.
_TEXT = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAY = {0xDC: 2, 0xDD: 4}
_MAP = {0xDE: 2, 0xDF: 4}
_EXTENSION = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSION = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


@dataclasses.dataclass(frozen=True)
class Span:
  """Bytes that were walked over. `code` is that of an extension, else -1."""

  start: int
  length: int
  code: int = -1


class Walk:
  """A walk over MessagePack bytes from some place on."""

  def __init__(self, data, start: int, end: int, *, max_values: int):
    """Starts at `start` and never leaves `end`.

    Args:
      data: bytes or anything that slices to bytes.
      start: of the first value.
      end: of the bytes.
      max_values: values after which to give up.
    """
    self._data = data
    self._end = end
    self._left = max_values
    self.at = start

  def value(self, depth: int = 0) -> Any:
    """Returns the next value; binary ones and extensions as `Span`.

    Raises:
      ValueError: damaged, nested too deep, too many values, or a table in
        which a name occurs twice or is no text or number.
    """
    self._left -= 1
    if self._left < 0:
      raise ValueError("too many values")
    if depth > 100:
      raise ValueError("nested too deep")
    code = self._take(1)[0]
    if code < 0x80:
      return code
    if code >= 0xE0:
      return code - 0x100
    if code < 0x90:
      return self._map(code & 0x0F, depth)
    if code < 0xA0:
      return self._array(code & 0x0F, depth)
    if code < 0xC0:
      return self._text(code & 0x1F)
    if code in _CONSTANTS:
      return _CONSTANTS[code]
    if code in _NUMBERS:
      form = _NUMBERS[code]
      return form.unpack(self._take(form.size))[0]
    if code in _TEXT:
      return self._text(self._length(_TEXT[code]))
    if code in _BINARY:
      return self._span(self._length(_BINARY[code]))
    if code in _ARRAY:
      return self._array(self._length(_ARRAY[code]), depth)
    if code in _MAP:
      return self._map(self._length(_MAP[code]), depth)
    if code in _EXTENSION:
      length = self._length(_EXTENSION[code])
      return self._span(length, self._take(1)[0])
    if code in _FIXED_EXTENSION:
      kind = self._take(1)[0]
      return self._span(_FIXED_EXTENSION[code], kind)
    raise ValueError(f"no value begins with {code:#x}")

  def _take(self, count: int) -> bytes:
    start, self.at = self.at, self.at + count
    if self.at > self._end:
      raise ValueError("cut short")
    return bytes(self._data[start : self.at])

  def _length(self, width: int) -> int:
    return int.from_bytes(self._take(width), "big")

  def _text(self, length: int) -> str:
    return self._take(length).decode()

  def _span(self, length: int, code: int = -1) -> Span:
    start, self.at = self.at, self.at + length
    if self.at > self._end:
      raise ValueError("cut short")
    return Span(start, length, code)

  def _array(self, count: int, depth: int) -> list:
    return [self.value(depth + 1) for _ in range(count)]

  def _map(self, count: int, depth: int) -> dict:
    values = {}
    for _ in range(count):
      key = self.value(depth + 1)
      if not isinstance(key, str | int):
        raise ValueError(f"a {type(key).__name__} as a name")
      if key in values:
        raise ValueError(f"name {key!r} occurs twice")
      values[key] = self.value(depth + 1)
    return values
