"""Random networks, and what is said of their files: is a claim ever false?

    python -m tests.checkpoints.random_networks --count=2000 --seed=0

A `Plan` says what a network is like, in few words; `build` makes modules and
the graph that joins them, `run` is the one forward function, in plain numpy.
`random_files.py` writes a network in every container; `judge` reads a file and
holds what the reader claims against `run`. A plan whose file is read wrongly is
made smaller (`smaller`) while it stays wrong.

Dimensions: `N` inputs, `C` channels, `P` weights.
"""

import argparse
import collections
import dataclasses
import math
import pathlib
import tempfile
import time
import traceback

import numpy as np
from absl import logging

from sne_jax import checkpoints, errors
from sne_jax.networks import inference, symmetry
from sne_jax.networks.inference import assembly
from sne_jax.networks.inference.override import Override
from sne_jax.networks.tracing import operations
from sne_jax.networks.tracing.player import Player

INPUTS = 3
EPSILON = 1e-3
NORMS = ("batch", "layer", "group", "instance")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
  """One layer of the trunk, with its norm and skip.

  Attributes:
    kind: dense, conv, depthwise, grouped, separable or transposed; what does
      not fit where it stands is a plain layer.
    width: units; depthwise layers have a multiple of their inputs.
    norm: "", or one of `NORMS`.
    place: of the norm: before (norm, activation, layer), after (layer, norm,
      activation) or last (layer, activation, norm).
    bias: of the layer.
    skip: what so many layers before began with is joined to the result.
    shared: the layer before it, once more, if shapes allow it.
    pool: by two, in images.
    gate: what the layer gives is multiplied: by a layer beside it (glu), or,
      in images, by what two layers make of the mean (excite).
    size: of a kernel.
  """

  kind: str = "dense"
  width: int = 4
  norm: str = ""
  place: str = "after"
  bias: bool = True
  skip: int = 0
  shared: bool = False
  pool: bool = False
  gate: str = ""
  size: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """A network, and how it is written down.

  Attributes:
    seed: of the numbers.
    layers: the trunk.
    rank: 0 for vectors, 1 for sequences, 2 for images.
    channels: of the input.
    side: places along an axis of images, even.
    flatten: images at the end of the convolutions, or the mean over places.
    head: dense; two (side by side); conv.
    softmax: behind the head.
    activation: of all layers.
    inside: whether skips are joined before the activation.
    concat: whether skips are concatenated.
    entry: a norm of the inputs: "", batch, or plain (without scale and shift).
    habit: of names; see `random_files.py`.
    order: of definition: use, kinds (norms behind all layers) or head (first).
    own: whether norms are counted by themselves.
    style: whole number that writers take their own choices from.
  """

  seed: int = 0
  layers: tuple[Layer, ...] = (Layer(),)
  rank: int = 0
  channels: int = 3
  side: int = 4
  flatten: bool = False
  head: str = "dense"
  softmax: bool = False
  activation: str = "relu"
  inside: bool = True
  concat: bool = False
  entry: str = ""
  habit: str = "sequential"
  order: str = "use"
  own: bool = False
  style: int = 0


HABITS = (
  *("sequential", "net", "features", "numbered", "lists", "layers"),
  *("blocks", "custom"),
)


