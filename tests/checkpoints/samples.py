"""Files of every format, sound ones, written without the readers' help.

Shared by the tests and by `fuzz.py`. PyTorch archives are written by a small
pickler of their own, so that the tests need no PyTorch; `torch_test.py` holds
it to PyTorch's own files where that is installed.
"""

import collections
import importlib.util
import io
import json
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np

SAFETENSORS = {
  "bool": "BOOL",
  "complex64": "C64",
  "bfloat16": "BF16",
  "float8_e4m3fn": "F8_E4M3",
  "float8_e5m2": "F8_E5M2",
}
KINDS = {"f": "F", "i": "I", "u": "U"}
STORAGES = {
  "float32": "FloatStorage",
  "float64": "DoubleStorage",
  "float16": "HalfStorage",
  "bfloat16": "BFloat16Storage",
  "bool": "BoolStorage",
  "uint8": "ByteStorage",
  "int8": "CharStorage",
  "int16": "ShortStorage",
  "int32": "IntStorage",
  "int64": "LongStorage",
  "complex64": "ComplexFloatStorage",
}


def network():
  """An MLP of 3-4-2, float32, with values that name their place."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return {
    "0.weight": draw(4, 3),
    "0.bias": draw(4),
    "2.weight": draw(2, 4),
    "2.bias": draw(2),
  }


def odd():
  """One tensor of every odd kind: empty, 0-d, whole, small floats."""
  values = np.array([0.5, -2.0, 3.0])
  made = {
    name: values.astype(kind)
    for name, kind in {
      "float16": np.float16,
      "float32": np.float32,
      "float64": np.float64,
      "bfloat16": ml_dtypes.bfloat16,
      "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
      "float8_e5m2": ml_dtypes.float8_e5m2,
      "int8": np.int8,
      "int16": np.int16,
      "int32": np.int32,
      "int64": np.int64,
      "bool": bool,
    }.items()
  }
  made["uint8"] = np.array([[1, 255]], np.uint8)
  made["complex64"] = np.array([1 + 2j], np.complex64)
  made["scalar"] = np.float32(7).reshape(())
  made["empty"] = np.zeros((0, 3), np.float32)
  return made


def safetensors_bytes(arrays, metadata=None, order=None):
  """A safetensors file, its header written here."""
  header, data = {}, b""
  if metadata is not None:
    header["__metadata__"] = metadata
  for name in order or arrays:
    array = arrays[name]
    dtype = SAFETENSORS.get(
      array.dtype.name,
      KINDS.get(array.dtype.kind, "?") + str(8 * array.dtype.itemsize),
    )
    raw = array.tobytes()
    header[name] = {
      "dtype": dtype,
      "shape": list(array.shape),
      "data_offsets": [len(data), len(data) + len(raw)],
    }
    data += raw
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + data


class Global:
  """A global that a pickle names, whatever it is."""

  def __init__(self, module, name):
    self.module, self.name = module, name


class Call:
  """A call of a global, as `__reduce__` gives it; `state` sets attributes."""

  def __init__(self, module, name, args, state=None):
    self.function, self.args, self.state = Global(module, name), args, state


class Ordered(dict):
  """Becomes an OrderedDict with `_metadata`, as state dicts are."""


class _Pickler(pickle._Pickler):
  """Writes globals without importing them, and storages by their keys."""

  def __init__(self, file, storage_of):
    super().__init__(file, protocol=2)
    self._storage_of = storage_of

  def persistent_id(self, obj):
    return self._storage_of(obj) if isinstance(obj, Storage) else None

  def save(self, obj, save_persistent_id=True):
    if isinstance(obj, Global):
      self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
    elif isinstance(obj, Call):
      if id(obj) in self.memo:
        self.write(self.get(self.memo[id(obj)][0]))
        return
      self.save(obj.function)
      self.save(tuple(obj.args))
      self.write(pickle.REDUCE)
      self.memoize(obj)
      if obj.state is not None:
        self.save(obj.state)
        self.write(pickle.BUILD)
    elif isinstance(obj, Ordered):
      self.save(Global("collections", "OrderedDict"))
      self.save(())
      self.write(pickle.REDUCE)
      self._batch_setitems(iter(obj.items()))
      self.save({"_metadata": {"": {"version": 1}}})
      self.write(pickle.BUILD)
    else:
      super().save(obj, save_persistent_id)


class Storage:
  """Numbers `[S]` that tensors of a PyTorch file are views of."""

  def __init__(self, flat, kind=None):
    self.flat = flat
    self.kind = kind or STORAGES.get(flat.dtype.name)


def view(storage, shape, stride, offset=0, flags=()):
  """A tensor that is a view of a storage; `flags`: "neg", "conj"."""
  hooks = Call("collections", "OrderedDict", ())
  args = (storage, offset, tuple(shape), tuple(stride), False, hooks)
  marks = (dict.fromkeys(flags, True),) if flags else ()
  if storage.kind is not None:
    return Call("torch._utils", "_rebuild_tensor_v2", (*args, *marks))
  dtype = Global("torch", storage.flat.dtype.name)
  return Call("torch._utils", "_rebuild_tensor_v3", (*args, dtype, *marks))


def tensor(array, flags=()):
  """A contiguous tensor with a storage of its own."""
  return view(
    Storage(array.reshape(-1)), array.shape, steps(array), flags=flags
  )


def steps(array):
  """The strides of a contiguous array, in numbers."""
  stride, step = [], 1
  for size in reversed(array.shape):
    stride.insert(0, step)
    step *= max(size, 1)
  return stride


def sparse(layout, *parts, shape):
  """A sparse tensor of arrays: places and values, as its layout has them."""
  name = Call("torch.serialization", "_get_layout", (f"torch.{layout}",))
  more = (False,) if layout == "sparse_coo" else ()
  size = Call("torch", "Size", (tuple(shape),))
  data = (*(tensor(np.asarray(part)) for part in parts), size, *more)
  return Call("torch._utils", "_rebuild_sparse_tensor", (name, data))


def quantised(whole, kind, *quantiser):
  """A tensor with a quantiser; arrays in it become tensors."""
  kinds = {"int8": "QInt8Storage", "uint8": "QUInt8Storage"}
  kinds["int32"] = "QInt32Storage"
  storage = Storage(whole.reshape(-1), kinds[whole.dtype.name])
  scales = [tensor(q) if isinstance(q, np.ndarray) else q for q in quantiser]
  hooks = Call("collections", "OrderedDict", ())
  how = (Global("torch", kind), *scales)
  args = (storage, 0, whole.shape, tuple(steps(whole)), how, False, hooks)
  return Call("torch._utils", "_rebuild_qtensor", args)


def forms():
  """Every way in which a pickle can describe a tensor, by a name."""
  real = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
  whole = (10 * real).astype(np.int8)
  hooks = Call("collections", "OrderedDict", ())
  places = np.array([[0, 1, 0], [2, 0, 2]])
  values = np.array([1.0, 2.0, 4.0], np.float32)
  plain = Global("torch", "Tensor")
  marked = tensor(real)
  return {
    "neg": tensor(real, ["neg"]),
    "conj": tensor(real.astype(np.complex64) * (1 + 2j), ["conj"]),
    "both": tensor(real.astype(np.complex64) * (1 + 2j), ["conj", "neg"]),
    "coo": sparse("sparse_coo", places, values, shape=(2, 3)),
    "hybrid": sparse("sparse_coo", [[1, 0]], real, shape=(4, 3)),
    "csr": sparse("sparse_csr", [0, 1, 3], [2, 0, 1], values, shape=(2, 3)),
    "csc": sparse("sparse_csc", [0, 1, 1, 3], [1, 0, 1], values, shape=(2, 3)),
    "bsr": sparse(
      "sparse_bsr", [0, 1, 2], [1, 0], real.reshape(2, 1, 3), shape=(2, 6)
    ),
    "scaled": quantised(whole, "per_tensor_affine", 0.5, -3),
    "channels": quantised(
      whole, "per_channel_affine", np.array([0.5, 2.0]), np.array([1, -1]), 0
    ),
    "stateful": Call(
      "torch._utils",
      "_rebuild_parameter_with_state",
      (tensor(real), True, hooks, {"note": "a"}),
    ),
    "attributed": Call(
      "torch._tensor",
      "_rebuild_from_type_v2",
      (marked.function, plain, marked.args, {"note": "a"}),
    ),
  }


def state_dict(arrays):
  """An OrderedDict of tensors."""
  return Ordered({name: tensor(array) for name, array in arrays.items()})


def torch_bytes(
  obj, *, root="archive", big_endian=False, order=True, change=None, pack=0
):
  """What `torch.save(obj)` writes, for containers, `view`s and `Call`s.

  `change(members)` may alter the table of members before it is written.
  """
  storages, keys = [], {}

  def storage_of(storage):
    if id(storage) not in keys:
      keys[id(storage)] = str(len(storages))
      storages.append(storage)
    size = storage.flat.size
    if storage.kind is None:
      kind = Global("torch.storage", "UntypedStorage")
      size = storage.flat.nbytes
    else:
      kind = Global("torch", storage.kind)
    return ("storage", kind, keys[id(storage)], "cuda:0", size)

  file = io.BytesIO()
  _Pickler(file, storage_of).dump(obj)
  members = {f"{root}/data.pkl": file.getvalue()}
  if order:
    members[f"{root}/byteorder"] = b"big" if big_endian else b"little"
  for number, storage in enumerate(storages):
    raw = np.ascontiguousarray(storage.flat)
    width = raw.dtype.itemsize // (2 if raw.dtype.kind == "c" else 1)
    raw = raw.view(np.uint8)
    if big_endian:
      raw = raw.reshape(-1, width)[:, ::-1]
    members[f"{root}/data/{number}"] = raw.tobytes()
  members[f"{root}/version"] = b"3\n"
  if change:
    change(members)
  return zip_bytes(members, pack)


def zip_bytes(members, pack=zipfile.ZIP_STORED):
  """A zip archive of bytes by name."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", pack) as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  return file.getvalue()


