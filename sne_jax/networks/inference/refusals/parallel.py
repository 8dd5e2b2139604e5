"""Recognises layers that stand side by side, where a chain would also fit.

Dimensions: none; shapes are tuples of sizes.
"""

import itertools
import re

from sne_jax.networks.inference.refusals.seen import (
  OPAQUE,
  Layer,
  Refusal,
  Seen,
  listed,
  tokens,
)

_FAMILIES: tuple[tuple[frozenset[str], ...], ...] = tuple(
  tuple(frozenset(words.split()) for words in family)
  for family in (
    # Mean and spread of a distribution.
    (
      "mu mean means loc",
      "logvar var variance sigma std logstd logsigma stddev lnvar logstddev"
      " precision covariance cov scale",
    ),
    # What to do, and what it is worth.
    (
      "policy actor pi action actions probs",
      "value values critic v vf baseline",
      "advantage adv advantages",
      "reward rewards",
    ),
    # What it is, and where.
    (
      "cls class classes classifier score scores label logits",
      "bbox box boxes reg regression regressor offset offsets loc centerness",
    ),
    (
      "query queries q qs wq wqs toq toquery toqueries",
      "key keys k ks wk wks tok tokey tokeys",
      "value values v vs wv wvs tov tovalue tovalues",
    ),
    ("theta", "phi"),
    ("v value", "a advantage"),
    ("pi", "q qf"),
    ("start", "end"),
    # Two inputs, or two ways from one.
    ("l lhs", "r rhs"),
    ("src source", "dst dest target"),
    ("rel", "root"),
    ("self", "neigh neighbor neighbors"),
    ("wide", "deep"),
    ("gmf", "mlp"),
    ("rgb", "flow depth"),
    ("state obs observation", "action act"),
    ("user", "item movie product"),
    ("spatial", "temporal"),
    ("local", "global"),
    ("slow low", "fast high"),
    ("content", "style"),
    ("trunk", "branch"),
    ("left", "right"),
    ("fwd forward", "bwd backward"),
    ("alpha", "beta"),
    ("amplitude amp magnitude", "phase"),
    ("cos", "sin"),
    ("age", "gender sex", "race ethnicity"),
  )
)
_OUTPUTS = frozenset(
  ("head", "heads", "out", "output", "outputs", "classifier", "predictor")
  + ("pred", "prediction", "readout", "logits", "task", "aux", "auxiliary")
)
_BRANCHES = frozenset(
  ("branch", "branches", "tower", "towers", "stream", "streams", "expert")
  + ("experts", "parallel", "side", "path", "paths", "aspp", "fpn")
  + ("lateral", "inner")
)
_SIDE = frozenset(
  ("time", "timestep", "temb", "cond", "condition", "conditioning", "film")
  + ("hyper", "hypernet", "bypass", "skip", "shortcut", "residual", "aux")
  + ("auxiliary", "projection_shortcut")
)
"""Words of layers that read something else than the layer before them."""

_LISTS = frozenset(
  ("heads", "branches", "experts", "towers", "streams", "outputs", "outs")
  + ("classifiers", "predictors", "readouts", "tasks", "paths", "outs")
)

_ORDER = (
  f"{OPAQUE}; if they are one chain, name the layers in its order:"
  ' {"order": [...]}'
)


def heads(seen: Seen) -> Refusal | None:
  """Outputs that read the same layer, of one width or not."""
  names = _of_families(seen) or _of_outputs(seen) or _of_decimals(seen)
  if not names:
    return None
  return Refusal(
    f"{listed(names)} may stand side by side and read the same layer, where"
    " shapes would let one read the other",
    _ORDER,
  )


def _of_families(seen: Seen) -> list[str]:
  """Layers whose names belong together, such as mu and logvar."""
  for family in _FAMILIES:
    found: list[tuple[tuple[str, ...], str]] = []
    for words in family:
      layer = next((x for x in seen.layers if x.tokens & words), None)
      if layer is not None and layer.lead not in [lead for lead, _ in found]:
        found.append((layer.lead, layer.name))
    if len(found) > 1:
      return [name for _, name in found]
  return []


