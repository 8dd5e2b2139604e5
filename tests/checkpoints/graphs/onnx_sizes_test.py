"""Sizes that an ONNX graph works out itself, before or while it is run."""

from typing import Any

import numpy as np
import pytest

from sne_jax.checkpoints import network
from sne_jax.networks import inference

onnx = pytest.importorskip("onnx")

from tests.checkpoints.graphs.onnx_models import (  # noqa: E402
  Net,
  checked,
  groups,
)

HIDDEN = 6


def pads(net, *last):
  """Pads as PyTorch exports them: the last axes first, filled up, turned."""
  zero = onnx.numpy_helper.from_array(np.zeros(1, np.int64))
  rest = net.op("ConstantOfShape", net.ints(8 - len(last)), value=zero)
  pairs = net.op("Concat", net.ints(*last), rest, axis=0)
  pairs = net.op("Reshape", pairs, net.ints(-1, 2))
  pairs = net.op(
    "Slice", pairs, net.ints(-1), net.ints(-100), net.ints(0), net.ints(-1)
  )
  pairs = net.op("Transpose", pairs, perm=[1, 0])
  return net.op("Reshape", pairs, net.ints(-1))


@pytest.mark.parametrize(
  ("last", "due"),
  [((1, 2, 0, 1), [8, HIDDEN]), ((0, 0, 0, 0, 1, 1), [8])],
  ids=["places", "channels"],
)
def test_pads_that_the_graph_works_out_are_known(last, due, tmp_path):
  net = Net()
  x = net.relu(net.conv(net.input(1, 3, 5, 5), 3, HIDDEN))
  x = net.op("Pad", x, pads(net, *last))
  wide = HIDDEN + 2 * (len(last) > 4)
  x = net.relu(net.conv(x, wide, 8))
  x = net.op("Flatten", net.op("GlobalAveragePool", x))
  found, check = checked(net.save(tmp_path / "a.onnx", net.linear(x, 8, 3)))
  assert check.passes() and groups(found) == due


ASKED = {
  "Pad": ([0, 0, 0, 0], {}),
  "Reshape": ([2, HIDDEN], {}),
  "Expand": ([2, HIDDEN], {}),
  "Tile": ([1, 1], {}),
  "Slice": ([0, 0], {}),
  "Split": ([HIDDEN], {"axis": 1}),
  "CumSum": (1, {}),
}
"""What each operator is asked for, and its attributes."""


@pytest.mark.parametrize("kind", ASKED)
def test_numbers_known_only_in_running_claim_nothing(kind, tmp_path):
  net, (numbers, given) = Net(), ASKED[kind]
  numbers = np.array(numbers, np.int64)
  x = net.relu(net.linear(net.input(2, 5), 5, HIDDEN))
  asked = net.input(*numbers.shape, name="asked", kind=onnx.TensorProto.INT64)
  more = [net.ints(2, HIDDEN)] if kind == "Slice" else []
  y = net.op(kind, x, asked, *more, **given)
  y = net.relu(net.linear(y, HIDDEN, 8))
  path = net.save(tmp_path / "a.onnx", net.linear(y, 8, 3))
  found = network.load(path)
  assert HIDDEN not in groups(found) and found.inferred.guesses
  graph: Any = found.tensors.graph
  rng = np.random.default_rng(0)
  inputs = graph.example_input(rng) | {"asked": numbers}
  check = inference.permutation_check(
    found.inferred, found.weights(), graph.forward, inputs, rng
  )
  assert check.change <= 1e-5


@pytest.mark.parametrize("places", [(9,), (5, 4), (3, 2, 4)])
def test_the_largest_of_all_places_is_that_of_each_channel(places, tmp_path):
  net = Net()
  x = net.input(2, HIDDEN, *places)
  found = net.op("Flatten", net.op("GlobalMaxPool", x))
  path = net.save(tmp_path / "a.onnx", net.linear(found, HIDDEN, 3))
  graph: Any = network.load(path).tensors.graph
  x = np.random.default_rng(0).standard_normal((2, HIDDEN, *places))
  due = x.reshape(2, HIDDEN, -1).max(2) @ net.arrays["w0"].T + net.arrays["w1"]
  y = graph.forward({}, {"x": x.astype(np.float32)})
  np.testing.assert_allclose(y, due.reshape(-1), rtol=1e-4, atol=1e-5)
