"""In which orders the names of layers allow them to stand.

Layers of one stem are counted (`conv1`, `conv2`); stems follow each other, or
are counted together. Lists by kind (`convs.0`, `norms.0`) may alternate in any
way, which no name shows.

Dimensions: none.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.naming import Module
from sne_jax.networks.tracing.player import Player

_MOST_STEMS = 6
_MOST_STARTS = 500
"""Beginnings of an order that are tried before the search is given up."""

_CALLED = re.compile(r"(^|/)[A-Z]\w*_\d+$")
"""Names that Flax makes of a layer's kind."""

_FIRST = re.compile(r"^(in|inputs?|stem|enc|encoder|first)(_|\d|$)")
_LAST = re.compile(
  r"^(out|outputs?|heads?|dec|decoder|classifier|logits|last|final)(_|\d|$)"
)

_DENSE = re.compile(
  r"fc|lin|linear|dense|proj|readout|predictor|regressor|score"
)
"""What is called so is seldom the first of several layers."""


def named(p: Player, layers: list[Module]) -> tuple[list[list[Module]], bool]:
  """Returns the orders that names allow, and whether these are all.

  Raises:
    ValueError: the override's order holds other layers.
  """
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
  if _are_counted_together(layers):
    return [naming.by_number(layers)], True
  sequences = list(_stems(p, layers).values())
  complete = len(sequences) <= _MOST_STEMS
  ways = itertools.permutations(sequences) if complete else [[]]
  orders = [[m for stem in way for m in stem] for way in ways]
  orders += [naming.by_number(order) for order in orders]
  if not complete:
    orders = [sorted(layers, key=lambda m: naming.natural(m.prefix))]
  if p.framework in naming.ORDERED:
    counted = all(
      [m for m in layers if m in stem] == stem for stem in sequences
    )
    orders = [layers, *orders] if counted else [*orders, layers]
  unique = {_names(order): order for order in orders}
  return list(unique.values()), complete


def mixed(
  p: Player,
  layers: list[Module],
  known: Sequence[Sequence[Module]],
  fits: Callable[[list[Module]], bool],
) -> list[Module]:
  """Returns an order in which counted layers of several stems alternate.

  Args:
    p: the player.
    layers: of the network.
    known: orders that are not wanted.
    fits: whether layers may begin a chain.

  Returns:
    The first that fits and bears names out; [] if there is none.
  """
  if _are_counted_together(layers) or any(len(_numbers(m)) > 1 for m in layers):
    return []
  lists: list[list[list[Module]]] = []
  for stem in _stems(p, layers).values():
    lists.append([stem] if _is_sequential(stem) else [[m] for m in stem])
  known_names = {_names(order) for order in known}
  left = [_MOST_STARTS]

  def longer(start: list[Module], places: tuple[int, ...]) -> list[Module]:
    if len(start) == len(layers):
      return [] if _names(start) in known_names else start
    for which, place in enumerate(places):
      if place == len(lists[which]) or not left[0]:
        continue
      left[0] -= 1
      order = start + lists[which][place]
      if is_ranked(order) and fits(order):
        now = (*places[:which], place + 1, *places[which + 1 :])
        if found := longer(order, now):
          return found
    return []

  return longer([], (0,) * len(lists)) if len(lists) > 1 else []


def nested(
  p: Player, order: list[Module], fits: Callable[[list[Module]], bool]
) -> Iterator[list[Module]]:
  """Yields orders of nested calls, whose numbers count from the outermost.

  In Flax `Dense(8)(relu(Dense(16)(x)))` makes `Dense_0` of the layer that is
  used last: runs of layers may be the other way round.

  Args:
    p: the player.
    order: by number.
    fits: whether layers may begin a chain.
  """
  if p.framework not in ("flax", "orbax"):
    return
  if not all(_CALLED.search(module.prefix) for module in order):
    return
  for size in (len(order), 2, 3):  # The usual ones, of any depth.
    runs = [order[n : n + size][::-1] for n in range(0, len(order), size)]
    turned = [module for run in runs for module in run]
    if is_ranked(turned) and fits(turned):
      yield turned
  left = [_MOST_STARTS]

  def longer(start: list[Module]) -> Iterator[list[Module]]:
    place = len(start)
    if place == len(order) and _names(start) != _names(order):
      yield start
    for end in range(place + 1, len(order) + 1):
      if not left[0]:
        return
      left[0] -= 1
      longest = start + order[place:end][::-1]
      if is_ranked(longest) and fits(longest):
        yield from longer(longest)

  yield from longer([])


