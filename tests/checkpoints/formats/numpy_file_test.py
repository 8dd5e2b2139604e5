"""NumPy files: all dtypes and orders; objects are never unpickled."""

import io

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import reading
from tests.checkpoints import samples


def put(path, data):
  path.write_bytes(data)
  return path


@pytest.mark.parametrize("pack", [False, True])
def test_all_dtypes_and_orders_are_exact(pack, tmp_path):
  arrays = samples.odd()
  for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
    arrays.pop(name)
  arrays["turned"] = np.arange(6.0).reshape(2, 3).T
  arrays["big"] = np.arange(3, dtype=">f4")
  arrays["deep/name"] = np.ones(2, np.float32)
  data = samples.npz_bytes(arrays, pack=pack)
  found = reading.read(put(tmp_path / "a.npz", data))
  assert list(found.entries) == list(arrays) and found.format == "npz"
  for name, entry in found.entries.items():
    array, want = entry.read(), arrays[name]
    assert array.dtype == want.dtype.newbyteorder("=") and array.dtype.isnative
    np.testing.assert_array_equal(array, want, name)
    assert array.shape == entry.shape == want.shape


def test_a_single_array_is_mapped(tmp_path):
  array = np.arange(6.0).reshape(2, 3).T
  found = reading.read(put(tmp_path / "a.npy", samples.npy_bytes(array)))
  (entry,) = found.entries.values()
  np.testing.assert_array_equal(entry.read(), array)
  assert entry.name == "arr_0" and not entry.read().flags.writeable


def test_objects_are_refused(tmp_path):
  array = np.array([{"a": 1}], object)
  with pytest.raises(errors.CheckpointError, match="Python objects"):
    reading.read(put(tmp_path / "a.npy", samples.npy_bytes(array)))
  both = {"w": np.ones(2), "o": array}
  with pytest.raises(errors.CheckpointError, match="'o' holds Python objects"):
    reading.read(put(tmp_path / "a.npz", samples.npz_bytes(both)))


@pytest.mark.parametrize("dtype", ["V2", "M8[s]", "f4,i4", "(2,)f4", "f2,O"])
def test_what_is_no_number_is_refused(dtype, tmp_path):
  file = io.BytesIO()
  array = np.zeros(2, "f4,i4" if "," in dtype else "V2")
  if dtype == "M8[s]":
    array = np.zeros(2, dtype)
  np.lib.format.write_array(file, array)
  data = file.getvalue()
  if dtype in ("(2,)f4", "f2,O"):
    fields = f"[('a', '{dtype[-2:]}')]"
    data = header(table("(1,)").replace("'<f4'", fields)) + bytes(8)
  with pytest.raises(errors.CheckpointError, match="dtype|header|objects"):
    reading.read(put(tmp_path / "a.npy", data))


def test_texts_are_left_out_and_said(tmp_path):
  data = samples.npz_bytes({"names": np.array(["a", "b"]), "w": np.ones(2)})
  found = reading.read(put(tmp_path / "a.npz", data))
  assert list(found.entries) == ["w"] and found.metadata["left_out"] == "names"
  data = samples.npz_bytes({"names": np.array(["a", "b"])})
  with pytest.raises(errors.CheckpointError, match="no arrays"):
    reading.read(put(tmp_path / "b.npz", data))


def header(text, version=b"\x01\x00"):
  text = text.encode("latin1") + b"\n"
  return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


def table(shape, dtype="<f4", more="'fortran_order': False,"):
  return f"{{'descr': '{dtype}', {more} 'shape': {shape}}}"


@pytest.mark.parametrize(
  "data",
  [
    header(table("(3,)")) + b"1234",
    header(table("(0,)")) + b"1234",
    header(table("(-1,)")),
    header(table("(True,)")) + b"1234",
    header(table(f"({1 << 70},)")),
    header(table("()", "|O")),
    header(table("()", more="")),
    header("(" * 9000),
    header("[" * 90 + "1" + "]" * 90),
    header("__import__('os').system('touch canary')"),
    header(table("()"), b"\x03\x00"),
    header(table("()"), b"\x09\x00"),
    b"\x93NUMPY",
    b"\x93NUMPY\x01\x00\xff\xff{",
  ],
)
def test_damaged_headers_are_refused(data, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.CheckpointError):
    reading.read(put(tmp_path / "a.npy", data))
  with pytest.raises(errors.CheckpointError):
    packed = samples.zip_bytes({"a.npy": data})
    reading.read(put(tmp_path / "a.npz", packed))
  assert not (tmp_path / "canary").exists()
