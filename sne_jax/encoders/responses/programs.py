"""Which program runs which network of a batch, and where its weights lie.

A *program* runs networks of one shape: a template spec whose activations are
chosen for each network by number. Networks that differ in activations only
share a program. Convolutional networks of very many shapes (the CNN Wild Park)
share a few: each is written into a larger one, whose further channels and
kernel places are zeros, and whose skips are a matrix of 0 and 1. That changes
no answer. So the number of compiled programs is bounded by `MOST_PROGRAMS` for
each family and input shape.

A batch has a table for each program, whose name *is* the program: its JSON.
What is static thus travels with the arrays, and nothing is kept on the side.

Dimensions: `P` weights of a template, `U` its units (hidden neurons that have
an activation, then outputs), `L` its levels.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.networks import chunking, families
from sne_jax.networks.chunking import neurons
from sne_jax.networks.spec import NetworkSpec

PREFIX = "run "
"""Of the names of tables that are programs."""

MOST_PROGRAMS = 8
"""Programs for the plain CNNs of one input shape; see `_templates`."""


@dataclasses.dataclass(frozen=True)
class Program:
  """What is compiled for networks of one shape.

  Attributes:
    spec: of the template. Its activations are not used.
    activations: for each level, the names among which a network's number
      chooses.
    padded: whether networks are written into the template: their units are
      marked, and their skips a matrix.
    skips: pairs of levels that a network of a padded program may join.
  """

  spec: NetworkSpec
  activations: tuple[tuple[str, ...], ...]
  padded: bool = False
  skips: tuple[tuple[int, int], ...] = ()

  @functools.cached_property
  def name(self) -> str:
    """Name of its table; `of_name` reads it back."""
    spec = self.spec.to_json()
    names = [list(level) for level in self.activations]
    skips = [list(pair) for pair in self.skips]
    value = {"activations": names, "padded": self.padded, "spec": spec}
    value |= {"skips": skips} if skips else {}
    return PREFIX + json.dumps(value, sort_keys=True)

  @functools.cached_property
  def levels(self) -> tuple[tuple[int, int], ...]:
    """Levels whose answers are kept, and the number of units of each."""
    return unit_levels(self.spec)


@functools.lru_cache(maxsize=256)
def of_name(name: str) -> Program:
  """Returns the program that a table's name is."""
  value = json.loads(name.removeprefix(PREFIX))
  names = tuple(tuple(level) for level in value["activations"])
  spec = NetworkSpec.from_json(value["spec"])
  skips = tuple((a, b) for a, b in value.get("skips", ()))
  return Program(spec, names, value["padded"], skips)


def is_runnable(spec: NetworkSpec) -> bool:
  """Whether the network can be run: a family that has a forward function."""
  return spec.family in families.FAMILIES


def input_shape(spec: NetworkSpec) -> tuple[int, ...]:
  """Returns the shape of an input: of an image, or the number of features."""
  image = dict(spec.options).get("image_shape")
  return tuple(image) if image else (spec.tensors[0].shape[1],)


@functools.lru_cache(maxsize=4096)
def unit_levels(spec: NetworkSpec) -> tuple[tuple[int, int], ...]:
  """Returns the levels whose units answer, and how many do, outputs last.

  Levels are those with an activation, each as its weight tensor of branch 0;
  the family's own forward function says which.
  """
  seen: list[tuple[int, int]] = []

  def hidden(level, x):
    seen.append((level, x.shape[0] if x.ndim == 4 else x.shape[-1]))
    return x

  def run(weights, x):
    tensors = spec.unflatten(weights)
    return families.run(spec, tensors, x, hidden)

  weights = jax.ShapeDtypeStruct((spec.num_weights,), jnp.float32)
  x = jax.ShapeDtypeStruct((1, *input_shape(spec)), jnp.float32)
  outputs = jax.eval_shape(run, weights, x).shape[-1]
  return (*seen, (spec.num_levels - 1, outputs))


