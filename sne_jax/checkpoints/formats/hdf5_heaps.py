"""Heaps of an HDF5 file, checked before the library walks through them.

Texts of any length lie in global heaps: objects one after another, each with
its size. The library follows these sizes without end where one is 0.

References:
  HDF5 File Format Specification 4.0, III.E.

Dimensions: none.
"""

import io
import struct

SIGNATURE = b"GCOL\x01\0\0\0"
_HEAD = struct.Struct("<8sQ")
_OBJECT = struct.Struct("<HHIQ")


class Checked(io.BufferedReader):
  """A file whose heaps are looked at as they are read."""

  def readinto(self, buffer) -> int:
    """Reads, and refuses a heap with a size that leads nowhere.

    Raises:
      OSError: there is one.
    """
    count = super().readinto(buffer)
    block = memoryview(buffer).cast("B")[:count]
    if block[:8] == SIGNATURE and not is_sound(block):
      raise OSError("a heap of texts is damaged")
    return count


def is_sound(block: memoryview | bytes) -> bool:
  """Whether sizes lead to the end of a heap, as far as it is in the block.

  Args:
    block: what begins with `SIGNATURE`.
  """
  if len(block) < _HEAD.size:
    return True
  _, size = _HEAD.unpack_from(block)
  place = _HEAD.size
  while place + _OBJECT.size <= min(size, len(block)):
    index, _, _, taken = _OBJECT.unpack_from(block, place)
    # Of an object without its head, in steps of 8; of free space with it.
    need = _OBJECT.size + (taken + 7) // 8 * 8 if index else taken
    if need < _OBJECT.size or place + need > size:
      return False
    place += need
  return True
