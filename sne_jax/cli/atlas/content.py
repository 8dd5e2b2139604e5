"""What an atlas shows: networks, their codes, and what is known of each.

Dimensions: `N` networks, `D` width of a code.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from sne_jax.networks.spec import NetworkSpec

ARCHITECTURE = "architecture"
NOVELTY = "novelty"
PARAMETERS = "parameters"
PART = "part"
"""Columns that a page names by themselves."""


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
  """What is known of every network.

  Attributes:
    values: `[N]`: numbers, text, or True and False. Not finite: unknown.
    low: lower ends of intervals `[N]`; None: there are none.
    high: their upper ends.
    about: what it is, in a few words.
  """

  values: np.ndarray
  low: np.ndarray | None = None
  high: np.ndarray | None = None
  about: str = ""


def taken(column: Column, places: np.ndarray) -> Column:
  """Returns a column of the networks at some places."""
  ends = [None if e is None else e[places] for e in (column.low, column.high)]
  return Column(column.values[places], *ends, about=column.about)


@dataclasses.dataclass(frozen=True, eq=False)
class Atlas:
  """Networks, their codes, and what is known of each.

  Attributes:
    title: of the page.
    codes: `[N, D]`.
    code_name: what codes are, in a few words.
    names: of the networks.
    specs: the architectures.
    numbers: `[N]`, the spec of each network.
    vectors: N vectors of weights.
    columns: by name; the first colours the map first.
    said: what a reader must know, in sentences.
    probes: pictures of learned inputs (PNG), by caption.
  """

  title: str
  codes: np.ndarray
  code_name: str
  names: Sequence[str]
  specs: tuple[NetworkSpec, ...]
  numbers: np.ndarray
  vectors: Sequence[np.ndarray]
  columns: Mapping[str, Column]
  said: tuple[str, ...] = ()
  probes: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    """Rejects what is not of all networks, and codes that are not finite."""
    count = len(self.codes)
    lengths = {"names": len(self.names), "numbers": len(self.numbers)}
    lengths |= {"vectors": len(self.vectors)}
    lengths |= {f"column {n}": len(c.values) for n, c in self.columns.items()}
    for what, length in lengths.items():
      if length != count:
        raise ValueError(f"there are {count} codes, but {length} of {what}")
    if not count:
      raise ValueError("there are no networks to show")
    if not np.isfinite(self.codes).all():
      wrong = np.flatnonzero(~np.isfinite(self.codes).all(axis=1))
      raise ValueError(
        f"the codes of {wrong.size} networks are not finite, the first of them"
        f" {self.names[wrong[0]]!r}; mark such as not valid in the zoo"
      )
