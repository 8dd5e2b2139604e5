"""Where the norms of a plain network stand.

A norm in a numbered list stands where its number says. Elsewhere it shares
its numbers with a layer (`conv1` and `bn1`, `convs.0` and `norms.0`), and
stands behind or before that; a file that keeps its order says which. Without
numbers, widths may leave one way only. Each layer has one norm at most.

Dimensions: none; places are counted from 0, the inputs, and `k + 1` is behind
layer `k`.
"""

import itertools
import re

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.inferred import AmbiguousError
from sne_jax.networks.inference.naming import Module
from sne_jax.networks.inference.plain.readings import OPAQUE, Reading, as_json
from sne_jax.networks.tracing.player import Player

Places = dict[str, int]
"""By the norm's name."""


def places(
  p: Player, reading: Reading, norms: list[Module], layers: list[Module]
) -> dict[int, list[Module]]:
  """Returns the norms of a network, by place.

  Args:
    p: the player.
    reading: of the network.
    norms: its norms.
    layers: layers and norms, in the order of the file.

  Raises:
    AmbiguousError: there is no place for a norm, or there are several.
    ValueError: the override names another norm or layer.
  """
  found = _Finder(p, reading, norms, layers).find() if norms else {}
  by_place: dict[int, list[Module]] = {}
  for norm in norms:
    by_place.setdefault(found[norm.prefix], []).append(norm)
  return by_place