def _of_outputs(seen: Seen) -> list[str]:
  """Several layers of one parent that are each called an output."""
  by_parent: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
  for layer in seen.layers:
    if layer.tokens & _OUTPUTS:
      by_parent.setdefault(layer.lead[:-1], {})[layer.lead] = layer.name
  for leads in by_parent.values():
    if len(leads) > 1:
      return list(leads.values())
  return []


def _of_decimals(seen: Seen) -> list[str]:
  """Layers numbered as 2.1 and 2.2: fc1, fc21, fc22, fc3."""
  stems: dict[tuple[str, ...], dict[int, str]] = {}
  for layer in seen.layers:
    match = re.fullmatch(r"(.*\D)(\d+)", layer.path[-1]) if layer.path else None
    if match:
      stem = (*layer.path[:-1], match[1])
      stems.setdefault(stem, {})[int(match[2])] = layer.name
  for numbers in stems.values():
    for ten in range(1, 10):
      one, two = 10 * ten + 1, 10 * ten + 2
      between = not all(n in numbers for n in range(ten + 1, one))
      if one in numbers and two in numbers and between:
        return [numbers[one], numbers[two]]
  return []


def stacked(seen: Seen) -> Refusal | None:
  """Layers of several networks, as matrices along a first axis of theirs."""
  shapes = list(seen.matrices.values())
  if len(shapes) < 2 or {len(s) for s in shapes} != {3}:
    return None
  if len({s[0] for s in shapes}) > 1 or len(shapes) < len(seen.shapes):
    return None  # Biases of one axis are of convolutions.
  pairs = list(itertools.pairwise(shapes))
  chained = all(a[2] == b[1] for a, b in pairs)
  if not chained and not all(a[1] == b[2] for a, b in pairs):
    return None
  return Refusal(
    f"{listed(seen.matrices)} may be those of {shapes[0][0]} networks, one"
    " behind the other along the first axis, where shapes would let them be"
    " convolutions",
    _ORDER,
  )


def _side(layer: Layer) -> bool:
  return any(_SIDE & set(tokens(word)) for word in layer.lead)


def _second(layer: Layer, paths: set[tuple[str, ...]]) -> bool:
  """Whether a layer is a `fc2b` where there is no `fc2a`."""
  last = layer.path[-1] if layer.path else ""
  pair = re.fullmatch(r"(.*\d_?)([bB])", last)
  first = {"b": "a", "B": "A"}
  return pair is not None and (
    (*layer.path[:-1], pair[1] + first[pair[2]]) not in paths
  )


def _projection(layer: Layer, paths: set[tuple[str, ...]]) -> bool:
  """Whether a layer is a `proj2` beside a layer of the same number."""
  last = layer.path[-1] if layer.path else ""
  match = re.fullmatch(r"(?:proj|projection)_?(\d+)", last, re.IGNORECASE)
  return match is not None and any(
    path != layer.path and re.search(rf"(^|\D){match[1]}$", path[-1])
    for path in paths
    if path
  )


def branches(seen: Seen) -> Refusal | None:
  """Ways that are added or put beside each other where they meet."""
  found: dict[tuple[str, ...], str] = {}
  for layer in seen.layers:
    for place, word in enumerate(layer.path):
      numbered = place + 1 < len(layer.path) and (
        layer.path[place + 1].isdecimal() and word.lower() in _LISTS
      )
      if numbered or _BRANCHES & set(tokens(word)):
        found.setdefault(layer.path[: place + 1 + numbered], layer.name)
        break
  paths = {layer.path for layer in seen.layers}
  side = [
    layer.name
    for layer in seen.layers
    if _side(layer) or _second(layer, paths) or _projection(layer, paths)
  ]
  if side and len(side) < len(seen.layers):
    return Refusal(
      f"{listed(side)} may read something else than the layer before: no link"
      " of a chain for certain",
      _ORDER,
    )
  if len(found) < 2:
    return None
  return Refusal(
    f"{listed(found.values())} are of branches, which read the same: no chain"
    " of layers"
  )