def npz_bytes(arrays, *, pack=False):
  """What `np.savez` writes."""
  file = io.BytesIO()
  (np.savez_compressed if pack else np.savez)(file, **arrays)
  return file.getvalue()


def npy_bytes(array):
  """What `np.save` writes."""
  file = io.BytesIO()
  np.save(file, array, allow_pickle=True)
  return file.getvalue()


def flax_bytes(tree):
  """What `flax.serialization` writes."""
  from flax import serialization

  return serialization.msgpack_serialize(tree, in_place=True)


def hdf5_bytes(arrays):
  """A Keras 3 `.weights.h5`: groups of layers with numbered variables."""
  import h5py

  file = io.BytesIO()
  with h5py.File(file, "w") as group:
    for name, array in arrays.items():
      group[name] = array
      group[name].parent.attrs["name"] = name.split("/")[1]
  return file.getvalue()


def keras_layers(arrays=None):
  """Arrays under the names that Keras 3 gives the variables of two layers."""
  arrays = arrays or network()
  names = [f"layers/dense{s}/vars/{v}" for s in ("_b", "_a") for v in (0, 1)]
  return dict(zip(names, arrays.values(), strict=True))


def keras_bytes(arrays, *, pack=zipfile.ZIP_STORED):
  """A `.keras` archive."""
  members = {
    "metadata.json": b"{}",
    "config.json": b'{"class_name": "Sequential"}',
    "model.weights.h5": hdf5_bytes(arrays),
  }
  return zip_bytes(members, pack)


