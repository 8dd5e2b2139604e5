"""Plain networks: one layer after another, in an order that fits.

Layers are found by their tensors' names, and put in an order in which each
reads what the one before it gives: the order of the file where that fits,
else that of the numbers in names. Where several orders fit, or none, the error
says what to write down.

Shapes do not show skips. Layers numbered by a plain `Sequential` have none;
where a skip would fit and names do not rule it out, that is said as a guess.

Dimensions: `C` channels, `I` inputs of a dense layer.
"""

import itertools
import re
from collections.abc import Iterator, Sequence

from sne_jax.networks.inference import naming, norm_places
from sne_jax.networks.inference.inferred import AmbiguousError
from sne_jax.networks.inference.naming import Module
from sne_jax.networks.tracing.player import Mismatch, Player
from sne_jax.networks.tracing.tape import Value

_MOST_STEMS = 6


def play(p: Player) -> None:
  """Plays a plain network.

  Raises:
    AmbiguousError: no order of layers fits, or several do.
  """
  layers = [_named(p, m) for m in naming.modules(p.shapes)]
  weights = [m for m in layers if "weight" in m.parts]
  norms = [m for m in layers if "weight" not in m.parts]
  strange = [
    m.parts
    for m in layers
    if set(m.parts) - {"weight", "bias"} - _NORM or m.parts.keys() == {"bias"}
  ]
  if strange:
    names = ", ".join(n for parts in strange for n in parts.values())
    raise AmbiguousError(
      f"what these tensors do is not known: {names}. If they are no weights,"
      f' write {{"leave_out": [...]}}; {OPAQUE}'
    )
  if not weights:
    raise AmbiguousError(f"there are no layers among {', '.join(p.shapes)}")
  order = _order(p, weights)
  _refuse_other_kinds(p, layers)
  after = norm_places.after_layers(p, order, norms, layers)
  _play(p, order, after)


_NORM = {"norm_scale", "norm_shift", "norm_mean", "norm_var"}

OPAQUE = (
  "if the network is not a plain one, give its code to be traced, or write"
  ' {"opaque": true} to have no permutation claimed'
)


_OTHER_KINDS = re.compile(
  r"attn|attention|qkv|query|in_proj|lstm|gru|rnn|downsample|shortcut|skip"
  r"|resid|resnet|resblock|bottleneck|denseblock|gate|excite|upsample",
  re.IGNORECASE,
)


def _refuse_other_kinds(p: Player, layers: list[Module]) -> None:
  """Refuses names of parts that plain networks do not have."""
  prefixes = [m.prefix for m in layers if _OTHER_KINDS.search(m.prefix)]
  if prefixes and not (p.override.order or p.override.skips):
    raise AmbiguousError(
      f"the names {', '.join(prefixes[:4])} are not those of a plain network."
      f" {_order_hint([m for m in layers if 'weight' in m.parts])} if it is;"
      f" {OPAQUE}"
    )


def _named(p: Player, module: Module) -> Module:
  """Checks that a layer's tensors have the ranks of their parts."""
  for part, name in module.parts.items():
    rank = len(p.shapes[name])
    if (part == "weight") != (rank > 1):
      raise AmbiguousError(
        f"tensor {name!r} of shape {p.shapes[name]} is no {part} of a plain"
        f" layer; {OPAQUE}"
      )
  return module


