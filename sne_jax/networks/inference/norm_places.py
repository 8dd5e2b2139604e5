"""Which layer of a plain network each of its norms comes after.

By the numbers in names where these tell, by the order of a file that keeps
one, else by widths, if there is one way only.

Dimensions: none; shapes are tuples of sizes.
"""

import itertools
import re

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.inferred import AmbiguousError
from sne_jax.networks.inference.naming import Module
from sne_jax.networks.tracing.player import Player


def after_layers(
  p: Player, order: list[Module], norms: list[Module], layers: list[Module]
) -> dict[str, list[Module]]:
  """Returns the norms after every layer, by the layer's name."""
  if not norms:
    return {}
  widths = [p.kernel_shape(m.parts["weight"])[0] for m in order]
  sizes = [p.shapes[next(iter(m.parts.values()))][0] for m in norms]
  if p.override.norm_behind:
    places = []
    names = [m.prefix for m in order]
    for norm in norms:
      layer = p.override.norm_behind.get(norm.prefix)
      if layer not in names:
        raise ValueError(
          f"override: norm_behind must name the layer of {norm.prefix!r}, one"
          f" of {', '.join(names)}; got {layer!r}"
        )
      places.append(names.index(layer))
  else:
    places = _norm_places(p, order, norms, layers, widths, sizes)
  after: dict[str, list[Module]] = {}
  for norm, place, size in zip(norms, places, sizes, strict=True):
    if widths[place] != size:
      raise AmbiguousError(
        f"norm {norm.prefix!r} of {size} channels does not fit after"
        f" {order[place].prefix!r}, which gives {widths[place]}"
      )
    after.setdefault(order[place].prefix, []).append(norm)
  return after


def _norm_places(
  p: Player,
  order: list[Module],
  norms: list[Module],
  layers: list[Module],
  widths: list[int],
  sizes: list[int],
) -> list[int]:
  """Where norms stand: by numbers in names, or by the only way that fits."""
  for places in _norm_lines(p, order, norms, layers):
    known = [place for place in places if place is not None]
    if len(known) == len(norms) and [widths[p] for p in known] == sizes:
      return known
  rank = sorted(
    range(len(norms)), key=lambda i: naming.natural(norms[i].prefix)
  )
  ways = list(itertools.islice(_ways(widths[:-1], [sizes[i] for i in rank]), 2))
  if len(ways) != 1:
    names = ", ".join(f'"{m.prefix}": "..."' for m in norms)
    raise AmbiguousError(
      ("In more than one way can" if ways else "In no way do")
      + " the norms come after the layers"
      f" {', '.join(m.prefix for m in order)}. Write which comes after"
      f' which: {{"norm_behind": {{{names}}}}}'
    )
  places = dict(zip(rank, ways[0], strict=True))
  return [places[i] for i in range(len(norms))]


def _norm_lines(p, order, norms, layers):
  """Yields where names or the file put norms: after which layer, or None."""
  names = [m.prefix for m in order]
  # By the numbers of a Sequential: after the last layer of a lower number.
  lines: dict[str, list[Module]] = {}
  for module in sorted(layers, key=lambda m: naming.natural(m.prefix)):
    lines.setdefault(naming.stem(module.prefix), []).append(module)
  yield _last_before(lines.values(), names, norms)
  if p.framework in naming.ORDERED:
    yield _last_before([layers], names, norms)
  if p.framework not in naming.TRANSPOSED:  # conv1 and bn1, not Conv_0.
    yield [_same_number(p, norm, order) for norm in norms]


def _last_before(
  lines, names: list[str], norms: list[Module]
) -> list[int | None]:
  """The weights that norms follow within lines of layers."""
  places: dict[str, int] = {}
  for line in lines:
    last = None
    for module in line:
      if "weight" in module.parts:
        last = names.index(module.prefix)
      elif last is not None:
        places[module.prefix] = last
  return [places.get(norm.prefix) for norm in norms]


def _same_number(p: Player, norm: Module, order: list[Module]) -> int | None:
  """The only layer that has a norm's numbers in its name, and its width."""
  numbers = re.findall(r"\d+", norm.prefix)
  size = p.shapes[next(iter(norm.parts.values()))][0]
  matches = [
    place
    for place, module in enumerate(order)
    if numbers
    and re.findall(r"\d+", module.prefix) == numbers
    and p.kernel_shape(module.parts["weight"])[0] == size
  ]
  return matches[0] if len(matches) == 1 else None


def _ways(widths: list[int], sizes: list[int], start: int = 0):
  """Yields the ways to put norms after layers, in order, one for each."""
  if not sizes:
    yield []
    return
  for place in range(start, len(widths)):
    if widths[place] == sizes[0]:
      for rest in _ways(widths, sizes[1:], place + 1):
        yield [place, *rest]
