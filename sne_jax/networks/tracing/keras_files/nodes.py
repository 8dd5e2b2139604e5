"""The calls of layers in a functional model, as a configuration lists them.

Keras 3 writes arguments as they are, with what a layer gave as
`{"class_name": "__keras_tensor__", "config": {"keras_history": [name, call,
place]}}`; Keras 2 writes lists of `[name, call, place, options]`.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from sne_jax.networks.tracing.player import Mismatch

Key = tuple[str, int]
"""A layer's name, and which of its calls."""

Reference = tuple[str, int, int]
"""A call, and which of the values that it gives."""

MODELS = ("Functional", "Model", "Sequential")

_ARGUMENTS = ("query", "value", "key", "inputs", "x", "x1", "x2")
"""Names of arguments that are no masks, in the order that layers have."""


def is_ours(entry: Mapping[str, Any]) -> bool:
  """Whether a class is one of Keras, not of whoever made the file."""
  module = str(entry.get("module") or "keras").split(".")[0]
  names = f"{entry.get('registered_name') or ''}{entry['class_name']}"
  return module in ("keras", "tf_keras", "tensorflow") and ">" not in names


def is_operation(entry: Mapping[str, Any]) -> bool:
  """Whether it is one of `keras.ops`, which is no layer."""
  module = str(entry.get("module") or "")
  return module.startswith(("keras.src.ops", "keras.ops"))


def is_model(entry: Mapping[str, Any]) -> bool:
  """Whether it is a model of layers, and no class of somebody's own."""
  config = entry.get("config")
  return (
    entry["class_name"] in MODELS
    and is_ours(entry)
    and (isinstance(config, list) or _has(config, "layers"))
  )


def _has(config: Any, key: str) -> bool:
  return isinstance(config, Mapping) and key in config