def draw(seed: int) -> Plan:
  """Returns a random plan."""
  rng = np.random.default_rng(seed)
  one = lambda *options: options[rng.integers(len(options))]
  rank = int(one(0, 0, 1, 2, 2))
  depth = int(one(1, 2, 2, 3, 3, 4, 5))
  equal, alike = rng.random() < 0.5, rng.random() < 0.6
  width = int(one(4, 6, 8))
  norms = ("",) if rng.random() < 0.35 else (one(*NORMS, "batch"),)
  norms += ("",) * bool(rng.random() < 0.3)
  places = (one("after", "after", "before", "last"),)
  skips = (0,) if rng.random() < 0.5 else (0, one(1, 1, 2))
  special = one("", "", "depthwise", "grouped", "transposed", "separable")
  dense_from = depth if rank == 0 else int(rng.integers(1, depth + 1))
  bias = rng.random() < 0.75
  gates = ("",) if rng.random() < 0.85 else ("", "glu", "excite")
  layers = []
  for number in range(depth):
    kind = "conv" if rank and number < dense_from else "dense"
    if kind == "conv" and special and rng.random() < 0.6:
      kind = special
    layers.append(
      Layer(
        kind=kind,
        width=width if equal else int(one(4, 6, 8)),
        norm=one(*norms),
        place=one(*places) if alike else one("after", "before", "last"),
        bias=bool(bias if alike else rng.random() < 0.7),
        skip=int(one(*skips)),
        shared=bool(rng.random() < 0.12),
        pool=bool(rng.random() < 0.2),
        gate=one(*gates),
        size=int(one(1, 3)),
      )
    )
  return Plan(
    seed=seed,
    layers=tuple(layers),
    rank=rank,
    channels=int(one(1, 3, 4, width)),
    side=int(one(4, 4, 6)),
    flatten=bool(rng.random() < 0.4),
    head=one(*("dense",) * 6, "two", "conv"),
    softmax=bool(rng.random() < 0.2),
    activation=one("relu", "relu", "tanh", "silu"),
    inside=bool(rng.random() < 0.5),
    concat=bool(rng.random() < 0.15),
    entry=one(*("",) * 8, "batch", "plain"),
    habit=one(*HABITS),
    order=one("use", "use", "kinds", "head"),
    own=bool(rng.random() < 0.5),
    style=int(rng.integers(1 << 20)),
  )


def smaller(plan: Plan):
  """Yields plans that are a little simpler."""
  for number in range(len(plan.layers)):
    if len(plan.layers) > 1:
      rest = plan.layers[:number] + plan.layers[number + 1 :]
      yield dataclasses.replace(plan, layers=rest)
  for field in dataclasses.fields(plan):
    fixed = field.name in ("seed", "layers", "habit", "style")
    if not fixed and getattr(plan, field.name) != field.default:
      yield dataclasses.replace(plan, **{field.name: field.default})
  for number, layer in enumerate(plan.layers):
    for field in dataclasses.fields(layer):
      default = field.default
      if field.name == "kind" and layer.kind != "dense":
        default = "conv"
      if getattr(layer, field.name) != default:
        simple = dataclasses.replace(layer, **{field.name: default})
        layers = (*plan.layers[:number], simple, *plan.layers[number + 1 :])
        yield dataclasses.replace(plan, layers=layers)


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


def run(network: Network, params, x):
  """The true network in plain numpy, float64.

  Args:
    network: its graph.
    params: arrays by (number of module, part), as `Module.params`.
    x: `[N, C, ...]`.
  """
  values = [np.asarray(x, np.float64)]
  for node in network.nodes:
    given = [values[i] for i in node.inputs]
    values.append(_step(network, node, params, *given))
  return values[-1]


def _step(network: Network, node: Node, params, x, *more):
  """Returns what one node gives."""
  places = tuple(range(2, x.ndim))
  if node.op == "act":
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    return {
      "relu": lambda v: np.maximum(v, 0),
      "tanh": np.tanh,
      "silu": lambda v: v * sigmoid(v),
    }[network.plan.activation](x)
  if node.op == "sigmoid":
    return 1 / (1 + np.exp(-x))
  if node.op == "add":
    return x + more[0]
  if node.op == "mul":
    return x * more[0]
  if node.op == "mean_keep":
    return x.mean(places, keepdims=True)
  if node.op == "concat":
    return np.concatenate([x, *more], 1)
  if node.op == "pool":
    for axis in places:
      shape = (*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
      x = x.reshape(shape).max(axis + 1)
    return x
  if node.op == "mean":
    return x.mean(places)
  if node.op in ("flatten", "flatten_last"):
    x = np.moveaxis(x, 1, -1) if node.op == "flatten_last" else x
    return x.reshape(len(x), -1)
  if node.op == "softmax":
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)
  module = network.modules[node.module]
  get = lambda part: params.get((node.module, part))
  if module.kind in NORMS:
    return _norm(module, get, x)
  y = {"dense": _dense, "conv": _conv, "transposed": _transposed}[module.kind](
    x, np.asarray(get("weight"), np.float64), module.groups
  )
  bias = get("bias")
  along = (-1,) + (1,) * (y.ndim - 2)
  return y if bias is None else y + np.reshape(bias, along)