def _order(p: Player, layers: list[Module]) -> list[Module]:
  """Returns the layers in the only order that fits."""
  by_name = {m.prefix: m for m in layers}
  wanted = p.override.order
  if wanted:
    if sorted(wanted) != sorted(by_name):
      raise ValueError(
        f"override: order must hold {', '.join(by_name)}, got"
        f" {', '.join(wanted)}"
      )
    order = [by_name[name] for name in wanted]
    if not _fits(p, order):
      raise AmbiguousError(f"the layers do not fit in the order {wanted}")
    return order
  orders: dict[tuple[str, ...], list[Module]] = {}
  in_file = p.framework in naming.ORDERED and _fits(p, layers)
  if in_file:
    orders[tuple(m.prefix for m in layers)] = layers
  for order in _candidates(layers):
    if _fits(p, order):
      orders[tuple(m.prefix for m in order)] = order
    if len(orders) > 1:
      break
  if in_file:
    if len(orders) > 1:
      p.guess(
        "the layers are in the order of the file; others would fit too."
        f" {_order_hint(layers)}"
      )
    return layers
  if not orders:
    shapes = ", ".join(
      f"{m.prefix} {p.shapes[m.parts['weight']]}" for m in layers
    )
    raise AmbiguousError(
      f"in no order do the layers read what the one before gives: {shapes}."
      f" {_order_hint(layers)}; {OPAQUE}"
    )
  if len(orders) > 1:
    one, other = (" ".join(key) for key in list(orders)[:2])
    raise AmbiguousError(
      f"the layers fit in more than one order ({one}, or {other})."
      f" {_order_hint(layers)}"
    )
  order = next(iter(orders.values()))
  _say_order(p, order)
  return order


def _order_hint(layers: Sequence[Module]) -> str:
  names = ", ".join(f'"{m.prefix}"' for m in layers)
  return f'Write the right one: {{"order": [{names}]}}'


def _say_order(p: Player, order: list[Module]) -> None:
  stems = {naming.stem(m.prefix) for m in order}
  if len(stems) > 1:
    p.guess(
      "order of layers by shapes and numbers in names:"
      f' {", ".join(m.prefix for m in order)}; {{"order": [...]}} settles it'
    )


def _candidates(layers: list[Module]) -> Iterator[list[Module]]:
  """Orders in which layers of one stem follow their numbers."""
  stems: dict[str, list[Module]] = {}
  for module in sorted(layers, key=lambda m: naming.natural(m.prefix)):
    stems.setdefault(naming.stem(module.prefix), []).append(module)
  if len(stems) > _MOST_STEMS:
    yield sorted(layers, key=lambda m: naming.natural(m.prefix))
    return
  for order in itertools.permutations(stems.values()):
    yield [module for stem in order for module in stem]


def _kernel_shape(p: Player, module: Module) -> tuple[int, ...]:
  """Returns `[out, in, ...]` of a layer's kernel."""
  return p.kernel_shape(module.parts["weight"])


def _fits(p: Player, order: list[Module]) -> bool:
  """Whether each layer can read what the one before it gives."""
  shapes = [_kernel_shape(p, m) for m in order]
  return all(_reads(a, b) for a, b in itertools.pairwise(shapes))


