"""A folder of hostile and odd files: one clear line each, the rest is read."""

import functools
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import limits, reading, tensors
from tests.checkpoints import samples

FORMATS = samples.all_formats()


class Evil:
  """Unpickled by Python it makes a file."""

  def __init__(self, canary):
    self.canary = canary

  def __reduce__(self):
    return os.system, (f"touch {self.canary}",)


def changed(value):
  arrays = samples.network()
  arrays["0.bias"][1] = value
  return arrays


@functools.cache
def bomb():
  """A packed array of zeros, 72 MiB of them in some 70 kB."""
  return samples.npz_bytes({"w": np.zeros(9 << 20)}, pack=True)


def evil_files(canary):
  program = pickle.dumps(Evil(canary))
  call = samples.Call("os", "system", (f"touch {canary}",))
  deep = samples.Call("builtins", "exec", (f"open({canary!r}, 'w')",))
  objects = {"w": np.array([Evil(canary)], object)}
  return {
    "evil.pt": samples.torch_bytes({"w": call}),
    "evil_deep.pt": samples.torch_bytes({"model": {"w": [deep]}}),
    "evil_inside.pt": samples.zip_bytes({"archive/data.pkl": program}),
    "evil_old.pt": reading.OLD_TORCH + program * 4,
    "evil_plain.pt": program,
    "evil_plain.bin": pickle.dumps(Evil(canary), 2),
    "evil_text.ckpt": pickle.dumps(Evil(canary), 0),
    "evil.npz": samples.npz_bytes(objects),
    "evil.npy": samples.npy_bytes(objects["w"]),
  }


