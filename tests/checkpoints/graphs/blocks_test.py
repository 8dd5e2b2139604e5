"""Kernels that read blocks and give as many keep all of their numbers."""

import numpy as np
import pytest

pytest.importorskip("onnx")
from tests.checkpoints.graphs.onnx_models import (  # noqa: E402
  Net,
  checked,
  images,
)


def test_a_gate_of_groups_over_blocks_is_read_whole(tmp_path):
  """Two blocks are joined, read by two groups, and gated by a full kernel."""
  net = Net()
  x = net.input(1, 8, 6, 6)
  x = net.op("Concat", x, net.relu(net.conv(x, 8, 8)), axis=1)
  gate = net.op("Sigmoid", net.conv(x, 16, 4, 1))
  y = net.op("Mul", net.conv(x, 16, 4, group=2), gate)
  output = net.linear(images(net, y), 4, 3)
  found, check = checked(net.save(tmp_path / "a.onnx", output))
  stored = {n: a for n, a in net.arrays.items() if a.dtype.kind == "f"}
  weights = found.weights()
  assert len(weights) == sum(a.size for a in stored.values())
  again = found.inferred.scatter(weights)
  for name, array in stored.items():
    np.testing.assert_array_equal(again[name], array)
  assert check.passes()
