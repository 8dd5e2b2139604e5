"""The static description of a trained network: what each weight is.

A network is a `NetworkSpec` and one flat float32 vector of `P` weights. The
spec says, for every tensor, where it lies in the vector, what it is, at which
depth it acts, and which of its axes move together when hidden neurons are
permuted. Everything else in `sne_jax` is a view of the vector made from it.

Dimensions: `P` weights of a network, `N` networks of one spec.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from typing import Any

KINDS = (
  "linear_weight",  # [out, in]
  "linear_bias",  # [out]
  "conv_weight",  # [out, in, kernel_height, kernel_width]
  "conv_bias",  # [out]
  "norm_scale",  # [channels]
  "norm_shift",  # [channels]
  "norm_mean",  # [channels], running statistic
  "norm_var",  # [channels], running statistic
  "embedding",  # [entries, dim]
  "class_token",  # [dim]
  "position",  # [positions, dim]
  "attention_q",  # [heads * head_dim, dim]
  "attention_k",  # [heads * head_dim, dim]
  "attention_v",  # [heads * head_dim, dim]
  "attention_o",  # [dim, heads * head_dim]
  "attention_bias",  # [heads * head_dim], of q, k or v
  "other",
)
"""What a tensor is. The place in this tuple is the kind's id: append only."""

WEIGHT_KINDS = frozenset(
  ("linear_weight", "conv_weight", "attention_q", "attention_k")
  + ("attention_v", "attention_o")
)
"""Kinds that map an input axis (axis 1) to an output axis (axis 0)."""

RUNNING = frozenset(("norm_mean", "norm_var"))
"""Kinds of running statistics: PyTorch has them as buffers, no parameters."""

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Factor:
  """A factor of an axis: `size` places that `group` permutes.

  An axis is a row-major product of factors. A plain axis has one. A dense
  layer after a flattened image has two: channels (a group) and places (none).
  The rows of a query matrix have two: heads, and units within a head; the
  latter have a permutation of their own in every head (`per` = the heads).

  Attributes:
    size: number of places, at least 1.
    group: the neurons that these places are; None where they never move
      (inputs, outputs, kernel places).
    per: the group of an earlier factor of the same axis, if `group` is
      permuted separately for each of that group's members.
  """

  size: int
  group: str | None = None
  per: str | None = None


Axis = tuple[Factor, ...]


@dataclasses.dataclass(frozen=True)
class TensorSpec:
  """One tensor of a network.

  Attributes:
    name: unique within the network, for example `conv1.weight`.
    kind: one of `KINDS`.
    shape: PyTorch axis order: out, in, height, width. No axis may be empty.
    level: depth of the layer, the longest path from the input, from 0. A bias
      has the level of its weight.
    axes: for each axis of `shape`, its factors.
    of: the weight tensor that a bias is added after, or that a batch norm
      vector directly follows (and can be folded into); None elsewhere.
    branch: 0 on the main path; 1, 2, ... on parallel branches of a level.
  """

  name: str
  kind: str
  shape: tuple[int, ...]
  level: int
  axes: tuple[Axis, ...]
  of: str | None = None
  branch: int = 0

  @property
  def size(self) -> int:
    """Number of weights."""
    return math.prod(self.shape)

  @property
  def fan_in(self) -> int:
    """Weights that feed one output; 1 for vectors."""
    return math.prod(self.shape[1:]) if self.kind in WEIGHT_KINDS else 1


