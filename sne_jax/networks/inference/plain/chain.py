"""Plain networks: one layer after another.

Layers are found by their tensors' names; `readings.py` puts them in order,
`norm_places.py` puts norms between them, `flattening.py` flattens images, and
`ties.py` says which neurons surely move by themselves. Where names and shapes
leave something open, the error or the note says what to write down.

Dimensions: none.
"""

import re

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.inferred import AmbiguousError
from sne_jax.networks.inference.naming import Module
from sne_jax.networks.inference.plain import (
  flattening,
  norm_places,
  readings,
)
from sne_jax.networks.inference.plain.readings import OPAQUE, Reading, as_json
from sne_jax.networks.inference.plain.ties import Ties
from sne_jax.networks.tracing.player import Player
from sne_jax.networks.tracing.tape import Value

_NORM = {"norm_scale", "norm_shift", "norm_mean", "norm_var"}

_OTHER_KINDS = re.compile(
  r"attn|attention|qkv|query|in_proj|lstm|gru|rnn|downsample|shortcut|skip"
  r"|resid|resnet|resblock|bottleneck|denseblock|gate|excite|upsample"
  r"|embed|(^|[./_])(emb|wte|wpe)([./_\d]|$)|patch|token|mixer|mixing",
  re.IGNORECASE,
)

_ALIKE = re.compile(
  r"((layer|rms|instance)_?norm(alization)?|ln|ln_?f)s?[_\d]*", re.IGNORECASE
)
"""Names of norms that treat all channels alike; those of groups do not."""

_APART = re.compile(
  r"depth_?wise|separable|group(ed)?_?conv|(^|[./_\d])dw", re.IGNORECASE
)
"""Names of layers that convolve groups of channels, or each alone."""

_COUNTED = re.compile(r"batch_?norm(alization)?[_\d]*", re.IGNORECASE)
"""Names that a framework makes of a layer's kind. Of PyTorch they are free, and
norms of groups are often called so."""


def play(p: Player) -> None:
  """Plays a plain network.

  Raises:
    AmbiguousError: names and shapes do not settle what it is.
    Mismatch: they contradict each other.
  """
  modules, reading = _read(p)
  copies = naming.copies(p.shapes, p.read) if p.read else {}
  if copies:
    p.tie(copies)
    p.guesses.clear()
    modules, reading = _read(p)
  p.layouts |= reading.way.layouts
  norms = []
  for module in modules:
    if "weight" in module.parts:
      continue
    if _is_number(p, module, reading):
      reason = "a single number, the same for all neurons"
      p.left_out |= dict.fromkeys(module.parts.values(), reason)
    else:
      norms.append(module)
  places = norm_places.places(p, reading, norms, modules)
  _play(p, reading, places, Ties(p, reading, modules))


def _read(p: Player) -> tuple[list[Module], Reading]:
  """Returns layers and norms, and the order and layouts of the layers."""
  modules = [_checked(p, m) for m in _modules(p)]
  layers = [m for m in modules if "weight" in m.parts]
  if not layers:
    raise AmbiguousError(f"there are no layers among {', '.join(p.shapes)}")
  reading = readings.find(p, layers)
  _refuse_other_kinds(p, reading, modules)
  return modules, reading


def _modules(p: Player) -> list[Module]:
  """Returns layers and norms; what has no axes is left out.

  Raises:
    AmbiguousError: there are tensors of other kinds.
  """
  kept, strange = [], []
  for module in naming.modules(p.everything):
    names = [*module.parts.values()]
    if () in map(p.shape, names):
      reason = "a single number, the same for all neurons"
      p.left_out |= dict.fromkeys(names, reason)
    elif module.parts.keys() - {"weight", "bias"} - _NORM or (
      module.parts.keys() == {"bias"}
    ):
      strange += names
    else:
      kept.append(module)
  if strange:
    out = as_json(leave_out=[*p.override.leave_out, *strange])
    raise AmbiguousError(
      f"what these tensors do is not known: {', '.join(strange)}. If they are"
      f" no weights, write {out}; {OPAQUE}"
    )
  return kept


def _is_number(p: Player, module: Module, reading: Reading) -> bool:
  """Whether what looks like a scale is one number for all neurons."""
  shapes = {p.shape(name) for name in module.parts.values()}
  scale = module.parts.keys() == {"norm_scale"}
  return scale and shapes == {(1,)} and 1 not in reading.way.widths[1:-1]


