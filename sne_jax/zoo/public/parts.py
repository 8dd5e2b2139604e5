"""Networks that are read, kept on disk part by part until all are there.

A part is one safetensors file: for each of its specs a tensor `[N, P]`, and in
the header, as JSON, what else is known of its networks. It is written under
another name and renamed, so it is whole or not there.

Dimensions: `N` networks of one spec, `P` weights of one.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float

from sne_jax import atomic, digests
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.public import source as source_lib
from sne_jax.zoo.store import partial

_KEY = "part"


class Part(NamedTuple):
  """What a part says of its networks; the weights are still on disk."""

  file: str
  specs: tuple[spec_lib.NetworkSpec, ...]
  places: tuple[int, ...]  # Of the spec of each network; -1: left out.
  reasons: Mapping[int, str]  # Why, by the number within the part.
  properties: Mapping[str, list]  # Of those that are kept.


def write(
  folder: str,
  first: int,
  networks: Sequence[source_lib.Network | str],
) -> Part:
  """Writes the part that begins with network `first`.

  Args:
    folder: where the parts lie.
    first: number of the first network.
    networks: each read, or the reason why it is left out.
  """
  numbers: dict[spec_lib.NetworkSpec, int] = {}
  weights: list[list[np.ndarray]] = []
  places, reasons = [], {}
  properties: dict[str, list[Any]] = {}
  names: set[str] | None = None
  for number, network in enumerate(networks):
    if isinstance(network, str):
      places.append(-1)
      reasons[number] = network
      continue
    place = numbers.setdefault(network.spec, len(numbers))
    if place == len(weights):
      weights.append([])
    weights[place].append(network.weights)
    places.append(place)
    names = names or set(network.properties)
    assert names == set(network.properties), "properties differ in name"
    for name, value in network.properties.items():
      properties.setdefault(name, []).append(value)
  text = json.dumps(
    {
      "specs": [spec.to_json() for spec in numbers],
      "places": places,
      "reasons": list(reasons.items()),
      "properties": properties,
    }
  )
  arrays = {str(k): np.stack(rows) for k, rows in enumerate(weights)}
  file = _file(folder, first)
  metadata = {_KEY: text, digests.SEAL: _digest(text, arrays)}
  atomic.replace_file(
    file,
    lambda name: safetensors.numpy.save_file(arrays, name, metadata),
  )
  return Part(file, tuple(numbers), tuple(places), reasons, properties)


def read(folder: str, first: int) -> Part | None:
  """Reads the part that begins with network `first`; None if none is whole."""
  file = _file(folder, first)
  try:
    with safetensors.safe_open(file, "np") as opened:
      metadata = opened.metadata() or {}
      value = json.loads(metadata[_KEY])
      arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
      # Parts of before have no digest.
      due = _digest(metadata[_KEY], arrays)
      if metadata.get(digests.SEAL, due) != due:
        return None
      specs = tuple(map(spec_lib.NetworkSpec.from_json, value["specs"]))
      places = tuple(value["places"])
      for place, spec in enumerate(specs):
        shape = opened.get_slice(str(place)).get_shape()
        if tuple(shape) != (places.count(place), spec.num_weights):
          return None
    return Part(
      file, specs, places, dict(value["reasons"]), value["properties"]
    )
  except FileNotFoundError:
    return None
  except (safetensors.SafetensorError, ValueError, KeyError, TypeError):
    return None  # Cut short, or damaged: it is read anew.


def _digest(text: str, arrays: dict[str, np.ndarray]) -> str:
  return digests.of_bytes((text + partial.digest_of(arrays)).encode())


def any_there(folder: str) -> bool:
  """Whether a folder holds any part."""
  return any(name.startswith("part-") for name in os.listdir(folder))


def _file(folder: str, first: int) -> str:
  return os.path.join(folder, f"part-{first:09d}.safetensors")


class Rows:
  """The networks of one spec over all parts: `[N, P]`, read by the slice."""

  dtype = np.dtype(np.float32)
  ndim = 2

  def __init__(self, pieces: Sequence[tuple[str, str, int]], num_weights: int):
    """Holds where the rows are.

    Args:
      pieces: file, name of the tensor, and its rows, in order.
      num_weights: `P`.
    """
    self._pieces = tuple(pieces)
    self._starts = np.cumsum([0, *(count for _, _, count in pieces)])
    self.shape = (int(self._starts[-1]), num_weights)

  def __len__(self) -> int:
    """Number of rows, `N`."""
    return self.shape[0]

  def __getitem__(self, rows: slice) -> Float[np.ndarray, "n P"]:
    """Reads rows; `rows` has no step."""
    start, stop, _ = rows.indices(len(self))
    blocks = [np.zeros((0, self.shape[1]), np.float32)]
    first = int(np.searchsorted(self._starts, start, side="right")) - 1
    for piece in range(first, len(self._pieces)):
      file, name, count = self._pieces[piece]
      begin = int(self._starts[piece])
      low, high = max(start - begin, 0), min(stop - begin, count)
      if begin >= stop:
        break
      if low < high:
        with safetensors.safe_open(file, "np") as opened:
          blocks.append(opened.get_slice(name)[low:high])
    return np.concatenate(blocks)
