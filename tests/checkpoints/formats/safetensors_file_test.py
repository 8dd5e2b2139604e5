"""Safetensors: all dtypes, and a header that is believed in nothing."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy

from sne_jax import checkpoints, errors
from sne_jax.checkpoints import limits, reading
from tests.checkpoints import samples


def put(path, header, data=b""):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(struct.pack("<Q", len(text)) + text + data)
  return path


def item(first, last, dtype="U8", shape=None):
  shape = [last - first] if shape is None else shape
  return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def test_all_dtypes_are_exact(tmp_path):
  arrays = samples.odd()
  path = tmp_path / "a.safetensors"
  path.write_bytes(samples.safetensors_bytes(arrays, {"made": "here"}))
  found = reading.read(path)
  assert found.metadata == {"made": "here"} and found.format == "safetensors"
  assert list(found.entries) == list(arrays)
  for name, entry in found.entries.items():
    array = entry.read()
    assert (array.dtype, array.shape) == (
      arrays[name].dtype,
      arrays[name].shape,
    )
    assert array.tobytes() == arrays[name].tobytes(), name
    assert not array.flags.writeable or not array.size


def test_files_of_the_library_are_read(tmp_path):
  path = tmp_path / "a.safetensors"
  safetensors.numpy.save_file(samples.network(), path)
  found = reading.read(path)
  for name, array in samples.network().items():
    np.testing.assert_array_equal(found.entries[name].read(), array)


def test_a_name_that_the_metadata_keep_is_a_second_one(tmp_path):
  """As `safetensors.torch.save_model` writes a layer that is used twice."""
  widths = {"net.0": (8, 4), "net.2": (8, 8), "net.8": (3, 8)}
  arrays = {
    f"{name}.weight": np.ones(shape, np.float32)
    for name, shape in widths.items()
  }
  metadata = {"net.5.weight": "net.2.weight", "format": "net.2.weight.not"}
  metadata["net.0.weight"] = "net.2.weight"  # A tensor of its own.
  path = tmp_path / "a.safetensors"
  path.write_bytes(samples.safetensors_bytes(arrays, metadata))
  entries = reading.read(path).entries
  assert list(entries) == [*arrays, "net.5.weight"]
  tied = {name: e.tied_to for name, e in entries.items() if e.tied_to}
  assert tied == {"net.5.weight": "net.2.weight"}
  np.testing.assert_array_equal(entries["net.5.weight"].read(), np.ones((8, 8)))
  found = checkpoints.load(path)
  assert found.inferred.tied == tied
  assert len(found.spec.groups) == 1  # In- and outputs of what is used twice.
  # Without that word, all hidden layers would be free.
  path.write_bytes(
    samples.safetensors_bytes(
      arrays | {"net.5.weight": 2 * np.ones((8, 8), np.float32)}
    )
  )
  assert len(checkpoints.load(path).spec.groups) == 3


def test_an_unaligned_tensor_is_read(tmp_path):
  arrays = {"a": np.array([7], np.uint8), "b": np.array([1.5, -2.5])}
  path = tmp_path / "a.safetensors"
  path.write_bytes(samples.safetensors_bytes(arrays))
  np.testing.assert_array_equal(
    reading.read(path).entries["b"].read(), [1.5, -2.5]
  )


@pytest.mark.parametrize(
  ("header", "data", "message"),
  [
    ({"a": item(0, 4), "b": item(2, 6)}, 6, "'a' and 'b' overlap"),
    ({"a": item(0, 4), "b": item(0, 4)}, 4, "overlap"),
    ({"a": item(0, 4), "b": item(5, 6)}, 6, "1 bytes before 'b'"),
    ({"a": item(0, 4)}, 6, "too long"),
    ({"a": item(0, 8)}, 6, "cut short"),
    ({"a": item(2, 6)}, 6, "2 bytes before 'a'"),
    ({"a": item(4, 0, shape=[4])}, 4, "offsets"),
    ({"a": item(-4, 0)}, 4, "offsets"),
    ({"a": item(0, 1 << 70)}, 4, "shape"),
    ({"a": item(0, 4, shape=[1 << 40, 1 << 40])}, 4, "shape"),
    ({"a": item(0, 4, shape=[-2, -2])}, 4, "shape"),
    ({"a": item(0, 4, shape=[True, 4])}, 4, "shape"),
    ({"a": item(0, 4, shape=[2.0, 2])}, 4, "shape"),
    ({"a": item(0, 4, shape=[1] * 99)}, 4, "shape"),
    ({"a": item(0, 4, shape=[5])}, 4, "4 bytes where uint8.5. takes 5"),
    ({"a": item(0, 4, "F4", [8])}, 4, "dtype 'F4'"),
    ({"a": item(0, 4, ["U8"])}, 4, "dtype"),
    ({"a": {"dtype": "U8", "shape": [0]}}, 0, "offsets"),
    ({"a": [1]}, 0, "described by list"),
    ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
    ({"__metadata__": []}, 0, "__metadata__"),
    (b"[1]", 0, "no known kind"),
    (b'{"a": ', 0, "JSON"),
    (b'{"a": \xff}', 0, "JSON"),
    (b'{"a": ' + b"[" * 100_000, 0, "JSON"),
    (b'{"a":1' + b"0" * 5000 + b"}", 0, "JSON"),
    ({"a\n" * 9: item(0, 4)}, 4, "characters"),
    ({"a" * 2000: item(0, 4)}, 4, "2000 characters"),
  ],
)
def test_a_false_header_is_refused(header, data, message, tmp_path):
  path = put(tmp_path / "a", header, bytes(data))
  with pytest.raises(errors.CheckpointError, match=message) as caught:
    reading.read(path)
  assert "\n" not in str(caught.value) and len(str(caught.value)) < 1200


def test_a_name_that_occurs_twice_is_refused(tmp_path):
  one = json.dumps(item(0, 4))
  path = put(tmp_path / "a", f'{{"a": {one}, "a": {one}}}'.encode(), bytes(4))
  with pytest.raises(errors.CheckpointError, match="'a' occurs twice"):
    reading.read(path)


@pytest.mark.parametrize("length", [1 << 40, 1 << 63, (1 << 64) - 1, 300])
def test_an_absurd_header_length_is_refused(length, tmp_path):
  path = tmp_path / "a.safetensors"
  path.write_bytes(struct.pack("<Q", length) + b"{" + bytes(200))
  with pytest.raises(errors.CheckpointError, match=f"header has {length}"):
    reading.read(path)


def test_a_header_above_the_limit_is_refused(tmp_path):
  path = put(tmp_path / "a", {"a": item(0, 4)}, bytes(4))
  small = limits.Limits(max_header_bytes=20)
  with pytest.raises(errors.CheckpointError, match="raise max_header_bytes"):
    reading.read(path, limits=small)


@pytest.mark.parametrize("length", [0x4B50, 0x8B1F, 0x5A42, 0x0280])
def test_a_length_that_looks_like_another_format(length, tmp_path):
  text = json.dumps({"a": item(0, 4)}).encode()
  path = put(tmp_path / "a", text + b" " * (length - len(text)), bytes(4))
  assert path.read_bytes()[:2] == length.to_bytes(2, "little")
  assert reading.read(path).format == "safetensors"