def onnx_bytes(arrays, *, nodes=(), change=None):
  """An ONNX model whose initialisers are the arrays."""
  import onnx
  from onnx import helper, numpy_helper

  tensors = [numpy_helper.from_array(a, name) for name, a in arrays.items()]
  graph = helper.make_graph(list(nodes), "g", [], [], tensors)
  model = helper.make_model(graph, producer_name="test")
  if change:
    change(model, onnx)
  return model.SerializeToString()


GGUF_KINDS = {
  "float32": 0,
  "float16": 1,
  "bfloat16": 30,
  "float64": 28,
  "int8": 24,
}


def _text(value):
  return struct.pack("<Q", len(value)) + value.encode()


def gguf_bytes(arrays, quantised=(), names=None):
  """A GGUF file, version 3; those of `quantised` as Q8_0."""
  pairs = [
    _text("general.architecture") + struct.pack("<I", 8) + _text("llama"),
    _text("llama.block_count") + struct.pack("<II", 4, 2),
    _text("tokens") + struct.pack("<IIQ", 9, 8, 2) + _text("a") + _text("b"),
  ]
  infos, data = b"", b""
  for name, array in arrays.items():
    data += b"\0" * (-len(data) % 32)
    kind = 8 if name in quantised else GGUF_KINDS[array.dtype.name]
    infos += _text((names or {}).get(name, name))
    infos += struct.pack("<I", array.ndim)
    infos += struct.pack(f"<{array.ndim}Q", *reversed(array.shape))
    infos += struct.pack("<IQ", kind, len(data))
    data += _packed(array) if name in quantised else array.tobytes()
  head = b"GGUF" + struct.pack("<IQQ", 3, len(arrays), len(pairs))
  head += b"".join(pairs) + infos
  return head + b"\0" * (-len(head) % 32) + data


