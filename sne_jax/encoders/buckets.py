"""Bucket sizes: how far the counts of a packed batch are rounded up.

A compiled program serves one set of array shapes. So the counts of a mixed
batch (its weights, chunks, layers, ...) are rounded up to a short list of
sizes, and a zoo's batches are all given room for what one of them may need:
nearly all of them then have one shape, and the others few.

Layers are sets of chunks and networks sets of layers; sets of like size share
a rectangle, whose width is the bucket of their size.

Dimensions: `N` networks of a zoo, `L` layers of a network.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

SPREAD = 2.0
"""Standard deviations of room above the mean of what a batch needs."""


class Counts(NamedTuple):
  """What one network brings into a batch."""

  weights: int
  tensors: int
  neurons: int
  chunks: int
  skips: int
  layers: tuple[int, ...]  # chunks of each layer

  @property
  def members(self) -> int:
    """Members of the network as a set: layers and skips."""
    return len(self.layers) + self.skips


class Sizes(NamedTuple):
  """The sizes of a packed batch, padding included."""

  weights: int
  tensors: int
  neurons: int
  chunks: int
  skips: int
  layers: tuple[tuple[int, int], ...]  # by width: chunks at most, layers
  # By width: layers and skips at most, networks, chunks and skips at most.
  networks: tuple[tuple[int, int, int], ...]


def round_up(count: int) -> int:
  """Returns the next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: the bucket sizes."""
  size = 1
  while size < count:
    size = size * 4 // 3 if size & (size - 1) else max(size * 3 // 2, size + 1)
  return size


def needed(networks: Sequence[Counts], *, exact: bool = False) -> Sizes:
  """Returns the sizes of a batch of these networks.

  Args:
    networks: what each brings.
    exact: do not round up.
  """
  size = (lambda n: max(n, 1)) if exact else round_up

  def total(name: str) -> int:
    return size(sum(getattr(n, name) for n in networks))

  layers: dict[int, int] = {}
  sets: dict[int, list[int]] = {}
  for network in networks:
    for count in network.layers:
      layers[size(count)] = layers.get(size(count), 0) + 1
    sets.setdefault(size(network.members), []).append(
      network.chunks + network.skips
    )
  num_skips = sum(n.skips for n in networks)
  return Sizes(
    weights=total("weights"),
    tensors=total("tensors"),
    neurons=total("neurons"),
    chunks=total("chunks"),
    skips=size(num_skips) if num_skips else 0,
    layers=tuple((w, size(n)) for w, n in sorted(layers.items())),
    networks=tuple(
      (w, size(len(found)), size(max(found)))
      for w, found in sorted(sets.items())
    ),
  )


def common(sizes: Sequence[Sizes]) -> Sizes:
  """Returns the least sizes that hold each of the given ones."""
  layers: dict[int, int] = {}
  networks: dict[int, tuple[int, int]] = {}
  for each in sizes:
    for width, height in each.layers:
      layers[width] = max(height, layers.get(width, 0))
    for width, height, chunks in each.networks:
      known = networks.get(width, (0, 0))
      networks[width] = (max(height, known[0]), max(chunks, known[1]))
  return Sizes(
    weights=max(s.weights for s in sizes),
    tensors=max(s.tensors for s in sizes),
    neurons=max(s.neurons for s in sizes),
    chunks=max(s.chunks for s in sizes),
    skips=max(s.skips for s in sizes),
    layers=tuple(sorted(layers.items())),
    networks=tuple((w, *rest) for w, rest in sorted(networks.items())),
  )


def expected(
  kinds: Sequence[Counts], shares: np.ndarray, batch_size: int, copies: int = 1
) -> Sizes:
  """Returns sizes that hold nearly every random batch of a zoo.

  Every sum over a batch gets room for its mean and `SPREAD` standard
  deviations of draws with replacement, but no more than for the largest
  networks only.

  Args:
    kinds: what a network of each spec brings.
    shares: float, the share of each spec among the members of the zoo; those
      of share 0 get no room.
    batch_size: networks drawn.
    copies: how often each of them is packed.
  """
  present = [k for k, share in zip(kinds, shares, strict=True) if share > 0]
  share = np.asarray([s for s in shares if s > 0], np.float64)
  share = share / share.sum()

  def room(value: Callable[[Counts], int]) -> int:
    found = np.array([value(k) for k in present], np.float64)
    mean = float(share @ found)
    spread = math.sqrt(max(float(share @ found**2) - mean**2, 0.0))
    likely = batch_size * mean + SPREAD * math.sqrt(batch_size) * spread
    # Less a trifle, so that rounding does not push it over a whole number.
    likely = min(likely, batch_size * found.max()) - 1e-6
    return round_up(copies * math.ceil(likely))

  widths = sorted({round_up(n) for k in present for n in k.layers})
  sets = sorted({round_up(k.members) for k in present})
  return Sizes(
    weights=room(lambda k: k.weights),
    tensors=room(lambda k: k.tensors),
    neurons=room(lambda k: k.neurons),
    chunks=room(lambda k: k.chunks),
    skips=room(lambda k: k.skips) if any(k.skips for k in present) else 0,
    layers=tuple(
      (w, room(lambda k, w=w: sum(round_up(n) == w for n in k.layers)))
      for w in widths
    ),
    networks=tuple(
      (
        w,
        room(lambda k, w=w: int(round_up(k.members) == w)),
        max(
          round_up(k.chunks + k.skips)
          for k in present
          if round_up(k.members) == w
        ),
      )
      for w in sets
    ),
  )