def _checked(p: Player, module: Module) -> Module:
  """Checks that a layer's tensors have the ranks of their parts."""
  for part, name in module.parts.items():
    rank = len(p.shape(name))
    if (part == "weight") != (rank > 1):
      raise AmbiguousError(
        f"tensor {name!r} of shape {p.shape(name)} is no {part} of a plain"
        f" layer; {OPAQUE}"
      )
  return module


def _refuse_other_kinds(
  p: Player, reading: Reading, modules: list[Module]
) -> None:
  """Refuses names of parts that plain networks do not have."""
  prefixes = [m.prefix for m in modules if _OTHER_KINDS.search(m.prefix)]
  if prefixes and not (p.override.order or p.override.skips):
    order = as_json(order=[m.prefix for m in reading.order])
    raise AmbiguousError(
      f"the names {', '.join(prefixes[:4])} are not those of a plain network;"
      f" if it is one, write its layers in order: {order}; {OPAQUE}"
    )


def _play(
  p: Player,
  reading: Reading,
  norms: dict[int, list[Module]],
  ties: Ties,
) -> None:
  """Plays the layers in order, with their norms and the override's skips."""
  order = reading.order
  first = p.kernel_shape(order[0].parts["weight"])
  inputs = reading.way.widths[0]
  x = p.tape.input((1, inputs, *((1,) * (len(first) - 2))))
  given: dict[str, Value] = {}
  images = [x]
  sources = _sources(p, order)
  for norm in norms.get(0, ()):
    x = _norm(p, x, norm)
  grouped = ""
  for number, module in enumerate(order):
    heard = x
    dense = len(p.shape(module.parts["weight"])) == 2
    if dense and len(x.shape) > 2:
      before = order[number - 1] if number else None
      earlier = [] if ties.are_listed(number) else images[:-1]
      x = flattening.flatten(p, x, module, before, earlier)
    after = order[number + 1] if number + 1 < len(order) else None
    x = _layer(p, x, module, after)
    grouped = _doubt_shuffle(p, heard, module, grouped)
    for norm in norms.get(number + 1, ()):
      x = _norm(p, x, norm)
    for source in sources.get(module.prefix, ()):
      x = p.add(x, given[source])
    ties.swap(heard, x, module.parts["weight"])
    if number < len(order) - 1:
      ties.settle(x, number)
      x = p.activate(x)
    given[module.prefix] = x
    images.append(x)
  p.tape.output(x)
  ties.say()


def _sources(p: Player, order: list[Module]) -> dict[str, list[str]]:
  """The layers whose results the override adds to that of a layer."""
  names = [m.prefix for m in order]
  sources: dict[str, list[str]] = {}
  for source, target in sorted(set(p.override.skips or ())):
    if {source, target} - set(names) or (
      names.index(source) >= names.index(target)
    ):
      raise ValueError(
        f"override: skips lead from a layer to a later one, not from"
        f" {source!r} to {target!r}; layers are {', '.join(names)}"
      )
    sources.setdefault(target, []).append(source)
  return sources


def _layer(p: Player, x: Value, module: Module, reader: Module | None) -> Value:
  """Plays a dense layer or a convolution; `reader` is the next one."""
  weight, bias = module.parts["weight"], module.parts.get("bias")
  shape = p.kernel_shape(weight)
  if len(shape) == 2:
    return p.linear(x, weight, bias)
  groups = x.shape[1] // shape[1]
  y = p.conv(x, weight, bias)
  if groups == 1:
    if x.level == -1:
      _doubt_first(p, y, module, reader)
  elif p.override.groups.get(module.prefix) != groups:
    _doubt_groups(p, x, y, shape, module)
  return y