def _reads(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
  """Whether a layer of shape `after` can read what `before` gives."""
  have, _, *image = before
  outputs, wanted, *places = after
  if places:  # A convolution, perhaps of groups of channels.
    groups, rest = divmod(have, wanted)
    return bool(image) and not rest and groups > 0 and outputs % groups == 0
  return wanted % have == 0 if image else wanted == have


def _play(p: Player, order: list[Module], after: dict[str, list[Module]]):
  """Plays the layers in order, with their norms and the override's skips."""
  first = _kernel_shape(p, order[0])
  rank = len(first)
  x = p.tape.input((1, first[1], *((1,) * (rank - 2))))
  given: dict[str, Value] = {}
  sources = {
    name: {a for a, b in p.override.skips if b == name}
    for _, name in p.override.skips
  }
  unknown = {n for pair in p.override.skips for n in pair} - {
    m.prefix for m in order
  }
  if unknown:
    raise ValueError(
      f"override: skips name {', '.join(sorted(unknown))}; layers are"
      f" {', '.join(m.prefix for m in order)}"
    )
  for number, module in enumerate(order):
    weight, bias = module.parts["weight"], module.parts.get("bias")
    if len(_kernel_shape(p, module)) > 2:
      _check_groups(p, x, module)
      x = p.conv(x, weight, bias)
    else:
      if len(x.shape) > 2:
        x = _flatten(p, x, _kernel_shape(p, module)[1], module)
      x = p.linear(x, weight, bias)
    for norm in after.get(module.prefix, ()):
      x = _norm(p, x, norm)
    for source in sorted(sources.get(module.prefix, ())):
      x = p.add(x, given[source])
    if number < len(order) - 1:
      x = p.activate(x)
    given[module.prefix] = x
  p.tape.output(x)
  if not p.override.skips:
    _say_skips(p, order)


def _check_groups(p: Player, x: Value, module: Module) -> None:
  """Says that channels are convolved in groups; claims nothing but by hand.

  A layer that reads fewer channels than there are may do so for other
  reasons, such as gates or pixels shuffled into channels.
  """
  shape = _kernel_shape(p, module)
  groups = x.shape[1] // shape[1]
  if groups == 1 or p.override.groups.get(module.prefix) == groups:
    return
  hint = f'{{"groups": {{"{module.prefix}": {groups}}}}}'
  if shape[1] == 1 and shape[0] == x.shape[1]:
    p.guess(f"{module.prefix!r} convolves each channel alone; {hint} says so")
    return
  p.tape.axes.pin(
    x.axes[1],
    f"{module.prefix!r} reads {shape[1]} of {x.shape[1]} channels; {hint}"
    " says that they are groups",
  )


def _flatten(p: Player, x: Value, inputs: int, module: Module) -> Value:
  """Turns an image into what the dense layer after it reads."""
  places = inputs // x.shape[1]
  if places == 1:
    return p.tape.reshape(x, (1, x.shape[1]))
  if p.override.places and p.override.places != places:
    raise Mismatch(f"{inputs} inputs are {places} places per channel")
  usual = p.framework in naming.TRANSPOSED or (
    module.parts["weight"].endswith("kernel")
  )
  way = p.override.flatten or ("channels_last" if usual else "channels_first")
  x = p.tape.spatial(
    p.tape.reshape(x, (1, x.shape[1], 1)), (1, x.shape[1], places)
  )
  p.guess(
    f"{inputs} inputs of {module.prefix!r} are {x.shape[1]} channels of"
    f' {places} places, {way}; {{"flatten": "..."}} settles it'
  )
  if way == "channels_last":
    x = p.tape.transpose(x, (0, 2, 1))
  return p.tape.reshape(x, (1, inputs))


def _norm(p: Player, x: Value, norm: Module) -> Value:
  """Plays a norm; one of unknown groups claims no permutation."""
  if "norm_mean" in norm.parts:
    return p.batch_norm(x, norm.parts)
  image = len(x.shape) > 2
  groups = p.override.norm_groups.get(norm.prefix)
  word = norm.prefix.lower()
  layer_norm = "layer" in word or re.search(r"(^|[./_])ln", word)
  if groups is None and image and not (layer_norm or "instance" in word):
    p.tape.axes.pin(
      x.axes[1],
      f"the groups of norm {norm.prefix!r} are not known; write"
      f' {{"norm_groups": {{"{norm.prefix}": ...}}}}, 1 for a layer norm',
    )
  return p.norm(x, norm.parts, (1,), groups)


def _say_skips(p: Player, order: list[Module]) -> None:
  """Notes that skips would fit, unless names are those of a Sequential."""
  if all(re.fullmatch(r"\d+", m.prefix) for m in order):
    return
  widths = [_kernel_shape(p, m)[0] for m in order[:-1]]
  pairs = [
    (order[a].prefix, order[b].prefix)
    for a, b in itertools.combinations(range(len(widths)), 2)
    if widths[a] == widths[b]
  ]
  if pairs:
    p.guess(
      "no skips, as in a plain network, though layers of one width could have"
      f' them; {{"skips": [["{pairs[0][0]}", "{pairs[0][1]}"]]}} would say'
      " what is added to what"
    )