def layers_of(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns the layers of a model, each with its name."""
  config = entry["config"]
  layers = config if isinstance(config, list) else config["layers"]
  return [layer | {"name": name_of(layer)} for layer in layers]


def name_of(entry: Mapping[str, Any]) -> str:
  """Returns the name of a layer."""
  return entry.get("name") or entry["config"]["name"]


def references(tree: Any) -> list[Reference]:
  """Returns the `[name, call, place]` in lists and tables, by their order."""
  if isinstance(tree, Mapping):
    return [ref for key in sorted(tree) for ref in references(tree[key])]
  if len(tree) >= 3 and isinstance(tree[0], str):
    return [(tree[0], tree[1], tree[2])]
  return [ref for item in tree for ref in references(item)]


@dataclasses.dataclass
class Call:
  """One call of a layer.

  Attributes:
    arguments: in their order; references where they are values.
    named: the same, by name.
    references: all of them.
  """

  arguments: Any
  named: dict[str, Any]
  references: list[Reference]

  def shift(self, names: Collection[str]) -> None:
    """Counts the calls of these layers from 0 that were counted from 1."""
    move = lambda ref: (ref[0], ref[1] - (ref[0] in names), ref[2])
    self.arguments = _mapped(self.arguments, lambda r: _Ref(move(r.of)))
    self.named = _mapped(self.named, lambda r: _Ref(move(r.of)))
    self.references = [move(ref) for ref in self.references]

  def bound(self, value: Callable[[Reference], Any]) -> "Bound":
    """Returns the call with values in place of references."""
    fill = lambda tree: _mapped(tree, value)
    values = _values(fill(self.arguments))
    options, masks = {}, []
    named = {key: fill(tree) for key, tree in self.named.items()}
    for key in (*_ARGUMENTS, *named):
      if key not in named:
        continue
      held = _values(item := named.pop(key))
      if key in _ARGUMENTS:
        values += held
      else:
        masks += held
      if not held:
        options[key] = item
    return Bound(fill(self.arguments), values, masks, options)


@dataclasses.dataclass
class Bound:
  """A call with its values.

  Attributes:
    arguments: in their order, with values and numbers.
    values: what the layer is called with.
    masks: values besides, such as masks and states.
    options: what is no value, by name.
  """

  arguments: Any
  values: list[Any]
  masks: list[Any]
  options: dict[str, Any]


class Nodes:
  """All calls of a functional model.

  Attributes:
    layers: by name.
    calls: in the order of the file.
    shapes: of what calls give, where the file says it: by call and place.
  """

  def __init__(self, layers: Sequence[Mapping[str, Any]]):
    """Reads the layers of a configuration."""
    self.layers = {layer["name"]: layer for layer in layers}
    if len(self.layers) < len(layers):
      raise Mismatch("two layers of one model have one name")
    self.calls: dict[Key, Call] = {}
    self.shapes: dict[Key, dict[int, Sequence[int | None]]] = {}
    self._is_old = False
    for layer in layers:
      for number, node in enumerate(layer.get("inbound_nodes", ())):
        self.calls[layer["name"], number] = self._call(node)
    if self._is_old:
      # In Keras 2 the first call of a model is the one that made it.
      made = {name for name, layer in self.layers.items() if is_model(layer)}
      for call in self.calls.values():
        call.shift(made)

  def outputs(self, tree: Any) -> list[Reference]:
    """Returns what a model gives; Keras counts calls of models from 1 there."""
    counted = {
      name
      for name, layer in self.layers.items()
      if _has(layer.get("config"), "input_layers")
      or (self._is_old and is_model(layer))
    }
    return [(n, i - (n in counted), p) for n, i, p in references(tree)]

  def in_order(self, given: set[Key]) -> Iterator[Key]:
    """Yields calls after all that they need, else in the order of the file.

    Raises:
      Mismatch: what a call needs is given by none.
    """
    ranks = {key: rank for rank, key in enumerate(self.calls)}
    waiting: dict[Key, list[Key]] = {}
    missing: dict[Key, int] = {}
    ready = []
    for key, call in self.calls.items():
      if key in given:
        continue
      needs = {ref[:2] for ref in call.references} - given
      missing[key] = len(needs)
      for need in needs:
        waiting.setdefault(need, []).append(key)
      if not needs:
        heapq.heappush(ready, (ranks[key], key))
    while ready:
      _, key = heapq.heappop(ready)
      yield key
      del missing[key]
      for other in waiting.get(key, ()):
        missing[other] -= 1
        if not missing[other]:
          heapq.heappush(ready, (ranks[other], other))
    if missing:
      name = next(iter(missing))[0]
      raise Mismatch(f"nothing gives what layer {name!r} is called with")

  def _call(self, node: Any) -> Call:
    """Reads a call."""
    found: list[Reference] = []
    if isinstance(node, Mapping):
      arguments = self._read(node.get("args", []), found)
      named = {k: self._read(v, found) for k, v in node["kwargs"].items()}
      return Call(arguments, named, found)
    self._is_old |= bool(node)
    node = [node] if node and isinstance(node[0], str) else node
    arguments, named = [], {}
    for name, index, place, *options in node:
      arguments.append(self._old([name, index, place], found))
      for key, value in (options[0] if options else {}).items():
        named[key] = self._old(value, found)
    return Call(arguments, named, found)

  def _read(self, tree: Any, found: list[Reference]) -> Any:
    """Returns arguments of Keras 3 with references in place of values."""
    if isinstance(tree, list | tuple):
      return [self._read(item, found) for item in tree]
    if not isinstance(tree, Mapping):
      return tree
    if tree.get("class_name") != "__keras_tensor__":
      return {key: self._read(tree[key], found) for key in sorted(tree)}
    name, index, place = tree["config"]["keras_history"]
    if shape := tree["config"].get("shape"):
      self.shapes.setdefault((name, index), {})[place] = shape
    found.append((name, index, place))
    return _Ref(found[-1])

  def _old(self, tree: Any, found: list[Reference]) -> Any:
    """The same of Keras 2, where a list with a layer's name is a value."""
    if not isinstance(tree, list):
      return tree
    if len(tree) == 3 and isinstance(tree[0], str) and tree[0] in self.layers:
      found.append((tree[0], tree[1], tree[2]))
      return _Ref(found[-1])
    return [self._old(item, found) for item in tree]


@dataclasses.dataclass(frozen=True)
class _Ref:
  """Stands for a value."""

  of: Reference


def _mapped(tree: Any, value: Callable[[Any], Any]) -> Any:
  """Returns arguments with something else in place of every reference."""
  if isinstance(tree, _Ref):
    return value(tree)
  if isinstance(tree, list):
    return [_mapped(item, value) for item in tree]
  if isinstance(tree, Mapping):
    return {key: _mapped(item, value) for key, item in tree.items()}
  return tree


def _values(tree: Any) -> list[Any]:
  """Returns the values among arguments, which alone have shapes."""
  if isinstance(tree, list):
    return [value for item in tree for value in _values(item)]
  if isinstance(tree, Mapping):
    return [value for item in tree.values() for value in _values(item)]
  return [tree] if hasattr(tree, "shape") else []
