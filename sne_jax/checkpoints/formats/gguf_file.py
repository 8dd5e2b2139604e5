"""GGUF files of llama.cpp, by the gguf package: plain tensors are read.

Quantised ones are listed with their types, not read: `contents` says so. gguf
is optional and imported only here.

References:
  The format's description, github.com/ggml-org/ggml, docs/gguf.md.
"""

import json
from typing import Any

from sne_jax.checkpoints import foreign
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import DTYPES, Entry, Tensors, add
from sne_jax.errors import unreadable

NAMES = {
  **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
  **{f"I{n}": f"int{n}" for n in (8, 16, 32, 64)},
}
"""Their names of types -> ours; all others are quantised."""

QUANTISED = "quantised"
"""Metadata: names of tensors that are not read, their types and shapes."""

MAX_TEXT = 1000


def read(path: str, limits: Limits) -> Tensors:
  """Opens a GGUF file; the axes of its shapes are turned round, as in PyTorch.

  Metadata: its own texts and numbers (`general.architecture`, ...), without
  lists; `quantised`, as JSON, where there are such tensors.

  Raises:
    CheckpointError: gguf is not installed, or the file is damaged or hostile.
  """
  gguf = foreign.library("gguf", path, "it is GGUF, and gguf is not installed")
  budget, size = Budget(path, limits), foreign.file_size(path)
  with foreign.guard(path, "its header cannot be read"):
    reader = _opened(gguf, path, budget)
  if reader.byte_order != "I":
    raise unreadable(
      path, "it is GGUF of big-endian machines", "convert it for this one"
    )
  entries: dict[str, Entry] = {}
  quantised: dict[str, list] = {}
  for name, kind, shape, offset in _described(gguf, reader, path):
    if name in entries or name in quantised:
      raise unreadable(path, f"tensor {name!r} is there twice")
    if kind not in NAMES:
      budget.take(name, 0, stored=size)
      quantised[name] = [kind, list(shape)]
      continue
    entry = _entry(path, name, NAMES[kind], shape, offset)
    if offset + entry.num_bytes > size:
      raise unreadable(path, f"cut short: tensor {name!r} ends behind it")
    add(entries, entry, budget, size)
  metadata = _texts(gguf, reader)
  if quantised:
    metadata[QUANTISED] = json.dumps(quantised)
  return Tensors(entries, "gguf", path, metadata)


def _entry(path: str, name: str, dtype: str, shape: tuple, offset: int):
  load = lambda: foreign.map_array(path, offset, DTYPES[dtype], shape)
  return Entry(name, shape, dtype, load)


def _opened(gguf: Any, path: str, budget: Budget):
  """Returns the parsed header; numbers of tensors are left alone."""

  class Reader(gguf.GGUFReader):
    """Reads no further than the file and the limits go."""

    def _get(self, offset, dtype, count=1, override_order=None):
      if int(count) > len(self.data) or int(offset) >= len(self.data):
        raise ValueError("cut short")
      got = super()._get(offset, dtype, count, override_order)
      if len(got) != count:
        raise ValueError("cut short")
      budget.check_header("a header", int(offset) + got.nbytes)
      return got

    def _build_tensors(self, start_offs, fields):
      self.start, self.described = start_offs, fields

  return Reader(path)


def _described(gguf: Any, reader: Any, path: str):
  """Yields name, type, shape and offset of every tensor."""
  with foreign.guard(path, "a tensor is not described as it should be"):
    rows = []
    for field in reader.described:
      _, name, _, sizes, kind, offset = field.parts
      rows.append(
        (
          bytes(name).decode("utf-8"),
          gguf.GGMLQuantizationType(kind[0]).name,
          tuple(int(n) for n in reversed(sizes)),
          reader.start + int(offset[0]),
        )
      )
  return rows


def _texts(gguf: Any, reader: Any) -> dict[str, str]:
  """Returns the texts and numbers of a file, by their names."""
  texts = {}
  for name, field in reader.fields.items():
    if name.startswith("GGUF.") or field.types[:1] == [
      gguf.GGUFValueType.ARRAY
    ]:
      continue
    try:
      text = str(field.contents())
    except UnicodeDecodeError:
      continue
    if len(text) <= MAX_TEXT and text.isprintable() and name.isprintable():
      texts[name] = text
  return texts
