"""PyTorch's own `weights_only` loading, for what we do not read ourselves.

That is files of PyTorch before 1.6, and classes that PyTorch deems safe but
`torch_file` does not know. PyTorch is optional and imported only here.
"""

import dataclasses
import importlib
import re
import warnings
from typing import Any

import numpy as np

from sne_jax import errors
from sne_jax.checkpoints.tensors import DTYPES

OLDEST = (2, 6)
"""Before it a crafted old-style file could run code under weights_only."""

INSTALL = "pip install 'torch>=2.6'"


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
  """A tensor that PyTorch has loaded; the same attributes as a `View`."""

  tensor: Any
  key: tuple
  dtype: str
  shape: tuple[int, ...]

  def read(self) -> np.ndarray:
    """Returns the array, dense."""
    torch = importlib.import_module("torch")
    tensor = self.tensor.detach()
    if tensor.is_quantized:
      tensor = tensor.dequantize()
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    tensor = tensor.resolve_conj().resolve_neg()
    if hasattr(np, self.dtype) or self.dtype == "bool":
      return tensor.numpy()
    width = DTYPES[self.dtype].itemsize
    raw = tensor.contiguous().view({1: torch.uint8, 2: torch.int16}[width])
    return raw.numpy().view(DTYPES[self.dtype])


def load_tree(path: str, why: str) -> Any:
  """Loads a file with PyTorch, code refused.

  Args:
    path: the file.
    why: what our own reader does not know, a sentence for the error.

  Returns:
    Nested tables and lists with `Loaded` tensors.

  Raises:
    CheckpointError: PyTorch is not installed, too old, or refuses too.
  """
  try:
    torch = importlib.import_module("torch")
  except ImportError:
    raise errors.unreadable(
      path,
      f"{why}, which is not read without PyTorch",
      "save only the weights, torch.save(model.state_dict(), path), or let"
      f" PyTorch judge it: {INSTALL}",
    ) from None
  version = tuple(int(v) for v in torch.__version__.split(".")[:2])
  if version < OLDEST:
    raise errors.unreadable(
      path,
      f"{why}; PyTorch {torch.__version__} is too old to judge it safely",
      f"install 2.6 or later: {INSTALL}",
    )
  try:
    with warnings.catch_warnings(), open(path, "rb") as file:
      warnings.simplefilter("ignore")
      zipped = file.read(4) == b"PK\x03\x04"
      loaded = torch.load(
        path, map_location="cpu", weights_only=True, mmap=zipped
      )
  except Exception as error:  # noqa: BLE001 on damaged bytes it raises anything
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    detail = f" ({named[1]})" if named and named[1] not in why else ""
    raise errors.unreadable(
      path,
      f"{why}, and PyTorch refuses it too{detail}",
      "save only the weights: torch.save(model.state_dict(), path)",
    ) from error
  try:
    return _convert(loaded, 0)
  except (ValueError, RuntimeError, TypeError) as error:
    raise errors.unreadable(
      path,
      f"{why}; PyTorch reads it, but {error}",
      "save the weights as plain numbers, tensor.to_dense().float() each",
    ) from error


def _convert(value: Any, depth: int) -> Any:
  """Returns a tree with every tensor wrapped."""
  torch = importlib.import_module("torch")
  if depth > 64:
    raise ValueError("it is nested too deep")
  if isinstance(value, dict):
    return {k: _convert(v, depth + 1) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_convert(v, depth + 1) for v in value]
  if not isinstance(value, torch.Tensor):
    return value
  if value.is_meta or value.is_nested:
    kind = "one of lists" if value.is_nested else "without numbers (meta)"
    raise ValueError(f"a tensor is {kind}")
  name = str(value.dtype).removeprefix("torch.")
  name = "float32" if value.is_quantized else name
  if name not in DTYPES:
    raise ValueError(f"a tensor is of dtype {name}")
  key: tuple = (id(value),)
  if value.layout == torch.strided and not value.is_quantized:
    key = (value.untyped_storage().data_ptr(), name, value.storage_offset())
    key += (tuple(value.shape), value.stride())
    key += (value.is_neg(), value.is_conj())
  return Loaded(value, key, name, tuple(value.shape))
