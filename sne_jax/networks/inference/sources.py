"""Where every tensor of a spec lies in a file, and the way there and back.

Dimensions: `P` weights of a network.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from sne_jax.networks.spec import NetworkSpec


@dataclasses.dataclass(frozen=True)
class Source:
  """One tensor of a spec, as a view of one tensor of a file.

  The file's array is reshaped to `view`, cut at the places `picks`, its other
  axes are put in `order`, and it is reshaped to the spec's shape. Each step
  can be undone, so that writing is the exact inverse of reading.

  Attributes:
    tensor: name in the spec.
    name: name in the file.
    stored: shape in the file.
    view: shape of the same size.
    picks: (axis of view, place) pairs.
    order: axes of what is left, in the order of the spec's axes.
    shape: in the spec.
  """

  tensor: str
  name: str
  stored: tuple[int, ...]
  view: tuple[int, ...]
  picks: tuple[tuple[int, int], ...]
  order: tuple[int, ...]
  shape: tuple[int, ...]

  def describe(self) -> str:
    """Says what is done to the file's array, in one line."""
    steps = []
    if self.view != self.stored:
      steps.append(f"reshape {list(self.view)}")
    steps += [f"place {i} of axis {a}" for a, i in self.picks]
    if self.order != tuple(sorted(self.order)):
      steps.append(f"transpose {list(self.order)}")
    left = tuple(self._left()[p] for p in self.order)
    if left != self.shape:
      steps.append(f"reshape {list(self.shape)}")
    return ", ".join(steps) or "as it is"

  def take(self, array: Shaped[np.ndarray, "..."]) -> np.ndarray:
    """Returns the spec's tensor from the file's, a view where possible.

    Raises:
      ValueError: the array is not of the shape that the spec was made for.
    """
    if tuple(array.shape) != self.stored:
      raise ValueError(
        f"tensor {self.name!r} has shape {tuple(array.shape)}; the spec was"
        f" inferred for {self.stored}"
      )
    cut = array.reshape(self.view)[self._index()]
    return cut.transpose(self.order).reshape(self.shape)

  def put(self, tensor: np.ndarray, array: np.ndarray) -> None:
    """Writes the spec's tensor into its places of the file's array."""
    left = self._left()
    moved = tensor.reshape([left[p] for p in self.order])
    array.reshape(self.view)[self._index()] = moved.transpose(
      np.argsort(self.order)
    )

  def _index(self) -> tuple[Any, ...]:
    picks = dict(self.picks)
    return tuple(picks.get(p, slice(None)) for p in range(len(self.view)))

  def _left(self) -> list[int]:
    picked = dict(self.picks)
    return [n for p, n in enumerate(self.view) if p not in picked]


def gather(
  spec: NetworkSpec, sources: tuple[Source, ...], tensors: Mapping[str, Any]
) -> Float[np.ndarray, "P"]:
  """Reads the flat vector of a network, float32, tensor by tensor.

  Args:
    spec: the network.
    sources: of its tensors, in their order.
    tensors: arrays, or objects that `read()` them, by name in the file.

  Raises:
    ValueError: a tensor is missing or has another shape.
  """
  weights = np.empty(spec.num_weights, np.float32)
  kept: dict[str, np.ndarray] = {}  # Parts of one array lie close together.
  for t, start, source in zip(spec.tensors, spec.offsets, sources, strict=True):
    if source.name not in kept:
      kept = dict([*kept.items()][-1:])
      kept[source.name] = read(tensors, source.name)
    part = source.take(kept[source.name])
    with np.errstate(over="ignore"):  # What is infinite then can be seen.
      weights[start : start + t.size].reshape(t.shape)[...] = part
  return weights


def scatter(
  spec: NetworkSpec,
  sources: tuple[Source, ...],
  weights: Float[np.ndarray, "P"],
  like: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
  """Inverse of `gather`: the file's arrays, by name.

  Args:
    spec: the network.
    sources: of its tensors, in their order.
    weights: the flat vector.
    like: the file's tensors, whose dtypes are kept; a number that is finer
      than float32 keeps its bits where the vector has not moved. None writes
      float32.

  Raises:
    ValueError: `weights` is not `P` long, or a tensor of `like` is missing.
  """
  tensors: dict[str, np.ndarray] = {}
  parts = spec.unflatten(weights)
  for source in sources:
    if source.name not in tensors:
      tensors[source.name] = np.zeros(source.stored, np.float32)
    source.put(parts[source.tensor], tensors[source.name])
  if like is None:
    return tensors
  for name in tensors:
    tensors[name] = _as_stored(tensors[name], read(like, name))
  return tensors


def read(tensors: Mapping[str, Any], name: str) -> np.ndarray:
  """Returns one array; `ValueError` if there is none of that name."""
  if name not in tensors:
    raise ValueError(f"tensor {name!r} is missing")
  tensor = tensors[name]
  return np.asarray(tensor.read() if hasattr(tensor, "read") else tensor)


def _as_stored(new: np.ndarray, old: np.ndarray) -> np.ndarray:
  """Returns `new` in the dtype of `old`, with its bits where equal."""
  cast = new.astype(old.dtype)
  if old.dtype.itemsize <= 4:
    return cast
  return np.where(old.astype(np.float32) == new, old, cast)
