"""What a reader of a published zoo says of it, before any weight is read.

Dimensions: `M` networks of a source, `P` weights of one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax.networks import spec as spec_lib

Splits = Mapping[str, Mapping[str, Sequence[str] | np.ndarray]]
"""For each split and part, ids."""


class LeftOut(Exception):
  """A network is to be left out of the zoo; the text is the reason.

  Reasons are counted, so they name no file.
  """


class Network(NamedTuple):
  """One network, read."""

  spec: spec_lib.NetworkSpec
  weights: np.ndarray  # [P], float, in the order of the spec.
  # What only its file says; the same names for all networks of a source.
  properties: Mapping[str, Any] = {}


class Published(NamedTuple):
  """What was published, for `zoo.json`."""

  title: str
  reference: str
  url: str
  licence: str  # SPDX identifier, or "unknown".
  protocol: str  # How to run the networks, and what the splits are.


class Source(NamedTuple):
  """A published zoo: which networks it has, and how each is read.

  Everything is a function of the files, not of the order in which the system
  lists them.
  """

  generator: str  # Name of the reader's module.
  published: Published
  options: Mapping[str, Any]  # Plain values: what makes two zoos the same.
  ids: Sequence[str]  # [M], unique, in the order of the zoo.
  # Reads the network of a number in [0, M). Raises `LeftOut`, and `ZooError`
  # if its file is damaged.
  read: Callable[[int], Network]
  columns: Mapping[str, np.ndarray]  # [M] properties known beforehand.
  descriptions: Mapping[str, str]  # Of all properties, those of `read` too.
  # Is given which networks were kept, bool [M]; may name others.
  splits: Callable[[np.ndarray], Splits]
  left_out: Sequence[tuple[str, str]] = ()  # Names and reasons, beforehand.
  facts: Mapping[str, Any] = {}  # What else zoo.json should say.
