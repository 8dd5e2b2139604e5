"""Tensors of a PyTorch archive: views of storages, and what is made of them.

A pickle describes a tensor by a storage, an offset, a shape and a stride, and
may say that its numbers are negated or conjugated when they are read. Sparse
tensors are several such views; those with a quantiser are whole numbers with
scales. All are checked against their storages before they are believed, and
read as plain arrays.

References:
  PyTorch, torch/_utils.py, whose `_rebuild_*` functions a pickle names.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sne_jax import errors
from sne_jax.checkpoints import foreign
from sne_jax.checkpoints.formats import archive
from sne_jax.checkpoints.formats.pytorch import pickles
from sne_jax.checkpoints.tensors import DTYPES

STORAGES = {
  **{"Float": "float32", "Double": "float64", "Half": "float16"},
  **{"BFloat16": "bfloat16", "Bool": "bool", "Byte": "uint8", "Char": "int8"},
  **{"Short": "int16", "Int": "int32", "Long": "int64"},
  **{"ComplexFloat": "complex64", "ComplexDouble": "complex128"},
  **{"QInt8": "int8", "QUInt8": "uint8", "QInt32": "int32"},
}
"""First word of their classes of storages -> our dtype."""

ALIASES = {"half": "float16", "float": "float32", "double": "float64"}
COMPRESSED = ("sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")
LAYOUTS = ("sparse_coo", *COMPRESSED)
QUANTISERS = ("per_tensor_affine", "per_channel_affine")


@dataclasses.dataclass(frozen=True)
class Storage:
  """One run of bytes in the archive; `dtype` is None for untyped ones."""

  key: str
  dtype: str | None
  num_items: int


@dataclasses.dataclass(frozen=True)
class View:
  """A tensor of the archive.

  Attributes:
    key: equal for tensors that are the same numbers of the same storage.
    dtype: a name of `tensors.DTYPES`.
    shape: of the array.
    load: returns the array.
    repeats: whether it has more numbers than its storage.
  """

  key: tuple
  dtype: str
  shape: tuple[int, ...]
  load: Callable[[], np.ndarray] = dataclasses.field(repr=False, compare=False)
  repeats: bool = False

  def read(self) -> np.ndarray:
    """Returns the array; mapped and read-only where it is stored as it is."""
    return self.load()


@dataclasses.dataclass(frozen=True)
class _StorageType:
  dtype: str | None


@dataclasses.dataclass(frozen=True)
class _Word:
  """A dtype, a layout or a quantiser, by its name."""

  name: str


def known(
  zipped: archive.Archive, root: str, big_endian: bool
) -> Mapping[str, Any]:
  """Returns the globals that a pickle may name: these and no others.

  Args:
    zipped: the archive.
    root: what the names of its members begin with.
    big_endian: whether its storages are.
  """
  rebuild = functools.partial(_rebuild, zipped, root, big_endian)
  functions = {
    "collections.OrderedDict": pickles.ordered,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.serialization._get_layout": _layout,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_tensor_v2": (
      lambda storage, offset, shape, stride, grad, hooks, flags=None: rebuild(
        storage, None, offset, shape, stride, flags
      )
    ),
    "torch._utils._rebuild_tensor_v3": (
      lambda storage, offset, shape, stride, grad, hooks, dtype, *flags: (
        rebuild(storage, dtype, offset, shape, stride, *flags)
      )
    ),
    "torch._utils._rebuild_sparse_tensor": functools.partial(
      _sparse, zipped.path
    ),
    "torch._utils._rebuild_qtensor": (
      lambda storage, offset, shape, stride, quantiser, *_: _quantised(
        rebuild(storage, None, offset, shape, stride), quantiser
      )
    ),
  }
  words: dict[str, Any] = {n: pickles.Function(f) for n, f in functions.items()}
  words["torch._tensor._rebuild_from_type_v2"] = pickles.Function(_from_type)
  words["torch.Tensor"] = words["torch.nn.parameter.Parameter"] = _Word("plain")
  for name in ("torch.storage.UntypedStorage", "torch.UntypedStorage"):
    words[name] = _StorageType(None)
  for word, dtype in STORAGES.items():
    words[f"torch.{word}Storage"] = _StorageType(dtype)
  for name, dtype in ({n: n for n in DTYPES} | ALIASES).items():
    words[f"torch.{name}"] = _Word(dtype)
  for name in (*LAYOUTS, *QUANTISERS, "qint8", "quint8", "qint32"):
    words[f"torch.{name}"] = _Word(name)
  return words


def storage(zipped: archive.Archive, root: str, key: Any) -> Storage:
  """Returns the storage of a persistent id, its size compared.

  Raises:
    ValueError: there is none of that name and size.
  """
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


def _layout(name: Any) -> _Word:
  word = str(name).removeprefix("torch.")
  if word not in LAYOUTS:
    raise pickles.RefusedError(f"the layout {str(name)[:50]}")
  return _Word(word)


def _parameter(data: Any, *_) -> View:
  """Returns a parameter's tensor; attributes that people gave it are left."""
  if not isinstance(data, View):
    raise ValueError("a parameter of what is no tensor")
  return data