def are_by_kind(
  order: list[Module], others: Sequence[Sequence[Module]]
) -> bool:
  """Whether lists stand one behind the other, which might as well alternate.

  A file that keeps an order has that of definition: of each list as a whole.
  """
  lists: dict[str, list[Module]] = {}
  for module in order:
    lists.setdefault(naming.stem(module.prefix), []).append(module)
  kinds = {
    stem
    for stem, members in lists.items()
    if stem.endswith(".") and not _is_sequential(members)
  }
  stems = lambda way: (naming.stem(m.prefix) for m in way)
  runs = lambda way: [s for s, _ in itertools.groupby(stems(way)) if s in kinds]
  mine = runs(order)
  if len(mine) < 2 or len(set(mine)) < len(mine):
    return False
  return any(len(runs(other)) > len(mine) for other in others)


def is_ranked(order: Sequence[Module]) -> bool:
  """Whether what is called an input comes first, an output last."""
  words = [re.split(r"[./]", m.prefix.lower()) for m in order]
  tailed = any("tail" in each for each in words)  # Of head, body and tail.
  ranks = []
  for each in words:
    first = any(_FIRST.match(word) for word in each)
    last = any(_LAST.match(word) for word in each)
    ranks.append(0 if tailed else last - first)
  return ranks == sorted(ranks)


def is_bare_first(
  p: Player, order: list[Module], others: Sequence[Sequence[Module]] = ()
) -> bool:
  """Whether `fc` stands before `fc1`: made first, perhaps, and used last.

  Before `fc2` it is the first one; in Keras before `fc_1`, too. Before layers
  of another stem it is so if it fits behind all of them as well.

  Args:
    p: the player.
    order: of the layers.
    others: further orders that fit.
  """
  seen = set()
  for module in order if p.framework != "keras" else ():
    number = re.search(r"\d+$", module.prefix)
    stem = naming.stem(module.prefix)
    if number and int(number[0]) < 2 and stem in seen:
      return True
    if not number:
      seen.add(stem)
  bare = not _numbers(order[0]) and all(_numbers(m) for m in order[1:])
  return bare and any(other[-1] is order[0] for other in others)


def contradicts_numbers(p: Player, order: list[Module]) -> bool:
  """Whether `fc3` stands before `fc1`, as in a file where it was made first."""
  if p.framework == "keras":
    return False
  stems = _stems(p, order).values()
  return any([m for m in order if m in stem] != stem for stem in stems)


def begins_as_it_ends(p: Player, order: list[Module]) -> bool:
  """Whether `fc` stands before `layers.0`: no chain, most likely."""
  first, *others = order
  word = re.split(r"[./]", first.prefix.lower())[-1]
  return (
    p.framework != "keras"
    and bool(others)
    and set(p.kernel_shape(first.parts["weight"])[2:]) <= {1}
    and _DENSE.fullmatch(word) is not None
    and all(_numbers(m) for m in others)
    and naming.stem(first.prefix) not in {naming.stem(m.prefix) for m in others}
  )


def _names(order: Sequence[Module]) -> tuple[str, ...]:
  return tuple(m.prefix for m in order)


def _numbers(module: Module) -> list[int]:
  return list(map(int, re.findall(r"\d+", module.prefix)))


def _stems(p: Player, layers: list[Module]) -> dict[str, list[Module]]:
  """Layers by stem, in the order of their numbers."""
  stems: dict[str, list[Module]] = {}
  for module in sorted(layers, key=lambda m: naming.natural(m.prefix)):
    stem = naming.stem(module.prefix)
    if not module.prefix[-1:].isdigit() and p.framework != "keras":
      stem += "#"  # `fc` may stand before `fc1` or behind; Keras begins so.
    stems.setdefault(stem, []).append(module)
  return stems


def _is_sequential(stem: list[Module]) -> bool:
  """Whether numbers of a list leave room for activations between layers."""
  numbers = [number for m in stem for number in _numbers(m)[-1:]]
  listed = all(m.prefix.rpartition(".")[2].isdigit() for m in stem)
  return listed and numbers != list(range(len(numbers)))


def _are_counted_together(layers: list[Module]) -> bool:
  """Whether layers of several stems have one run of numbers: conv1, fc2."""
  if len({naming.stem(m.prefix) for m in layers}) < 2:
    return False
  numbers = sorted(n for m in layers for n in _numbers(m)[-1:] or [-1])
  single = all(len(_numbers(m)) == 1 for m in layers)
  runs = numbers == list(range(numbers[0], numbers[0] + len(layers)))
  return single and runs and numbers[0] in (0, 1)
