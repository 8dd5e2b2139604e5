"""Models that a program holds: of PyTorch, Keras and Flax, without a file.

Keras and Flax models go through the readers of their own files, so a model and
its file are read alike. None of these libraries is imported unless a model of
it is there.

Dimensions: `P` weights of a network.
"""

import importlib
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import serialization

from sne_jax import checkpoints
from sne_jax.networks.spec import NetworkSpec

_CLASSES = {
  "torch": ("torch.nn.", "Module"),
  "keras": ("keras.", "Model"),
  "nnx": ("flax.nnx.", "Module"),
}
"""What the class of every model derives from: a module's name, and its own."""


def kind_of(given: Any) -> str:
  """Returns the library whose model this is; empty: none.

  A tree of Flax's parameters, as `init` returns them, counts as "linen".
  """
  for kind, (module, name) in _CLASSES.items():
    for cls in type(given).__mro__:
      if cls.__name__ == name and cls.__module__.startswith(module):
        return kind
  if isinstance(given, Mapping) and given:
    nested = [isinstance(value, Mapping) for value in given.values()]
    return "linen" if all(nested) else ""
  return ""


def is_traceable(given: Any) -> bool:
  """Whether this is `(model, example)`, a model of PyTorch and its input."""
  return (
    isinstance(given, tuple)
    and len(given) == 2
    and kind_of(given[0]) == "torch"
  )


def traced(
  model: Any, example: Any, label: str
) -> tuple[NetworkSpec, np.ndarray]:
  """Returns spec and weights `[P]` of a model of PyTorch, by tracing it.

  Args:
    model: the model.
    example: an input that it takes, or a tuple of its inputs.
    label: what errors call it.

  Raises:
    ValueError: torch cannot trace it.
  """
  name = "sne_jax.networks.tracing.traced_torch"
  tracing: Any = importlib.import_module(name)
  inputs = example if isinstance(example, tuple) else (example,)
  try:
    found = tracing.trace(model, *inputs)
  except ValueError as error:
    raise ValueError(f"{label}: {error}") from error
  return found.spec, found.gather(tracing.tensors_of(model))


def read(
  model: Any,
  *,
  override: Mapping[str, Any] | None = None,
  familiar: checkpoints.Familiar | None = None,
) -> tuple[NetworkSpec, np.ndarray]:
  """Returns spec and weights `[P]` of a model of Keras or Flax, as of its file.

  Args:
    model: of `kind_of` "keras", "nnx" or "linen".
    override: see `checkpoints.load`.
    familiar: likewise.

  Raises:
    CheckpointError: it is no network that can be read.
  """
  with tempfile.TemporaryDirectory() as folder:
    if kind_of(model) == "keras":
      path = pathlib.Path(folder) / "model.keras"
      model.save(path)
    else:
      path = pathlib.Path(folder) / "model.msgpack"
      path.write_bytes(serialization.to_bytes(_plain(_tree(model))))
    network = checkpoints.load(path, override=override, familiar=familiar)
    return network.spec, network.weights()  # Before the file goes.


def _tree(model: Any) -> Any:
  """Returns the parameters and statistics of a model of Flax."""
  if kind_of(model) == "linen":
    return model
  nnx: Any = importlib.import_module("flax.nnx")
  kept = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
  return nnx.to_pure_dict(kept)


def _plain(tree: Any) -> Any:
  """Returns a tree of dicts with text as keys, of numpy arrays."""
  if isinstance(tree, Mapping):
    return {str(name): _plain(value) for name, value in tree.items()}
  return np.asarray(tree)
