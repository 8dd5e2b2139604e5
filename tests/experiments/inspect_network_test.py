"""What inspect_network says of how groups are known, and whether they hold."""

import numpy as np
import pytest

from sne_jax import checkpoints, errors
from sne_jax.cli import given_files
from sne_jax.cli.commands import inspect as inspect_network
from sne_jax.cli.commands import predict
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


def test_a_name_of_a_file_stays_on_one_line(tmp_path, capsys):
  path = tmp_path / "two\nlines\x1b.safetensors"
  path.write_bytes(samples.safetensors_bytes(samples.network()))
  text = inspect_network.described(checkpoints.load(path))
  name = str(tmp_path / "two\\nlines\\x1b.safetensors")
  assert text.splitlines()[0] == f"{name}: safetensors"
  given_files.say("note", [(str(path), "said")])
  given_files.report_failures({str(path): "broken"})
  said = capsys.readouterr()
  assert said.out == f"note: {name}: said\n"
  assert said.err.splitlines()[-1] == f"  {name}: broken"
  row = {"file": str(path), "architecture": "a", "parameters": 1}
  text = predict.table([row | {"unlike": 0.0, "warnings": []}], [])
  assert f"| {name} |" in text


def test_how_groups_are_known_is_shown(tmp_path):
  network = checkpoints.load(verifying_test.residual(tmp_path))
  text = inspect_network.described(network)
  assert "traced (by the graph in the file): layers/dense/vars/0" in text


def test_only_weights_have_to_be_finite(tmp_path, capsys):
  path, arrays = tmp_path / "a.safetensors", samples.network()
  arrays["limit"] = np.array(np.inf, np.float32)
  path.write_bytes(samples.safetensors_bytes(arrays))
  options = inspect_network.InspectOptions()
  override = {"leave_out": ["limit"]}
  network = checkpoints.load(path, override=override)
  inspect_network.show(str(path), network, options)
  out = capsys.readouterr().out
  assert "All weights are finite; others are not: limit." in out
  assert network.check_finite() == ["limit"]
  arrays["2.weight"][1, 2] = np.nan
  path.write_bytes(samples.safetensors_bytes(arrays))
  network = checkpoints.load(path, override=override)
  for refuse in (network.check_finite, network.weights):
    with pytest.raises(errors.CheckpointError, match="1 of 8 .*'2.weight'"):
      refuse()


def test_what_is_left_out_is_one_line_for_a_reason(tmp_path):
  path, arrays = tmp_path / "a.safetensors", samples.network()
  names = [f"size{n}" for n in range(40)]
  arrays |= dict.fromkeys(names, np.array([3, 4]))
  path.write_bytes(samples.safetensors_bytes(arrays))
  network = checkpoints.load(path)
  (line,) = inspect_network.left_out(network.inferred)
  assert line.startswith("size0, size1, ") and " and 28 more: numbers" in line
  assert inspect_network.described(network).count("size3") < 3


def test_running_statistics_are_counted_apart():
  """PyTorch counts 4 * 3 * 9 + 2 * 4 + 4 * 2 + 2, and 2 * 4 are buffers."""
  arrays = {
    "0.weight": np.ones((4, 3, 3, 3), np.float32),
    "2.weight": np.ones((2, 4), np.float32),
    "2.bias": np.ones(2, np.float32),
  }
  names = ("weight", "bias", "running_mean", "running_var")
  norms = {f"1.{name}": np.ones(4, np.float32) for name in names}
  network = checkpoints.of_arrays(arrays | norms, "net")
  text = inspect_network.described(network)
  assert "134 parameters (126 without running statistics)," in text
  bare = checkpoints.of_arrays({"0.weight": arrays["2.weight"]}, "net")
  assert "8 parameters, " in inspect_network.described(bare)
