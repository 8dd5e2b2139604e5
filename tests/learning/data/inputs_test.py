"""Files of a list, some of them broken; state dicts as files are."""

import numpy as np
import pytest

import sne_jax
from sne_jax import checkpoints
from sne_jax.learning.data import inputs
from tests.checkpoints import samples

RNG = np.random.default_rng(0)


def draw(*shape):
  return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
  """Three sound files, one cut short, one whose reader breaks."""
  for name in ("a", "b", "d"):
    data = samples.safetensors_bytes(samples.network())
    (tmp_path / f"{name}.safetensors").write_bytes(data)
  (tmp_path / "c.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
  return tmp_path


FAULTS = [IndexError, KeyError, RecursionError, AssertionError, MemoryError]


def breaks(monkeypatch, kind, name):
  """One file breaks its reader, in a way that nobody has foreseen."""
  load = checkpoints.load

  def broken(path, **options):
    if str(path).endswith(name):
      raise kind("of its own\nin two lines")
    return load(path, **options)

  monkeypatch.setattr(checkpoints, "load", broken)


@pytest.mark.parametrize("kind", FAULTS)
def test_what_cannot_be_read_is_left_out_if_asked(
  kind, folder, monkeypatch, caplog
):
  breaks(monkeypatch, kind, "b.safetensors")
  table = {"file": ["a", "b", "c", "d"], "size": [1.0, 2.0, 3.0, 4.0]}
  read = sne_jax.Networks.from_files
  with pytest.raises((kind, ValueError)):
    read(folder, table)
  networks = read(folder, table, skip_unreadable=True)
  assert networks.targets[:, 0].tolist() == [1.0, 4.0]
  assert [name[-13] for name in networks.names] == ["a", "d"]
  lines = [record.getMessage() for record in caplog.records]
  assert len(lines) == 2 and not any("\n" in line for line in lines)
  assert "b.safetensors" in lines[0] and kind.__name__ in lines[0]
  assert "c.safetensors" in lines[1] and "cut short" in lines[1]


def test_if_none_can_be_read_the_first_fault_is_said(folder):
  with pytest.raises(ValueError, match=r"none of 1 files.*c\.safetensors"):
    sne_jax.Networks.from_files(
      folder, {"file": ["c"], "size": [1.0]}, skip_unreadable=True
    )


def test_a_state_dict_is_read_as_its_file_is(tmp_path):
  arrays = {"0.bias": draw(4), "0.weight_g": np.abs(draw(4, 1))}
  arrays |= {"0.weight_v": draw(4, 3), "2.weight": draw(2, 4)}
  spec, weights = inputs.network_of(arrays)
  (tmp_path / "a.pt").write_bytes(
    samples.torch_bytes(samples.state_dict(arrays))
  )
  assert (spec, weights.tolist()) == (
    (found := checkpoints.load(tmp_path / "a.pt")).spec,
    found.weights().tolist(),
  )
  del arrays["0.weight_g"], arrays["0.weight_v"]
  arrays["0.weight"] = (100 * draw(4, 3)).astype(np.int8)
  with pytest.raises(ValueError, match="network: '0.weight' is kept in int8"):
    inputs.network_of(arrays)


def test_marked_sparse_and_shared_tensors_of_pytorch():
  torch = pytest.importorskip("torch")
  square = torch.randn(4, 4)
  whole = torch.randn(4, 4, dtype=torch.complex64).conj().imag
  assert whole.is_neg()
  tensors = {
    "0.weight": whole,
    "1.weight": square,
    "2.weight": square.t().contiguous().to_sparse(),
  }
  _, weights = inputs.network_of(tensors)
  want = [whole.resolve_neg(), square, square.t()]
  want = np.concatenate([tensor.numpy().ravel() for tensor in want])
  np.testing.assert_array_equal(np.sort(weights), np.sort(want))
  # One tensor under two names counts once.
  assert inputs._storage(square) == inputs._storage(square)
  assert inputs._storage(square) != inputs._storage(square.t())
