"""What inspect_network says of how groups are known, and whether they hold."""

import pytest

from experiments import inspect_network
from sne_jax import checkpoints
from tests.checkpoints import samples, verifying_test

pytest.importorskip("h5py")


def test_what_is_claimed_is_tried(tmp_path, capsys):
  network = checkpoints.load(verifying_test.residual(tmp_path))
  assert inspect_network.verified(network)
  out = capsys.readouterr().out
  assert "What is claimed holds" in out and "under false ones" in out
  assert not inspect_network.verified(verifying_test.misread(tmp_path))
  assert "DOES NOT HOLD" in capsys.readouterr().out


def test_why_nothing_is_tried_is_one_line(tmp_path, capsys):
  path = tmp_path / "a.safetensors"
  path.write_bytes(samples.safetensors_bytes(samples.network()))
  network = checkpoints.load(path)
  assert inspect_network.verified(network)
  out = capsys.readouterr().out.strip()
  assert out.startswith("Not verified: ") and len(out.splitlines()) == 1
  (line,) = inspect_network.known(network.inferred)
  assert line.startswith("guessed (")


def test_how_groups_are_known_is_shown(tmp_path):
  network = checkpoints.load(verifying_test.residual(tmp_path))
  text = inspect_network.described(network)
  assert "traced (by the graph in the file): layers/dense/vars/0" in text
