"""Keras files: `.keras` archives and HDF5 files, `.weights.h5` and `.h5`.

Only datasets that lie in the file itself are read: links to other files,
external storage and virtual datasets are refused. h5py is optional and
imported only here.
"""

import contextlib
import functools
import importlib
import io
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from sne_jax import errors
from sne_jax.checkpoints import foreign, trees
from sne_jax.checkpoints.formats import archive, hdf5_heaps
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import DTYPES, Entry, Tensors, add
from sne_jax.networks.tracing.keras_files import KerasGraph

WEIGHTS, CONFIG = "model.weights.h5", "config.json"
OPTIMIZER = ("optimizer", "optimizer_weights")
MAX_DEPTH = 64


def read(path: str, limits: Limits) -> Tensors:
  """Opens a Keras file; names are the paths of the datasets.

  Entries come in the order of the layers: as the file lists them, else as
  they were written. Metadata: `config` (the model's architecture as JSON,
  where the file has it), `names` (name of the layer by path of the group that
  holds its variables, as JSON), `left_out` (optimizer, texts). The graph is
  the architecture, if it is one of layers and not of somebody's own code.

  Raises:
    CheckpointError: the file is damaged or hostile, or h5py is missing.
  """
  budget = Budget(path, limits)
  size = foreign.file_size(path)
  metadata = {}
  if _is_zip(path):
    zipped = archive.Archive(path, budget)
    if WEIGHTS not in zipped.members:
      raise errors.unreadable(
        path, f"it has no {WEIGHTS}", "save it with model.save"
      )
    if CONFIG in zipped.members:
      budget.check_header(CONFIG, zipped.members[CONFIG])
      with foreign.guard(path, f"a damaged {CONFIG}", ValueError):
        metadata["config"] = zipped.read(CONFIG).decode()
  with _opened(path, limits, texts=True) as file:
    with foreign.guard(path, "a damaged HDF5 file"):
      datasets, names, out = _walk(file, budget)
      config = file.attrs.get("model_config")
    if isinstance(config, str):
      metadata["config"] = config
    entries, first = {}, {}
    for _, address, name, shape, dtype in sorted(datasets):
      tied_to = first.setdefault(address, name)
      tied_to = tied_to if tied_to != name else None
      load = functools.partial(_load, path, limits, name, dtype)
      add(entries, Entry(name, shape, dtype, load, tied_to), budget, size)
  if not entries:
    raise errors.unreadable(
      path, "it holds no arrays", "save the network's weights in it"
    )
  if names:
    metadata["names"] = json.dumps(names)
  if out:
    metadata["left_out"] = trees.counted(out)
  graph = _graph(metadata.get("config", ""), entries, names, path)
  return Tensors(entries, "keras", path, metadata, graph)


def _graph(
  config: str, entries: dict[str, Entry], names: dict[str, str], path: str
) -> KerasGraph | None:
  """Returns the model that a configuration describes, if it does."""
  model = foreign.parse_json(config, path, CONFIG) if config else None
  if model is None or not KerasGraph.describes(model):
    return None
  shapes = {name: entry.shape for name, entry in entries.items()}
  return KerasGraph(model, shapes, names)


def _is_zip(path: str) -> bool:
  with open(path, "rb") as file:
    return file.read(4) in archive.MAGIC


@contextlib.contextmanager
def _opened(path: str, limits: Limits, *, texts: bool = False) -> Iterator[Any]:
  """Gives the HDF5 file, which may be a member of an archive.

  Args:
    path: of it, or of the archive.
    limits: what it may ask for.
    texts: whether texts are read, so that their heaps are checked.
  """
  h5py = foreign.library(
    "h5py", path, "a Keras or HDF5 file, and h5py is not installed"
  )
  with contextlib.ExitStack() as stack:
    source: Any = path
    if _is_zip(path):
      zipped = archive.Archive(path, Budget(path, limits))
      start = zipped.offset(WEIGHTS)
      if start is None:
        source = io.BytesIO(zipped.read(WEIGHTS))
      else:
        source = _Window(path, start, zipped.members[WEIGHTS])
    elif texts:
      source = _Window(path, 0, foreign.file_size(path))
    if isinstance(source, _Window | io.BytesIO):
      source = stack.enter_context(hdf5_heaps.Checked(source))
    with foreign.guard(path, "a damaged HDF5 file"):
      file = stack.enter_context(h5py.File(source, "r"))
    yield file


