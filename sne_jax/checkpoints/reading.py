"""Any checkpoint by its first bytes: a file, a sharded set, a folder."""

import os
import stat
from collections.abc import Callable

from absl import logging

from sne_jax import errors
from sne_jax.checkpoints import (
  foreign,
  parts,
  quantised,
  recipes,
  reparametrised,
)
from sne_jax.checkpoints.formats import (
  archive,
  flax_file,
  gguf_file,
  hub,
  keras_file,
  numpy_file,
  onnx_file,
  orbax_folder,
  safetensors_file,
  shards,
)
from sne_jax.checkpoints.formats.pytorch import torch_file
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import Tensors

SUFFIXES = (
  *(".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".msgpack", ".flax"),
  *(".keras", ".h5", ".hdf5", ".onnx", ".npz", ".npy", ".gguf"),
)
"""Ends of names that `find` takes for checkpoints."""

HEAD = 512
OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
OTHERS = (
  (b"\x1f\x8b", "gzip", "unpack it first"),
  (b"\xfd7zXZ", "xz", "unpack it first"),
  (b"BZh", "bzip2", "unpack it first"),
  (b"(\xb5/\xfd", "zstd", "unpack it first"),
  (b"7z\xbc\xaf", "7z", "unpack it first"),
  (b"\x04\x22\x4d\x18", "LZ4", "unpack it first"),
  (b"version https://git-lfs", "a Git LFS pointer", "run git lfs pull"),
  (b"<", "a web page or XML", "download the file itself"),
  (b"{", "JSON", "name the file of the weights, or *.index.json"),
)
"""First bytes of what is no checkpoint, what it is, and what to do."""


def read(
  path: str | os.PathLike, *, part: str = "", limits: Limits | None = None
) -> Tensors:
  """Opens a checkpoint: names, shapes and dtypes now, numbers when asked for.

  The reader is chosen by what the file is, not by what it is called.

  Args:
    path: a file; an index of shards (`*.index.json`); an Orbax folder; a
      folder that holds one checkpoint; or `hf://owner/name@revision`.
    part: which network of several to read: a branch of a PyTorch file, names
      joined by "/"; or what its tensors' names begin with; empty to choose.
    limits: what the file may ask for; `Limits()` by default.

  Raises:
    CheckpointError: no checkpoint, a damaged, hostile or unknown one, or one
      whose library is not installed. One line: file, what, remedy.
  """
  path, limits = os.fspath(path), limits or Limits()
  if path.startswith(hub.SCHEME):
    path = hub.download(path)
  return as_computed(_as_stored(path, part, limits), limits)


def as_computed(tensors: Tensors, limits: Limits | None = None) -> Tensors:
  """Returns tensors as the network computes with them; see `recipes`.

  Args:
    tensors: as they are stored.
    limits: what they may take.

  Raises:
    CheckpointError: they pass a limit.
  """
  finders = (quantised.find, reparametrised.find)
  budget = Budget(tensors.source, limits or Limits())
  return recipes.apply(tensors, finders, budget)


def _as_stored(path: str, part: str, limits: Limits) -> Tensors:
  """Opens a checkpoint; see `read`."""
  if os.path.isdir(path):
    return _read_folder(path, part, limits)
  if path.endswith(shards.SUFFIX):
    each = lambda shard: _as_stored(shard, "", limits)
    return _part(shards.read(path, each, limits), part)
  size = foreign.file_size(path)
  if not size:
    raise errors.unreadable(path, "it is empty")
  head = foreign.read_head(path, HEAD)
  reader = _reader(path, head, size, limits)
  if reader in (torch_file.read, torch_file.read_old):
    opened = reader(path, limits, part)
    chosen = opened.metadata.get("part", "")
    if chosen and f"{part}/".startswith(f"{chosen}/"):
      part = part[len(chosen) :].strip("/")
    return _part(opened, part)
  return _part(reader(path, limits), part)


def find(folder: str | os.PathLike) -> list[str]:
  """Returns the checkpoints in a folder and below, each once, sorted.

  A sharded set is found as its index, an Orbax checkpoint as its folder. A
  folder that is called as a checkpoint and holds none is one that is refused.
  Nothing is opened but first bytes; links that lead outside are left alone,
  and logged. Numbers in names are sorted as numbers.

  Raises:
    CheckpointError: there is no such folder.
  """
  folder = os.fspath(folder)
  if not os.path.isdir(folder):
    raise errors.unreadable(folder, "no folder", "check the path")
  paths = []
  for where, folders, files in os.walk(folder):
    if trees := orbax_folder.tree_folders(where):
      paths.extend([where] if len(trees) == 1 else trees)
      folders.clear()
      continue
    if os.path.basename(where).startswith("models--"):
      folders[:] = [f for f in folders if f != "blobs"]  # Found as snapshots.
    for inner in (os.path.join(where, name) for name in folders):
      if _is_candidate(inner) and not os.path.islink(inner) and not find(inner):
        paths.append(inner)
    files = [name for name in files if _is_inside(folder, where, name)]
    parts = set()
    for name in files:
      if name.endswith(shards.SUFFIX):
        paths.append(os.path.join(where, name))
        parts |= shards.names(os.path.join(where, name))
    for name in files:
      path = os.path.join(where, name)
      if name not in parts and _is_candidate(path):
        paths.append(path)
  return sorted(paths, key=foreign.natural)


def _read_folder(path: str, part: str, limits: Limits) -> Tensors:
  """Opens the one checkpoint of a folder."""
  if orbax_folder.tree_folders(path):
    return _part(orbax_folder.read(path, limits), part)
  paths = find(path)
  if len(paths) == 1:
    return _as_stored(paths[0], part, limits)
  names = ", ".join(os.path.relpath(name, path) for name in paths[:5])
  raise errors.unreadable(
    path,
    f"it holds {len(paths)} checkpoints" + (f" ({names})" if paths else ""),
    "name one of them" if paths else "check the path",
  )


def _part(tensors: Tensors, part: str) -> Tensors:
  return parts.take(tensors, part) if part else tensors


def _reader(
  path: str, head: bytes, size: int, limits: Limits
) -> Callable[..., Tensors]:
  """Returns what reads a file, by its first bytes, then by its name."""
  if head.startswith(archive.MAGIC):
    return _zip_reader(path, limits)
  if head.startswith(b"\x89HDF\r\n\x1a\n"):
    return keras_file.read
  if head.startswith(b"GGUF"):
    return gguf_file.read
  if head.startswith(b"\x93NUMPY"):
    return numpy_file.read_npy
  if head.startswith(OLD_TORCH):
    return torch_file.read_old
  if head[4:8] == b"TFL3":
    raise errors.unreadable(
      path,
      "it is a TensorFlow Lite model, which is not read",
      "save the Keras model that it was made of, or export it to ONNX",
    )
  length = int.from_bytes(head[:8], "little")
  if head[8:9] == b"{" and length <= size:
    return safetensors_file.read
  for magic, what, remedy in OTHERS:
    if head.startswith(magic) or head[257:262] == b"ustar":
      what, remedy = (
        (what, remedy) if head.startswith(magic) else ("tar", "unpack it first")
      )
      raise errors.unreadable(path, f"it is {what}, no checkpoint", remedy)
  if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
    raise errors.unreadable(
      path,
      "it is a plain pickle, which could run any code",
      "load it where you trust it, and save its tensors as safetensors",
    )
  lower = path.lower()
  if lower.endswith(".safetensors"):
    return safetensors_file.read
  if lower.endswith(".onnx") or (head[0] == 0x08 and head[2:3] in b"\x12\x1a:"):
    return onnx_file.read
  if lower.endswith((".msgpack", ".flax")) or _is_table(head):
    return flax_file.read
  raise errors.unreadable(
    path,
    f"no known kind of checkpoint: it begins with {head[:8].hex(' ')}",
    "known are safetensors, PyTorch, Flax, Orbax, Keras, ONNX, npz and GGUF",
  )


def _is_table(head: bytes) -> bool:
  """Whether a file begins as a MessagePack table with a text as a name."""
  skip = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x81 <= head[0] <= 0x8F else 0)
  if not skip or len(head) <= skip:
    return False
  return 0xA0 <= head[skip] <= 0xBF or head[skip] in (0xD9, 0xDA, 0xDB)