@functools.lru_cache(maxsize=4096)
def unit_neurons(spec: NetworkSpec) -> np.ndarray:
  """Returns the number of each unit's neuron, as `chunking` counts them.

  Returns:
    int32 `[U]`; 0 where no weight tensor has the unit as a row.
  """
  rows = neurons.number(spec).rows
  numbers = []
  for level, count in unit_levels(spec):
    own = [
      row
      for tensor, row in zip(spec.tensors, rows, strict=True)
      if row is not None and tensor.level == level and tensor.branch == 0
    ]
    fits = [row for row in own if len(row) == count]
    numbers.append(fits[0] if fits else np.zeros(count, np.int32))
  return np.concatenate(numbers).astype(np.int32)


class Plan:
  """The programs for the networks at hand, and each network's columns.

  Args:
    specs: the architectures at hand.
  """

  def __init__(self, specs: Sequence[NetworkSpec]):
    runnable = [s for s in dict.fromkeys(specs) if is_runnable(s)]
    shapes = {s: _bare(s) for s in runnable}
    templates = _templates(tuple(dict.fromkeys(shapes.values())))
    members: dict[NetworkSpec, list[NetworkSpec]] = {}
    for spec in runnable:
      members.setdefault(templates[shapes[spec]], []).append(spec)
    self._program = {}
    for template, group in members.items():
      names = tuple(
        tuple(dict.fromkeys(spec.activations[level] for spec in group))
        for level in range(template.num_levels)
      )
      padded = any(shapes[spec] != template for spec in group)
      padded = padded or _is_plain(template)
      skips = {pair for spec in group for pair in spec.skips if padded}
      program = Program(template, names, padded, tuple(sorted(skips)))
      self._program |= dict.fromkeys(group, program)
    self.programs = tuple(dict.fromkeys(self._program.values()))

  def tables(self, spec: NetworkSpec) -> dict[str, dict[str, np.ndarray]]:
    """Returns the tables of all programs, with the network in its own.

    And the table `units`, to which its units answer.
    """
    own = self._program.get(spec)
    tables = {
      program.name: _columns(program, spec, program is own)
      for program in self.programs
    }
    count = 0 if own is None else sum(n for _, n in unit_levels(spec))
    numbers = np.arange(1, 1 + count, dtype=np.int32)
    return tables | {"units": {"number": numbers}}

  def refs(self) -> dict[tuple[str, str], str]:
    """Returns the columns that name rows of other tables."""
    kinds = {"index": "weights", "unit": "units", "network": "networks"}
    return {
      (program.name, column): table
      for program in self.programs
      for column, table in kinds.items()
    }


def unit_of_chunks(
  spec: NetworkSpec, layout: chunking.ChunkLayout
) -> np.ndarray:
  """Returns the unit that each chunk belongs to, from 1; 0 is none. `[M]`."""
  if not is_runnable(spec):
    return np.zeros(len(layout.owner), np.int32)
  units = unit_neurons(spec)
  place = np.zeros(1 + max(units.max(), layout.owner.max()), np.int32)
  place[units] = np.arange(1, 1 + len(units))
  place[0] = 0
  return place[layout.owner]


def _bare(spec: NetworkSpec) -> NetworkSpec:
  """Returns what of a spec a program depends on: not its activations."""
  names = ("relu",) * (len(spec.activations) - 1) + ("none",)
  return dataclasses.replace(spec, activations=names)


