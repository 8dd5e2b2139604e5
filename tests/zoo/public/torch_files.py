"""Writes what `torch.save` writes, and objects of omegaconf, with neither.

The pickle names classes by module and name; modules of those names exist only
while it is written.
"""

import collections
import io
import pickle
import sys
import types
import zipfile
from unittest import mock

import numpy as np

STORAGES = {
  "float32": "FloatStorage",
  "float64": "DoubleStorage",
  "float16": "HalfStorage",
  "int64": "LongStorage",
}


class Storage:
  """The bytes of one array."""

  def __init__(self, array):
    self.array = array


class Evil:
  """Runs a command when it is unpickled by Python's own machine."""

  def __init__(self, command):
    self.command = command

  def __reduce__(self):
    import os

    return os.system, (self.command,)


def _module(name, *members):
  made = types.ModuleType(name)
  for member in members:
    member.__module__ = name
    setattr(made, member.__qualname__, member)
  return made


def _function(name):
  def function(*args):
    raise AssertionError(args)

  function.__name__ = function.__qualname__ = name
  return function


_CLASSES = {name: type(name, (), {}) for name in STORAGES.values()}
_REBUILD = _function("_rebuild_tensor_v2")
_OMEGACONF = {
  "dictconfig": ("DictConfig",),
  "listconfig": ("ListConfig",),
  "nodes": ("AnyNode",),
  "base": ("ContainerMetadata", "Metadata"),
}
_NODES = {
  name: type(name, (), {}) for names in _OMEGACONF.values() for name in names
}


def _modules():
  made = {
    "torch": _module("torch", *_CLASSES.values()),
    "torch._utils": _module("torch._utils", _REBUILD),
    "omegaconf": _module("omegaconf"),
  }
  for short, names in _OMEGACONF.items():
    name = f"omegaconf.{short}"
    made[name] = _module(name, *(_NODES[n] for n in names))
  return made


class _Pickler(pickle.Pickler):
  """Pickles arrays as tensors, whose bytes are kept aside."""

  def __init__(self, file):
    super().__init__(file, protocol=2)
    self.storages = []

  def reducer_override(self, obj):
    if not isinstance(obj, np.ndarray):
      return NotImplemented
    stride = tuple(step // obj.itemsize for step in obj.strides)
    hooks = collections.OrderedDict()
    args = (Storage(obj), 0, obj.shape, stride, False, hooks)
    return _REBUILD, args

  def persistent_id(self, obj):
    if not isinstance(obj, Storage):
      return None
    self.storages.append(obj.array)
    kind = _CLASSES[STORAGES[obj.array.dtype.name]]
    key = str(len(self.storages) - 1)
    return ("storage", kind, key, "cuda:0", obj.array.size)


def save(path, value):
  """Writes a value; arrays in it become tensors that were on a GPU."""
  path.parent.mkdir(parents=True, exist_ok=True)
  file = io.BytesIO()
  with mock.patch.dict(sys.modules, _modules()):
    pickler = _Pickler(file)
    pickler.dump(value)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", file.getvalue())
    archive.writestr("archive/byteorder", "little")
    for key, array in enumerate(pickler.storages):
      # The memory of a transposed array is in the order of its strides.
      raw = array.tobytes("A")
      archive.writestr(f"archive/data/{key}", raw)
    archive.writestr("archive/version", "3\n")


def state_dict(**tensors):
  """Returns a state dict; `__` in names stands for a dot."""
  return collections.OrderedDict(
    (name.replace("__", "."), np.asarray(array))
    for name, array in tensors.items()
  )


def config(value, parent=None, key=None):
  """Returns what `OmegaConf.create(value)` would be."""
  if isinstance(value, dict | list):
    kind = "DictConfig" if isinstance(value, dict) else "ListConfig"
    node = _NODES[kind]()
    meta = _NODES["ContainerMetadata"]()
    items = value.items() if isinstance(value, dict) else enumerate(value)
    inner = {k: config(v, node, k) for k, v in items}
    content = inner if isinstance(value, dict) else list(inner.values())
    node.__dict__ |= {"_content": content}
    meta.__dict__ |= {"key_type": int, "element_type": int}
  else:
    node, meta = _NODES["AnyNode"](), _NODES["Metadata"]()
    node.__dict__ |= {"_val": value}
  meta.__dict__ |= {
    "object_type": dict,
    "optional": True,
    "key": key,
    "flags": {},
    "resolver_cache": collections.defaultdict(dict),
  }
  node.__dict__ |= {"_metadata": meta, "_parent": parent}
  return node