def _doubt_first(
  p: Player, y: Value, module: Module, reader: Module | None
) -> None:
  """Says that a first convolution is taken to read all channels at once.

  A kernel of `[O, I, ...]` may as well convolve groups of `I` channels, which
  no shape shows. Where it looks so, nothing is claimed. A transposed one of
  groups has more outputs than its kernel shows: a bias, or a reader of all
  channels, says that it is none.
  """
  outputs, inputs, *places = p.kernel_shape(module.parts["weight"])
  if outputs == 1 or module.prefix in p.override.groups:
    return
  alone = as_json(groups={module.prefix: 1})
  swapped = ("transposed", "out_in_last")
  if p.layout(module.parts["weight"]) in swapped:
    last = reader.parts["weight"] if reader else ""
    sure = not last or len(p.shape(last)) == 2 or p.layout(last) in swapped
    if not sure and "bias" not in module.parts:
      p.guess(
        f"{module.prefix!r}, a transposed convolution, is taken to read its"
        f" {inputs} channels at once: {alone} settles it"
      )
    return
  groups = next(n for n in range(2, outputs + 1) if outputs % n == 0)
  apart = as_json(groups={module.prefix: outputs if inputs == 1 else groups})
  after = p.kernel_shape(reader.parts["weight"])[1:] if reader else ()
  follows = len(after) > 1 and (set(after[1:]) == {1} or after[0] < outputs)
  like_one_channel = outputs > 4 and set(places) != {1}
  if _APART.search(module.prefix) or (
    inputs == 1 and (follows or not like_one_channel)
  ):
    p.tape.axes.pin(
      y.axes[1],
      f"{module.prefix!r}, which is the first layer, may convolve its channels"
      f" in groups: {alone} says that it does not, {apart} in how many",
    )
    return
  p.guess(
    f"{module.prefix!r} reads {inputs} channel{'s' * (inputs > 1)}, as many as"
    f" the inputs have: {alone} settles it; if it convolves groups of"
    f" channels, write their number, such as {apart}"
  )


def _doubt_groups(p: Player, x: Value, y: Value, shape, module) -> None:
  """Says that channels are convolved in groups; claims nothing but by hand.

  A layer that reads fewer channels than there are may do so for other
  reasons, such as gates or pixels shuffled into channels.
  """
  groups = x.shape[1] // shape[1]
  hint = as_json(groups={module.prefix: groups})
  if shape[1] == 1 and shape[0] == x.shape[1]:
    p.guess(f"{module.prefix!r} convolves each channel alone; {hint} says so")
    return
  reason = (
    f"{module.prefix!r} reads {shape[1]} of {x.shape[1]} channels; {hint}"
    " says that they are groups"
  )
  p.tape.axes.pin(x.axes[1], reason)
  p.tape.axes.pin(y.axes[1], reason)


def _doubt_shuffle(p: Player, x: Value, module: Module, grouped: str) -> str:
  """Claims nothing between two convolutions of groups of channels.

  Channels are often shuffled there, or else groups would never meet; a shuffle
  has no tensors. One that convolves each channel alone may lie between.

  Args:
    p: the player.
    x: what the layer reads.
    module: the layer.
    grouped: the convolution of groups that is so before this layer; "" if none.

  Returns:
    That of the next layer.
  """
  shape = p.kernel_shape(module.parts["weight"])
  if len(shape) > 2 and shape[1] == 1 < x.shape[1]:
    return grouped
  if len(shape) < 3 or shape[1] == x.shape[1]:
    return ""
  if grouped:
    p.tape.axes.pin(
      x.axes[1],
      f"channels may be shuffled between {grouped!r} and {module.prefix!r},"
      " both of groups, which no name or shape shows; code that is traced shows"
      " it",
    )
  return module.prefix


def _norm(p: Player, x: Value, norm: Module) -> Value:
  """Plays a norm; one of unknown groups claims no permutation."""
  if "norm_mean" in norm.parts or "norm_var" in norm.parts:
    return p.batch_norm(x, norm.parts)
  groups = p.override.norm_groups.get(norm.prefix)
  words = [w for w in re.split(r"[./]", norm.prefix) if not w.isdigit()]
  last = words[-1] if words else ""
  said = _ALIKE.fullmatch(last) or (
    p.framework in naming.TRANSPOSED and _COUNTED.fullmatch(last)
  )
  # A norm of groups has a scale and a shift.
  if groups is None and not said and len(norm.parts) > 1:
    p.tape.axes.pin(
      x.axes[1],
      f"the groups of norm {norm.prefix!r} are not known; write"
      f" {as_json(norm_groups={norm.prefix: 1})} for a layer norm, or how many"
      " there are",
    )
  return p.norm(x, norm.parts, (1,), groups)
