"""Which nodes of a graph are the neurons that a tensor makes and reads.

Neurons are named by the factors of an axis that have groups. Those without are
told apart by their levels alone.
"""

import math

import numpy as np

from sne_jax.networks.spec import Axis, TensorSpec


class Ledger:
  """Keeps the nodes that each level has made, while a graph is built."""

  def __init__(self):
    self.latest: dict[Axis, np.ndarray] = {}
    self.fixed: list[tuple[int, np.ndarray]] = []  # Of no group, by level.
    self.at: dict[tuple[int, Axis], np.ndarray] = {}
    self.branches: dict[tuple[int, Axis], np.ndarray] = {}

  def sources(self, level: int, key: Axis, count: int) -> np.ndarray | None:
    """Returns the nodes that a reader at a level reads; None: none are known.

    Axes without a group are told apart by their levels alone.
    """
    nodes = self.latest.get(key)
    if not key:
      below = (n for at, n in reversed(self.fixed) if at < level)
      nodes = next(below, None)
    return nodes if nodes is not None and len(nodes) == count else None

  def note(self, level: int, key: Axis, nodes: np.ndarray) -> None:
    """Notes which nodes a level and its readers have."""
    self.at[level, key] = nodes
    if key:
      self.latest[key] = nodes
    else:
      self.fixed.append((level, nodes))

  def note_made(self, t: TensorSpec, key: Axis, nodes: np.ndarray) -> None:
    """Notes which nodes a weight makes."""
    if t.branch and t.kind == "conv_weight":
      self.branches[t.level, key] = nodes  # A shortcut: read by its skip alone.
      return
    self.note(t.level, key, nodes)


def key_of(axis: Axis) -> Axis:
  """Returns what names the neurons of an axis: its factors with groups."""
  return tuple(f for f in axis if f.group is not None)


def of(t: TensorSpec, place: int) -> tuple[Axis, int]:
  """Returns key and number of the neurons of an axis.

  Fixed factors beside groups are places; a fixed axis is neurons of its own.
  """
  key = key_of(t.axes[place])
  if not key:
    return (), t.shape[place]
  return key, math.prod(f.size for f in key)


def rows(t: TensorSpec, index: np.ndarray) -> np.ndarray:
  """Returns `[out, in, places]` of a weight; conv kernels come last."""
  key, inputs = of(t, 1)
  shape = (t.shape[0], *(f.size for f in t.axes[1]), *t.shape[2:])
  cut = index.reshape(shape)
  if not key:
    return cut.reshape(t.shape[0], inputs, -1)
  grouped = [1 + p for p, f in enumerate(t.axes[1]) if f.group is not None]
  rest = [a for a in range(1, len(shape)) if a not in grouped]
  return cut.transpose(0, *grouped, *rest).reshape(t.shape[0], inputs, -1)
