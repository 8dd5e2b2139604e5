"""What a random network is like, in few words, and simpler ones.

Dimensions: none.
"""

import dataclasses

import numpy as np

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