class _Window(io.RawIOBase):
  """A stretch of a file as a file, for reading."""

  def __init__(self, path: str, start: int, size: int):
    self._file = open(path, "rb")  # noqa: SIM115 closed by `close`
    self._start, self._size, self._at = start, size, 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}
    self._at = max(0, base[whence] + offset)
    return self._at

  def readinto(self, buffer) -> int:
    self._file.seek(self._start + self._at)
    count = max(0, min(len(buffer), self._size - self._at))
    data = self._file.read(count)
    buffer[: len(data)] = data
    self._at += len(data)
    return len(data)

  def close(self) -> None:
    self._file.close()
    super().close()


def _walk(file, budget: Budget):
  """Returns arrays (rank, address, name, shape, dtype), names, left out.

  Files of Keras 2 list their layers and the arrays of each; the rank is the
  place in these lists. Elsewhere the address says what was written first.
  """
  h5py = importlib.import_module("h5py")
  datasets, names, out = [], {}, {}
  layers: dict[str, int] = {}  # Path of the group of a layer -> its place.
  ranks: dict[str, tuple[int, int]] = {}
  seen = {h5py.h5o.get_info(file.id).addr}
  work = [("", file)]
  while work:
    path, group = work.pop()
    start = f"{path}/" if path else ""
    for number, label in enumerate(_texts(group, "layer_names")):
      layers[start + label] = number
    for number, label in enumerate(_texts(group, "weight_names")):
      ranks[start + label] = layers.get(path, len(layers)), number
    for key in group:
      name = start + key
      link = group.get(key, getlink=True)
      if not isinstance(link, h5py.HardLink):
        raise errors.unreadable(
          budget.path,
          f"{name!r} is a link to elsewhere",
          "save a file that holds all of its arrays itself",
        )
      item = group[key]
      address = h5py.h5o.get_info(item.id).addr
      if isinstance(item, h5py.Group):
        if address in seen or name.count("/") > MAX_DEPTH:
          raise ValueError(f"group {name!r} contains itself")
        seen.add(address)
        if isinstance(label := item.attrs.get("name"), str):
          names[name] = label
        work.append((name, item))
      elif isinstance(item, h5py.Dataset):
        if len(datasets) > budget.limits.max_entries:
          raise budget.fault("too many arrays", "max_entries")
        top = name.split("/")[0]
        dtype = _dtype(item, name, budget.path)
        if top in OPTIMIZER or dtype is None:
          label = top if top in OPTIMIZER else name
          out[label] = out.get(label, 0) + 1
        else:
          rank = ranks.get(name, (len(layers), 0))
          datasets.append((rank, address, name, _shape(item), dtype))
  return datasets, names, out


def _texts(group, attribute: str) -> list[str]:
  """Returns an attribute that lists texts; [] if there is none."""
  values = group.attrs.get(attribute, ())
  if isinstance(values, str | bytes) or np.ndim(values) != 1:
    return []
  texts = [t.decode() if isinstance(t, bytes) else t for t in values]
  return [text for text in texts if isinstance(text, str)]


def _shape(item) -> tuple[int, ...]:
  if item.shape is None or not foreign.is_shape(item.shape):
    raise ValueError(f"array {item.name!r} has shape {item.shape}")
  return tuple(int(size) for size in item.shape)


def _dtype(item, name: str, path: str) -> str | None:
  """Returns our name of the dtype of a dataset; None for texts."""
  if item.external or item.is_virtual:
    raise errors.unreadable(
      path,
      f"the numbers of {name!r} are in another file",
      "save a file that holds all of its arrays itself",
    )
  if item.attrs.get("dtype") == "bfloat16":
    return "bfloat16"
  dtype = item.dtype.newbyteorder("=")
  if dtype.kind in "OSU":
    return None
  if dtype.name not in DTYPES:
    raise errors.unreadable(
      path, f"array {name!r} has dtype {str(dtype)[:100]}", "save it as float32"
    )
  return dtype.name


def _load(path: str, limits: Limits, name: str, dtype: str) -> np.ndarray:
  with (
    _opened(path, limits) as file,
    foreign.guard(path, f"array {name!r} cannot be read"),
  ):
    array = np.asarray(file[name][()])
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
      array = array.view(DTYPES[dtype])
    return array.astype(DTYPES[dtype], copy=False)