def _zip_reader(path: str, limits: Limits) -> Callable[..., Tensors]:
  """Returns what reads a zip archive, by the names of its members."""
  names = list(archive.Archive(path, Budget(path, limits)).members)
  if any(os.path.basename(name) == "data.pkl" for name in names):
    return torch_file.read
  if keras_file.WEIGHTS in names:
    return keras_file.read
  if any(name.endswith(".npy") for name in names):
    return numpy_file.read_npz
  listed = ", ".join(names[:5])
  raise errors.unreadable(
    path,
    f"a zip archive of no known kind: it holds {listed or 'nothing'}",
    "known are those of PyTorch, Keras and NumPy",
  )


def _is_candidate(path: str) -> bool:
  """Whether a file looks like a checkpoint, by its name or first bytes."""
  base = os.path.basename(path).lower()
  if base.startswith("."):
    return False
  if base.endswith(SUFFIXES):
    return True
  try:
    if "." in base or not stat.S_ISREG(os.stat(path).st_mode):
      return False
    with open(path, "rb") as file:
      _reader(path, file.read(HEAD), os.path.getsize(path), Limits())
  except (errors.CheckpointError, OSError, IndexError):
    return False
  return True


def _is_inside(folder: str, where: str, name: str) -> bool:
  """Whether a file of a folder lies in it; links out of it are logged."""
  path = os.path.join(where, name)
  try:
    foreign.check_inside(path, folder, path)
  except errors.CheckpointError:
    logging.warning("%s leads out of %s; left alone", path, folder)
    return False
  return True
