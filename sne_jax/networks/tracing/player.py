"""Plays the layers of a file by name: finds their tensors and their layout.

Conventions (`conventions/`, `plain/chain.py`) call it as they would write a
forward pass. Every tensor that it has played is ticked off.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.naming import Shapes
from sne_jax.networks.inference.override import Override
from sne_jax.networks.tracing import operations
from sne_jax.networks.tracing.tape import Tape, Value

_LAYOUTS = {
  "out_in": lambda last: (0, 1, *range(2, last + 1)),
  "in_out": lambda last: (last, last - 1, *range(last - 1)),
  "mlx": lambda last: (0, last, *range(1, last)),
  "transposed": lambda last: (1, 0, *range(2, last + 1)),
  "out_in_last": lambda last: (last - 1, last, *range(last - 1)),
}
"""By the layout of a kernel: its axes as `[out, in, places...]`, from the
number of its last axis. `override.LAYOUTS` says which is whose; `transposed`
is PyTorch's transposed convolution, `out_in_last` that of Keras."""


class Mismatch(ValueError):
  """The tensors are not those of the convention that is played."""


@runtime_checkable
class Graph(Protocol):
  """What a file says of how its network is computed."""

  def play(self, player: "Player") -> None:
    """Plays the network on `player.tape`, inputs and outputs with it.

    Weights come from `player.weight(name)`, by the names of the file's
    entries; those that are never asked for have no part in the output.

    Raises:
      Mismatch: it cannot be played at all. What is not known is better played
        by `tape.unknown`.
    """
    ...


