"""Which neurons of a plain network surely move by themselves.

Names and shapes show no skips, and not whether a layer is used twice. Both can
only join values of one width. So all hidden layers of one width are given one
permutation, which holds whatever joins them, and those as wide as the inputs
or outputs, or as an image that is flattened, are given none. A plain
`Sequential` has no skips inside: its layers are free.

Dimensions: none.
"""

import itertools
import re

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.naming import Module
from sne_jax.networks.inference.plain.readings import Reading, as_json
from sne_jax.networks.tracing.player import Player
from sne_jax.networks.tracing.tape import Axis, Value

_MOST_MISSING = 2
"""Places without tensors between two layers of a `Sequential`, in a format
that drops the second name of a tensor: a layer used again leaves three."""


class Ties:
  """The widths of one network, and what was tied or pinned. Mutable."""

  def __init__(self, p: Player, reading: Reading, modules: list[Module]):
    """Finds out which layers are free.

    Args:
      p: the player.
      reading: how the network is read.
      modules: all layers and norms of the file.
    """
    self._p, self._reading = p, reading
    self._flat = _flattened(p, reading)
    self._ends = reading.ends | {*self._flat.values()}
    self._pinned = set[int]()
    self._axes: dict[int, Axis] = {}
    self._joined: dict[int, list[Module]] = {}
    self._listed: dict[int, list[Module]] = {}
    self._hidden: list[Axis] = []
    self._said = p.override.skips is not None and reading.sure
    self._lists = set[str]()
    if not reading.aliased:
      self._lists = _sequential(p, reading.order, modules)

  def are_listed(self, number: int) -> bool:
    """Whether layers up to `number` of the order are of one `Sequential`."""
    return not any(map(self._leaves, range(number)))

  def settle(self, x: Value, number: int) -> None:
    """Ties or pins what hidden layer `number` of the order gives."""
    axes, reading = self._p.tape.axes, self._reading
    axis, width = x.axes[1], x.shape[1]
    if reading.doubt:
      axes.pin(axis)
      return
    self._hidden.append(axis)
    if self._said:
      return
    if not self._leaves(number):
      self._listed.setdefault(width, []).append(reading.order[number])
      return
    self._joined.setdefault(width, []).append(reading.order[number])
    axes.unify(axis, self._axes.setdefault(width, axis))
    later = reading.way.widths[number + 2 :]
    if width in self._ends or self._flat.get(number + 1) in later:
      self._pinned.add(width)
      axes.pin(axis)

  def swap(self, x: Value, y: Value, name: str) -> None:
    """Ties in- and outputs of a kernel that may be stored the other way."""
    if name in self._reading.either and x.shape[1] == y.shape[1]:
      self._p.tape.axes.unify(x.axes[1], y.axes[1])

  def say(self) -> None:
    """Notes what was tied, and why."""
    p, reading = self._p, self._reading
    if reading.doubt:
      p.guess(f"no permutation is claimed: {reading.doubt}")
      return
    self._say_swapped()
    self._say_square()
    self._say_listed()
    pinned, tied = [], []
    for width, modules in self._joined.items():
      text = f"{width} of {_some([m.prefix for m in modules])}"
      if width in self._pinned:
        pinned.append(text)
      elif len(modules) > 1:
        tied.append(text)
        reason = f"tied: a skip could join the {text}"
        p.reasons |= {m.parts["weight"]: reason for m in modules}
    if not (pinned or tied):
      return
    settled = {"skips": []}
    if not reading.sure:
      settled = {"order": [m.prefix for m in reading.order]} | settled
    parts = []
    if tied:
      parts.append(f"one permutation for the {' and the '.join(tied)}")
    if pinned:
      parts.append(
        f"none for the {' and the '.join(pinned)}, as wide as in- or outputs or"
        " what is flattened"
      )
    p.guess(
      f"{', '.join(parts)}: a skip could join what is of one width, or a layer"
      f" be used twice; {as_json(**settled)} says that there is none"
    )

  def _say_square(self) -> None:
    """Notes that dense kernels are taken for [out, in] which show nothing.

    A list of a state_dict may hold modules of another layout, as GPT-2's are.
    """
    p, layouts = self._p, self._reading.way.layouts
    if p.override.layout or p.override.transposed:
      return
    if not any(map(p.tape.axes.is_free, self._hidden)):
      return
    shapes = {p.shape(name) for name in layouts}
    ends = {re.split(r"[./]", name)[-1] for name in layouts}
    square = all(len(s) == 2 and s[0] == s[1] for s in shapes)
    if square and ends == {"weight"} and {*layouts.values()} == {"out_in"}:
      p.guess(
        "all kernels are square, and taken for [out, in], as of PyTorch:"
        f" {as_json(layout='out_in')} settles it, or"
        f" {as_json(layout='in_out')} if they are [in, out]"
      )

  def _say_listed(self) -> None:
    """Notes layers of one width whose list is taken for a `Sequential`."""
    p, reading = self._p, self._reading
    rank = lambda module: len(p.shape(module.parts["weight"]))
    hidden: dict[tuple[int, int], list[Module]] = {}
    for module, width in zip(
      reading.order, reading.way.widths[1:], strict=True
    ):
      hidden.setdefault((rank(module), width), []).append(module)
    parts, pairs, inputs = [], [], False
    for (_, width), modules in hidden.items():
      listed = [m for m in self._listed.get(width, ()) if m in modules]
      first = width == reading.way.widths[0]
      if listed and (len(modules) > 1 or first):
        parts.append(f"the {width} of {_some([m.prefix for m in listed])}")
        names = dict.fromkeys(m.prefix for m in modules)
        pairs += map(list, itertools.pairwise(names))
        inputs |= first
    if not parts:
      return
    start = {}
    if not reading.sure:
      start = {"order": [m.prefix for m in reading.order]}
    hints = [as_json(**start, skips=[])]
    if pairs:
      hints.append(f"{as_json(**start, skips=pairs)} if these are added")
    if inputs:
      hints.append('{"opaque": true} if the inputs are')
    self._p.guess(
      "no skips are expected between layers of one width,"
      f" {' and '.join(parts)}, in a list numbered as a Sequential is:"
      f" {hints[0]} settles it{''.join(f', or {h}' for h in hints[1:])}"
    )

  def _say_swapped(self) -> None:
    """Notes square kernels that may be stored the other way."""
    layouts, either = self._reading.way.layouts, self._reading.either
    names = [n for n in layouts if n in either]
    others = [n for n, how in layouts.items() if how != "out_in"]
    others = [n for n in others if n not in either]
    if names:
      no = as_json(transposed=others) if others else as_json(layout="out_in")
      self._p.guess(
        f"in- and outputs of {_some(names)} share one permutation, as they may"
        f" be swapped: {as_json(transposed=others + names)} says that they are"
        f" [in, out, ...], as of transposed convolutions, {no} that they are"
        " [out, in, ...]"
      )

  def _leaves(self, number: int) -> bool:
    """Whether what a layer gives leaves its list: a skip could reach it."""
    one, other = self._reading.order[number : number + 2]
    parent = _place(one)[0]
    return (
      parent is None
      or parent not in self._lists
      or (parent != _place(other)[0])
    )