def plain_axis(size: int, group: str | None = None) -> Axis:
  """Returns an axis of one factor."""
  return (Factor(size, group),)


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
  """A network: its tensors in computational order. Frozen and hashable.

  Attributes:
    family: name of the family that can run it (`families.forward`), or
      "unknown".
    tensors: in computational order; their weights follow one another in the
      flat vector, each row-major.
    activations: for each level, the name of the activation after it; "none"
      where there is none.
    skips: residual connections, as (source level, target level): what level
      `source` gives is added to what level `target` gives.
    options: what the family's forward function must know beyond the tensors,
      as sorted (name, value) pairs of plain values.
  """

  family: str
  tensors: tuple[TensorSpec, ...]
  activations: tuple[str, ...] = ()
  skips: tuple[tuple[int, int], ...] = ()
  options: tuple[tuple[str, Any], ...] = ()

  def __post_init__(self):
    """Rejects what describes no network."""
    _validate(self)

  def __hash__(self) -> int:
    """Hashes once: specs are keys wherever layouts and programs are kept."""
    return self._hash

  @functools.cached_property
  def _hash(self) -> int:
    fields = dataclasses.fields(self)
    return hash(tuple(getattr(self, field.name) for field in fields))

  @functools.cached_property
  def offsets(self) -> tuple[int, ...]:
    """Where each tensor begins in the flat vector."""
    ends = [0]
    for tensor in self.tensors:
      ends.append(ends[-1] + tensor.size)
    return tuple(ends[:-1])

  @functools.cached_property
  def num_weights(self) -> int:
    """Length `P` of the flat vector."""
    return sum(tensor.size for tensor in self.tensors)

  @functools.cached_property
  def num_parameters(self) -> int:
    """Weights that training sets: all but the running statistics of norms."""
    return sum(t.size for t in self.tensors if t.kind not in RUNNING)

  @functools.cached_property
  def num_levels(self) -> int:
    """Number of levels, the deepest level plus one."""
    return 1 + max((t.level for t in self.tensors), default=-1)

  @functools.cached_property
  def groups(self) -> dict[str, tuple[int, str | None]]:
    """Size of every axis group, and the group that it is nested in."""
    groups = {}
    for tensor in self.tensors:
      for axis in tensor.axes:
        for factor in axis:
          if factor.group is not None:
            groups[factor.group] = (factor.size, factor.per)
    return groups

  @functools.cached_property
  def layout(self) -> "NetworkSpec":
    """The same without activations and options: what its weights alone say.

    Networks of one layout differ in how they are run, and not in what an
    encoder of weights sees.
    """
    return dataclasses.replace(self, activations=(), options=())

  @functools.cached_property
  def anatomy(self) -> "NetworkSpec":
    """The layout without names: equal if only names of tensors differ.

    Networks of one anatomy may come from files of different programs; their
    weights `[P]` mean the same, place by place. A group of one neuron is none.
    """
    tensors: dict[str | None, str | None] = {None: None}
    groups: dict[str | None, str | None] = {None: None}
    for tensor in self.tensors:
      tensors[tensor.name] = str(len(tensors))
      for factor in itertools.chain(*tensor.axes):
        groups.setdefault(factor.group, str(len(groups)))
    nameless = lambda factor: dataclasses.replace(
      factor, group=groups[factor.group], per=groups[factor.per]
    )
    stripped = [
      dataclasses.replace(
        tensor,
        name=str(tensors[tensor.name]),
        of=tensors[tensor.of],
        axes=tuple(
          tuple(nameless(f) for f in axis if f.size > 1) or plain_axis(1)
          for axis in tensor.axes
        ),
      )
      for tensor in self.tensors
    ]
    return NetworkSpec("unknown", tuple(stripped), skips=self.skips)

  def option(self, name: str) -> Any:
    """Returns one of `options`; raises `KeyError` if the spec lacks it."""
    return dict(self.options)[name]

  def tensor(self, name: str) -> TensorSpec:
    """Returns the tensor of that name."""
    return self.tensors[self.index(name)]

  def index(self, name: str) -> int:
    """Returns the place of the tensor of that name."""
    for place, tensor in enumerate(self.tensors):
      if tensor.name == name:
        return place
    names = ", ".join(t.name for t in self.tensors)
    raise KeyError(f"no tensor {name!r} in {self.describe()}; it has {names}")

  def check_length(self, weights) -> None:
    """Raises `ValueError` unless the last axis is `P` long."""
    if weights.shape[-1] != self.num_weights:
      raise ValueError(
        f"{self.describe()} has {self.num_weights} weights, got an array of"
        f" shape {tuple(weights.shape)}"
      )

  def unflatten(self, weights) -> dict[str, Any]:
    """Cuts `[..., P]` into tensors `[..., *shape]`, by name.

    Works on numpy and JAX arrays, and is a view: differentiable, no copy on
    numpy.

    Raises:
      ValueError: the last axis is not `P` long.
    """
    self.check_length(weights)
    lead = weights.shape[:-1]
    return {
      t.name: weights[..., start : start + t.size].reshape(*lead, *t.shape)
      for t, start in zip(self.tensors, self.offsets, strict=True)
    }

  def flatten(self, tensors: dict[str, Any], xp):
    """Inverse of `unflatten`; `xp` is the array module (numpy, jax.numpy)."""
    parts = []
    for t in self.tensors:
      array = tensors[t.name]
      lead = array.shape[: array.ndim - len(t.shape)]
      parts.append(array.reshape(*lead, t.size))
    return xp.concatenate(parts, axis=-1)

  def describe(self) -> str:
    """One line that names the architecture, for messages."""
    shapes = ", ".join(
      f"{t.name} {'x'.join(map(str, t.shape))}" for t in self.tensors[:6]
    )
    more = ", ..." if len(self.tensors) > 6 else ""
    return f"{self.family} of {self.num_weights} weights ({shapes}{more})"

  @functools.cached_property
  def digest(self) -> str:
    """Twelve hexadecimal digits that name this spec."""
    text = json.dumps(self.to_json(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

  def to_json(self) -> dict[str, Any]:
    """Returns plain values that `from_json` reads back."""
    return {"version": FORMAT_VERSION} | dataclasses.asdict(self)

  @classmethod
  def from_json(cls, value: dict[str, Any]) -> "NetworkSpec":
    """Reads what `to_json` wrote.

    Raises:
      ValueError: the value is of a newer version, lacks a field, or describes
        no valid network. The message names the field.
    """
    try:
      version = value["version"]
      if version > FORMAT_VERSION:
        raise ValueError(
          f"spec of format version {version}, this sne_jax reads up to"
          f" {FORMAT_VERSION}; install a newer sne_jax"
        )
      tensors = tuple(
        TensorSpec(
          name=t["name"],
          kind=t["kind"],
          shape=tuple(t["shape"]),
          level=t["level"],
          axes=tuple(
            tuple(Factor(f["size"], f["group"], f["per"]) for f in axis)
            for axis in t["axes"]
          ),
          of=t["of"],
          branch=t["branch"],
        )
        for t in value["tensors"]
      )
      return cls(
        family=value["family"],
        tensors=tensors,
        activations=tuple(value["activations"]),
        skips=tuple((int(a), int(b)) for a, b in value["skips"]),
        options=tuple((k, _hashable(v)) for k, v in value["options"]),
      )
    except (KeyError, TypeError) as error:
      raise ValueError(f"not a network spec: {error!r}") from error


def _hashable(value):
  """Turns the lists of JSON back into tuples."""
  return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _validate(spec: NetworkSpec) -> None:
  """Raises `ValueError` naming the first fault of a spec."""
  names = [t.name for t in spec.tensors]
  if not names:
    raise ValueError(f"spec of family {spec.family!r} has no tensors")
  for name in names:
    if names.count(name) > 1:
      raise ValueError(f"tensor name {name!r} occurs more than once")
  sizes = {}
  for t in spec.tensors:
    where = f"tensor {t.name!r} of shape {t.shape}"
    if t.kind not in KINDS:
      raise ValueError(
        f"{where}: unknown kind {t.kind!r}; known are {', '.join(KINDS)}"
      )
    if t.size < 1:
      raise ValueError(f"{where}: every axis must hold at least one place")
    if t.level < 0:
      raise ValueError(f"{where}: level {t.level} is below 0")
    if t.of is not None and t.of not in names:
      raise ValueError(f"{where}: belongs to {t.of!r}, which is no tensor")
    if len(t.axes) != len(t.shape):
      raise ValueError(f"{where}: {len(t.axes)} axes described")
    for place, (axis, size) in enumerate(zip(t.axes, t.shape, strict=True)):
      if math.prod(f.size for f in axis) != size:
        raise ValueError(f"{where}: factors of axis {place} are {axis}")
      seen = set()
      for factor in axis:
        if factor.group is None:
          continue
        if factor.per is not None and factor.per not in seen:
          raise ValueError(
            f"{where}: group {factor.group!r} is nested in {factor.per!r},"
            f" which is no earlier factor of axis {place}"
          )
        seen.add(factor.group)
        kept = sizes.setdefault(factor.group, (factor.size, factor.per))
        if kept != (factor.size, factor.per):
          raise ValueError(
            f"{where}: group {factor.group!r} is {(factor.size, factor.per)}"
            f" here and {kept} elsewhere"
          )
  if spec.activations and len(spec.activations) != spec.num_levels:
    raise ValueError(
      f"{len(spec.activations)} activations for {spec.num_levels} levels"
    )
