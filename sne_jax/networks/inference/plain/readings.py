"""In which order the layers of a plain network stand, and how they are stored.

Every order that names allow is tried with every layout that the file and the
names allow, and those stay in which each layer reads what the one before it
gives. One of them is taken; what they do not agree on is not claimed.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import json
from collections.abc import Callable

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.inferred import AmbiguousError
from sne_jax.networks.inference.naming import Module
from sne_jax.networks.inference.override import LAYOUTS
from sne_jax.networks.inference.plain import orders as orders_lib
from sne_jax.networks.inference.plain import ways as ways_lib
from sne_jax.networks.inference.plain.ways import Way
from sne_jax.networks.tracing.player import Player

OPAQUE = (
  "if the network is not a plain one, give its code to be traced, or write"
  ' {"opaque": true} to have no permutation claimed'
)


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
    AmbiguousError: nothing fits, or only what names do not bear out, or several
      orders of a file that keeps none.
    ValueError: the override's order holds other layers.
  """
  orders, complete = orders_lib.named(p, layers)
  found = _fitting(p, orders)
  own = [m for m in layers if m.parts["weight"] not in p.tied]
  aliased = not found and len(own) < len(layers)
  if aliased:  # Second names may be just that, and no second uses.
    orders, complete = orders_lib.named(p, own)
    found = _fitting(p, orders)
  if not found:
    raise AmbiguousError(_nothing_fits(p, layers, orders))
  ranked = [item for item in found if orders_lib.is_ranked(item[0])]
  kept = own if aliased else layers
  if not ranked and not p.override.order:
    raise AmbiguousError(_unranked(found[0][0]))
  found = ranked or found
  if complete and not p.override.order:
    found += _mixed(p, kept, [order for order, _ in found])
    found += _nested(p, found[0])
    if len(found) == 1:
      _say_nested(p, found[0][0])
  order, ways = found[0]
  if len(found) > 1:
    _say_order(p, kept, [order for order, _ in found])
  elif orders_lib.is_bare_first(p, order) and not p.override.order:
    raise AmbiguousError(_unranked(order))
  if not p.override.order and (
    orders_lib.begins_as_it_ends(p, order)
    or orders_lib.contradicts_numbers(p, order)
  ):
    raise AmbiguousError(_unranked(order))
  ways = sorted(ways, key=lambda w: (len(w.grouped), *ways_lib.swapped(w)))
  unsaid = ways_lib.unsaid(p, order, ways[0])
  if unsaid:
    raise AmbiguousError(
      f"{', '.join(unsaid)} would convolve groups of channels, by kernels of"
      f" one place: {as_json(groups=unsaid)} says so; if it projects a skip, or"
      " the network is not a plain one, give its code to be traced, or write"
      ' {"opaque": true} to have no permutation claimed'
    )
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
    either=frozenset(ways_lib.either(p, order, ways[0])),
    doubt=_doubt([ways[0], *unlike[:1]], names),
  )


def _fitting(
  p: Player, orders: list[list[Module]]
) -> list[tuple[list[Module], list[Way]]]:
  """Returns the orders in which layers fit, and in which ways."""
  habits = ways_lib.habits(p, [m.parts["weight"] for m in orders[0]])
  found = []
  for order in orders:
    ways = []
    for way in (w for habit in habits for w in ways_lib.find(p, order, habit)):
      ways += [] if way in ways else [way]
    if ways and (
      p.override.layout or not all(ways_lib.is_odd(p, w) for w in ways)
    ):
      found.append((order, ways))
  return found


def _mixed(
  p: Player, layers: list[Module], orders: list[list[Module]]
) -> list[tuple[list[Module], list[Way]]]:
  """Returns a further order that fits, in which lists of layers alternate."""
  habits = ways_lib.habits(p, [m.parts["weight"] for m in orders[0]])
  order = orders_lib.mixed(p, layers, orders, _begins(p, habits))
  return _fitting(p, [order]) if order else []


def _nested(
  p: Player, found: tuple[list[Module], list[Way]]
) -> list[tuple[list[Module], list[Way]]]:
  """Returns an order of nested calls that fits, of other widths."""
  order, ways = found
  habits = ways_lib.habits(p, [m.parts["weight"] for m in order])
  for other in orders_lib.nested(p, order, _begins(p, habits)):
    fitting = _fitting(p, [other])
    if fitting and all(
      way.widths != known.widths for way in fitting[0][1] for known in ways
    ):
      return fitting
  return []


def _say_nested(p: Player, order: list[Module]) -> None:
  """Notes that calls in calls would fit as well; widths are the same."""
  habits = ways_lib.habits(p, [m.parts["weight"] for m in order])
  other = next(orders_lib.nested(p, order, _begins(p, habits)), None)
  if other:
    hints = [as_json(order=[m.prefix for m in each]) for each in (order, other)]
    p.guess(
      "numbers are taken for the order of layers; in nested calls of Flax they"
      f" count from the outermost: {hints[0]} settles it, or {hints[1]}"
    )


def _begins(p: Player, habits: list[str]) -> Callable[[list[Module]], bool]:
  """Returns what says whether layers may begin a chain."""
  return lambda start: any(
    p.override.layout or not ways_lib.is_odd(p, way)
    for habit in habits
    for way in ways_lib.find(p, start, habit)
  )


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
    " a layer without a number before its like, or numbers that fall; if that"
    " is it, write"
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
  kept = kept and not orders_lib.are_by_kind(orders[0], orders[1:])
  if not kept or orders_lib.is_bare_first(p, orders[0], orders[1:]):
    raise AmbiguousError(
      "the layers fit in more than one order. Write the right one, such as"
      f" {hints[0]} or {hints[1]}"
    )
  p.guess(
    "the layers are in the order of the file; others would fit too:"
    f" {hints[0]} settles it, or {hints[1]}"
  )


def as_json(**override: object) -> str:
  """Returns an override to be written down."""
  return json.dumps(override)


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
    hints += [
      as_json(transposed=ways_lib.swapped(w))
      for w in ways
      if ways_lib.swapped(w)
    ]
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
  fitting = [
    how
    for how in LAYOUTS
    if not _skews(p, layers, how) and _would_fit(p, orders, how)
  ]
  hint = "".join(f" {as_json(layout=how)} would fit." for how in fitting[:1])
  habits = ways_lib.habits(p, [m.parts["weight"] for m in layers])
  calls = next(orders_lib.nested(p, orders[0], _begins(p, habits)), None)
  if calls:
    names = [m.prefix for m in calls]
    hint = f" {as_json(order=names)} would fit, as of calls in calls."
  return (
    "in no order do the layers read what the one before gives, with biases of"
    f" as many numbers: {shapes}.{hint} {OPAQUE[0].upper()}{OPAQUE[1:]}"
  )


def _skews(p: Player, layers: list[Module], layout: str) -> bool:
  """Whether a layout makes oblong kernels of what are square ones."""
  for module in layers:
    name = module.parts["weight"]
    now, then = (
      len({*p.kernel_shape(name, how)[2:]}) for how in (p.layout(name), layout)
    )
    if now == 1 and then > 1:
      return True
  return False


def _would_fit(p: Player, orders, layout: str) -> bool:
  settled = dataclasses.replace(p.override, layout=layout)
  other = Player(p.everything, p.framework, settled, p.tied)
  return any(ways_lib.find(other, order, "") for order in orders)
