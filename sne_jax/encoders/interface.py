"""What every encoder is, and what it says to networks that it cannot read.

Dimensions: `B` networks, `P` weights of one, `D` width of a code.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import numpy as np

from sne_jax.networks.spec import NetworkSpec

Network = tuple[NetworkSpec, Any]
"""A spec, and weights `[P]`."""

ANY_ARCHITECTURE = (
  "sne",
  "stat_pool",
  "deep_sets",
  "set_transformer",
  "neural_graph",
  "neural_graph_transformer",
  "sane",
)
"""Encoders that read every architecture: what errors point to."""


@runtime_checkable
class Packer(Protocol):
  """Makes batches of networks, of the specs that it was made for.

  A network is named by its spec's number among these. Batches are named tuples
  with a field `weights` and a property `room`, the length of that field; those
  without weights are templates, which depend on the specs alone.
  """

  def pack(self, numbers: Any, weights: Any, sizes: Any = None) -> Any:
    """Returns networks `weights[b]` of spec `numbers[b]` as one batch."""
    ...

  def flat(self, numbers: Any, weights: Any, total: int) -> np.ndarray:
    """Returns what a template's `weights` are, of so much room."""
    ...

  def template(self, numbers: Any, sizes: Any = None) -> Any:
    """Returns the batch of these specs without weights."""
    ...

  def templates(self, batches: Any, sizes: Any = None) -> list[Any]:
    """Returns batches without weights, all of one shape."""
    ...

  def reserve(
    self, numbers: np.ndarray, batch_size: int, *, copies: int = 1
  ) -> Any:
    """Returns `sizes` for nearly all random batches of a zoo, or None."""
    ...


@dataclasses.dataclass(frozen=True)
class Encoder:
  """An encoder that was built: how to pack networks, how to encode them.

  Attributes:
    make_packer: from the specs at hand to their packer.
    module: maps a batch to codes `[B, D]`; called with `deterministic=`.
    stochastic: codes differ from call to call, even without dropout.
    make_large_fn: from a memory limit in bytes to a function `(params, spec,
      tensors, *, identifiers, progress) -> code [D]` of one network in bounded
      memory; see `streaming.make_encode_fn`. None: the encoder has none.
  """

  make_packer: Callable[[Sequence[NetworkSpec]], Packer]
  module: nn.Module
  stochastic: bool = False
  make_large_fn: Callable[..., Any] | None = None


def refusal(name: str, own: NetworkSpec, other: NetworkSpec) -> ValueError:
  """Returns the error of a tied encoder that meets another architecture."""
  return ValueError(
    f"{name} reads one architecture, here {own.describe()}, but was also given"
    f" {other.describe()}; encoders that read both:"
    f" {', '.join(ANY_ARCHITECTURE)}"
  )


def unsupported(name: str, spec: NetworkSpec, reason: str) -> ValueError:
  """Returns the error of an encoder that cannot read an architecture."""
  return ValueError(
    f"{name} cannot read {spec.describe()}: {reason}; encoders that read it:"
    f" {', '.join(ANY_ARCHITECTURE)}"
  )


def check_least(**bounds: tuple[int, int]) -> None:
  """Raises `ValueError` naming the first option below its least value.

  Args:
    **bounds: by name, the value seen and the least that is allowed.
  """
  for name, (value, least) in bounds.items():
    if value < least:
      raise ValueError(f"{name} is {value}; must be at least {least}")


def check_choices(**choices: tuple[str, Sequence[str]]) -> None:
  """Raises `ValueError` naming the first option that is no known choice."""
  for name, (value, known) in choices.items():
    if value not in known:
      raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")


def check_share(**shares: float) -> None:
  """Raises `ValueError` naming the first option that is not in [0, 1)."""
  for name, value in shares.items():
    if not 0 <= value < 1:
      raise ValueError(f"{name} is {value}; must be in [0, 1)")
