"""PyTorch's own files, where PyTorch is installed: equal to its own loading."""

import json

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import reading
from sne_jax.checkpoints.formats import torch_load
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
  assert found.metadata["left_out"] == "optimizer (1 tensors)"
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


def test_sparse_tensors_are_refused(tmp_path):
  torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "a.pt")
  with pytest.raises(errors.CheckpointError, match="_rebuild_sparse_tensor"):
    reading.read(tmp_path / "a.pt")


def test_a_script_is_refused(tmp_path):
  path = str(tmp_path / "a.pt")
  torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
  with pytest.raises(errors.CheckpointError, match="TorchScript"):
    reading.read(path)


def test_the_oldest_version_is_checked():
  assert torch_load.OLDEST == (2, 6)
