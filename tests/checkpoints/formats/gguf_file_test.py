"""GGUF files: plain numbers are read, quantised ones are named and refused."""

import os
import re
import struct
import sys
import tomllib

import ml_dtypes
import numpy as np
import pytest

from sne_jax import checkpoints, errors
from sne_jax.checkpoints.formats import gguf_file
from sne_jax.cli.commands import inspect as inspect_network
from tests.checkpoints import samples


def put(path, data):
  path.write_bytes(data)
  return str(path)


def wide():
  draw = np.random.default_rng(0).standard_normal
  shapes = {"0.weight": (64, 32), "0.bias": (64,), "2.weight": (3, 64)}
  return {n: draw(s).astype(np.float32) for n, s in shapes.items()}


def test_without_the_library_the_line_says_what_to_install(
  tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, "gguf", None)
  path = put(tmp_path / "x.bin", samples.gguf_bytes(samples.network()))
  with pytest.raises(errors.CheckpointError, match="GGUF") as error:
    checkpoints.load(path)
  named = re.search(r"pip install '?(\w+)", str(error.value))[1]
  root = os.path.join(os.path.dirname(checkpoints.__file__), "..", "..")
  with open(os.path.join(root, "pyproject.toml"), "rb") as file:
    extras = tomllib.load(file)["project"]["optional-dependencies"]
  assert any(need.startswith(named) for need in extras["checkpoints"])


@pytest.fixture
def gguf():
  return pytest.importorskip("gguf")


@pytest.mark.parametrize("kind", samples.GGUF_KINDS)
def test_plain_numbers_come_back(gguf, kind, tmp_path):
  dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else kind
  arrays = {n: (4 * a).astype(dtype) for n, a in samples.network().items()}
  found = checkpoints.read(put(tmp_path / "a.gguf", samples.gguf_bytes(arrays)))
  assert found.format == "gguf" and list(found.entries) == list(arrays)
  assert found.metadata["general.architecture"] == "llama"
  assert found.metadata["llama.block_count"] == "2"
  for name, want in arrays.items():
    entry = found.entries[name]
    assert (entry.dtype, entry.shape) == (kind, want.shape)
    assert entry.read().tobytes() == want.tobytes()


def test_a_network_is_read(gguf, tmp_path):
  arrays = samples.network()
  network = checkpoints.load(put(tmp_path / "a", samples.gguf_bytes(arrays)))
  want = np.concatenate([a.reshape(-1) for a in arrays.values()])
  np.testing.assert_array_equal(network.weights(), want)


def test_what_is_no_chain_is_named_and_listed(gguf, tmp_path):
  shapes = {"blk.0.attn_q.weight": (8, 8), "blk.0.ffn_up.weight": (16, 8)}
  shapes |= {"output.weight": (5, 8)}
  arrays = {n: np.ones(s, np.float32) for n, s in shapes.items()}
  path = put(tmp_path / "g.gguf", samples.gguf_bytes(arrays))
  with pytest.raises(errors.CheckpointError) as error:
    checkpoints.load(path)
  assert "it is GGUF of llama with 3 tensors; " in str(error.value)
  assert '{"opaque": true}' in str(error.value)
  opened = checkpoints.read(path)
  listed = inspect_network.listed(opened, checkpoints.describe_contents(opened))
  assert all(f"| {name} " in listed for name in shapes)
  assert "architecture: llama" in listed and '{"opaque": true}' in listed
  network = checkpoints.load(path, override={"opaque": True})
  assert network.spec.num_weights == sum(a.size for a in arrays.values())
  order = ["blk.0.attn_q", "blk.0.ffn_up", "output"]
  with pytest.raises(errors.CheckpointError, match="it is GGUF; .* in the ord"):
    checkpoints.load(path, override={"order": order})
  order = {"order": order[:2], "leave_out": ["output.weight"]}
  assert checkpoints.load(path, override=order).spec.num_levels == 2


def test_quantised_tensors_are_named_and_refused(gguf, tmp_path):
  arrays, quantised = wide(), ("0.weight", "2.weight")
  path = put(tmp_path / "q.gguf", samples.gguf_bytes(arrays, quantised))
  opened = checkpoints.read(path)
  assert list(opened.entries) == ["0.bias"]
  contents = checkpoints.describe_contents(opened)
  assert contents.unread["2.weight"] == ("Q8_0", (3, 64))
  assert contents.facts["architecture"] == "llama"
  for override in (None, {"opaque": True}):
    with pytest.raises(errors.CheckpointError) as error:
      checkpoints.load(path, override=override)
    assert "2 of 3 tensors quantised as Q8_0 (0.weight" in str(error.value)
    assert "gguf.dequantize(tensor.data, tensor.tensor_type)" in str(
      error.value
    )
  # The remedy, as the line has it.
  numbers = {
    tensor.name: np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type))
    for tensor in gguf.GGUFReader(path).tensors
  }
  data = samples.safetensors_bytes(numbers)
  network = checkpoints.load(put(tmp_path / "a.safetensors", data))
  want = np.concatenate(
    [arrays[s.name].ravel() for s in network.inferred.sources]
  )
  np.testing.assert_allclose(network.weights(), want, atol=0.02)


def test_damaged_and_hostile_files_are_refused(gguf, tmp_path):
  whole = samples.gguf_bytes(samples.network())
  for size in range(24, len(whole) - 1, 7):
    path = put(tmp_path / "cut.gguf", whole[:size])
    with pytest.raises(errors.CheckpointError):
      checkpoints.read(path)
  endless = whole.replace(
    struct.pack("<IIQ", 9, 8, 2), struct.pack("<IIQ", 9, 0, 2**60)
  )
  many = whole[:8] + struct.pack("<Q", 2**62) + whole[16:]
  twice = samples.gguf_bytes(samples.network(), names={"2.bias": "0.bias"})
  for data in (endless, many, twice):
    with pytest.raises(errors.CheckpointError) as error:
      checkpoints.read(put(tmp_path / "x.gguf", data))
    assert "\n" not in str(error.value)
  limits = checkpoints.Limits(max_header_bytes=100)
  with pytest.raises(errors.CheckpointError, match="max_header_bytes"):
    gguf_file.read(put(tmp_path / "y.gguf", whole), limits)
