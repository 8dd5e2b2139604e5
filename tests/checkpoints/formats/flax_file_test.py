"""Flax files: trees of arrays, mapped; damage is named."""

import json
import struct

import numpy as np
import pytest
from flax import serialization

from sne_jax import errors
from sne_jax.checkpoints import reading
from sne_jax.checkpoints.formats import msgpack_walk
from tests.checkpoints import samples


def read(tmp_path, data):
  path = tmp_path / "a.msgpack"
  path.write_bytes(data)
  return reading.read(path)


def test_all_dtypes_are_exact(tmp_path):
  arrays = samples.odd()
  found = read(tmp_path, samples.flax_bytes({"params": dict(arrays)}))
  assert list(found.entries) == [f"params/{name}" for name in arrays]
  for name, want in arrays.items():
    array = found.entries[f"params/{name}"].read()
    assert (array.dtype, array.shape) == (want.dtype, want.shape)
    assert array.tobytes() == want.tobytes(), name


def test_a_trainers_state_is_left_out(tmp_path):
  ones = lambda *shape: np.ones(shape, np.float32)
  tree = {
    "step": np.array(7),
    "params": {"opt_state": {"kernel": ones(2, 3)}, "list": {"0": ones(2)}},
    "batch_stats": {"mean": ones(3)},
    "opt_state": {"0": {"mu": {"kernel": ones(2, 3)}, "count": np.array(1)}},
    "epoch": 3,
  }
  found = read(tmp_path, samples.flax_bytes(tree))
  assert sorted(found.entries) == [
    "batch_stats/mean",
    "params/list/0",
    "params/opt_state/kernel",
  ]
  said = "step (1 tensor: the trainer's), opt_state (2 tensors: the trainer's)"
  assert found.metadata["left_out"] == said
  assert json.loads(found.metadata["values"]) == {"epoch": 3}


def test_scalars_and_large_arrays_in_pieces(tmp_path, monkeypatch):
  monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 40)
  array = np.arange(35, dtype=np.float32).reshape(5, 7)
  data = samples.flax_bytes({"w": array, "s": np.float32(2)})
  assert data.count(b"__msgpack_chunked_array__") == 1
  found = read(tmp_path, data)
  np.testing.assert_array_equal(found.entries["w"].read(), array)
  assert found.entries["s"].read() == 2 and found.entries["s"].shape == ()


def ext(code, body):
  return b"\xc9" + struct.pack(">IB", len(body), code) + body


def array(shape, dtype, raw):
  return b"\x93" + shape + dtype + b"\xc4" + bytes([len(raw)]) + raw


FLOAT = b"\xa7float32"


@pytest.mark.parametrize(
  ("value", "message"),
  [
    (ext(1, array(b"\x91\x03", FLOAT, bytes(8))), "has not 12 bytes"),
    (ext(1, array(b"\x91\xff", FLOAT, bytes(8))), "shape"),
    (ext(1, array(b"\x91\xa1a", FLOAT, bytes(8))), "shape"),
    (ext(1, array(b"\x91\x02", b"\xa6object", bytes(8))), "object"),
    (ext(1, array(b"\x91\x02", b"\xa5V2,O2", bytes(8))), "V2,O2"),
    (ext(1, array(b"\x91\x02", b"\x05", bytes(8))), "array of 5"),
    (ext(1, b"\x93\x91\x02"), "cut short"),
    (ext(1, array(b"\x91\x02", FLOAT, bytes(8)) + b"\x00"), "not shape"),
    (ext(1, b"\x92\x01\x02"), "not shape"),
    (ext(9, b"abc"), "code 9"),
    (b"\xdf\xff\xff\xff\xff", "cut short"),
    (b"\xdd\xff\xff\xff\xff" * 3, "cut short"),
    (b"\xc6\xff\xff\xff\xff", "cut short"),
    (b"\x91" * 200, "nested too deep"),
    (b"\xc1", "0xc1"),
    (b"\xa1\xff", "decode"),
    (b"\x82\xa1a\x01\xa1a\x02", "'a' occurs twice"),
    (b"\x81\x91\x01\x02", "list as a name"),
    (b"\x03", "no tensors"),
    (b"\x82\xb9__msgpack_chunked_array__\xc3\xa5shape\x80", "without shape"),
  ],
)
def test_damage_is_named(value, message, tmp_path):
  with pytest.raises(errors.CheckpointError, match=message):
    read(tmp_path, b"\x81\xa1w" + value)


def test_bytes_after_the_end_are_refused(tmp_path):
  data = samples.flax_bytes({"w": np.ones(2)})
  with pytest.raises(errors.CheckpointError, match="1 bytes follow"):
    read(tmp_path, data + b"\x00")


def test_values_are_walked_like_the_library_does():
  import msgpack

  values = [
    *(0, 1, -1, 127, 128, -32, -33, 255, 1 << 15, 1 << 31, 1 << 63),
    *(
      -(1 << 63),
      0.5,
      True,
      False,
      None,
      "",
      "é" * 40,
      "x" * 70_000,
      "y" * 300,
    ),
    *([[]] * 20, {"a": [1, {"b": 2}], 3: "c"}, list(range(20))),
  ]
  data = msgpack.packb(values)
  walk = msgpack_walk.Walk(data, 0, len(data), max_values=1 << 20)
  assert walk.value() == values and walk.at == len(data)
  for data in (b"\xdd\0\0\0\2\1\2", b"\xdc\0\2\1\2", b"\x92\1\2"):
    assert msgpack.unpackb(data) == [1, 2]
    walk = msgpack_walk.Walk(data, 0, len(data), max_values=3)
    assert walk.value() == [1, 2]
  walk = msgpack_walk.Walk(data, 0, len(data), max_values=2)
  with pytest.raises(ValueError, match="too many"):
    walk.value()
