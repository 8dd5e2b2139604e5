"""How the kernels of a chain are stored, so that each reads the one before.

A file and its names allow some layouts of each kernel; of these stay the ways
in which the widths of a given order of layers meet.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.naming import Module
from sne_jax.networks.tracing.player import Player

_MOST_WAYS = 64


@dataclasses.dataclass(frozen=True)
class Way:
  """How each layer of an order is stored, so that it reads the one before.

  Attributes:
    layouts: of the kernels, by name; see `Player.layouts`.
    grouped: layers that would be convolutions of groups of channels.
    widths: of the inputs, and of what each layer gives.
  """

  layouts: Mapping[str, str]
  grouped: tuple[str, ...]
  widths: tuple[int, ...]


def is_odd(p: Player, way: Way) -> bool:
  """Whether kernels would be of MLX though no square places show it.

  Those of sequences have one place axis, and `[6, 3, 1, 1]` may be a kernel of
  one place as well as one of 3 by 1.
  """
  mlx = [name for name, how in way.layouts.items() if how == "mlx"]
  places = [p.kernel_shape(name, "mlx")[2:] for name in mlx]
  return any(len(sizes) == 1 or len({*sizes}) > 1 for sizes in places)


def habits(p: Player, names: list[str]) -> list[str]:
  """How kernels of such a file and such names may be stored."""
  words = {re.split(r"[./]", name)[-1] for name in names}
  if p.override.layout or p.override.transposed:
    return [""]
  if p.framework in naming.TRANSPOSED or words == {"kernel"}:
    return ["in_out"]
  if words != {"weight"} or p.framework not in naming.TORCH_LIKE:
    return ["out_in", "in_out"]
  images = any(len(p.shape(name)) > 2 for name in names)
  many = images and p.framework == "safetensors"
  return ["out_in", "mlx"] if many else ["out_in"]


def _layouts(p: Player, module: Module, habit: str) -> list[str]:
  """The layouts that a kernel may have in a file of such a habit."""
  name = module.parts["weight"]
  last = re.split(r"[./]", name)[-1]
  plain = len(p.shape(name)) == 2
  if not habit:
    last = ""
  elif last == "kernel":
    habit = "in_out"
  elif last == "weight" and p.framework in naming.TORCH_LIKE:
    habit = "mlx" if habit == "mlx" else "out_in"
  if not habit:
    layouts = [p.layout(name)]
  elif plain:
    layouts = ["out_in" if habit == "mlx" else habit]
  elif habit == "out_in" and last == "weight":
    # Of one place, a kernel that fits the other way only is no link at all.
    wide = set(p.shape(name)[2:]) != {1}
    layouts = ["out_in", "transposed"] if wide else ["out_in"]
  elif p.framework == "keras" and "transpose" in name.lower():
    layouts = ["out_in_last"]
  else:
    layouts = [habit]
  if "bias" not in module.parts:
    return layouts
  # A bias has a number for each output.
  outputs = p.shape(module.parts["bias"])
  agrees = lambda layout: p.kernel_shape(name, layout)[:1] == outputs
  # Dense kernels of such names may be another module's, as GPT-2's are.
  others = ["in_out"] if plain and last == "weight" else []
  agreeing = [layout for layout in layouts if agrees(layout)]
  return agreeing or [layout for layout in others if agrees(layout)]


def find(p: Player, order: Sequence[Module], habit: str) -> list[Way]:
  """All ways in which each layer reads what the one before it gives."""
  # Layouts and groups so far, widths so far, and whether those are an image's.
  ways = [((), (), (), False)]
  for module in order:
    name, longer = module.parts["weight"], []
    shapes = {}
    for layout in _layouts(p, module, habit):
      shapes.setdefault(p.kernel_shape(name, layout), layout)
    for layouts, grouped, widths, image in ways:
      for (outputs, wanted, *places), layout in shapes.items():
        # Only a person can say that the first layer convolves groups.
        first = p.override.groups.get(module.prefix, 1) if places else 1
        have, seen = widths or (wanted * first,), image or not widths
        groups = _groups(have, seen, outputs, wanted, bool(places))
        if not groups or groups > 1 and layout == "transposed":
          continue
        longer.append(
          (
            (*layouts, (name, layout)),
            (*grouped, module.prefix) if groups > 1 else grouped,
            (*have, outputs),
            bool(places),
          )
        )
    ways = longer[:_MOST_WAYS]
  return [Way(dict(layouts), grouped, w) for layouts, grouped, w, _ in ways]


def _groups(
  widths: tuple[int, ...], image: bool, outputs: int, wanted: int, conv: bool
) -> int:
  """How many groups of channels a layer reads; 0 if it cannot."""
  have = widths[-1]
  if not conv:
    return int(wanted % have == 0 if image else wanted == have)
  groups, rest = divmod(have, wanted)
  return groups if image and not rest and outputs % groups == 0 else 0


def unsaid(p: Player, order: Sequence[Module], way: Way) -> dict[str, int]:
  """Groups of kernels of one place that no person has named, by layer.

  Such a kernel that reads fewer channels than there are is more often the
  projection of a skip than a convolution of groups.
  """
  found = {}
  for module, have in zip(order, way.widths, strict=False):
    name = module.parts["weight"]
    wanted, *places = p.kernel_shape(name, way.layouts[name])[1:]
    if module.prefix in way.grouped and {*places} == {1}:
      found[module.prefix] = have // wanted
  return {name: n for name, n in found.items() if name not in p.override.groups}


def swapped(way: Way) -> tuple[str, ...]:
  """Kernels of transposed convolutions."""
  return tuple(n for n, how in way.layouts.items() if how == "transposed")


def either(p: Player, order: Sequence[Module], way: Way) -> list[str]:
  """Square kernels that may be stored the other way.

  Convolutions may be transposed ones, if they read all channels: a transposed
  one of groups has a row for each channel. Dense ones are [in, out] perhaps,
  where others of such names are.
  """
  if p.override.layout or p.override.transposed:
    return []
  grouped = {m.parts["weight"] for m in order if m.prefix in way.grouped}
  names = dict.fromkeys(m.parts["weight"] for m in order)
  named = [n for n in names if n.endswith(".weight") and n not in grouped]
  dense = {n for n in named if len(p.shape(n)) == 2}
  mixed = any(way.layouts[name] == "in_out" for name in dense)
  suspect = [n for n in named if n not in dense or mixed]
  return [
    name
    for name in suspect
    if p.shape(name)[0] == p.shape(name)[1]
    and way.layouts[name] in ("out_in", "transposed", "in_out")
  ]
