"""What every encoder is, and what it says to networks that it cannot read.

Dimensions: `B` networks, `P` weights of one, `D` width of a code.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import flax.linen as nn
import numpy as np

from sne_jax.networks.spec import NetworkSpec

Network = tuple[NetworkSpec, Any]
"""A spec, and weights `[P]`."""

LEARNED_INPUTS = ("probes", "probe_generator")
"""What encoders call parameters (or the modules that hold them) that make the
inputs networks are run on: they can have a learning rate of their own."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """What the table of encoders says of one of them.

  Attributes:
    accepts: any: networks of any architectures, mixed in one batch; one: of one
      architecture.
    needs: what such networks must be besides; "": nothing.
    sees_weights: False: a control that reads the spec alone; errors that
      recommend encoders leave it out.
    symmetry: what leaves its codes unchanged. Tests read two words of it: none
      (alone): permutations of neurons change the codes; blind, anywhere: so
      little is seen that shuffles of weights that change the function do not.
    options: its frozen dataclass of options (`networks.checked`).
    prefix: put before the names of these options on a command line.
    measure: `(options, networks) -> dict` of plain values, measured on the
      training networks and kept with the model.
    build: `(options, measured) -> Encoder`; `measured` also holds the
      `chunk_options`, for whoever cuts networks into chunks.
    has_probes: whether with these options it has `LEARNED_INPUTS`.
    remark: `(options, measured, spec, in_parts) -> str`: what is to be said of
      the code of such a network, encoded part by part or not; "": nothing. It
      raises `ValueError` where such a code would be worth nothing.
    per_weight: `(options, measured) -> module` that gives a value for every
      weight of a batch, `[T, 1]`, which moves along with the neurons; batches
      are packed as for `build`. None: the encoder has none.
  """

  accepts: Literal["any", "one"]
  needs: str = ""
  sees_weights: bool = True
  symmetry: str
  options: type
  prefix: str
  measure: Callable[[Any, Sequence[Network]], dict[str, Any]]
  build: Callable[[Any, Mapping[str, Any]], Encoder]
  has_probes: Callable[[Any], bool] = lambda options: False
  remark: Callable[[Any, Mapping[str, Any], NetworkSpec, bool], str] = (
    lambda options, measured, spec, in_parts: ""
  )
  per_weight: Callable[[Any, Mapping[str, Any]], nn.Module] | None = None


ENCODERS: dict[str, Row] = {}
"""Every encoder that `--encoder` knows."""


def register(name: str, row: Row) -> None:
  """Adds an encoder to the table, for `--encoder=NAME` and all else.

  Args:
    name: a word; what model files call it.
    row: what it is.

  Raises:
    ValueError: the name is no identifier or is taken, a field of the options is
      no int, float, bool or str with a default, or an option's name with its
      prefix is that of another encoder's.
  """
  if not name.isidentifier():
    raise ValueError(f"an encoder cannot be called {name!r}; choose one word")
  if name in ENCODERS:
    raise ValueError(
      f"there is an encoder called {name!r} already; choose a word that is not"
      f" {', '.join(ENCODERS)}"
    )
  kinds = typing.get_type_hints(row.options)
  taken = {
    other.prefix + field.name: known
    for known, other in ENCODERS.items()
    if other.options is not row.options
    for field in dataclasses.fields(other.options)
  }
  for field in dataclasses.fields(row.options):
    where = f"{row.options.__name__}.{field.name}"
    if kinds[field.name] not in (int, float, bool, str):
      raise ValueError(f"{where} must be an int, a float, a bool or a str")
    if field.default is dataclasses.MISSING:
      raise ValueError(f"{where} has no default; give it one")
    if row.prefix + field.name in taken:
      raise ValueError(
        f"{where} is called {row.prefix}{field.name} on a command line, as is"
        f" an option of {taken[row.prefix + field.name]}; choose another prefix"
      )
  ENCODERS[name] = row


def any_architecture() -> tuple[str, ...]:
  """Returns the encoders that read every architecture: errors point to them."""
  return tuple(
    name
    for name, row in ENCODERS.items()
    if row.accepts == "any" and not row.needs and row.sees_weights
  )


def refusal(name: str, spec: NetworkSpec, other: NetworkSpec) -> ValueError:
  """Returns the error of a tied encoder that meets another architecture."""
  return ValueError(
    f"{name} reads one architecture, here {spec.describe()}, but was also given"
    f" {other.describe()}; encoders that read both:"
    f" {', '.join(any_architecture())}"
  )


def unsupported(name: str, spec: NetworkSpec, reason: str) -> ValueError:
  """Returns the error of an encoder that cannot read an architecture."""
  return ValueError(
    f"{name} cannot read {spec.describe()}: {reason}; encoders that read it:"
    f" {', '.join(any_architecture())}"
  )
