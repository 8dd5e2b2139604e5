"""In which order the layers of a plain network stand, and how they are stored.

Every order that names allow is tried with every layout that the file and the
names allow, and those stay in which each layer reads what the one before it
gives. One of them is taken; what they do not agree on is not claimed.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping, Sequence

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.inferred import AmbiguousError
from sne_jax.networks.inference.naming import Module
from sne_jax.networks.inference.override import LAYOUTS
from sne_jax.networks.tracing.player import Player

_MOST_STEMS = 6
_MOST_WAYS = 64

OPAQUE = (
  "if the network is not a plain one, give its code to be traced, or write"
  ' {"opaque": true} to have no permutation claimed'
)

_FIRST = re.compile(r"^(in|inputs?|stem|enc|encoder|first)(_|\d|$)")
_LAST = re.compile(
  r"^(out|outputs?|heads?|dec|decoder|classifier|logits|last|final)(_|\d|$)"
)


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


@dataclasses.dataclass(frozen=True)
class Reading:
  """How a plain network is read.

  Attributes:
    order: the layers, from input to output.
    way: how they are stored.
    sure: whether no other order fits.
    aliased: whether there are second names of layers that could not be second
      uses.
    ends: widths that inputs or outputs have in any reading.
    either: kernels that would fit with in- and outputs swapped as well.
    doubt: why nothing can be claimed, with what settles it; "" if something
      can.
  """

  order: list[Module]
  way: Way
  sure: bool
  aliased: bool
  ends: frozenset[int]
  either: frozenset[str]
  doubt: str


def find(p: Player, layers: list[Module]) -> Reading:
  """Returns the order and the layouts of a plain network's layers.

  Raises:
    AmbiguousError: nothing fits, or several orders of a file that keeps none.
    ValueError: the override's order holds other layers.
  """
  orders, complete = _orders(p, layers)
  found = _fitting(p, orders)
  own = [m for m in layers if m.parts["weight"] not in p.tied]
  aliased = not found and len(own) < len(layers)
  if aliased:  # Second names may be just that, and no second uses.
    orders, complete = _orders(p, own)
    found = _fitting(p, orders)
  if not found:
    raise AmbiguousError(_nothing_fits(p, layers, orders))
  ranked = [item for item in found if _is_ranked(item[0])]
  kept = own if aliased else layers
  if not ranked and not _is_of_file(p, kept, found[0][0]):
    raise AmbiguousError(_unranked(found[0][0]))
  found = ranked or found
  order, ways = found[0]
  if len(found) > 1:
    _say_order(p, kept, [order for order, _ in found])
  elif _is_bare_first(p, order) and not _is_of_file(p, kept, order):
    raise AmbiguousError(_unranked(order))
  ways = sorted(ways, key=lambda w: (len(w.grouped), *_swapped(w)))
  readings = [w for _, each in found for w in each]
  ends = {w.widths[end] for w in readings for end in (0, -1)}
  if not complete and len(ends) < 2:  # Any layer could be the first.
    ends |= set(ways[0].widths)
  names = [m.parts["weight"] for m in order]
  unlike = [w for w in readings if w.layouts != ways[0].layouts]
  return Reading(
    order,
    ways[0],
    aliased=aliased,
    sure=len(found) == 1 and complete,
    ends=frozenset(ends),
    either=frozenset(_either(p, names, ways[0])),
    doubt=_doubt([ways[0], *unlike[:1]], names),
  )


def _fitting(
  p: Player, orders: list[list[Module]]
) -> list[tuple[list[Module], list[Way]]]:
  """Returns the orders in which layers fit, and in which ways."""
  habits = _habits(p, [m.parts["weight"] for m in orders[0]])
  found = []
  for order in orders:
    ways = []
    for way in (w for habit in habits for w in _ways(p, order, habit)):
      ways += [] if way in ways else [way]
    if ways and (p.override.layout or not all(_is_odd(p, w) for w in ways)):
      found.append((order, ways))
  return found


def _is_odd(p: Player, way: Way) -> bool:
  """Whether kernels of sequences are of MLX, which no square places show."""
  layouts = way.layouts.items()
  return any(how == "mlx" and len(p.shape(n)) == 3 for n, how in layouts)


def _orders(p: Player, layers: list[Module]) -> tuple[list[list[Module]], bool]:
  """Returns the orders that names allow, and whether these are all."""
  by_name = {m.prefix: m for m in layers}
  wanted = p.override.order
  if wanted:
    # A layer may be used again, under its own name or its second one.
    once = {m.prefix for m in layers if m.parts["weight"] not in p.tied}
    if not once <= set(wanted) <= by_name.keys():
      raise ValueError(
        f"override: order must hold {', '.join(by_name)}, got"
        f" {', '.join(wanted)}"
      )
    return [[by_name[name] for name in wanted]], True
  stems: dict[str, list[Module]] = {}
  for module in sorted(layers, key=lambda m: naming.natural(m.prefix)):
    stem = naming.stem(module.prefix)
    if not module.prefix[-1:].isdigit() and p.framework != "keras":
      stem += "#"  # `fc` may stand before `fc1` or behind; Keras begins so.
    stems.setdefault(stem, []).append(module)
  complete = len(stems) <= _MOST_STEMS
  sequences = list(stems.values())
  mixed = itertools.permutations(sequences) if complete else [[]]
  orders = [[m for stem in way for m in stem] for way in mixed]
  orders += [naming.by_number(order) for order in orders]
  if not complete:
    orders = [sorted(layers, key=lambda m: naming.natural(m.prefix))]
  if p.framework in naming.ORDERED:
    counted = all(
      [m for m in layers if m in stem] == stem for stem in sequences
    )
    orders = [layers, *orders] if counted else [*orders, layers]
  unique = {tuple(m.prefix for m in order): order for order in orders}
  return list(unique.values()), complete


def _is_ranked(order: Sequence[Module]) -> bool:
  """Whether what is called an input comes first, an output last."""
  ranks = []
  for module in order:
    words = re.split(r"[./]", module.prefix.lower())
    first = any(_FIRST.match(word) for word in words)
    last = any(_LAST.match(word) for word in words)
    ranks.append(last - first)
  return ranks == sorted(ranks)


def _is_of_file(p: Player, layers: list[Module], order: list[Module]) -> bool:
  """Whether an order is a person's, or that of a file which keeps one."""
  return bool(p.override.order) or (
    p.framework in naming.ORDERED and layers == order
  )