class Player:
  """A tape, and the tensors of a file.

  Attributes:
    tape: what is recorded.
    everything: shapes of the file's tensors, in its order, without those that
      are no weights.
    shapes: the same, without those that are another's under a second name.
    framework: how kernels are stored; see `naming.TRANSPOSED`.
    layouts: of kernels that are stored in another way, by name.
    override: what a person has settled.
    tied: names that are another tensor's; both are played as that one.
    read: returns a tensor's numbers, if these are at hand.
    left_out: tensors that turned out to be no weights, and why.
    reasons: why what weights give is tied or pinned, by their names.
    played: names of the tensors that have had a part.
    guesses: what was taken from convention.
    constants: names of tensors that have a part, and are no weights.
  """

  def __init__(
    self,
    shapes: Shapes,
    framework: str,
    override: Override,
    tied: Mapping[str, str] | None = None,
  ):
    self.tape = Tape()
    self.everything = shapes
    self.shapes = {n: s for n, s in shapes.items() if n not in (tied or {})}
    self.framework = framework
    self.override = override
    self.tied = dict(tied or {})
    self.layouts: dict[str, str] = {}
    self.read: Callable[[str], np.ndarray] | None = None
    self.left_out: dict[str, str] = {}
    self.reasons: dict[str, str] = {}
    self.played: dict[str, None] = {}
    self.guesses: dict[str, None] = {}
    self.constants: dict[str, None] = {}

  def has(self, name: str) -> bool:
    """Whether the file has a tensor of that name."""
    return self.tied.get(name, name) in self.shapes

  def shape(self, name: str) -> tuple[int, ...]:
    """Returns a tensor's shape; `Mismatch` if there is none."""
    name = self.tied.get(name, name)
    if name not in self.shapes:
      raise Mismatch(f"there is no tensor {name!r}")
    return tuple(self.shapes[name])

  def weight(self, name: str) -> Value:
    """Returns a tensor as it is stored, and ticks it off."""
    shape = self.shape(name)
    name = self.tied.get(name, name)
    self.played[name] = None
    return self.tape.weight(name, shape)

  def kernel(self, name: str, stored: str = "") -> Value:
    """Returns a kernel as `[out, in, ...]`.

    Args:
      name: of the tensor.
      stored: "first" for [out, in, ...], "last" for [..., in, out], or "" for
        its layout.
    """
    value = self.weight(name)
    if self._is_depthwise(name):
      shape = self.kernel_shape(name)
      return self.tape.reshape(self.tape.transpose(value, (2, 3, 0, 1)), shape)
    layout = {"first": "out_in", "last": "in_out"}.get(stored)
    order = _LAYOUTS[layout or self.layout(name)](len(value.shape) - 1)
    if order == tuple(range(len(order))):
      return value
    return self.tape.transpose(value, order)

  def kernel_shape(self, name: str, layout: str = "") -> tuple[int, ...]:
    """Returns `[out, in, ...]` of a kernel, in a layout or its own."""
    shape = self.shape(name)
    if self._is_depthwise(name):
      return (shape[2] * shape[3], 1, *shape[:2])
    if len(shape) < 2:
      return shape
    order = _LAYOUTS[layout or self.layout(name)](len(shape) - 1)
    return tuple(shape[place] for place in order)

  def layout(self, name: str) -> str:
    """Returns the layout of a kernel: settled, found, or the framework's."""
    usual = naming.layout_of(name, self.framework)
    if name in self.override.transposed:
      swapped = (self.override.layout or usual) == "in_out"
      if len(self.shape(name)) == 2:
        return "out_in" if swapped else "in_out"
      return "out_in_last" if swapped else "transposed"
    return self.override.layout or self.layouts.get(name) or usual

  def _is_depthwise(self, name: str) -> bool:
    """Whether a kernel is Keras's [height, width, in, multiplier]."""
    return (
      self.framework == "keras"
      and "depthwise" in name.lower()
      and len(self.shape(name)) == 4
    )

  def linear(
    self, x: Value, weight: str, bias: str | None = None, stored: str = ""
  ) -> Value:
    """Applies a dense layer to the last axis of `x`."""
    kernel = self.kernel(weight, stored)
    if len(kernel.shape) != 2 or kernel.shape[1] != x.shape[-1]:
      raise Mismatch(
        f"{weight!r} of shape {self.shape(weight)} does not read"
        f" {x.shape[-1]} values"
      )
    y = self.tape.contract(x, kernel, (), [(len(x.shape) - 1, 1)])
    return self.bias(y, bias)

  def bias(self, y: Value, name: str | None, place: int = -1) -> Value:
    """Adds a bias along an axis, if the file has it."""
    if name is None or not self.has(name):
      return y
    value = self.weight(name)
    place %= len(y.shape)
    if value.shape != (y.shape[place],):
      raise Mismatch(f"{name!r} has shape {value.shape}, not {y.shape[place]}")
    shape = (value.shape[0],) + (1,) * (len(y.shape) - 1 - place)
    return self.tape.elementwise(y, self.tape.reshape(value, shape), op="add")

  def conv(self, x: Value, weight: str, bias: str | None = None) -> Value:
    """Applies a convolution to `[B, C, 1...]`; groups follow from shapes."""
    kernel = self.kernel(weight)
    if len(kernel.shape) < 3:
      raise Mismatch(f"{weight!r} of shape {kernel.shape} is no convolution")
    groups, rest = divmod(x.shape[1], kernel.shape[1])
    if rest or groups < 1 or kernel.shape[0] % groups:
      raise Mismatch(
        f"{weight!r} of shape {self.shape(weight)} does not read"
        f" {x.shape[1]} channels"
      )
    places = (1,) * (len(kernel.shape) - 2)
    y = operations.convolution(self.tape, x, kernel, places, groups)
    return self.bias(y, bias, place=1)

  def activate(self, x: Value, name: str = "") -> Value:
    """Applies an activation that treats all neurons alike.

    Args:
      x: the neurons.
      name: of the activation; "" is the override's, if that says one.
    """
    self.tape.note((x,), name or self.override.activation)
    return self.tape.elementwise(x)

  def batch_norm(
    self, x: Value, names: Mapping[str, str], place: int = 1
  ) -> Value:
    """Normalises by running statistics; `names` by kind."""
    vectors = {kind: self.weight(name) for kind, name in names.items()}
    self._check(x.shape[place], vectors)
    return operations.batch_norm(self.tape, x, vectors, place)

  def norm(
    self,
    x: Value,
    names: Mapping[str, str],
    places: Sequence[int] = (-1,),
    groups: int | None = None,
  ) -> Value:
    """Normalises by statistics of the input; `names` by kind."""
    vectors = {
      kind: self.weight(name) for kind, name in names.items() if self.has(name)
    }
    places = [p % len(x.shape) for p in places]
    self._check(x.shape[places[-1]], vectors)
    return operations.norm(self.tape, x, vectors, places, groups)

  def layer_norm(self, x: Value, prefix: str) -> Value:
    """Normalises the last axis by `prefix.weight` and `prefix.bias`."""
    names = {"norm_scale": f"{prefix}.weight", "norm_shift": f"{prefix}.bias"}
    self.shape(names["norm_scale"])
    return self.norm(x, names)

  def add(self, x: Value, y: Value) -> Value:
    """Adds two activations."""
    if x.shape[-1] != y.shape[-1] and x.shape != y.shape:
      raise Mismatch(f"a sum of {x.shape} and {y.shape}")
    return self.tape.elementwise(x, y, op="add")

  def attention(self, q: Value, k: Value, v: Value, heads: int) -> Value:
    """Attention of `[B, T, heads * E]`, before the output layer."""
    if q.shape[-1] % heads or v.shape[-1] % heads:
      raise Mismatch(f"{heads} heads do not divide {q.shape[-1]} units")
    split = lambda x: operations.split_heads(self.tape, x, heads)
    y = operations.attend(self.tape, split(q), split(k), split(v))
    return operations.merge_heads(self.tape, y)

  def fused(self, x: Value, count: int) -> list[Value]:
    """Cuts the last axis into parts of one size."""
    size, rest = divmod(x.shape[-1], count)
    if rest:
      raise Mismatch(f"{x.shape[-1]} units are not {count} parts")
    last = len(x.shape) - 1
    return [
      self.tape.slice(x, last, i * size, (i + 1) * size) for i in range(count)
    ]

  def tie(self, names: Mapping[str, str]) -> None:
    """Says that tensors are others under second names."""
    self.tied |= names
    self.shapes = {n: s for n, s in self.shapes.items() if n not in names}

  def guess(self, text: str) -> None:
    """Notes what was taken from convention."""
    self.guesses[text] = None

  def _check(self, size: int, vectors: Mapping[str, Value]) -> None:
    for value in vectors.values():
      if value.shape != (size,):
        name = value.parts[0][0]
        raise Mismatch(f"{name!r} has shape {value.shape}, not ({size},)")

  def rest(self) -> list[str]:
    """Returns the tensors that have had no part."""
    known = self.played.keys() | self.left_out.keys()
    return [name for name in self.shapes if name not in known]