def _from_type(function: Any, kind: Any, args: Any, _: Any) -> View:
  """Returns a tensor with attributes; other classes may mean anything."""
  if not isinstance(function, pickles.Function) or not isinstance(args, tuple):
    raise ValueError("a tensor that is made by what is no function")
  if kind != _Word("plain"):
    raise pickles.RefusedError("a class of tensors that is not PyTorch's own")
  return _parameter(function.call(*args))


def _rebuild(
  zipped, root, big_endian, storage, dtype, offset, shape, stride, flags=None
) -> View:
  """Returns the tensor that a pickle describes, if it lies in its storage."""
  if not isinstance(storage, Storage):
    raise ValueError("a tensor of what is no storage")
  name = dtype.name if isinstance(dtype, _Word) else storage.dtype
  if name not in DTYPES:
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
  room = storage.num_items
  if storage.dtype is None:
    room //= foreign.dtype_bytes(name)
  elif name != storage.dtype:
    raise ValueError(f"a {name} tensor of a storage of {storage.dtype}")
  # The stride of an axis of one number says nothing, and may be anything.
  steps = [s if n > 1 else 0 for n, s in zip(shape, stride, strict=True)]
  extent = sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
  if 0 not in shape and offset + extent >= room:
    raise ValueError(
      f"a tensor of shape {tuple(shape)}, stride {tuple(steps)} at {offset}"
      f" leaves its storage of {room} numbers"
    )
  how = (big_endian, name, offset, tuple(shape), tuple(steps), extent + 1)
  load = functools.partial(_load, zipped, f"{root}data/{storage.key}", *how)
  signs = _signs(flags, name)
  if signs:
    load = functools.partial(_resolved, load, signs)
  size = functools.reduce(lambda a, b: a * b, shape, 1)
  return View((storage, *how, signs), name, tuple(shape), load, size > room)


def _signs(flags: Any, dtype: str) -> tuple[str, ...]:
  """Returns which of "neg" and "conj" are set; others are not known."""
  if flags is None:
    return ()
  if not isinstance(flags, dict) or not set(flags) <= {"neg", "conj"}:
    raise ValueError(f"a tensor with the marks {str(flags)[:100]}")
  signs = tuple(sorted(name for name, is_set in flags.items() if is_set))
  if dtype == "bool" and signs or "conj" in signs and dtype[:3] != "com":
    raise ValueError(f"a {dtype} tensor with the marks {signs}")
  return signs


def _resolved(load: Callable[[], np.ndarray], signs: tuple[str, ...]):
  """Returns what PyTorch would compute with: negated, conjugated."""
  array = load()
  array = np.conjugate(array) if "conj" in signs else array
  return np.negative(array) if "neg" in signs else array


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


# Sparse and quantised tensors ------------------------------------------------