class _Finder:
  """The norms and layers of one network."""

  def __init__(
    self,
    p: Player,
    reading: Reading,
    norms: list[Module],
    layers: list[Module],
  ):
    self._p, self._norms, self._layers = p, norms, layers
    self._order = [m.prefix for m in reading.order]
    self._widths = reading.way.widths
    self._sizes = {m.prefix: p.shape([*m.parts.values()][0])[0] for m in norms}
    self._flat = []  # By layer, how many numbers it flattens and reads; or 0.
    for module, width in zip(reading.order, self._widths[:-1], strict=True):
      kernel = module.parts["weight"]
      _, reads, *sides = p.kernel_shape(kernel, reading.way.layouts[kernel])
      self._flat.append(reads if not sides and reads != width else 0)

  def find(self) -> Places:
    """Returns the place of every norm."""
    behind = self._p.override.norm_behind
    if unknown := sorted(behind.keys() - self._sizes):
      raise ValueError(
        f"override: norm_behind has {', '.join(unknown)}; norms are"
        f" {', '.join(self._sizes)}"
      )
    known = {name: self._by_hand(name, layer) for name, layer in behind.items()}
    for norm in self._norms:
      place = self._in_list(norm)
      if place is not None:
        known.setdefault(norm.prefix, place)
    for name, place in known.items():
      if self._widths[place] != self._sizes[name]:
        raise AmbiguousError(self._misfit(name, place))
    rest = [m for m in self._norms if m.prefix not in known]
    return known | self._by_names(rest, set(known.values()))

  def _by_hand(self, name: str, layer: str) -> int:
    """The place that the override says."""
    if layer and layer not in self._order:
      raise ValueError(
        f"override: norm_behind must name the layer of {name!r}, one of"
        f' {", ".join(self._order)}, or "" before the first; got {layer!r}'
      )
    return self._order.index(layer) + 1 if layer else 0

  def _in_list(self, norm: Module) -> int | None:
    """The place by the norm's number in a list that holds layers too."""
    parent, _, number = norm.prefix.rpartition(".")
    if not number.isdigit():
      return None
    start, before, after = f"{parent}." if parent else "", [], []
    for place, name in enumerate(self._order):
      word = name.removeprefix(start).partition(".")[0]
      if name.startswith(start) and word.isdigit():
        (before if int(word) < int(number) else after).append(place)
    if not before and not after:
      return None
    return max(before) + 1 if before else min(after)

  def _by_names(self, norms: list[Module], taken: set[int]) -> Places:
    """Places by the file's order, by numbers, or by the only way that fits."""
    if not norms:
      return {}
    fits = lambda ways: [w for w in ways if w and self._fit(w, taken)]
    by_file = self._by_file(norms)
    in_file = fits([by_file])
    for norm in norms if not in_file else ():
      self._check_flat(norm, by_file.get(norm.prefix))
    numbered = fits([self._by_number(norms, 1), self._by_number(norms, 0)])
    if in_file and (in_file[0] in numbered or not numbered):
      return in_file[0]
    ways = []
    for way in in_file + numbered:
      ways += [way] if way not in ways else []
    ways = ways or self._by_count(norms, taken)
    if len(ways) == 1:
      return ways[0]
    if not ways:
      raise AmbiguousError(self._nowhere(norms))
    raise AmbiguousError(
      f"the norms {', '.join(m.prefix for m in norms)} fit in more than one"
      f" place. Write which layer each is behind: {self._json(ways[0])} or"
      f" {self._json(ways[1])}"
    )

  def _check_flat(self, norm: Module, in_file: int | None) -> None:
    """Refuses a norm that may stand on what a layer has flattened."""
    size, numbers = self._sizes[norm.prefix], _numbers(norm.prefix)
    for place, name in enumerate(self._order):
      alike = not numbers or numbers == _numbers(name)
      if self._flat[place] == size and (alike or in_file == place):
        widths = zip(self._order, self._widths[1:], strict=True)
        behind = [one for one, width in widths if width == size]
        hint = "".join(
          f", or behind a layer; if it is behind, write"
          f" {as_json(norm_behind={norm.prefix: one})}"
          for one in ([name] if name in behind else behind[-1:])
        )
        raise AmbiguousError(
          f"norm {norm.prefix!r} of {size} channels may stand before {name!r},"
          f" on all {size} numbers that it reads{hint}; {OPAQUE}"
        )

  def _fit(self, way: Places, taken: set[int]) -> bool:
    """Whether widths agree, and no layer has two norms."""
    return all(
      self._widths[place] == self._sizes[n] for n, place in way.items()
    ) and len({*way.values()} - taken) == len(way)

  def _by_file(self, norms: list[Module]) -> Places:
    """Behind the layer that stands before it in a file that keeps its order."""
    if self._p.framework not in naming.ORDERED:
      return {}
    names, way, place = {m.prefix for m in norms}, {}, 0
    ordered = [m.prefix for m in self._layers if "weight" in m.parts]
    if ordered != self._order:
      return {}
    for module in self._layers:
      place += "weight" in module.parts
      if module.prefix in names:
        way[module.prefix] = place
    return way

  def _by_number(self, norms: list[Module], shift: int) -> Places:
    """Behind (1) or before (0) the layer that has its numbers in its name."""
    if self._p.framework in naming.TRANSPOSED:
      return {}  # Numbers count each kind: LayerNorm_0 may be behind Dense_1.
    way = {}
    for norm in norms:
      numbers = _numbers(norm.prefix)
      found = [
        place + shift
        for place, name in enumerate(self._order)
        if numbers
        and _numbers(name) == numbers
        and self._widths[place + shift] == self._sizes[norm.prefix]
      ]
      if len(found) != 1:
        return {}
      way[norm.prefix] = found[0]
    return way

  def _by_count(self, norms: list[Module], taken: set[int]) -> list[Places]:
    """The first two ways to put norms, by name, at hidden layers in order."""
    names = sorted((m.prefix for m in norms), key=naming.natural)
    spots = [s for s in range(len(self._order)) if s not in taken]
    widths = [self._widths[spot] for spot in spots]
    ways = _ways(widths, [self._sizes[name] for name in names])
    return [
      dict(zip(names, (spots[i] for i in way), strict=True))
      for way in itertools.islice(ways, 2)
    ]

  def _json(self, way: Places) -> str:
    names = {n: self._order[s - 1] if s else "" for n, s in way.items()}
    return as_json(norm_behind=names)

  def _misfit(self, name: str, place: int) -> str:
    where = f"behind {self._order[place - 1]!r}" if place else "at the inputs"
    return (
      f"norm {name!r} of {self._sizes[name]} channels does not fit {where},"
      f" where there are {self._widths[place]}; if it is no part of the"
      f" network, write {self._leave([name])}; {OPAQUE}"
    )

  def _nowhere(self, norms: list[Module]) -> str:
    strange = [
      m.prefix for m in norms if self._sizes[m.prefix] not in self._widths
    ]
    names = strange or [m.prefix for m in norms]
    return (
      f"there is no place for the norms {', '.join(names)} among the layers"
      f" {', '.join(self._order)}; if they are no part of the network, write"
      f" {self._leave(names)}; {OPAQUE}"
    )

  def _leave(self, names: list[str]) -> str:
    parts = [m.parts.values() for m in self._norms if m.prefix in names]
    return as_json(leave_out=[name for each in parts for name in each])


def _numbers(prefix: str) -> list[str]:
  return re.findall(r"\d+", prefix)


def _ways(widths: list[int], sizes: list[int], start: int = 0):
  """Yields the ways to put norms behind layers, in order, one for each."""
  if not sizes:
    yield []
    return
  for place in range(start, len(widths)):
    if widths[place] == sizes[0]:
      for rest in _ways(widths, sizes[1:], place + 1):
        yield [place, *rest]
