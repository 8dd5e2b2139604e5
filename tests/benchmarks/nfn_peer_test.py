"""Tests of benchmarks/nfn_peer.py; the model's need the extra `torch`."""

import builtins
import dataclasses

import numpy as np
import pytest

from benchmarks import nfn_peer

TINY = nfn_peer.PeerOptions(
  epochs=30, batch_size=8, channels=4, head_dim=16, learning_rate=1e-2
)


def tiny_data(num_networks=40):
  """Networks whose target is written in them: the mean of the last weight."""
  rng = np.random.default_rng(0)
  weights = rng.normal(size=(num_networks, 1153)).astype(np.float32)
  targets = 3 + np.linspace(-2, 2, num_networks).astype(np.float32)
  weights[:, 1120:1152] += targets[:, None]
  rows = rng.permutation(num_networks)
  return {
    "weights": weights,
    "targets": targets,
    "train_rows": rows[:24],
    "val_rows": rows[24:32],
    "test_rows": rows[32:],
  }


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"weights": np.zeros((40, 1152))}, r"\(40, 1152\) are not \[N, 1153\]"),
    ({"train_rows": np.arange(5)}, "5 training rows make no batch of 8"),
  ],
)
def test_faulty_data_is_named(change, message):
  data = tiny_data() | change
  with pytest.raises(ValueError, match=message):
    nfn_peer.train(**data, options=TINY)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate"])
def test_faulty_options_are_named(name):
  with pytest.raises(ValueError, match=name):
    dataclasses.replace(TINY, **{name: 0})


def test_missing_torch_is_said_in_one_line(monkeypatch):
  real_import = builtins.__import__

  def without_torch(name, *args, **kwargs):
    if name in ("torch", "nfn"):
      raise ImportError(f"No module named {name!r}", name=name)
    return real_import(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", without_torch)
  with pytest.raises(ImportError, match=r"^the NFN peer needs .*torch\]'`$"):
    nfn_peer.train(**tiny_data(), options=TINY)


def test_moments_are_those_of_each_tensor():
  weights = np.zeros((2, 1153))
  weights[0, :32], weights[1, :32] = 1, 3  # W1: mean 2, deviation 1.
  weights[:, 32:64] = 5  # b1: constant, so its deviation counts as 1.
  mean, std = nfn_peer._tensor_moments(weights)
  assert np.all(mean[:32] == 2) and np.all(std[:32] == 1)
  assert np.all(mean[32:64] == 5) and np.all(std[32:64] == 1)
  assert np.all(mean[64:] == 0) and mean.shape == std.shape == (1153,)


def test_peer_is_the_one_that_was_measured():
  pytest.importorskip("nfn")
  model = nfn_peer.build(nfn_peer.PeerOptions())
  assert sum(p.numel() for p in model.parameters()) == 206_913


def test_peer_does_not_see_the_order_of_hidden_neurons():
  torch = pytest.importorskip("torch")
  pytest.importorskip("nfn")
  torch.manual_seed(0)
  model = nfn_peer.build(TINY).double()
  flat = torch.randn(2, 1153, dtype=torch.float64)
  one, two = torch.randperm(32), torch.randperm(32)

  def permuted(columns):
    w1, b1, w2, b2, w3, b3 = flat.split([32, 32, 1024, 32, 32, 1], dim=1)
    w2 = w2.reshape(2, 32, 32)[:, two][:, :, columns].reshape(2, 1024)
    parts = [w1[:, one], b1[:, one], w2, b2[:, two], w3[:, two], b3]
    return torch.cat(parts, dim=1)

  with torch.no_grad():
    error = (model(flat) - model(permuted(one))).abs().max()
    control = (model(flat) - model(permuted(two))).abs().max()
  assert error < 1e-12 < 1e-9 < control


def test_peer_learns():
  pytest.importorskip("nfn")
  data = tiny_data()
  result = nfn_peer.train(**data, options=TINY)
  seconds = [second for second, _ in result.curve]
  assert len(result.curve) == TINY.epochs and seconds == sorted(seconds)
  test_targets = data["targets"][data["test_rows"]]
  assert result.test_mse < 0.3 * np.var(test_targets)
