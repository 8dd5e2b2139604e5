"""Makes the modules of a random network, and the graph that joins them.

Dimensions: `N` inputs, `C` channels.
"""

import dataclasses
import math

import numpy as np

from tests.checkpoints.drawn.plans import Layer, Plan


@dataclasses.dataclass(frozen=True)
class Module:
  """Parameters of one layer.

  Attributes:
    kind: dense, conv, transposed, or a norm.
    part: layer, point (of a separable one), norm, gate, squeeze, excite,
      shortcut, head or entry.
    number: of the layer in the trunk, or of the head.
    params: "weight" [out, in, ...] (transposed: [in, out, ...]) and "bias", or
      of a norm "scale", "shift", "mean", "var".
    groups: of channels.
  """

  kind: str
  part: str
  number: int
  params: dict[str, np.ndarray]
  groups: int = 1


@dataclasses.dataclass(frozen=True)
class Node:
  """One step: value `i + 1` is what node `i` gives, value 0 the input.

  Attributes:
    op: module, act, sigmoid, add, mul, concat, pool, mean, mean_keep (places
      of size 1 stay), flatten or softmax.
    inputs: numbers of values.
    module: number of the module.
    shape: of the result, channels first, without `N`.
  """

  op: str
  inputs: tuple[int, ...]
  module: int = -1
  shape: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Network:
  """A plan's modules and graph; the last node gives the output."""

  plan: Plan
  modules: tuple[Module, ...]
  nodes: tuple[Node, ...]

  @property
  def input_shape(self) -> tuple[int, ...]:
    """Channels first, without `N`."""
    return (self.plan.channels,) + (self.plan.side,) * self.plan.rank