def _unranked(order: list[Module]) -> str:
  """Says that names and shapes contradict each other."""
  names = [m.prefix for m in order]
  return (
    f"the layers fit as a chain only in an order such as {', '.join(names)},"
    " which names do not bear out: an output or input stands between others,"
    " or a layer without a number before its like; if that is it, write"
    f" {as_json(order=names)}; {OPAQUE}"
  )


def _say_order(
  p: Player, layers: list[Module], orders: list[list[Module]]
) -> None:
  """Notes that several orders fit, or refuses where the file has none."""
  hints = [as_json(order=[m.prefix for m in order]) for order in orders[:2]]
  counted = len({naming.stem(m.prefix) for m in layers}) == 1
  kept = counted or _is_of_file(p, layers, orders[0])
  kept = kept and p.framework in naming.ORDERED
  if not kept or _is_bare_first(p, orders[0]):
    raise AmbiguousError(
      "the layers fit in more than one order. Write the right one, such as"
      f" {hints[0]} or {hints[1]}"
    )
  p.guess(
    "the layers are in the order of the file; others would fit too:"
    f" {hints[0]} settles it, or {hints[1]}"
  )


def _is_bare_first(p: Player, order: list[Module]) -> bool:
  """Whether `fc` stands before `fc1`: made first, perhaps, and used last.

  Before `fc2` it is the first one; in Keras before `fc_1`, too.
  """
  seen = set()
  for module in order if p.framework != "keras" else ():
    number = re.search(r"\d+$", module.prefix)
    stem = naming.stem(module.prefix)
    if number and int(number[0]) < 2 and stem in seen:
      return True
    if not number:
      seen.add(stem)
  return False


def as_json(**override: object) -> str:
  """Returns an override to be written down."""
  return json.dumps(override)


def _habits(p: Player, names: list[str]) -> list[str]:
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


def _ways(p: Player, order: Sequence[Module], habit: str) -> list[Way]:
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


def _swapped(way: Way) -> tuple[str, ...]:
  """Kernels of transposed convolutions."""
  return tuple(n for n, how in way.layouts.items() if how == "transposed")


def _either(p: Player, names: list[str], way: Way) -> list[str]:
  """Square kernels that may be stored the other way.

  Convolutions may be transposed ones; dense ones are [in, out] perhaps, where
  others of such names are.
  """
  if p.override.layout or p.override.transposed:
    return []
  named = [n for n in names if n.endswith(".weight")]
  dense = {n for n in named if len(p.shape(n)) == 2}
  mixed = any(way.layouts[name] == "in_out" for name in dense)
  suspect = [n for n in named if n not in dense or mixed]
  return [
    name
    for name in suspect
    if p.shape(name)[0] == p.shape(name)[1]
    and way.layouts[name] in ("out_in", "transposed", "in_out")
  ]


def _doubt(ways: list[Way], names: list[str]) -> str:
  """Says that kernels could be stored in more than one way."""
  if len(ways) < 2:
    return ""
  one, other = ways
  unlike = [n for n in names if one.layouts[n] != other.layouts[n]]
  habits = {how for w in ways for how in w.layouts.values()} & LAYOUTS.keys()
  if len(habits) > 1:
    hints = [as_json(layout=how) for how in sorted(habits, reverse=True)]
  else:
    hints = [as_json(layout="out_in")]
    hints += [as_json(transposed=_swapped(w)) for w in ways if _swapped(w)]
  return (
    f"the layout of {', '.join(unlike[:3])}{', ...' * (len(unlike) > 3)} is not"
    f" known; {' or '.join(hints)} settles it"
  )


def _nothing_fits(p: Player, layers: list[Module], orders) -> str:
  """Says that no order fits, and which layout would."""
  shapes = ", ".join(f"{m.prefix} {p.shape(m.parts['weight'])}" for m in layers)
  if p.override.order:
    names = ", ".join(p.override.order)
    return f"the layers do not fit in the order {names}: {shapes}; {OPAQUE}"
  fitting = [how for how in LAYOUTS if _would_fit(p, orders, how)]
  hint = "".join(f" {as_json(layout=how)} would fit." for how in fitting[:1])
  return (
    "in no order do the layers read what the one before gives, with biases of"
    f" as many numbers: {shapes}.{hint} {OPAQUE[0].upper()}{OPAQUE[1:]}"
  )


def _would_fit(p: Player, orders, layout: str) -> bool:
  settled = dataclasses.replace(p.override, layout=layout)
  other = Player(p.everything, p.framework, settled, p.tied)
  return any(_ways(other, order, "") for order in orders)
