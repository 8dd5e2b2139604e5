"""NumPy files: `.npz` archives of arrays, and single `.npy` arrays.

Arrays of Python objects are pickles; they are refused.
"""

import io
import math
import warnings

import numpy as np

from sne_jax import errors
from sne_jax.checkpoints import foreign
from sne_jax.checkpoints.formats import archive
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import DTYPES, Entry, Tensors

HEADER_BYTES = 1 << 14
"""What is read of an array to find its header; NumPy allows 10,000."""

SINGLE = "arr_0"
"""Name of the array of an `.npy` file, as `np.savez` would give."""


def read_npz(path: str, limits: Limits) -> Tensors:
  """Opens an `.npz` file. Metadata: `left_out`, arrays of text.

  Raises:
    CheckpointError: the archive is damaged or hostile, or an array needs a
      pickle or has a dtype that is no number.
  """
  budget = Budget(path, limits)
  zipped = archive.Archive(path, budget)
  entries, out = {}, []
  for member, size in zipped.members.items():
    if not member.endswith(".npy"):
      out.append(member)
      continue
    name = member.removesuffix(".npy")
    head = zipped.read_head(member, HEADER_BYTES)
    shape, fortran, dtype, start = _header(path, name, head)
    if dtype.kind in "US":
      out.append(name)
      continue
    entry = _entry(path, name, shape, fortran, dtype)
    _check_size(path, name, size - start, shape, dtype)
    budget.take(name, size - start, stored=zipped.size)
    entries[name] = entry(_member_loader(zipped, member, start))
  if not entries:
    raise errors.unreadable(path, "it holds no arrays", "save some in it")
  metadata = {"left_out": ", ".join(out)[:1000]} if out else {}
  return Tensors(entries, "npz", path, metadata)


def read_npy(path: str, limits: Limits) -> Tensors:
  """Opens an `.npy` file as one entry, called `arr_0`.

  Raises:
    CheckpointError: as of `read_npz`.
  """
  size = foreign.file_size(path)
  budget = Budget(path, limits)
  head = foreign.read_head(path, HEADER_BYTES)
  shape, fortran, dtype, start = _header(path, SINGLE, head)
  entry = _entry(path, SINGLE, shape, fortran, dtype)
  _check_size(path, SINGLE, size - start, shape, dtype)
  budget.take(SINGLE, size - start, stored=size)
  tensor = entry(
    lambda width: foreign.map_array(path, start, np.dtype(np.uint8), (width,))
  )
  return Tensors({SINGLE: tensor}, "npz", path)


def _header(path: str, name: str, head: bytes):
  """Returns shape, order, dtype and length of the header of an array."""
  file = io.BytesIO(head)
  with (
    foreign.guard(path, f"array {name!r} has a damaged header"),
    warnings.catch_warnings(),
  ):
    warnings.simplefilter("ignore")
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
      shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
      shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
      raise ValueError(f"version {version} is for tables")
    if not foreign.is_shape(shape):
      raise ValueError(f"shape {shape!r}")
  return shape, fortran, dtype, file.tell()


def _entry(path, name, shape, fortran, dtype):
  """Returns what makes the entry of an array from a loader of its bytes."""
  if dtype.hasobject:
    raise errors.unreadable(
      path,
      f"array {name!r} holds Python objects, which would have to be unpickled",
      "save arrays of numbers",
    )
  native = dtype.newbyteorder("=")
  if native.name not in DTYPES or native.names or native.subdtype:
    if dtype.kind in "US":
      problem = "save arrays of numbers"
    else:
      problem = "save it as float32 (NumPy does not keep bfloat16 or float8)"
    raise errors.unreadable(
      path, f"array {name!r} has dtype {str(dtype)[:100]}", problem
    )

  def with_loader(load_bytes) -> Entry:
    def load():
      raw = load_bytes(math.prod(shape) * dtype.itemsize)
      flat = raw.view(dtype)
      if not dtype.isnative:
        flat = flat.astype(native)
      return flat.reshape(shape, order="F" if fortran else "C")

    return Entry(name, tuple(shape), native.name, load)

  return with_loader


def _member_loader(zipped: archive.Archive, member: str, start: int):
  """Returns what loads the bytes of a member, mapped where it is not packed."""
  offset = zipped.offset(member)
  if offset is None:
    return lambda width: np.frombuffer(zipped.read(member), np.uint8)[start:]
  return lambda width: foreign.map_array(
    zipped.path, offset + start, np.dtype(np.uint8), (width,)
  )


def _check_size(path, name, have, shape, dtype) -> None:
  due = math.prod(shape) * dtype.itemsize
  if have != due:
    raise errors.unreadable(
      path,
      f"array {name!r} of shape {list(shape)} has {have} bytes where {due} are"
      " due",
    )
