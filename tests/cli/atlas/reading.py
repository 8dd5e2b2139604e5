"""Reads a page as its script does."""

import base64
import gzip
import json
import re

import numpy as np


def unpacked(block):
  """Returns the header and the arrays of a block."""
  whole = gzip.decompress(base64.b64decode(block))
  length = int.from_bytes(whole[:4], "little")
  header = json.loads(whole[4 : 4 + length])
  assert (4 + length) % 8 == 0
  arrays = {}
  for name, (kind, shape, offset) in header.pop("arrays").items():
    assert offset % 8 == 0
    count = int(np.prod(shape))
    arrays[name] = np.frombuffer(
      whole, np.dtype(kind).newbyteorder("<"), count, 4 + length + offset
    ).reshape(shape)
  return header, arrays


def data_of(text):
  """Returns the header and the arrays of a page."""
  (block,) = re.findall(r'<script type="text/plain" id="data">(.*?)<', text)
  return unpacked(block)


def check_alone(text):
  """Fails if a page would fetch anything."""
  code = re.sub(r'<script type="text/plain".*?</script>', "", text, flags=re.S)
  links = re.findall(r'(?:src|href)=["\']([^"\']*)', code)
  assert all(link.startswith("data:") for link in links), links
  assert "@import" not in code and "url(" not in code
  assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(", code)