def _is_plain(spec: NetworkSpec) -> bool:
  """Whether the network can be written into a larger one.

  Convolutions of stride 1 that keep the image's size, an average, one dense
  layer: the CNN Wild Park.
  """
  if spec.family != "cnn":
    return False
  o = dict(spec.options)
  kernels = [t.shape[-1] for t in spec.tensors if t.kind == "conv_weight"]
  return (
    o["head"] == "pool"
    and set(o["strides"]) == {1}
    and set(o["pools"]) == {1}
    and list(o["paddings"]) == [k // 2 for k in kernels]
    and all(k % 2 for k in kernels)
    and spec.num_levels == len(kernels) + 1
    and any(t.kind == "conv_bias" for t in spec.tensors)
  )


def _templates(
  shapes: Sequence[NetworkSpec],
) -> Mapping[NetworkSpec, NetworkSpec]:
  """Returns the template of each shape: itself, or a larger one for several.

  Plain CNNs of one depth, image and number of classes share a template if
  there are many: sorted by cost, an equal number to each. As few as there may
  be programs share none: what is filled up costs time in every step.
  """
  templates = {shape: shape for shape in shapes}
  kinds: dict[tuple, list[NetworkSpec]] = {}
  for shape in filter(_is_plain, shapes):
    image, classes = input_shape(shape), shape.tensors[-1].shape[0]
    kinds.setdefault((image, shape.num_levels, classes), []).append(shape)
  most = max(1, MOST_PROGRAMS // max(1, len(kinds)))
  if sum(map(len, kinds.values())) <= MOST_PROGRAMS:
    most = MOST_PROGRAMS
  for (image, _, classes), group in kinds.items():
    if len(group) <= most:
      templates |= {s: _enclosing([s], image, classes) for s in group}
      continue
    group = sorted(group, key=lambda s: (s.num_weights, s.digest))
    for part in np.array_split(np.arange(len(group)), most):
      within = [group[place] for place in part]
      template = _enclosing(within, image, classes)
      templates |= dict.fromkeys(within, template)
  return templates


def _enclosing(group, image, classes) -> NetworkSpec:
  """Returns the smallest plain CNN that each of a group fits into."""
  kernels = [
    [t.shape for t in spec.tensors if t.kind == "conv_weight"] for spec in group
  ]
  channels = [max(s[0] for s in level) for level in zip(*kernels, strict=True)]
  sides = [max(s[-1] for s in level) for level in zip(*kernels, strict=True)]
  return _bare(
    families.build(
      "cnn",
      image_shape=image,
      channels=channels,
      kernels=sides,
      paddings=[side // 2 for side in sides],
      num_classes=classes,
    )
  )


def _columns(program: Program, spec: NetworkSpec, own: bool):
  """Returns a network's row of a program's table, or no row."""
  template = program.spec
  levels = template.num_levels
  widths = [n for _, n in program.levels]
  if not own:
    return {
      "index": np.zeros((0, template.num_weights), np.int32),
      "weighs": np.zeros((0, template.num_weights), bool),
      "unit": np.zeros((0, sum(widths)), np.int32),
      "network": np.zeros(0, np.int32),
      "activation": np.zeros((0, levels), np.int32),
      "skip": np.zeros((0, levels, levels), np.float32),
    }
  index = np.full(template.num_weights, -1, np.int32)
  unit, first = [], 1
  for (_, width), (_, count) in zip(
    program.levels, unit_levels(spec), strict=True
  ):
    numbers = np.arange(first, first + count, dtype=np.int32)
    unit.append(np.pad(numbers, (0, width - count)))
    first += count
  places = template.unflatten(index)
  offsets = dict(zip((t.name for t in spec.tensors), spec.offsets, strict=True))
  for tensor in spec.tensors:
    numbers = np.arange(tensor.size, dtype=np.int32) + offsets[tensor.name]
    target = places[tensor.name]
    target[_centre(tensor, target.shape)] = numbers.reshape(tensor.shape)
  skip = np.zeros((levels, levels), np.float32)
  if program.padded:
    for source, target in spec.skips:
      skip[target, source] = 1
  chosen = [
    names.index(name)
    for names, name in zip(program.activations, spec.activations, strict=True)
  ]
  index = template.flatten(places, np).astype(np.int64)
  return {
    "index": np.maximum(index, 0).astype(np.int32)[None],
    "weighs": (index >= 0)[None],
    "unit": np.concatenate(unit)[None],
    "network": np.zeros(1, np.int32),
    "activation": np.array([chosen], np.int32),
    "skip": skip[None],
  }


def _centre(tensor, shape: tuple[int, ...]) -> tuple[slice, ...]:
  """Returns where a tensor lies in a larger one: kernels in the middle."""
  starts = [
    (large - small) // 2 if axis >= 2 else 0
    for axis, (large, small) in enumerate(zip(shape, tensor.shape, strict=True))
  ]
  return tuple(
    slice(start, start + small)
    for start, small in zip(starts, tensor.shape, strict=True)
  )