def _flattened(p: Player, reading: Reading) -> dict[int, int]:
  """Sizes of flattened images, by the number of the layer that reads them.

  A skip may join such an image to what a dense layer gives.
  """
  sizes = {}
  for number, module in enumerate(reading.order):
    name = module.parts["weight"]
    wanted, *places = p.kernel_shape(name, reading.way.layouts[name])[1:]
    if not places and wanted != reading.way.widths[number]:
      sizes[number] = wanted
  return sizes


def _some(names: list[str]) -> str:
  return ", ".join(names[:4]) + ", ..." * (len(names) > 4)


def _place(module: Module) -> tuple[str | None, int]:
  """The list that a layer stands in by its number, and that number."""
  parent, _, last = module.prefix.rpartition(".")
  return (parent, int(last)) if last.isdigit() else (None, -1)


def _sequential(
  p: Player, order: list[Module], modules: list[Module]
) -> set[str]:
  """Lists that look like a `Sequential`, with activations between layers."""
  if p.framework not in naming.TORCH_LIKE:
    return set()
  held: dict[str, list[int]] = {}
  for module in order:
    parent, number = _place(module)
    plain = module.parts["weight"].endswith(".weight")
    if parent is not None:
      held.setdefault(parent, []).append(number if plain else -1)
  taken = {_place(module) for module in modules}
  root = all(re.match(r"\d+\.", n) for m in order for n in m.parts.values())
  lists = set()
  for parent, numbers in held.items():
    missing = [
      sum((parent, n) not in taken for n in range(a + 1, b))
      for a, b in itertools.pairwise(numbers)
    ]
    least = 0 if root and not parent else 1
    most = max([0, *missing])
    if p.framework == "safetensors":
      most = _MOST_MISSING
    counted = -1 not in numbers and numbers == sorted(numbers)
    if counted and all(least <= n <= most for n in missing):
      lists.add(parent)
  return lists
