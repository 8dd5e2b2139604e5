"""The tensors of one network where they lie: in memory, mapped, or on call.

Dimensions: none; a tensor has any shape.
"""

import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from sne_jax.networks.spec import NetworkSpec

BUFFER = 2**18
"""Numbers that are converted at a time where a whole tensor is gone through."""


class TensorSource:
  """Tensors in the order of a spec, as numpy arrays of whatever float type.

  Args:
    spec: the network.
    tensors: by name: numpy arrays, or objects with `shape` and `read()`. What
      was read is kept until it is given back.

  Raises:
    ValueError: a tensor is missing, or has another shape than the spec says.
  """

  def __init__(self, spec: NetworkSpec, tensors: Mapping[str, Any]):
    self._spec, self._tensors = spec, tensors
    self._held: dict[int, np.ndarray] = {}
    for t in spec.tensors:
      if t.name not in tensors:
        given = ", ".join(list(tensors)[:4]) or "none"
        raise ValueError(
          f"tensor {t.name!r} is missing; {len(tensors)} are given ({given},"
          " ...): name them as the spec does"
        )
      self._check(t, tensors[t.name])

  def __getitem__(self, place: int) -> np.ndarray:
    """Returns the array of the tensor at that place of the spec."""
    if place not in self._held:
      self._held[place] = self._read(place)
    return self._held[place]

  def __len__(self) -> int:
    """Number of tensors."""
    return len(self._spec.tensors)

  def mean_squares(self) -> Float[np.ndarray, "tensors"]:
    """Returns the mean of the squared weights of each tensor."""
    sums = [self._sum_of_squares(place) for place in range(len(self))]
    return np.array(sums) / [t.size for t in self._spec.tensors]

  def give_back(self, place: int) -> None:
    """Lets go of the memory of a tensor that was read, or mapped read-only.

    It is read again if it is needed again.
    """
    array: Any = self._held.pop(place, None)
    while isinstance(array, np.ndarray) and not array.flags.writeable:
      array = array.base
    if isinstance(array, memoryview):
      array = array.obj
    if isinstance(array, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
      array.madvise(mmap.MADV_DONTNEED)

  def _read(self, place: int) -> np.ndarray:
    tensor = self._spec.tensors[place]
    source = self._tensors[tensor.name]
    array = np.asarray(source.read() if hasattr(source, "read") else source)
    self._check(tensor, array)
    return array

  def _check(self, tensor, array) -> None:
    if tuple(array.shape) != tensor.shape:
      raise ValueError(
        f"tensor {tensor.name!r} has shape {tuple(array.shape)}; the spec says"
        f" {tensor.shape}"
      )

  def _sum_of_squares(self, place: int) -> float:
    blocks = np.nditer(
      self[place],
      ["external_loop", "buffered"],
      op_dtypes=[np.float32],
      casting="unsafe",
      order="K",
      buffersize=BUFFER,
    )
    total = sum(float(np.dot(block, block)) for block in blocks)
    self.give_back(place)
    return total
