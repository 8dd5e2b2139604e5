"""PyTorch's own files, where PyTorch is installed: equal to its own loading."""

import json

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import reading
from sne_jax.checkpoints.formats.pytorch import torch_load
from tests.checkpoints import samples

torch = pytest.importorskip("torch")


def numbers(tensor):
  """A PyTorch tensor as float64 or complex128, exactly."""
  tensor = tensor.detach()
  wide = torch.complex128 if tensor.is_complex() else torch.float64
  return tensor.to(wide).numpy()


def odd_tensors():
  base = torch.arange(24.0).reshape(4, 6)
  made = {
    "turned": base.t(),
    "part": base[1:3, ::2],
    "base": base,
    "tied": base,
    "number": torch.tensor(3),
    "bool": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
    "wide": torch.ones(1, 3).expand(5, 3),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "complex": torch.tensor([1 + 2j]),
    "last": base.reshape(2, 2, 2, 3).contiguous(
      memory_format=torch.channels_last
    ),
  }
  for name in ("float64", "float16", "bfloat16", "float8_e4m3fn", "uint16"):
    made[name] = torch.tensor([0.5, 2.0, 3.0]).to(getattr(torch, name))
  for name in ("int8", "int16", "int32", "uint8"):
    made[name] = torch.arange(3).to(getattr(torch, name))
  return made


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_equal_those_of_torch(zipped, tmp_path):
  made = odd_tensors()
  if not zipped:  # Newer than that format.
    made.pop("uint16")
    made.pop("float8_e4m3fn")
  path = tmp_path / "a.pt"
  tree = {"model": made, "epoch": 3, "optimizer": {"m": torch.zeros(2)}}
  torch.save(tree, path, _use_new_zipfile_serialization=zipped)
  found = reading.read(path)
  assert list(found.entries) == list(made)
  for name, entry in found.entries.items():
    array = entry.read()
    assert entry.dtype == str(made[name].dtype).removeprefix("torch."), name
    want = numbers(made[name])
    np.testing.assert_array_equal(array.astype(want.dtype), want, name)
  assert found.entries["tied"].tied_to == "base"
  assert found.metadata["left_out"] == ("optimizer (1 tensor: the trainer's)")
  assert json.loads(found.metadata["values"]) == {"epoch": 3}


def test_modules_of_a_state_dict_are_kept(tmp_path):
  net = torch.nn.Sequential(
    torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU()
  )
  torch.save(net.state_dict(), tmp_path / "a.pt")
  found = reading.read(tmp_path / "a.pt")
  assert list(found.entries) == list(net.state_dict())
  assert json.loads(found.metadata["modules"]) == {
    "": 1,
    "0": 1,
    "1": 2,
    "2": 1,
  }


def test_our_writer_writes_what_torch_reads(tmp_path):
  arrays = samples.odd()
  path = tmp_path / "a.pt"
  path.write_bytes(samples.torch_bytes(samples.state_dict(arrays)))
  found = torch.load(path, "cpu", weights_only=True)
  for name, array in arrays.items():
    assert str(found[name].dtype) == f"torch.{array.dtype.name}"
    wide = complex if array.dtype.kind == "c" else float
    want = array.astype(wide)
    np.testing.assert_array_equal(numbers(found[name]), want, name)


def test_a_whole_module_is_refused(tmp_path):
  torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
  with pytest.raises(errors.CheckpointError, match="linear.Linear") as caught:
    reading.read(tmp_path / "a.pt")
  assert "\n" not in str(caught.value)
  torch.save(
    torch.nn.Linear(2, 2),
    tmp_path / "b.pt",
    _use_new_zipfile_serialization=False,
  )
  with pytest.raises(errors.CheckpointError, match="refuses it too"):
    reading.read(tmp_path / "b.pt")


def test_what_torch_deems_safe_is_read_by_it(tmp_path):
  tree = {"model": {"w": torch.ones(2)}, "device": torch.device("cpu")}
  torch.save(tree, tmp_path / "a.pt")
  found = reading.read(tmp_path / "a.pt")
  np.testing.assert_array_equal(found.entries["w"].read(), [1, 1])


def test_no_code_runs_where_torch_judges(tmp_path):
  canary = tmp_path / "canary"

  class Evil:
    def __reduce__(self):
      import os

      return os.system, (f"touch {canary}",)

  for zipped in (True, False):
    path = tmp_path / f"{zipped}.pt"
    torch.save(
      {"w": torch.ones(2), "x": Evil()},
      path,
      _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(errors.CheckpointError, match="system"):
      reading.read(path)
  assert not canary.exists()


def special_tensors():
  torch.manual_seed(0)
  dense = torch.randn(4, 6) * (torch.rand(4, 6) > 0.5)
  full = torch.randn(4, 6, dtype=torch.complex64)
  twice = torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 2.0], (2, 3))
  noted = torch.nn.Parameter(torch.randn(3))
  noted.note = "a"
  scales, zeros = torch.rand(4) + 0.1, torch.tensor([0, 1, -2, 3])
  return {
    "neg": full.conj().imag,
    "conj": full.conj(),
    "conj_turned": full.mH,
    "both": torch._neg_view(full.conj()),
    "coo": dense.to_sparse(),
    "twice": twice,
    "half": dense.bfloat16().to_sparse(),
    "hybrid": dense.to_sparse(1),
    "csr": dense.to_sparse_csr(),
    "csc": dense.to_sparse_csc(),
    "bsr": dense.to_sparse_bsr((2, 3)),
    "bsc": dense.to_sparse_bsc((2, 3)),
    "parameter": noted,
    "scaled": torch.quantize_per_tensor(dense, 0.1, 3, torch.qint8),
    "channels": torch.quantize_per_channel(
      dense, scales, zeros, 0, torch.qint8
    ),
    "columns": torch.quantize_per_channel(
      dense, torch.rand(6) + 0.1, torch.arange(6), 1, torch.quint8
    ),
  }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", special_tensors())
def test_special_tensors_equal_those_of_torch(
  name, zipped, tmp_path, monkeypatch
):
  if zipped:  # Our own reader has to do it.
    monkeypatch.setattr(torch_load, "load_tree", None)
  path = tmp_path / "a.pt"
  made = {"w": special_tensors()[name], "b": torch.ones(2)}
  torch.save(made, path, _use_new_zipfile_serialization=zipped)
  want = torch.load(path, weights_only=True)["w"].detach()
  want = want.dequantize() if want.is_quantized else want
  want = want.to_dense() if want.layout != torch.strided else want
  want = want.resolve_conj().resolve_neg()
  entry = reading.read(path).entries["w"]
  assert entry.dtype == str(want.dtype).removeprefix("torch.")
  np.testing.assert_array_equal(
    entry.read().astype(numbers(want).dtype), numbers(want)
  )


def test_a_script_is_refused(tmp_path):
  path = str(tmp_path / "a.pt")
  torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
  with pytest.raises(errors.CheckpointError, match="TorchScript"):
    reading.read(path)


def test_the_oldest_version_is_checked():
  assert torch_load.OLDEST == (2, 6)
