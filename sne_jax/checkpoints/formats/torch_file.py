"""PyTorch files (`.pt`, `.pth`, `.bin`), read without PyTorch.

Since version 1.6 `torch.save` writes a zip archive: a pickle that names
tensors, and one uncompressed member for each storage. The pickle runs on the
machine of `pickles`, which knows tensors and containers and nothing else; the
storages are mapped. What it does not know, and older files, go to PyTorch's
own `weights_only` loading where PyTorch is installed (`torch_load`).
"""

import dataclasses
import functools
import json
import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np

from sne_jax import errors
from sne_jax.checkpoints import foreign, trees
from sne_jax.checkpoints.formats import archive, pickles, torch_load
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import DTYPES, Entry, Tensors, add

STORAGES = {
  **{"Float": "float32", "Double": "float64", "Half": "float16"},
  **{"BFloat16": "bfloat16", "Bool": "bool", "Byte": "uint8", "Char": "int8"},
  **{"Short": "int16", "Int": "int32", "Long": "int64"},
  **{"ComplexFloat": "complex64", "ComplexDouble": "complex128"},
}
"""First word of their classes of storages -> our dtype."""

ALIASES = {"half": "float16", "float": "float32", "double": "float64"}
STEPS_PER_ENTRY = 60
"""Instructions of a pickle for one tensor; a plain one takes about 30."""

REMEDY = "save only the weights: torch.save(model.state_dict(), path)"


@dataclasses.dataclass(frozen=True)
class Storage:
  """One run of bytes in the archive; `dtype` is None for untyped ones."""

  key: str
  dtype: str | None
  num_items: int


@dataclasses.dataclass(frozen=True)
class View:
  """A tensor: a strided view of a storage. Offset and stride in numbers."""

  storage: Storage
  dtype: str
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]
  load: Any = dataclasses.field(default=None, repr=False, compare=False)

  def read(self) -> np.ndarray:
    """Returns the array, mapped and read-only."""
    return self.load()


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
    same = (view.storage, view.dtype, view.offset, view.shape, view.stride)
    empty = 0 in view.shape
    tied_to = None if empty else first.setdefault(same, name)
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
  storage = functools.partial(_storage, zipped, root)
  rebuild = functools.partial(_rebuild, zipped, root, big_endian)
  with foreign.guard(path, "its pickle is damaged", _PickleError):
    try:
      tree = pickles.loads(
        zipped.read(roots[0]),
        _known(rebuild),
        persistent=storage,
        records=records,
        max_steps=STEPS_PER_ENTRY * limits.max_entries,
      )
    except pickles.RefusedError:
      raise
    except (ValueError, OverflowError) as error:
      raise _PickleError(str(error)) from error
  return tree, zipped.size


class _PickleError(Exception):
  """A damaged pickle, apart from one that is refused."""


def _known(rebuild) -> Mapping[str, Any]:
  """Returns the globals that a pickle may name: these and no others."""
  known: dict[str, Any] = {
    "collections.OrderedDict": pickles.Function(pickles.ordered),
    "torch.Size": pickles.Function(lambda sizes=(): tuple(sizes)),
    "torch._utils._rebuild_parameter": pickles.Function(_parameter),
    "torch._utils._rebuild_tensor_v2": pickles.Function(
      lambda storage, offset, shape, stride, *_: rebuild(
        storage, None, offset, shape, stride
      )
    ),
    "torch._utils._rebuild_tensor_v3": pickles.Function(
      lambda storage, offset, shape, stride, grad, hooks, dtype, *_: rebuild(
        storage, dtype, offset, shape, stride
      )
    ),
    "torch.storage.UntypedStorage": _StorageType(None),
    "torch.UntypedStorage": _StorageType(None),
  }
  for word, dtype in STORAGES.items():
    known[f"torch.{word}Storage"] = _StorageType(dtype)
  for name, dtype in ({n: n for n in DTYPES} | ALIASES).items():
    known[f"torch.{name}"] = _DType(dtype)
  return known


@dataclasses.dataclass(frozen=True)
class _StorageType:
  dtype: str | None


@dataclasses.dataclass(frozen=True)
class _DType:
  name: str


def _parameter(data: Any, *_) -> Any:
  if not isinstance(data, View):
    raise ValueError("a parameter of what is no tensor")
  return data


def _storage(zipped: archive.Archive, root: str, key: Any) -> Storage:
  """Returns the storage of a persistent id, its size compared."""
  if not (
    isinstance(key, tuple)
    and len(key) == 5
    and key[0] == "storage"
    and isinstance(key[1], _StorageType)
    and isinstance(key[2], str)
    and foreign.is_count(key[4])
  ):
    raise ValueError("it refers to something that is no storage")
  dtype = key[1].dtype
  member = f"{root}data/{key[2]}"
  if member not in zipped.members:
    raise ValueError(f"storage {key[2]!r} is missing")
  have = zipped.members[member]
  due = key[4] * (foreign.dtype_bytes(dtype) if dtype else 1)
  if have != due:
    raise ValueError(f"storage {key[2]!r} has {have} bytes where {due} are due")
  return Storage(key[2], dtype, key[4])


def _rebuild(zipped, root, big_endian, storage, dtype, offset, shape, stride):
  """Returns the tensor that a pickle describes, if it lies in its storage."""
  if not isinstance(storage, Storage):
    raise ValueError("a tensor of what is no storage")
  name = dtype.name if isinstance(dtype, _DType) else storage.dtype
  if name is None:
    raise ValueError("a tensor without a dtype")
  if not (foreign.is_count(offset) and foreign.is_shape(shape)):
    raise ValueError(f"a tensor of shape {str(shape)[:100]} at {offset!r}")
  if (
    not isinstance(stride, list | tuple)
    or len(stride) != len(shape)
    or not all(map(foreign.is_count, stride))
  ):
    raise ValueError(
      f"a tensor of shape {shape} with stride {str(stride)[:99]}"
    )
  width = foreign.dtype_bytes(name)
  room = storage.num_items
  if storage.dtype is None:
    room //= width
  elif name != storage.dtype:
    raise ValueError(f"a {name} tensor of a storage of {storage.dtype}")
  # The stride of an axis of one number says nothing, and may be anything.
  stride = [s if n > 1 else 0 for n, s in zip(shape, stride, strict=True)]
  steps = sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
  if 0 not in shape and offset + steps >= room:
    raise ValueError(
      f"a tensor of shape {tuple(shape)}, stride {tuple(stride)} at {offset}"
      f" leaves its storage of {room} numbers"
    )
  load = functools.partial(
    _load,
    *(zipped, f"{root}data/{storage.key}", big_endian, name),
    *(offset, tuple(shape), tuple(stride), steps + 1),
  )
  return View(storage, name, offset, tuple(shape), tuple(stride), load)


def _load(zipped, member, big_endian, name, offset, shape, stride, extent):
  """Returns the array of a tensor, mapped where the archive allows."""
  dtype = DTYPES[name]
  if 0 in shape:
    return np.zeros(shape, dtype)
  start, width = zipped.offset(member), dtype.itemsize
  if start is not None:
    flat = foreign.map_array(
      zipped.path,
      start + offset * width,
      np.dtype(np.uint8),
      (extent * width,),
    )
  else:  # Someone has packed the archive anew.
    flat = np.frombuffer(zipped.read(member), np.uint8)
    flat = flat[offset * width :][: extent * width]
  if big_endian:
    flat = foreign.swap(flat, dtype)
    flat.flags.writeable = False
  # This constructor compares the strides with the buffer once more.
  return np.ndarray(shape, dtype, flat.data, 0, [width * s for s in stride])


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
