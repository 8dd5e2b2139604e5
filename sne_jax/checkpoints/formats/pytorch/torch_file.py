"""PyTorch files (`.pt`, `.pth`, `.bin`), read without PyTorch.

Since version 1.6 `torch.save` writes a zip archive: a pickle that names
tensors, and one uncompressed member for each storage. The pickle runs on the
machine of `pickles`, which knows tensors (`torch_views`) and containers and
nothing else; the storages are mapped. What it does not know, and older files,
go to PyTorch's own `weights_only` loading where PyTorch is installed
(`torch_load`).
"""

import functools
import json
import posixpath
from typing import Any

from sne_jax import errors
from sne_jax.checkpoints import foreign, trees
from sne_jax.checkpoints.formats import archive
from sne_jax.checkpoints.formats.pytorch import (
  pickles,
  torch_load,
  torch_views,
)
from sne_jax.checkpoints.formats.pytorch.torch_views import View
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import Entry, Tensors, add

STEPS_PER_ENTRY = 60
"""Instructions of a pickle for one tensor; a plain one takes about 30."""

REMEDY = "save only the weights: torch.save(model.state_dict(), path)"


def read(path: str, limits: Limits, part: str = "") -> Tensors:
  """Opens a PyTorch file; names are joined by dots.

  Metadata: `part`, `left_out`, `values` (see `trees.pick`); `prefix` (what
  wrappers such as DataParallel put before every name; it is kept); `modules`
  (names and versions of all modules, as JSON, where the file has them).

  Raises:
    CheckpointError: the file is damaged or hostile, names something else than
      tensors and containers, or holds no network or several.
  """
  budget = Budget(path, limits)
  try:
    tree, size = load_tree(path, limits)
  except pickles.RefusedError as error:
    tree = torch_load.load_tree(path, f"its pickle names {error.symbol}")
    size = foreign.file_size(path)
  return collect(tree, budget, size, part)


def read_old(path: str, limits: Limits, part: str = "") -> Tensors:
  """Opens a file of PyTorch before 1.6, with PyTorch.

  Raises:
    CheckpointError: PyTorch is not installed, or refuses; or as of `read`.
  """
  tree = torch_load.load_tree(path, "it is of PyTorch before 1.6")
  return collect(tree, Budget(path, limits), foreign.file_size(path), part)


def collect(tree: Any, budget: Budget, size: int, part: str = "") -> Tensors:
  """Chooses the network in a tree and names its tensors."""
  is_tensor = lambda value: isinstance(value, View | torch_load.Loaded)
  taken, metadata = trees.pick(tree, is_tensor, budget, part)
  entries: dict[str, Entry] = {}
  first: dict[Any, str] = {}
  for names, view in taken:
    name = ".".join(names) or "tensor"
    empty = 0 in view.shape
    tied_to = None if empty else first.setdefault(view.key, name)
    tied_to = tied_to if tied_to != name else None
    entry = Entry(name, view.shape, view.dtype, view.read, tied_to)
    add(entries, entry, budget, size)
  if prefix := trees.prefix(entries):
    metadata["prefix"] = prefix
  if modules := _modules(tree, metadata.get("part", "")):
    metadata["modules"] = modules
  return Tensors(entries, "torch", budget.path, metadata)


def load_tree(
  path: str, limits: Limits, *, records: bool = False
) -> tuple[Any, int]:
  """Reads what was given to `torch.save`: containers, values, `View`s.

  Args:
    path: an archive of PyTorch 1.6 or later.
    limits: of the file.
    records: whether objects of unknown classes become inert
      `pickles.Record`s; nothing of them runs. Else they are refused.

  Returns:
    The tree, and the bytes of the file.

  Raises:
    RefusedError: an unknown class or function without `records`, or an
      instruction that no tensor needs.
    CheckpointError: the file is damaged or hostile.
  """
  budget = Budget(path, limits)
  zipped = archive.Archive(path, budget)
  roots = [n for n in zipped.members if posixpath.basename(n) == "data.pkl"]
  if len(roots) != 1:
    raise errors.unreadable(
      path, f"it has {len(roots)} pickles where one is due", REMEDY
    )
  root = roots[0][: -len("data.pkl")]
  if f"{root}constants.pkl" in zipped.members:
    raise errors.unreadable(path, "it is a TorchScript program", REMEDY)
  budget.check_header("a pickle", zipped.members[roots[0]])
  big_endian = _is_big_endian(zipped, f"{root}byteorder")
  with foreign.guard(path, "its pickle is damaged", _PickleError):
    try:
      tree = pickles.loads(
        zipped.read(roots[0]),
        torch_views.known(zipped, root, big_endian),
        persistent=functools.partial(torch_views.storage, zipped, root),
        records=records,
        max_steps=STEPS_PER_ENTRY * limits.max_entries,
      )
    except (pickles.RefusedError, errors.CheckpointError):
      raise
    except (ValueError, OverflowError) as error:
      raise _PickleError(str(error)) from error
  return tree, zipped.size


class _PickleError(Exception):
  """A damaged pickle, apart from one that is refused."""


def _is_big_endian(zipped: archive.Archive, member: str) -> bool:
  """Returns whether the storages are big-endian; most files say, or are not."""
  if member not in zipped.members:
    return False
  order = zipped.read(member) if zipped.members[member] < 16 else b""
  if order not in (b"little", b"big"):
    raise errors.unreadable(zipped.path, f"its byte order is {order!r}")
  return order == b"big"


def _modules(tree: Any, part: str) -> str:
  """Returns names and versions of modules that a state dict carries."""
  for name in filter(None, part.split("/")):
    tree = tree.get(name) if isinstance(tree, dict) else None
  state = tree.state if isinstance(tree, pickles.Ordered) else None
  table = state.get("_metadata") if isinstance(state, dict) else None
  if not isinstance(table, dict):
    return ""
  versions = {
    name: item.get("version")
    for name, item in table.items()
    if isinstance(name, str) and isinstance(item, dict)
  }
  plain = (int, type(None))
  return json.dumps({n: v for n, v in versions.items() if isinstance(v, plain)})
