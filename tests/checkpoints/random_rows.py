"""Where the parameters of a random network lie in a file, and how turned."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
  """One parameter in a file.

  Attributes:
    name: in the file.
    key: number of the module, and part.
    to: from the array of `Module.params` to the file's.
    back: the inverse.
  """

  name: str
  key: tuple[int, str]
  to: Callable[[np.ndarray], np.ndarray] = np.asarray
  back: Callable[[np.ndarray], np.ndarray] = np.asarray


def moved(name, key, order, flip=()) -> Row:
  """A parameter whose axes are stored in another order, some reversed."""
  order, inverse = tuple(order), tuple(int(n) for n in np.argsort(order))
  return Row(
    name,
    key,
    lambda a: np.ascontiguousarray(np.flip(a.transpose(order), flip)),
    lambda a: np.flip(a, flip).transpose(inverse),
  )


def depthwise(name, key, shape) -> Row:
  """`[in * multiplier, 1, ...]`, stored as `[..., in, multiplier]`."""
  groups, multiplier, *size = shape
  rank = len(size)
  order = (*range(2, 2 + rank), 0, 1)
  inverse = (rank, rank + 1, *range(rank))
  return Row(
    name,
    key,
    lambda a: a.reshape(shape).transpose(order),
    lambda a: a.transpose(inverse).reshape(groups * multiplier, 1, *size),
  )


def shifted(name, key, by) -> Row:
  """Stored larger by a number."""
  return Row(name, key, lambda a: a + np.float32(by), lambda a: a - by)
