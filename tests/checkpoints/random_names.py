"""Names that people give the layers of a random network, by habit.

| habit | names |
|---|---|
| sequential, net | `0.weight`, `net.0.weight`: a `Sequential`, gaps and all |
| features | `features.0.weight`, `classifier.1.weight`: two of them |
| numbered | `conv1.weight`, `bn1.weight`, `fc1.weight` |
| lists | `convs.0.weight`, `norms.0.weight`: lists by kind |
| layers | `layers.0.weight`, `norms.0.weight`: one list of all layers |
| blocks | `blocks.0.conv1.weight`, `blocks.0.bn1.weight` |
| custom | `w1`, `b1`: parameters of one's own, matrices [in, out] |

What a habit cannot name (a skip in a `Sequential`) is `numbered`.
"""

import itertools

from tests.checkpoints.drawn import plans

TORCH = {
  **{"weight": "weight", "bias": "bias", "scale": "weight", "shift": "bias"},
  **{"mean": "running_mean", "var": "running_var"},
}
"""Parts as PyTorch calls them."""

LINES = ("sequential", "net", "features")


def is_line(network) -> bool:
  """Whether every node reads what the node before it gives, and no more."""
  return all(n.inputs == (i,) for i, n in enumerate(network.nodes))


def habit_of(network) -> str:
  """The plan's habit, or `numbered`."""
  habit = network.plan.habit
  if habit in LINES and not is_line(network):
    return "numbered"
  plain = all(m.kind in ("dense", *plans.NORMS) for m in network.modules)
  return "numbered" if habit == "custom" and not plain else habit


def prefixes(network, habit: str) -> dict[int, list[str]]:
  """Returns the names of every module; several if it is listed again."""
  if habit in LINES:
    return _line(network, habit)
  namer = _Namer(network, habit)
  names = {i: [namer.name(m)] for i, m in enumerate(network.modules)}
  kinds = [m.kind in plans.NORMS for m in network.modules]
  flat = [(kinds[i] and habit == "custom", *n) for i, n in names.items()]
  assert len(set(flat)) == len(flat), flat
  return names


def _line(network, habit: str) -> dict[int, list[str]]:
  """Numbers of a `Sequential`, or of two, the second behind the images."""
  names: dict[int, list[str]] = {}
  start = {"net": "net.", "features": "features."}.get(habit, "")
  number = 0
  last = max(i for i, n in enumerate(network.nodes) if n.op == "module")
  for place, node in enumerate(network.nodes):
    if habit == "features" and node.op in ("mean", "flatten"):
      start, number = "classifier.", -1
    if node.op == "module":
      name = f"{start}{number}"
      if habit == "features" and place == last and start == "features.":
        name = "classifier"
      names.setdefault(node.module, []).append(name)
    number += 1
  return names


class _Namer:
  """Counts modules by stem."""

  def __init__(self, network, habit: str):
    self.plan, self.habit, style = network.plan, habit, network.plan.style
    self.counts: dict[str, itertools.count] = {}
    self.word = style % 3  # of norms: bn, norm, batch_norm
    self.first = 0 if habit in ("lists", "layers") else style // 3 % 2
    self.head = ("head", "fc", "out", "")[style // 6 % 4]
    self.per = 2 if any(v.skip == 2 for v in self.plan.layers) else 1

  def count(self, stem: str) -> int:
    self.counts.setdefault(stem, itertools.count(self.first))
    return next(self.counts[stem])

  def norm(self, kind: str) -> str:
    short = {"batch": "bn", "layer": "ln", "group": "gn", "instance": "in"}
    return (short[kind], "norm", f"{kind}_norm")[self.word]

  def stem(self, module) -> str:
    if module.kind in plans.NORMS:
      return self.norm(module.kind)
    if module.part == "point":
      return "pw"
    return {"dense": "fc", "conv": "conv", "transposed": "deconv"}[module.kind]

  def name(self, module) -> str:
    """The module's name, by the habit."""
    if self.habit == "custom":
      return self.custom(module)
    if module.part == "entry":
      return f"{self.norm(module.kind)}_in" if self.word else "input_norm"
    if module.part == "head":
      if self.plan.head == "two":
        return ("mu", "logvar")[module.number]
      if self.head:
        return self.head
    if module.part in ("gate", "squeeze", "excite"):
      return self.gate(module)
    if module.part == "shortcut":
      block, place = divmod(module.number, self.per)
      inner = str(place + 1) if place + 1 < self.per else ""
      return {
        "lists": f"shortcuts.{self.count('shortcuts')}",
        "blocks": f"blocks.{block}.shortcut{inner}",
      }.get(self.habit, f"proj{module.number + self.first}")
    return getattr(self, self.habit)(module)

  def gate(self, module) -> str:
    """A layer beside another, or one of two that make a gate."""
    number = module.number + self.first
    if self.word == 0:
      return f"{module.part}{number}"
    if module.part == "gate":
      return f"{self.stem(module)}{number}b"
    return f"se{number}.fc{1 + (module.part == 'excite')}"

  def numbered(self, module) -> str:
    stem = self.stem(module)
    if self.plan.own:
      return f"{stem}{self.count(stem)}"
    last = len(self.plan.layers) if module.part == "head" else 0
    return f"{stem}{module.number + last + self.first}"

  def lists(self, module) -> str:
    if module.part == "head":
      return f"fcs.{self.count('fcs')}"
    stem = "norms" if module.kind in plans.NORMS else self.stem(module) + "s"
    return f"{stem}.{self.count(stem)}"

  def layers(self, module) -> str:
    stem = "norms" if module.kind in plans.NORMS else "layers"
    return f"{stem}.{self.count(stem)}"

  def blocks(self, module) -> str:
    if module.part == "head":
      return "head"
    block, place = divmod(module.number, self.per)
    number = f"{place + 1}" if self.per > 1 else ""
    return f"blocks.{block}.{self.stem(module)}{number}"

  def custom(self, module) -> str:
    """Numbers of flat parameters; see `custom_name`."""
    if module.part == "entry":
      return "0"
    if module.part == "gate":
      return f"g{module.number + 1}"
    if module.part == "shortcut":
      return f"s{module.number + 1}"
    if module.part == "head":
      return str(len(self.plan.layers) + 1 + module.number)
    return str(module.number + 1)


CUSTOM = {
  **{"weight": "w", "bias": "b", "scale": "gamma", "shift": "beta"},
  **{"mean": "mean", "var": "var"},
}


def order(network, habit: str) -> list[int]:
  """Modules in the order of definition."""
  modules = list(enumerate(network.modules))
  kind = lambda m: m.kind in plans.NORMS
  keys = {
    "use": lambda i, m: 0,
    "kinds": lambda i, m: kind(m),
    "head": lambda i, m: m.part != "head",
  }
  key = keys["use" if habit in LINES else network.plan.order]
  if habit in ("lists", "layers"):
    names = prefixes(network, habit)
    stems = {}
    for i, _ in modules:
      stems.setdefault(names[i][0].split(".")[0], len(stems))
    key = lambda i, m: stems[names[i][0].split(".")[0]]
  return [i for i, m in sorted(modules, key=lambda pair: key(*pair))]