def _norm(module: Module, get, x):
  along = (-1,) + (1,) * (x.ndim - 2)
  if module.kind == "batch":
    mean, var = get("mean").reshape(along), get("var").reshape(along)
    x = (x - mean) / np.sqrt(np.asarray(var, np.float64) + EPSILON)
  elif module.kind == "layer":
    x = x - x.mean(1, keepdims=True)
    x = x / np.sqrt((x**2).mean(1, keepdims=True) + EPSILON)
  else:
    y = x.reshape(len(x), module.groups, -1)
    y = y - y.mean(2, keepdims=True)
    y = y / np.sqrt((y**2).mean(2, keepdims=True) + EPSILON)
    x = y.reshape(x.shape)
  if get("scale") is not None:
    x = x * get("scale").reshape(along) + get("shift").reshape(along)
  return x


def _dense(x, weight, groups):
  del groups
  return x @ weight.T


def _conv(x, weight, groups):
  rank, count = x.ndim - 2, len(x)
  half = [(n // 2, n // 2) for n in weight.shape[2:]]
  x = np.pad(x, [(0, 0), (0, 0), *half])
  axes = tuple(range(2, 2 + rank))
  seen = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axes)
  out = [
    np.tensordot(s, w, [(1, *range(2 + rank, 2 + 2 * rank)), (1, *axes)])
    for s, w in zip(
      np.split(seen, groups, 1), np.split(weight, groups), strict=True
    )
  ]
  return np.moveaxis(np.concatenate(out, -1), -1, 1).reshape(
    count, len(weight), *seen.shape[2 : 2 + rank]
  )


def _transposed(x, weight, groups):
  """By a kernel of two places with a stride of two."""
  del groups
  rank = x.ndim - 2
  y = np.moveaxis(np.tensordot(x, weight, [(1,), (0,)]), 1 + rank, 1)
  # [N, out, places..., 2...] -> [N, out, place, 2, ...].
  order = [0, 1]
  for axis in range(rank):
    order += [2 + axis, 2 + rank + axis]
  return y.transpose(order).reshape(*y.shape[:2], *(2 * n for n in x.shape[2:]))


def true_params(network: Network):
  """The arrays that `run` takes, as they were drawn."""
  return {
    (number, part): array
    for number, module in enumerate(network.modules)
    for part, array in module.params.items()
  }


def true_log_order(network: Network) -> float:
  """How many permutations there are, natural logarithm, by its code."""
  names = {
    (number, part): f"{number}.{part}" for number, part in true_params(network)
  }
  shapes = {names[key]: a.shape for key, a in true_params(network).items()}
  p = Player(shapes, "torch", Override())
  channels, *places = network.input_shape
  values = [p.tape.input((1, channels, *(1 for _ in places)))]
  for node in network.nodes:
    given = [values[i] for i in node.inputs]
    values.append(_played(p, network, node, names, *given))
  p.tape.output(values[-1])
  return symmetry.log_order(assembly.assemble(p.tape)[0])


def _played(p: Player, network: Network, node: Node, names, x, *more):
  """Plays one node on the tape."""
  if node.op in ("act", "sigmoid", "softmax"):
    return p.activate(x)
  if node.op == "mul":
    return p.tape.elementwise(x, more[0])
  if node.op == "add":
    return p.add(x, more[0])
  if node.op == "concat":
    return p.tape.concatenate([x, *more], 1)
  if node.op in ("pool", "mean_keep"):
    return x
  if node.op == "mean":
    return p.tape.reshape(x, x.shape[:2])
  if node.op in ("flatten", "flatten_last"):
    channels, count = x.shape[1], node.shape[0] // x.shape[1]
    x = p.tape.reshape(x, (1, channels, 1))
    x = p.tape.spatial(x, (1, channels, count))
    if node.op == "flatten_last":
      x = p.tape.transpose(x, (0, 2, 1))
    return p.tape.reshape(x, (1, node.shape[0]))
  module = network.modules[node.module]
  get = lambda part: names.get((node.module, part))
  if module.kind in NORMS:
    kinds = {f"norm_{part}": get(part) for part in module.params}
    if module.kind == "batch":
      return p.batch_norm(x, kinds)
    groups = None if module.kind == "instance" else module.groups
    return p.norm(x, kinds, (1,), groups)
  if module.kind == "dense":
    return p.linear(x, get("weight"), get("bias"))
  if module.kind == "conv":
    return p.conv(x, get("weight"), get("bias"))
  kernel = p.weight(get("weight"))
  rank = len(kernel.shape)
  kernel = p.tape.transpose(kernel, (1, 0, *range(2, rank)))
  y = operations.convolution(p.tape, x, kernel, (1,) * (rank - 2))
  return p.bias(y, get("bias"), place=1)


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What came of one file: full, less, refused, WRONG or CRASH; and why."""

  kind: str
  why: str = ""


def judge(
  network: Network, path, rows, last: bool, seed: int = 0, override=None
) -> Verdict:
  """Reads a file, and holds what is claimed against the true network.

  Args:
    network: what is in the file.
    path: of the file.
    rows: of `random_files.py`: where its parameters lie.
    last: whether the file's network flattens with channels last.
    seed: of inputs and permutations.
    override: what a person says.
  """
  try:
    opened = checkpoints.load(
      path, **({"override": override} if override else {})
    )
  except (errors.CheckpointError, inference.AmbiguousError) as error:
    if "\n" in str(error):
      return Verdict("CRASH", f"many lines: {error}")
    return Verdict("refused", str(error))
  except Exception:  # noqa: BLE001 whatever it is, it is a fault
    return Verdict("CRASH", traceback.format_exc()[-600:])
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(INPUTS, *network.input_shape))
  network = flattened(network, last)
  entries = opened.tensors.entries
  found = {row: _entry(entries, row.name) for row in rows}
  if missing := [row.name for row, name in found.items() if name is None]:
    return Verdict("WRONG", f"the reader has no {missing}")
  stored = {name: entries[name].read() for name in found.values()}

  def forward(tensors, inputs):
    tensors = {**stored, **tensors}
    params = {row.key: row.back(tensors[found[row]]) for row in rows}
    return run(network, params, inputs)

  want = run(network, true_params(network), x)
  spec, net = opened.spec, opened.inferred
  weights = net.gather(entries)
  apart = np.abs(forward(net.scatter(weights), x) - want).max()
  if not apart < 1e-5 * max(1.0, np.abs(want).max()):
    return Verdict("WRONG", f"numbers are {apart:.2g} apart")
  if fault := _misordered(network, net, found):
    return Verdict("WRONG", fault)
  check = inference.permutation_check(net, weights, forward, x, rng)
  if not check.change <= 1e-4:
    said = "; ".join(net.guesses)[:300]
    return Verdict("WRONG", f"change {check.change:.2g}, said: {said}")
  due = true_log_order(network)
  if symmetry.log_order(spec) < due - 1e-6:
    return Verdict("less", f"{check.log_order:.1f} of {due:.1f}")
  return Verdict("full")


def flattened(network: Network, last: bool) -> Network:
  """Returns a network that flattens images with channels last, or as it is."""
  nodes = tuple(
    dataclasses.replace(n, op="flatten_last")
    if last and n.op == "flatten"
    else n
    for n in network.nodes
  )
  return dataclasses.replace(network, nodes=nodes)


def _entry(entries, name: str) -> str | None:
  """Finds a name as the reader gives it, with or without what is around."""
  short = name.removesuffix("/value")
  for candidate in (name, short):
    matches = [n for n in entries if n == candidate]
    matches = matches or [n for n in entries if n.endswith("/" + candidate)]
    if len(matches) == 1:
      return matches[0]
  return None


def _misordered(network: Network, net, found) -> str:
  """Says which layer has a level not above that of one that feeds it."""
  tensors = {row.key: name for row, name in found.items()}
  levels = {
    source.name: tensor.level
    for source, tensor in zip(net.sources, net.spec.tensors, strict=True)
  }
  before: list[set[int]] = [set()]
  done = set()
  for node in network.nodes:
    feeds = set().union(*(before[i] for i in node.inputs))
    before.append(feeds)
    if node.op != "module" or network.modules[node.module].kind in NORMS:
      continue
    if node.module in done:  # Its level is that of its first use.
      before[-1] = feeds | {node.module}
      continue
    done.add(node.module)
    mine = levels.get(tensors[node.module, "weight"])
    for other in feeds - {node.module}:
      theirs = levels.get(tensors[other, "weight"])
      if None in (mine, theirs) or mine <= theirs:
        names = [tensors[n, "weight"] for n in (other, node.module)]
        return f"{names} have levels {theirs}, {mine}"
    before[-1] = feeds | {node.module}
  return ""


def shrink(plan: Plan, is_wrong) -> Plan:
  """Returns the simplest plan that can be reached and is wrong."""
  while True:
    for simpler in smaller(plan):
      if is_wrong(simpler):
        plan = simpler
        break
    else:
      return plan


def said(plan: Plan) -> str:
  """A plan in one line: what is not the default."""

  def short(thing):
    parts = []
    for field in dataclasses.fields(thing):
      value = getattr(thing, field.name)
      if field.name == "layers":
        value = "(" + " ".join(f"{short(v)}," for v in value) + ")"
      elif value == field.default:
        continue
      else:
        value = repr(value)
      parts.append(f"{field.name}={value}")
    return f"{type(thing).__name__}({', '.join(parts)})"

  return short(plan)


def try_plan(plan: Plan, container: str, folder) -> Verdict | None:
  """Writes and judges one file; None if the container cannot hold it."""
  from tests.checkpoints import random_files

  network = build(plan)
  written = random_files.write(network, container, pathlib.Path(folder))
  if written is None:
    return None
  override = {"flatten": written.settled} if written.settled else None
  return judge(
    network, written.path, written.rows, written.last, override=override
  )


def main() -> None:
  """Prints what came of random networks, by container."""
  from tests.checkpoints import random_files

  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--count", type=int, default=200, help="networks")
  parser.add_argument("--seed", type=int, default=0, help="of the first")
  parser.add_argument(
    "--containers", default=",".join(random_files.CONTAINERS), help="by comma"
  )
  parser.add_argument("--shrink", type=int, default=3, help="wrong ones each")
  parser.add_argument("--why", default="", help="list files of this verdict")
  args = parser.parse_args()
  logging.set_verbosity(logging.ERROR)
  names = args.containers.split(",")
  counts = {name: collections.Counter() for name in names}
  wrong = {name: [] for name in names}
  start = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    for seed in range(args.seed, args.seed + args.count):
      for name in names:
        verdict = try_plan(draw(seed), name, folder)
        if verdict is None:
          continue
        counts[name][verdict.kind] += 1
        if verdict.kind in ("WRONG", "CRASH"):
          wrong[name].append(seed)
        if verdict.kind == args.why:
          print(f"{name} {seed}: {verdict.why}\n  {said(draw(seed))}")
    columns = ("full", "less", "refused", "WRONG", "CRASH")
    print("container      files " + " ".join(f"{c:>8}" for c in columns))
    for name in names:
      row = " ".join(f"{counts[name][c]:8d}" for c in columns)
      share = counts[name]["full"] / max(1, counts[name].total())
      print(f"{name:12s} {counts[name].total():7d} {row}  {share:.1%} in full")
    print(f"{args.count} networks, {time.monotonic() - start:.0f} s")
    for name in names:
      if wrong[name]:
        print(f"{name} wrong, seeds: {wrong[name][:40]}")
      for seed in wrong[name][: args.shrink]:
        bad = lambda p, name=name: (
          getattr(try_plan(p, name, folder), "kind", "") in ("WRONG", "CRASH")
        )
        least = shrink(draw(seed), bad)
        print(f"  {said(least)}\n    {try_plan(least, name, folder)}")


if __name__ == "__main__":
  from tests.checkpoints import random_networks

  random_networks.main()  # One copy of the classes.