class _Builder:
  """Adds modules and nodes; values are (number, shape)."""

  def __init__(self, plan: Plan):
    self.plan, self.rng = plan, np.random.default_rng(plan.seed)
    self.modules: list[Module] = []
    self.nodes: list[Node] = []

  def node(self, op, shape, *values, module=-1):
    self.nodes.append(Node(op, tuple(v[0] for v in values), module, shape))
    return len(self.nodes), shape

  def normal(self, *shape, mean=0.0, by=1.0):
    return (mean + by * self.rng.normal(size=shape)).astype(np.float32)

  def add(self, *args, **kwargs) -> int:
    self.modules.append(Module(*args, **kwargs))
    return len(self.modules) - 1

  def layer(self, x, kind, part, number, width, size=1, bias=True, again=-1):
    """Applies a new layer, or module `again` once more."""
    into, *places = x[1]
    size = (size,) * len(places)
    groups, fan = 1, into * math.prod(size)
    if kind == "depthwise":
      groups, width = into, into * max(1, width // into)
    elif kind == "grouped":
      groups = 1 if into % 2 or width % 2 else 2
    if kind == "transposed":
      size, shape = (2,) * len(places), (into, width, *(2 for _ in places))
      places = [2 * n for n in places]
    else:
      shape = (width, into // groups, *size)
    if again < 0:
      params = {"weight": self.normal(*shape, by=1.4 / math.sqrt(fan / groups))}
      if bias:
        params["bias"] = self.normal(width, by=0.5)
      kind = kind if kind in ("dense", "transposed") else "conv"
      again = self.add(kind, part, number, params, groups)
    return self.node("module", (width, *places), x, module=again)

  def norm(self, x, kind, part, number):
    size = x[1][0]
    groups = {"group": 2, "layer": 1, "instance": size}.get(kind, 1)
    if kind == "instance" and len(x[1]) == 1 or size % groups:
      kind, groups = "layer", 1
    params = {}
    if kind != "plain":
      params["scale"] = self.normal(size, mean=1.0, by=0.4)
      params["shift"] = self.normal(size, by=0.5)
    if kind in ("batch", "plain"):
      params["mean"] = self.normal(size, by=0.5)
      params["var"] = self.rng.uniform(0.5, 1.5, size).astype(np.float32)
      kind = "batch"
    module = self.add(kind, part, number, params, groups)
    return self.node("module", x[1], x, module=module)

  def act(self, x):
    return self.node("act", x[1], x)

  def join(self, x):
    """From images to vectors."""
    if len(x[1]) == 1:
      return x
    if self.plan.flatten:
      return self.node("flatten", (math.prod(x[1]),), x)
    return self.node("mean", x[1][:1], x)


def build(plan: Plan) -> Network:
  """Makes the network that a plan describes; what cannot be is left out."""
  b = _Builder(plan)
  x = (0, (plan.channels,) + (plan.side,) * plan.rank)
  if plan.entry:
    x = b.norm(x, plan.entry, "entry", 0)
  begins, last = [], None
  for number, layer in enumerate(plan.layers):
    if layer.kind == "dense":
      x = b.join(x)
    begins.append(x)
    x, last = _trunk(b, x, layer, number, begins, last)
    if layer.pool and len(x[1]) > 1 and x[1][1] % 2 == 0:
      x = b.node("pool", (x[1][0], *(n // 2 for n in x[1][1:])), x)
  if plan.head == "conv" and len(x[1]) > 1:
    x = b.layer(x, "conv", "head", 0, 3)
  else:
    x = b.join(x)
    first = b.layer(x, "dense", "head", 0, 3)
    if plan.head == "two":
      second = b.layer(x, "dense", "head", 1, 3)
      first = b.node("concat", (6,), first, second)
    x = first
    if plan.softmax:
      b.node("softmax", x[1], x)
  return Network(plan, tuple(b.modules), tuple(b.nodes))


def _trunk(b: _Builder, x, layer: Layer, number: int, begins, last):
  """Adds one layer with norm, activation and skip."""
  image = len(x[1]) > 1
  kind = layer.kind if image else "dense"
  if layer.place == "before" and layer.norm and number:
    x = b.act(b.norm(x, layer.norm, "norm", number))
  into, given = x[1][0], x
  again = -1
  alike = (kind, into, layer.width, layer.size)
  if layer.shared and last and last[0] == alike and into == layer.width:
    again = last[1]
  if kind == "separable":
    x = b.layer(x, "depthwise", "layer", number, into, layer.size, False)
    x = b.layer(x, "conv", "point", number, layer.width, 1, layer.bias)
    last = None
  else:
    size = layer.size if image else 1
    x = b.layer(x, kind, "layer", number, layer.width, size, layer.bias, again)
    last = (alike, b.nodes[-1].module)
  if layer.place == "after" and layer.norm:
    x = b.norm(x, layer.norm, "norm", number)
  if layer.gate and kind != "transposed":
    x = _gate(b, x, given, layer, number)
  act = layer.place != "before" or not layer.norm
  if act and not b.plan.inside:
    x = b.act(x)
  if layer.skip and number - layer.skip + 1 >= 0:
    x = _skip(b, x, begins[number - layer.skip + 1], number)
  if act and b.plan.inside:
    x = b.act(x)
  if layer.place == "last" and layer.norm:
    x = b.norm(x, layer.norm, "norm", number)
  return x, last


def _gate(b: _Builder, x, given, layer: Layer, number: int):
  """Multiplies by a gate between 0 and 1."""
  width = x[1][0]
  kind = "conv" if len(x[1]) > 1 else "dense"
  if layer.gate == "glu":
    y = b.layer(given, kind, "gate", number, width, bias=layer.bias)
  elif kind == "dense":
    return x
  else:
    y = b.node("mean_keep", (width, *(1 for _ in x[1][1:])), x)
    y = b.act(b.layer(y, kind, "squeeze", number, width // 2))
    y = b.layer(y, kind, "excite", number, width)
  return b.node("mul", x[1], x, b.node("sigmoid", y[1], y))


def _skip(b: _Builder, x, start, number: int):
  """Joins an earlier value to `x`, where their shapes allow it."""
  if x[1][1:] != start[1][1:]:
    return x
  if b.plan.concat:
    shape = (start[1][0] + x[1][0], *x[1][1:])
    return b.node("concat", shape, start, x)
  if start[1] != x[1]:
    kind = "conv" if len(x[1]) > 1 else "dense"
    start = b.layer(start, kind, "shortcut", number, x[1][0], 1, False)
  return b.node("add", x[1], x, start)


def true_params(network: Network):
  """The arrays that `run` takes, as they were drawn."""
  return {
    (number, part): array
    for number, module in enumerate(network.modules)
    for part, array in module.params.items()
  }


def flattened(network: Network, last: bool) -> Network:
  """Returns a network that flattens images with channels last, or as it is."""
  nodes = tuple(
    dataclasses.replace(n, op="flatten_last")
    if last and n.op == "flatten"
    else n
    for n in network.nodes
  )
  return dataclasses.replace(network, nodes=nodes)
