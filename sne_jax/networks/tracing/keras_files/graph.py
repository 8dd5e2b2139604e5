"""A Keras model, by its configuration: played on a tape, or run with numbers.

The configuration says which layers there are and what each is called with.
It comes with the file, so nothing of it is trusted: no code of it is run
(what a Lambda layer touches is pinned), names and sizes must be those of the
tensors, and calls are counted.

References:
  `config.json` of Keras 3, and `model_config` of its legacy HDF5 files and
  those of Keras 2.

Dimensions: none; shapes are tuples of sizes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.networks.tracing.keras_files import (
  convolutions,
  layer,
  nodes,
  norms,
  operations,
  plain,
  weights,
)
from sne_jax.networks.tracing.keras_files.machines import (
  CannotRunError,
  Machine,
  OnNumbers,
  OnTape,
)
from sne_jax.networks.tracing.keras_files.weights import Where
from sne_jax.networks.tracing.player import Mismatch, Player

MAX_CALLS = 10_000
MAX_DEPTH = 32
SIZE = 512
"""Of axes whose size the file leaves open."""

SIZES = (8, 32, 128, SIZE)
LONG = (4096, 16_384)
"""Sizes that are tried for such axes when a network is run; the long ones where
an input has one of them, as a sequence of which much is cut off."""

Shape = Sequence[int | None]

__all__ = ["KerasGraph", "convolutions", "norms", "plain"]


class KerasGraph:
  """What a Keras file says of how its network is computed."""

  def __init__(
    self,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    labels: Mapping[str, str],
  ):
    """Keeps what the file says; it is looked at when it is played.

    Args:
      config: of the model, `{"class_name": ..., "config": ...}`.
      shapes: of the file's tensors, by name.
      labels: names of layers, by path of the group that holds their variables.
    """
    self._config = config
    self._shapes = dict(shapes)
    self._where = weights.root(self._shapes, labels)

  @staticmethod
  def describes(config: Any) -> bool:
    """Whether a configuration is that of a model of layers."""
    return (
      isinstance(config, Mapping)
      and isinstance(config.get("class_name"), str)
      and nodes.is_model(config)
    )

  def play(self, player: Player) -> None:
    """Plays the network on a tape, with its inputs and outputs.

    Raises:
      Mismatch: it cannot be played: not all of it is in the file.
    """
    machine = OnTape(player)
    inputs = [machine.tape.input(_closed(s)) for s in self._input_shapes()]
    for output in self._run(machine, inputs):
      machine.tape.output(output)

  def forward(self, tensors: Mapping[str, Any], inputs: Any) -> np.ndarray:
    """Runs the network; returns all outputs as one flat array.

    Args:
      tensors: arrays by the file's names.
      inputs: as `example_input` gives them.

    Raises:
      CannotRunError: a layer is not run here; says which.
      Mismatch: as `play`.
    """
    outputs = self._run(OnNumbers(tensors), [*map(jnp.asarray, inputs)])
    return np.concatenate([np.asarray(y).reshape(-1) for y in outputs])

  def example_input(self, rng: np.random.Generator) -> list[np.ndarray]:
    """Draws inputs, two of each; open axes are as short as can be.

    Raises:
      CannotRunError: a layer is not run here, says which; or outputs are
        empty whatever the sizes of open axes are.
      Mismatch: as `play`.
    """
    rows = [
      config["input_dim"]
      for kind, config in _every(self._config)
      if kind == "Embedding"
    ]
    struct = lambda shape: jax.ShapeDtypeStruct(tuple(shape), np.float32)
    held = {name: struct(shape) for name, shape in self._shapes.items()}
    run = lambda tensors, inputs: self._run(OnNumbers(tensors), list(inputs))
    given = self._input_shapes()
    sizes = SIZES + LONG * all(list(s[1:]).count(None) < 2 for s in given)
    shapes: list[tuple[int, ...]] = []
    for size in sizes:
      shapes = [_closed(s, 2, size) for s in given]
      try:
        outputs = jax.eval_shape(run, held, [*map(struct, shapes)])
      except Mismatch:
        if size == sizes[-1]:
          raise
        continue
      if all(math.prod(y.shape) for y in outputs):
        break
    else:
      raise CannotRunError(f"its outputs for inputs of {shapes[0]} are empty")
    draw = lambda shape: (
      rng.integers(0, min(rows), shape)
      if rows and len(shape) == 2
      else rng.standard_normal(shape)
    )
    return [draw(shape).astype(np.float32) for shape in shapes]

  def _run(self, machine: Machine, inputs: list[Any]) -> list[Any]:
    """Runs the model on a machine; what is wrong in the file is `Mismatch`."""
    try:
      return _Walk(machine).model(self._config, self._where, inputs, 0)
    except (Mismatch, CannotRunError):
      raise
    except Exception as error:  # noqa: BLE001 - the file may say anything
      text = " ".join(str(error).split())[:200] or type(error).__name__
      raise Mismatch(f"its configuration is not understood ({text})") from error

  def _input_shapes(self) -> list[Shape]:
    try:
      shapes = _input_shapes(self._config)
    except Mismatch:
      raise
    except Exception as error:  # noqa: BLE001 - the file may say anything
      raise Mismatch("its configuration says no shape of inputs") from error
    if not all(map(_is_shape, shapes)):
      raise Mismatch("its configuration says no shape of inputs")
    return shapes


class _Walk:
  """One run of a model, through all models in it."""

  def __init__(self, machine: Machine):
    self._m = machine
    self._calls = 0

  def model(
    self, entry: Mapping[str, Any], where: Where, inputs: list[Any], depth: int
  ) -> list[Any]:
    """Runs a model, which may be a layer of another."""
    if depth > MAX_DEPTH:
      raise Mismatch(f"models are nested more than {MAX_DEPTH} deep")
    if not nodes.is_model(entry):
      kind = str(entry["class_name"])[:50]
      raise Mismatch(f"{kind!r} is a class whose code is not in the file")
    layers = nodes.layers_of(entry)
    found = where.layers([e for e in layers if not nodes.is_operation(e)])
    if entry["class_name"] != "Sequential":
      return self._functional(entry["config"], layers, found, inputs, depth)
    values = inputs
    for number, each in enumerate(layers):
      after = [e.get("build_config") or {} for e in layers[number + 1 :][:1]]
      built = [b["input_shape"] for b in after if "input_shape" in b]
      shapes = [shape for shape in built if _is_shape(shape)]
      call = nodes.Bound(values, values, [], {})
      values = self._call(each, found.get(each["name"]), call, shapes, depth)
    return values

  def _functional(self, config, layers, found, inputs, depth) -> list[Any]:
    graph = nodes.Nodes(layers)
    heard = nodes.references(config["input_layers"])
    if len(heard) != len(inputs):
      raise Mismatch(f"a model of {len(heard)} inputs is given {len(inputs)}")
    done = {
      (name, index): [value]
      for (name, index, _), value in zip(heard, inputs, strict=True)
    }
    value = lambda ref: done[ref.of[:2]][ref.of[2]]
    for key in graph.in_order(set(done)):
      given = graph.shapes.get(key, {})
      shapes = [given[p] for p in range(len(given)) if p in given]
      done[key] = self._call(
        graph.layers[key[0]],
        found.get(key[0]),
        graph.calls[key].bound(value),
        shapes,
        depth,
      )
    outputs = graph.outputs(config["output_layers"])
    return [done[name, index][place] for name, index, place in outputs]

  def _call(
    self,
    entry: Mapping[str, Any],
    where: Where | None,
    call: nodes.Bound,
    shapes: Sequence[Shape],
    depth: int,
  ) -> list[Any]:
    """Calls one layer, of any kind."""
    self._calls += 1
    if self._calls > MAX_CALLS:
      raise Mismatch(f"more than {MAX_CALLS} calls of layers")
    kind, config = entry["class_name"], entry.get("config") or {}
    known = [_closed(shape) for shape in shapes]
    if nodes.is_operation(entry):
      return operations.play(self._m, kind, config, call, known)
    assert where is not None
    if nodes.is_model(entry):
      return self.model(entry, where, [*call.values, *call.masks], depth + 1)
    ours = nodes.is_ours(entry)
    inner = config.get("layer") if ours else None
    if kind in ("TimeDistributed", "SpectralNormalization") and inner:
      return self._wrapped(kind, inner, where, call, shapes, depth)
    kind = kind if ours else f"custom {kind}"
    called = layer.Layer(self._m, kind, config, where, call.options, known)
    if call.masks:
      return layer.pinned(called, *call.values, *call.masks)
    return called(*call.values)

  def _wrapped(self, kind, inner, where, call, shapes, depth) -> list[Any]:
    """Calls a layer inside another one."""
    where = where.inner("layer", nodes.name_of(inner))
    if kind == "SpectralNormalization":  # Its kernel is normalised already.
      return self._call(inner, where, call, shapes, depth + 1)
    (x,) = call.values
    flat = self._m.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
    call = nodes.Bound([flat], [flat], call.masks, call.options)
    outputs = self._call(inner, where, call, [], depth + 1)
    return [self._m.reshape(y, (*x.shape[:2], *y.shape[1:])) for y in outputs]


def _closed(shape: Shape, batch: int = 1, size: int = SIZE) -> tuple[int, ...]:
  """Returns a shape with numbers where the file leaves them open."""
  return (batch, *(int(n or size) for n in shape[1:]))


def _is_shape(shape: Any) -> bool:
  return (
    isinstance(shape, list)
    and 1 < len(shape) <= MAX_DEPTH
    and all(n is None or type(n) is int and n > 0 for n in shape)
  )


def _input_shapes(entry: Mapping[str, Any]) -> list[Shape]:
  """Returns the shapes of a model's inputs; `Mismatch` if it says none."""
  config = entry["config"]
  if not nodes.is_model(entry):
    kind = str(entry["class_name"])[:50]
    raise Mismatch(f"{kind!r} is a class whose code is not in the file")
  layers = nodes.layers_of(entry)
  if entry["class_name"] != "Sequential":
    by_name = {each["name"]: each for each in layers}
    heard = nodes.references(config["input_layers"])
    return [_shape(by_name[name]) for name, _, _ in heard]
  first = layers[0]
  if nodes.is_model(first):
    return _input_shapes(first)
  if _has_shape(first) or not isinstance(config, Mapping):
    return [_shape(first)]
  if config.get("build_input_shape"):
    return [config["build_input_shape"]]
  return [first["build_config"]["input_shape"]]


_SHAPES = ("batch_shape", "batch_input_shape")


def _has_shape(entry: Mapping[str, Any]) -> bool:
  return any(entry["config"].get(key) for key in _SHAPES)


def _shape(entry: Mapping[str, Any]) -> Shape:
  return next(entry["config"][k] for k in _SHAPES if entry["config"].get(k))


def _every(entry: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """Yields class and settings of all layers, through models and wrappers."""
  if isinstance(entry, list):
    for item in entry:
      yield from _every(item)
  elif isinstance(entry, Mapping):
    config = entry.get("config")
    if "class_name" in entry and isinstance(config, Mapping):
      yield entry["class_name"], config
    for key in ("config", "layers", "layer"):
      yield from _every(entry.get(key))
