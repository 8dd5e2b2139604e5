"""What every encoder is, and what it says to networks that it cannot read.

Dimensions: `B` networks, `P` weights of one, `D` width of a code.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import numpy as np

from sne_jax.networks.spec import NetworkSpec

Network = tuple[NetworkSpec, Any]
"""A spec, and weights `[P]`."""


@dataclasses.dataclass(frozen=True)
class Encoder:
  """An encoder that was built: how to pack networks, how to encode them.

  Attributes:
    make_packer: from the specs at hand to an object with
      `pack(numbers, weights) -> batch`, `template(numbers, sizes)`,
      `templates(batches, sizes)`, `flat(numbers, weights, room)` and
      `reserve(numbers, batch_size)`; batches are named tuples with a field
      `weights` and a property `room`, the length of that field.
    module: maps a batch to codes `[B, D]`; called with `deterministic=`.
    stochastic: codes differ from call to call, even without dropout.
    by_layout: specs that differ in activations or options only are one to it.
    make_large_fn: from a memory limit in bytes to a function `(params, spec,
      tensors, *, identifiers, progress) -> code [D]` of one network in bounded
      memory; see `streaming.make_encode_fn`. None: the encoder has none.
  """

  make_packer: Callable[[Sequence[NetworkSpec]], Any]
  module: nn.Module
  stochastic: bool = False
  by_layout: bool = True
  make_large_fn: Callable[..., Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """What the table of encoders says of one of them.

  Attributes:
    paper: where it is from.
    accepts: any: networks of any architectures, mixed in one batch; one: of one
      architecture.
    needs: what such networks must be besides; "": nothing.
    symmetry: what leaves its codes unchanged; none: nothing.
    cost: how its time grows.
    options: its frozen dataclass of options (`networks.checked`).
    prefix: put before the names of these options on a command line.
    measure: `(options, networks) -> dict` of plain values, measured on the
      training networks and kept with the model.
    build: `(options, chunk options, measured) -> Encoder`.
  """

  paper: str = ""
  accepts: Literal["any", "one"]
  needs: str = ""
  symmetry: str
  cost: str = ""
  options: type
  prefix: str
  measure: Callable[[Any, Sequence[Network]], dict[str, Any]]
  build: Callable[[Any, Any, Mapping[str, Any]], Encoder]


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
  if not name.isidentifier() or name in ENCODERS:
    raise ValueError(
      f"an encoder cannot be called {name!r}; choose one word that is not"
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
  return tuple(n for n, row in ENCODERS.items() if row.accepts == "any")


class ByLayout:
  """A packer of layouts, for specs that may share one.

  Specs that differ in activations or options only (`NetworkSpec.layout`) are
  one architecture to an encoder.

  Args:
    make_packer: what makes the packer of the layouts.
    specs: those at hand.
  """

  def __init__(
    self,
    make_packer: Callable[[Sequence[NetworkSpec]], Any],
    specs: Sequence[NetworkSpec],
  ):
    layouts = tuple(dict.fromkeys(spec.layout for spec in specs))
    self.specs = tuple(specs)
    self._place = np.array([layouts.index(spec.layout) for spec in specs])
    self._packer = make_packer(layouts)

  def pack(self, numbers, weights, sizes: Any = None) -> Any:
    """Returns networks `weights[b]` of spec `numbers[b]` as one batch."""
    return self._packer.pack(self._own(numbers), weights, sizes)

  def flat(self, numbers, weights, total: int) -> np.ndarray:
    """Lays the vectors of networks end to end."""
    return self._packer.flat(self._own(numbers), weights, total)

  def template(self, numbers, sizes: Any = None) -> Any:
    """Returns the batch of these specs without weights."""
    return self._packer.template(self._own(numbers), sizes)

  def templates(self, batches, sizes: Any = None) -> list[Any]:
    """Returns batches without weights, all of one shape."""
    return self._packer.templates([self._own(n) for n in batches], sizes)

  def reserve(self, numbers, batch_size: int, *, copies: int = 1) -> Any:
    """Returns room for nearly all random batches of a zoo."""
    own = np.asarray(self._own(numbers))
    return self._packer.reserve(own, batch_size, copies=copies)

  def _own(self, numbers) -> tuple[int, ...]:
    return tuple(self._place[np.asarray(numbers, int)].tolist())


def refusal(name: str, own: NetworkSpec, other: NetworkSpec) -> ValueError:
  """Returns the error of a tied encoder that meets another architecture."""
  return ValueError(
    f"{name} reads one architecture, here {own.describe()}, but was also given"
    f" {other.describe()}; encoders that read both:"
    f" {', '.join(any_architecture())}"
  )


def unsupported(name: str, spec: NetworkSpec, reason: str) -> ValueError:
  """Returns the error of an encoder that cannot read an architecture."""
  return ValueError(
    f"{name} cannot read {spec.describe()}: {reason}; encoders that read it:"
    f" {', '.join(any_architecture())}"
  )