def hostile_files(canary):
  """Name -> bytes, and what the line has to say."""
  sound = FORMATS["net.safetensors"]
  header = json.loads(sound[8 : 8 + sound[0] + 256 * sound[1]])
  twice = json.dumps(header)[:-1] + ', "0.bias": 1}'
  files = {
    "empty.pt": (b"", "it is empty"),
    "empty.safetensors": (b"", "it is empty"),
    "zeros.bin": (bytes(999), "no known kind"),
    "words.pth": (b"these are words", "no known kind"),
    "page.bin": (b"<!DOCTYPE html>", "web page"),
    "pointer.safetensors": (b"version https://git-lfs...", "git lfs pull"),
    "wrong.safetensors": (b"\x1f\x8b" + bytes(99), "gzip"),
    "packed.bin": (b"\x04\x22\x4d\x18" + bytes(99), "LZ4"),
    "lite.bin": (b"\x1c\0\0\0TFL3" + bytes(99), "TensorFlow Lite"),
    "saved_model.onnx": (b"\x08\x01\x12\x03abc", "another kind|onnx"),
    "wrong_length.safetensors": (b"\xff" * 8 + sound[8:], "header has"),
    "wrong_json.safetensors": (sound.replace(b'":', b'"?', 1), "JSON"),
    "twice.safetensors": (
      len(twice).to_bytes(8, "little") + twice.encode() + bytes(200),
      "'0.bias' occurs twice",
    ),
    "wrong_zip.pt": (b"PK\x03\x04" + bytes(99), "zip"),
    "wrong_hdf5.h5": (b"\x89HDF\r\n\x1a\n" + b"\x09" * 99, "HDF5|h5py"),
    "wrong.onnx": (b"\xff" * 99, "ONNX|onnx"),
    "wrong.msgpack": (b"\xc1" * 99, "MessagePack"),
    "wrong.npy": (b"\x93NUMPY\x01\x00\xff\xff{", "header"),
    "traversal.pt": (samples.zip_bytes({"../data.pkl": b""}), "leads out"),
    "traversal.npz": (samples.zip_bytes({"/etc/a.npy": b""}), "leads out"),
    "bomb.npz": (bomb(), "max_ratio"),
    "no_tensors.pt": (samples.torch_bytes({"epoch": 3}), "no tensors"),
    "sub/model.safetensors.index.json": (
      json.dumps({"weight_map": {"w": "model-1.safetensors"}}).encode(),
      "missing",
    ),
    "sub2/pytorch_model.bin.index.json": (
      b'{"weight_map": {"w": "../../net.pt"}}',
      "leads out",
    ),
  }
  for name, data in FORMATS.items():
    for at in (len(data) // 3, len(data) - 1):
      files[f"cut{at}_{name}"] = (data[:at], "")
  for name, data in evil_files(canary).items():
    files[name] = (data, "")
  return files


def read_all(folder):
  """What a script does with a folder: values by name, lines by name."""
  found, failed = {}, {}
  for path in reading.find(folder):
    name = os.path.relpath(path, folder)
    try:
      checkpoint = reading.read(path)
      tensors.check_finite(checkpoint)
      found[name] = [e.read() for e in checkpoint.entries.values()]
    except errors.CheckpointError as error:
      failed[name] = str(error)
  return found, failed


@pytest.fixture
def no_torch(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.parametrize("torch", [True, False])
def test_one_line_each_and_the_rest_is_read(torch, tmp_path, request):
  if not torch:
    request.getfixturevalue("no_torch")
  canary = tmp_path / "canary"
  folder = tmp_path / "folder"
  files = hostile_files(canary)
  for name, (data, _) in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
  for name, data in FORMATS.items():
    (folder / name).write_bytes(data)
  diverged = {"nan": np.nan, "inf": np.inf, "minus": -np.inf}
  for name, value in diverged.items():
    data = samples.safetensors_bytes(changed(value))
    (folder / f"{name}.safetensors").write_bytes(data)
  odd = samples.safetensors_bytes(samples.odd())
  (folder / "odd.safetensors").write_bytes(odd)

  found, failed = read_all(folder)
  assert set(found) == {*FORMATS, "odd.safetensors"}
  assert set(failed) == {*files, *(f"{n}.safetensors" for n in diverged)}
  for name, line in failed.items():
    assert line.startswith(str(folder)) and line.isprintable(), line
    assert name in line and "; " in line and len(line) < 1000, line
  for name, (_, words) in files.items():
    assert any(word in failed[name] for word in words.split("|")), failed[name]
  for name in diverged:
    assert "NaN or infinite" in failed[f"{name}.safetensors"]
  assert not canary.exists(), "code was run"


def test_the_evil_files_are_evil(tmp_path):
  canary = tmp_path / "canary"
  files = evil_files(canary)
  for name in ("evil_plain.pt", "evil_plain.bin", "evil_text.ckpt"):
    pickle.loads(files[name])
    assert canary.exists(), name
    canary.unlink()
  (tmp_path / "a.npy").write_bytes(files["evil.npy"])
  np.load(tmp_path / "a.npy", allow_pickle=True)
  assert canary.exists()


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "a.pt")
  with pytest.raises(errors.CheckpointError, match="no ordinary file"):
    reading.read(tmp_path / "a.pt")
  (_, line), *_ = read_all(tmp_path)[1].items()
  assert "no ordinary file" in line


LAZY = """
import sys
sys.path[:0] = {path!r}
from sne_jax.checkpoints import reading

def peak():
  lines = open("/proc/self/status").read().splitlines()
  return next(int(l.split()[1]) for l in lines if l.startswith("VmHWM"))

before = peak()
for name in {names!r}:
  found = reading.read(name)
  assert found.entries["small"].read().sum() == 9
print(peak() - before)
assert found.entries["large"].read().sum() == 50_000_000
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux")
def test_reading_one_tensor_leaves_the_others_on_disk(tmp_path):
  """Of 200 MB, one small tensor: memory grows by far less."""
  arrays = {"large": np.ones(50_000_000, np.float32), "small": np.ones(9)}
  write = {
    "safetensors": samples.safetensors_bytes,
    "pt": lambda a: samples.torch_bytes(samples.state_dict(a)),
    "npz": samples.npz_bytes,
    "msgpack": lambda a: samples.flax_bytes(dict(a)),
  }
  for kind, make in write.items():
    (tmp_path / kind).write_bytes(make(arrays))
  names = [str(tmp_path / kind) for kind in write]
  code = LAZY.format(path=sys.path, names=names)
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  grown, control = (int(line) for line in done.stdout.split())
  assert grown < 20_000 < 150_000 < control, "in kilobytes"


def test_limits_can_be_raised(tmp_path):
  path = tmp_path / "a.npz"
  path.write_bytes(bomb())
  found = reading.read(path, limits=limits.Limits(max_ratio=2000.0))
  assert found.entries["w"].size == 9 << 20
