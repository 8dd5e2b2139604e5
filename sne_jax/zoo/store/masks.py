"""Which weights of each member of a zoo are kept: masks, as bits.

A file `masks-<digest>.safetensors` of one tensor, `bits` uint8
`[M, ceil(P / 8)]`, by member number, the first weight in the highest bit of the
first byte. Zoos of one architecture have them.

Dimensions: `M` members of a zoo, `P` weights of a network.
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

KEY = "masks"
"""Of the entry in the index; most zoos have none."""


class Masks(NamedTuple):
  """Masks of the members."""

  packed: UInt8[np.ndarray, "M W"]
  num_weights: int

  @classmethod
  def of(cls, kept: Bool[np.ndarray, "M P"]) -> "Masks":
    """Packs masks, True where a weight is kept."""
    return cls(np.packbits(kept, axis=-1), kept.shape[1])

  def rows(
    self, members: Int[np.ndarray, "B"] | Sequence[int]
  ) -> Bool[np.ndarray, "B P"]:
    """Returns the masks of members."""
    bits = self.packed[np.asarray(members, int)]
    return np.unpackbits(bits, axis=-1, count=self.num_weights).astype(bool)


def write(folder: str, masks: Masks) -> dict[str, Any]:
  """Writes the file, atomically; returns its entry in the index."""
  content = safetensors.numpy.save({"bits": np.ascontiguousarray(masks.packed)})
  digest = digests.of_bytes(content)
  file = f"{KEY}-{digest[:12]}.safetensors"
  atomic.write_atomically(os.path.join(folder, file), content)
  return {"file": file, "weights": masks.num_weights, "sha256": digest}


def read(
  path: str, name: str, entry: dict[str, Any], shape: tuple[int, int]
) -> Masks:
  """Reads the file, whose checksum is known to be right.

  Args:
    path: folder to read.
    name: what errors call it.
    entry: of the index.
    shape: `M` and `P`.

  Raises:
    ZooError: it holds no masks of these members and weights.
  """
  file, (count, num_weights) = entry["file"], shape
  if entry["weights"] != num_weights:
    raise errors.fault(
      name,
      file,
      f"masks are of {entry['weights']} weights, and networks have"
      f" {num_weights}",
    )
  try:
    found = safetensors_file.read(os.path.join(path, file), files.LIMITS)
  except errors.CheckpointError as error:
    raise errors.fault(name, file, error.problem) from error
  there = found.entries.get("bits")
  due = (count, -(-num_weights // 8))
  if there is None or (there.dtype, there.shape) != ("uint8", due):
    raise errors.fault(
      name, file, f"tensor 'bits' is {there} where uint8 {due} is due"
    )
  return Masks(np.array(there.read()), num_weights)
