"""What a person may settle where names and shapes do not.

An override is a small JSON object, or an `Override` in Python. All fields may
be left out.

| field | value | settles |
|---|---|---|
| `order` | layer names | a plain network's layers, from input to output |
| `skips` | pairs of layer names | what the first gives is added to the |
| | | second; [] if no layer is skipped and none is used twice |
| `flatten` | "channels_first" or "channels_last" | how images are flattened |
| `places` | a number | places per channel after a flattening |
| `heads` | a number | attention heads of every layer |
| `groups` | {layer name: number} | convolutions of groups of channels |
| `norm_groups` | {layer name: number} | 1: one group of all channels |
| `norm_behind` | {norm name: layer name} | which layer a norm follows; |
| | | "" if it stands before the first |
| `layout` | "out_in", "in_out" or "mlx" | how kernels are stored, `LAYOUTS` |
| `transposed` | tensor names | kernels with in- and outputs swapped: dense |
| | | ones stored as [in, out], transposed convolutions |
| `leave_out` | tensor names | tensors that are no weights, or another |
| | | network's; `ema.*` for all that begin so |
| `activation` | "relu", "tanh", ... | what comes after every hidden layer |
| `opaque` | true | nothing is known: no permutation is claimed |
| `family`, `options` | see `families.build` | a network that can be run |

Dimensions: none.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from sne_jax.networks.families import ACTIVATIONS

LAYOUTS = {
  "out_in": "[out, in, ...], as of PyTorch",
  "in_out": "[..., in, out], as of Keras, Flax and x @ w in NumPy",
  "mlx": "[out, ..., in], as of MLX",
}
"""How kernels are stored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Override:
  """Settled by a person; see the module docstring."""

  # Names of layers, from input to output.
  order: tuple[str, ...] = ()
  # (source, target): what source gives is added to what target gives. None is
  # not known; () that there are none, and that no layer is used twice.
  skips: tuple[tuple[str, str], ...] | None = None
  # How an image is flattened before a dense layer; "" is the framework's way.
  flatten: str = ""
  # Places per channel after a flattening; 0 is worked out.
  places: int = 0
  # Attention heads of every layer; 0 is by convention.
  heads: int = 0
  # Groups of convolutions, by layer, where channels do not show them.
  groups: Mapping[str, int] = dataclasses.field(default_factory=dict)
  # Groups of norms without running statistics, by layer; 1 is a layer norm.
  norm_groups: Mapping[str, int] = dataclasses.field(default_factory=dict)
  # The layer that each norm comes after.
  norm_behind: Mapping[str, str] = dataclasses.field(default_factory=dict)
  # How all kernels are stored; "" is by framework, names and shapes.
  layout: str = ""
  # Kernels whose in- and outputs are swapped against that.
  transposed: tuple[str, ...] = ()
  # Tensors that are no weights.
  leave_out: tuple[str, ...] = ()
  # Behind every hidden layer; "" is not known. Signs and scales of neurons
  # (`networks.augment`) need it.
  activation: str = ""
  # Whether to claim nothing: levels by order, no permutation.
  opaque: bool = False
  # A family that can run it, and the options that build it.
  family: str = ""
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def names_left_out(self, names: Iterable[str]) -> list[str]:
    """Returns the names that `leave_out` is of, in its order.

    Raises:
      ValueError: it names what is not among them.
    """
    names = dict.fromkeys(names)
    found: dict[str, None] = {}
    for wanted in self.leave_out:
      start = wanted[:-1]
      same = [n for n in names if wanted[-1:] == "*" and n.startswith(start)]
      if wanted in names:
        same = [wanted]
      if not same:
        raise ValueError(
          f"override: leave_out names {wanted!r}, no tensor of it"
        )
      found |= dict.fromkeys(same)
    return list(found)

  @property
  def describes(self) -> bool:
    """Whether a person says how the layers hang together.

    Then what the file says of it does not count.
    """
    given = (self.order, self.norm_behind, self.layout, self.transposed)
    return self.skips is not None or any(given)

  def __post_init__(self):
    """Refuses values that settle nothing."""
    if self.flatten not in ("", "channels_first", "channels_last"):
      raise ValueError(
        "override: flatten must be channels_first or channels_last, got"
        f" {self.flatten!r}"
      )
    if self.layout not in ("", *LAYOUTS):
      raise ValueError(
        f"override: layout is {self.layout!r}; choose one of"
        f" {', '.join(f'{name} ({what})' for name, what in LAYOUTS.items())}"
      )
    if self.activation and self.activation not in ACTIVATIONS:
      raise ValueError(
        f"override: activation is {self.activation!r}; choose one of"
        f" {', '.join(ACTIVATIONS)}"
      )
    for name in ("heads", "places"):
      value = getattr(self, name)
      if not isinstance(value, int) or value < 0:
        raise ValueError(
          f"override: {name} must be a number of at least 1, got {value!r}"
        )
    if self.options and not self.family:
      raise ValueError("override: options are those of a family; name it")


def _kind_of(hint: Any) -> Any:
  """What JSON must hold for a field."""
  if typing.get_origin(hint) is types.UnionType:  # Something or None.
    hint = typing.get_args(hint)[0]
  kind = typing.get_origin(hint) or hint
  return (list, tuple) if kind is tuple else kind


_KINDS = {k: _kind_of(v) for k, v in typing.get_type_hints(Override).items()}


def as_override(value: Override | Mapping[str, Any] | None) -> Override:
  """Returns an override from JSON, or as it is.

  Raises:
    ValueError: a field is unknown or has a value of another kind.
  """
  if value is None:
    return Override()
  if isinstance(value, Override):
    return value
  known = {field.name: field for field in dataclasses.fields(Override)}
  given = {}
  for name, item in value.items():
    if name not in known:
      raise ValueError(
        f"override: unknown field {name!r}; known are {', '.join(known)}"
      )
    kind = _KINDS[name]
    if not isinstance(item, kind) or isinstance(item, bool) != (kind is bool):
      raise ValueError(f"override: {name} must be of {kind}, got {item!r}")
    if name == "skips":
      item = tuple(tuple(pair) for pair in item)
      if any(len(pair) != 2 for pair in item):
        raise ValueError(f"override: skips are pairs of layers, got {item}")
    given[name] = tuple(item) if isinstance(item, list) else item
  return Override(**given)
