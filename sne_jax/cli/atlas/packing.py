"""One block of bytes that holds arrays, for a script to read in a browser.

It is compressed, and written as base64. Unpacked: the length of a header (four
bytes, the lowest first), the header (JSON), and the arrays, each of which
begins at a multiple of 8 bytes. `arrays` of the header says of each its type,
its shape, and where it begins.
"""

import base64
import functools
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

TYPES = ("float32", "int32", "uint16", "uint8")
"""Those that the script knows."""


def packed(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
  """Returns the block, as base64.

  Args:
    header: plain values.
    arrays: of `TYPES`, by name.

  Raises:
    ValueError: an array of another type, or a number in the header that is not
      finite.
  """
  places, parts, offset = {}, [], 0
  for name, array in arrays.items():
    if array.dtype.name not in TYPES:
      raise ValueError(
        f"array {name!r} is of type {array.dtype}; give one of"
        f" {', '.join(TYPES)}"
      )
    places[name] = [array.dtype.name, list(array.shape), offset]
    content = np.ascontiguousarray(array).astype(
      array.dtype.newbyteorder("<"), copy=False
    )
    parts.append(content.tobytes() + bytes(-content.nbytes % 8))
    offset += len(parts[-1])
  text = json.dumps(dict(header) | {"arrays": places}, allow_nan=False)
  lead = text.encode()
  lead += b" " * (-(4 + len(lead)) % 8)
  whole = b"".join([len(lead).to_bytes(4, "little"), lead, *parts])
  return compressed(whole)


def compressed(content: bytes, level: int = 6) -> str:
  """Returns gzip of bytes, as base64: equal bytes for equal contents."""
  return base64.b64encode(
    gzip.compress(content, compresslevel=level, mtime=0)
  ).decode()


@functools.cache
def plotly() -> str:
  """Returns Plotly's script, `compressed`."""
  from plotly import offline  # 0.3 s, which a page is worth.

  return compressed(offline.get_plotlyjs().encode(), level=9)