def _packed(array):
  """Q8_0: a scale, and 32 whole numbers."""
  blocks = array.reshape(-1, 32)
  scales = np.abs(blocks).max(1, keepdims=True) / 127
  whole = np.round(blocks / scales).astype(np.int8)
  rows = zip(scales.astype(np.float16), whole, strict=True)
  return b"".join(scale.tobytes() + row.tobytes() for scale, row in rows)


def has(library):
  """Whether an optional library is installed."""
  return importlib.util.find_spec(library) is not None


def computed():
  """Arrays from which others are computed, of every kind."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  small = lambda *shape: draw(*shape).astype(ml_dtypes.float8_e4m3fn)
  new = "b.parametrizations.weight."
  return {
    **{"a.weight_g": draw(4, 1), "a.weight_v": draw(4, 3), "a.bias": draw(4)},
    **{f"{new}original": draw(4, 4), f"{new}0._u": draw(4)},
    **{f"{new}0._v": draw(4), "c.weight_orig": draw(2, 4)},
    **{"c.weight_mask": draw(2, 4) > 0, "d.weight": small(4, 6)},
    **{"d.weight_scale_inv": draw(2, 3), "e.weight": small(4, 4)},
    **{"e.scale": draw(4), "f.weight": (99 * draw(3, 4)).astype(np.int8)},
    **{"f.weight_scale": draw(3, 1), "f.input_scale": draw(1)},
    "f.weight_zero_point": np.ones((3, 1), np.int8),
  }


def shards():
  """A set of shards of them, as a table of files."""
  arrays, table, files = computed(), {}, {}
  for number in range(3):
    some = dict([*arrays.items()][number::3])
    name = f"model-{number}.safetensors"
    files[name] = safetensors_bytes(some)
    table |= dict.fromkeys(some, name)
  text = json.dumps({"weight_map": table}).encode()
  return files | {"model.safetensors.index.json": text}


def all_formats():
  """Name of a file -> its bytes, of the network in every format there is."""
  arrays = network()
  nested = collections.defaultdict(dict)
  for name, array in arrays.items():
    layer, kind = name.split(".")
    nested[f"Dense_{layer}"][kind] = array
  made = {
    "net.safetensors": safetensors_bytes(arrays, {"format": "pt"}),
    "net.pt": torch_bytes(state_dict(arrays)),
    "trainer.pth": torch_bytes(
      {"model": state_dict(arrays), "epoch": 3, "lr": [0.1, 0.2]}
    ),
    "net.npz": npz_bytes(arrays),
    "packed.npz": npz_bytes(arrays, pack=True),
    "one.npy": npy_bytes(arrays["0.weight"]),
    "net.msgpack": flax_bytes({"params": dict(nested)}),
  }
  if has("h5py"):
    made["net.weights.h5"] = hdf5_bytes(keras_layers(arrays))
    made["net.keras"] = keras_bytes(keras_layers(arrays))
  if has("onnx"):
    made["net.onnx"] = onnx_bytes(arrays)
  if has("gguf"):
    made["net.gguf"] = gguf_bytes(arrays)
  return made