def _sparse(path: str, layout: Any, data: Any) -> View:
  """Returns a sparse tensor as the dense array that it stands for."""
  if not isinstance(layout, _Word) or not isinstance(data, tuple):
    raise ValueError("a sparse tensor of no layout")
  is_coo = layout.name == "sparse_coo"
  parts, shape = (data[:2], data[2:3]) if is_coo else (data[:3], data[3:4])
  if not shape or not foreign.is_shape(shape[0]):
    raise ValueError("a sparse tensor of no shape")
  shape = tuple(shape[0])
  for part in parts:
    # A view may repeat one number for ever, and costs nothing until now.
    if not isinstance(part, View) or part.repeats:
      raise ValueError("a sparse tensor of what are no tensors")
  *places, values = parts
  if any(not part.dtype.startswith("int") for part in places):
    raise ValueError("a sparse tensor whose places are no whole numbers")
  if is_coo:
    axes, *rest = places[0].shape if len(places[0].shape) == 2 else (99,)
    fits = axes <= len(shape) and values.shape == (*rest, *shape[axes:])
  else:
    if len(shape) > 2 and len(values.shape) > 1:
      raise errors.unreadable(
        path,
        f"a tensor of layout {layout.name} and shape {list(shape)}: a batch"
        " of sparse ones",
        "save it dense: tensor.to_dense()",
      )
    blocks = values.shape[1:] or (1, 1)
    by_row = layout.name in ("sparse_csr", "sparse_bsr")
    fits = len(shape) == len(blocks) == 2 and all(blocks)
    fits = fits and not any(n % b for n, b in zip(shape, blocks, strict=True))
    fits = fits and places[1].shape == values.shape[:1]
    major = 0 if by_row else 1
    fits = fits and places[0].shape == (shape[major] // blocks[major] + 1,)
  if not fits:
    raise ValueError(f"a sparse tensor whose parts do not fit {shape}")
  scatter = _from_coo if is_coo else functools.partial(_from_rows, by_row)

  def load() -> np.ndarray:
    dense = np.zeros(shape, DTYPES[values.dtype])
    with foreign.guard(path, "a sparse tensor is damaged", ValueError):
      scatter(dense, *(np.asarray(part.read()) for part in parts))
    return dense

  key = (layout.name, *(part.key for part in parts), shape)
  return View(key, values.dtype, shape, load)


def _from_coo(dense, indices, values) -> None:
  """Adds values at places `[axes, N]`; those of one place are summed."""
  sizes = np.array(dense.shape[: len(indices)]).reshape(-1, 1)
  if (indices < 0).any() or (indices >= sizes).any():
    raise ValueError("it has values outside its shape")
  np.add.at(dense, tuple(indices), values)


def _from_rows(by_row, dense, starts, minor, values) -> None:
  """Puts blocks `[N, b, c]`, or numbers `[N]`, row by row or by column."""
  counts = np.diff(starts)
  if starts[0] or starts[-1] != len(minor) or (counts < 0).any():
    raise ValueError("its rows are not in order")
  values = values if values.ndim > 1 else values[:, None, None]
  block = values.shape[1:]
  grid = [n // b for n, b in zip(dense.shape, block, strict=True)]
  if (minor < 0).any() or (minor >= grid[1 if by_row else 0]).any():
    raise ValueError("it has values outside its shape")
  major = np.repeat(np.arange(len(counts)), counts)
  row, column = (major, minor) if by_row else (minor, major)
  tiles = dense.reshape(grid[0], block[0], grid[1], block[1])
  tiles.transpose(0, 2, 1, 3)[row, column] = values


def _quantised(whole: View, quantiser: Any) -> View:
  """Returns what a tensor with a quantiser stands for, float32."""
  if not isinstance(quantiser, tuple) or len(quantiser) < 3:
    raise ValueError("a quantised tensor without a scale")
  kind, scale, zero, *rest = quantiser
  if kind == _Word("per_tensor_affine"):
    if not isinstance(scale, float) or not isinstance(zero, int):
      raise ValueError("a quantised tensor without a scale")
    key = (scale, zero)
    read = lambda: (np.float32(scale), np.float32(zero))
  elif kind == _Word("per_channel_affine"):
    axis = rest[0] if rest else -1
    if not (
      isinstance(scale, View)
      and isinstance(zero, View)
      and foreign.is_count(axis)
      and axis < len(whole.shape)
      and scale.shape == zero.shape == (whole.shape[axis],)
    ):
      raise ValueError("a quantised tensor whose scales do not fit")
    key = (scale.key, zero.key, axis)
    along = [-1 if a == axis else 1 for a in range(len(whole.shape))]
    read = lambda: (
      part.read().astype(np.float32).reshape(along) for part in (scale, zero)
    )
  else:
    raise ValueError("a quantised tensor of an unknown kind")

  def load() -> np.ndarray:
    scales, zeros = read()
    return ((whole.read().astype(np.float32) - zeros) * scales).astype(
      np.float32
    )

  return View((*whole.key, *key), "float32", whole.shape, load)
