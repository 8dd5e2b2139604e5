"""State dicts of PyTorch files as flat vectors of our specs.

Files are read by `checkpoints.torch_file`, without PyTorch: nothing that they
name is imported or run.

Dimensions: `P` weights of a network.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from sne_jax import errors
from sne_jax.checkpoints import limits as limits_lib
from sne_jax.checkpoints.formats.pytorch import pickles, torch_file
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.public import listing

Views = Mapping[str, torch_file.View]
"""Tensors by name, still on disk."""

LIMITS = limits_lib.Limits(max_total_bytes=1 << 34, max_header_bytes=1 << 28)
"""Published files are larger than single networks, and smaller than this."""

MAX_DEPTH = 16
"""Of a configuration."""


def load(file: str, *, records: bool = False) -> dict[str, Any]:
  """Reads the table that was given to `torch.save`; tensors stay on disk.

  Args:
    file: the file.
    records: whether objects of unknown classes become inert records; else
      they are refused.

  Raises:
    ZooError: the file is missing, damaged or hostile, names what is unknown,
      or holds no table.
  """
  try:
    tree, _ = torch_file.load_tree(file, LIMITS, records=records)
  except pickles.RefusedError as error:
    raise listing.fault(
      file,
      f"its pickle names {error.symbol[:200]!r}, and tensors alone are due",
      "do not trust this file; get it from its source",
    ) from None
  except errors.CheckpointError as error:
    raise errors.ZooError(str(error)) from None
  if not isinstance(tree, dict) or not all(isinstance(k, str) for k in tree):
    raise listing.fault(file, f"it holds a {type(tree).__name__}, no table")
  return tree


def tensors(tree: Mapping[str, Any]) -> dict[str, torch_file.View]:
  """Returns the entries that are tensors."""
  return {k: v for k, v in tree.items() if isinstance(v, torch_file.View)}


def numbered(
  file: str, views: Views, pattern: str
) -> list[tuple[str, torch_file.View]]:
  """Returns the tensors of a Sequential in order: weight, bias, weight, ...

  Names are compared by the number in them, which need not follow on one
  another: layers without weights have numbers too.

  Args:
    file: for messages.
    views: all of which must match.
    pattern: regular expression whose groups are the number of the layer, and
      "weight" or "bias".

  Raises:
    ZooError: a tensor of another name.
  """
  entries = []
  for name, view in views.items():
    match = re.fullmatch(pattern, name)
    if match is None:
      raise listing.fault(
        file,
        f"tensor {name[:100]!r} is not called like {pattern}",
        listing.FOREIGN,
      )
    entries.append(((int(match[1]), match[2] == "bias"), name, view))
  return [(name, view) for _, name, view in sorted(entries, key=lambda f: f[0])]


def in_order(
  file: str,
  spec: spec_lib.NetworkSpec,
  views: list[tuple[str, torch_file.View]],
) -> Float[np.ndarray, "P"]:
  """Returns the weights of tensors that are in the order of a spec.

  Raises:
    ZooError: there are more or fewer, or one has another shape or is not of
      floats.
  """
  if len(views) != len(spec.tensors):
    raise listing.fault(
      file,
      f"{len(views)} tensors, where {spec.describe()} has {len(spec.tensors)}",
      listing.FOREIGN,
    )
  parts = []
  for (name, view), tensor in zip(views, spec.tensors, strict=True):
    if view.shape != tensor.shape or "float" not in view.dtype:
      raise listing.fault(
        file,
        f"tensor {name[:100]!r} is {view.dtype} of shape {view.shape}, where"
        f" {tensor.name} of shape {tensor.shape} is due",
        listing.FOREIGN,
      )
    try:
      parts.append(np.asarray(view.read(), np.float32).reshape(-1))
    except errors.CheckpointError as error:
      raise errors.ZooError(str(error)) from None
  return np.concatenate(parts)


def number(view: Any) -> Any:
  """Returns what a value is: a plain one, or a tensor of one number."""
  if not isinstance(view, torch_file.View):
    return view
  if view.shape not in ((), (1,)):
    return None
  return view.read().reshape(()).item()


def plain(value: Any, depth: int = 0) -> Any:
  """Returns a configuration of omegaconf as tables, lists and plain values.

  From what its pickle says: containers keep `_content`, values `_val`.

  Raises:
    ValueError: it holds what is no configuration, or is nested too deep.
  """
  if depth > MAX_DEPTH:
    raise ValueError("nested too deep")
  down = functools.partial(plain, depth=depth + 1)
  if value is None or isinstance(value, bool | int | float | str):
    return value
  if isinstance(value, dict):
    return {str(key): down(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [down(item) for item in value]
  if isinstance(value, pickles.Record) and isinstance(value.state, dict):
    for field in ("_content", "_val"):
      if value.name.startswith("omegaconf.") and field in value.state:
        return down(value.state[field])
  what = getattr(value, "name", type(value).__name__)
  raise ValueError(f"it holds {str(what)[:100]!r}")
