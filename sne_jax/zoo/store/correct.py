"""Which images each member of a zoo of classifiers classifies rightly, as bits.

A file `correct-<digest>.safetensors` of two tensors: `bits` uint8
`[M, ceil(T / 8)]`, by member number, the first image in the highest bit of
the first byte; and `classes` uint8 `[T]`, the true class of every image.

Dimensions: `M` members of a zoo, `T` images.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from jaxtyping import Bool, Int, UInt8

from sne_jax import atomic, digests, errors
from sne_jax.checkpoints.formats import safetensors_file
from sne_jax.zoo.store import files

KEY = "correct"
"""Of the entry in the index; zoos without it have none."""


class Correct(NamedTuple):
  """Which of `T` images, the same for all, each member classifies rightly."""

  packed: UInt8[np.ndarray, "M W"]
  classes: UInt8[np.ndarray, "T"]

  @classmethod
  def of(cls, right: Bool[np.ndarray, "M T"], classes) -> "Correct":
    """Packs what is right."""
    return cls(
      np.packbits(right, axis=-1), np.asarray(classes).astype(np.uint8)
    )

  def right(
    self, members: Int[np.ndarray, "B"] | Sequence[int]
  ) -> Bool[np.ndarray, "B T"]:
    """Returns the bits of members."""
    rows = self.packed[np.asarray(members, int)]
    return np.unpackbits(rows, axis=-1, count=len(self.classes)).astype(bool)


def write(folder: str, correct: Correct) -> dict[str, Any]:
  """Writes the file, atomically; returns its entry in the index.

  Raises:
    ValueError: arrays of other types or shapes.
  """
  packed, classes = correct
  width = -(-len(classes) // 8)
  kinds = {packed.dtype, classes.dtype}
  if packed.ndim != 2 or packed.shape[1] != width or kinds != {np.dtype("u1")}:
    raise ValueError(
      f"bits of {len(classes)} images are uint8 [M, {width}], got"
      f" {packed.dtype} {packed.shape}; pack them by Correct.of"
    )
  content = safetensors.numpy.save(
    {"bits": np.ascontiguousarray(packed), "classes": classes}
  )
  digest = digests.of_bytes(content)
  file = f"correct-{digest[:12]}.safetensors"
  atomic.write_atomically(os.path.join(folder, file), content)
  return {"file": file, "images": len(classes), "sha256": digest}


def read(path: str, name: str, entry: dict[str, Any], count: int) -> Correct:
  """Reads the file, whose checksum is known to be right.

  Args:
    path: folder to read.
    name: what errors call it.
    entry: of the index.
    count: `M`.

  Raises:
    ZooError: it does not hold what it should.
  """
  file, images = entry["file"], entry["images"]
  due = {"bits": (count, -(-images // 8)), "classes": (images,)}
  try:
    found = safetensors_file.read(os.path.join(path, file), files.LIMITS)
  except errors.CheckpointError as error:
    raise errors.fault(name, file, error.problem) from error
  for key, shape in due.items():
    there = found.entries.get(key)
    if there is None or (there.dtype, there.shape) != ("uint8", shape):
      raise errors.fault(
        name, file, f"tensor {key!r} is {there} where uint8 {shape} is due"
      )
  bits, classes = (np.array(found.entries[key].read()) for key in due)
  return Correct(bits, classes)
