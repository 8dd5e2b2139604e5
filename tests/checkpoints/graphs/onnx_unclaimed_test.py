"""What an ONNX graph does that moves no neuron is not claimed."""

import numpy as np
import pytest

from sne_jax.checkpoints import network

onnx = pytest.importorskip("onnx")

from tests.checkpoints.graphs.onnx_models import (  # noqa: E402
  HIDDEN,
  Net,
  checked,
  groups,
  hidden,
  images,
  left,
)


def custom(net):
  x, last = hidden(net)
  y = net.op("Spam", x, net.weight(HIDDEN), domain="eggs")
  return last(net.op("Reshape", y, net.ints(2, HIDDEN)))


def disguised(net):
  """A strange domain's operator has only its name in common with ours."""
  x, last = hidden(net)
  return last(net.op("Relu", x, domain="eggs"))


def concatenated(net):
  x, last = hidden(net)
  return last(net.op("Concat", x, net.input(2, 2, name="z"), axis=1), 8)


def sliced(net):
  x, last = hidden(net)
  return last(net.op("Slice", x, net.ints(1), net.ints(5), net.ints(1)), 4)


def stepped(net):
  x, last = hidden(net)
  return last(
    net.op("Slice", x, net.ints(-1), net.ints(-100), net.ints(1), net.ints(-2)),
    3,
  )


def picked(net):
  x, last = hidden(net)
  return last(net.op("Gather", x, net.ints(5, 0, 2, 2), axis=1), 4)


def padded(net):
  x, last = hidden(net)
  return last(net.op("Pad", x, net.ints(0, 1, 0, 1)), 8)


def summed_up(net):
  x, last = hidden(net)
  return last(net.op("CumSum", x, net.array(np.int64(1))))


def largest(net):
  x, last = hidden(net)
  y = net.op("Cast", net.op("ArgMax", x, axis=1), to=1)
  return net.op("Add", last(x), y)


def neighbours(net):
  x = net.conv(net.input(1, 3, 4, 4), 3, 6)
  x = net.op("LRN", x, size=3, alpha=0.5)
  return net.linear(images(net, x), 6, 3)


def masked(net):
  x, last = hidden(net)
  kept = net.array(np.array([[1, 1, 0, 1, 0, 1], [1] * 6], bool))
  return last(net.op("Where", kept, x, net.array(np.float32(0))))


def ranked(net):
  x, last = hidden(net)
  _, order = net.op("TopK", x, net.ints(HIDDEN), outputs=2)
  return last(net.op("Cast", order, to=1))


def triangle(net):
  x, last = hidden(net)
  return last(net.op("Trilu", x))


def sorted_places(net):
  x, last = hidden(net)
  y = net.op("NonZero", x)
  y = net.op("Cast", net.op("ReduceSum", y, net.ints(1)), to=1)
  return net.op("Add", last(x), net.op("ReduceSum", y))


def recurrent(kind, gates):
  def build(net):
    x = net.dense(net.input(4, 1, 5), 5, HIDDEN)
    kernels = [net.weight(1, gates * 4, n) for n in (HIDDEN, 4)]
    bias = net.weight(1, 2 * gates * 4)
    y = net.op(kind, x, *kernels, bias, outputs=2, hidden_size=4)[0]
    y = net.op("Squeeze", y, net.ints(1))
    return net.dense(net.relu(net.dense(y, 4, 7)), 7, 3)

  build.__name__ = kind
  return build


CLAIM_NOTHING = [
  *(custom, disguised, concatenated, sliced, stepped, picked, padded),
  *(summed_up, largest, neighbours, masked, ranked, triangle, sorted_places),
]
NOT_RUN = {custom, disguised}  # Nobody can.


@pytest.mark.parametrize("build", CLAIM_NOTHING)
def test_what_moves_no_neuron_is_not_claimed(build, tmp_path):
  net = Net()
  path = net.save(tmp_path / "a.onnx", build(net))
  if build in NOT_RUN:
    found = network.load(path)
  else:
    found, check = checked(path)
    assert check.change == 0 and check.control is None
  assert not found.spec.groups and not left(net, found)
  assert found.inferred.guesses or build is masked


@pytest.mark.parametrize(
  "build", [recurrent("LSTM", 4), recurrent("GRU", 3), recurrent("RNN", 1)]
)
def test_recurrent_operators_are_pinned_and_said(build, tmp_path):
  net = Net()
  found, check = checked(net.save(tmp_path / "a.onnx", build(net)))
  assert check.passes() and groups(found) == [7] and not left(net, found)
  assert build.__name__ in found.inferred.guesses[0]


def branches(net, condition):
  """A layer within an If, whose weights lie within it and without."""
  x, last = hidden(net)
  given = onnx.numpy_helper.from_array(
    net.rng.standard_normal((HIDDEN, HIDDEN)).astype(np.float32), "inner"
  )
  outside, graphs = net.weight(HIDDEN, HIDDEN), []
  for name, kernel in (("a", "inner"), ("b", outside)):
    node = onnx.helper.make_node("MatMul", [x, kernel], [name])
    value = onnx.helper.make_tensor_value_info(name, 1, [2, HIDDEN])
    tensors = [given] if kernel == "inner" else []
    graphs.append(onnx.helper.make_graph([node], name, [], [value], tensors))
  y = net.op("If", condition, then_branch=graphs[0], else_branch=graphs[1])
  return last(net.relu(net.linear(y, HIDDEN, 9)), 9), outside


def test_what_stands_in_a_branch_is_pinned(tmp_path):
  net = Net()
  condition = net.input(name="c", kind=onnx.TensorProto.BOOL)
  output, outside = branches(net, condition)
  found, check = checked(net.save(tmp_path / "a.onnx", output))
  assert check.passes() and groups(found) == [9]
  names = {tensor.name for tensor in found.spec.tensors}
  assert outside in names and any(n.endswith("/inner") for n in names)
  assert "If" in found.inferred.guesses[0]


def test_loops_are_pinned(tmp_path):
  net = Net()
  x, last = hidden(net)
  kernel = net.weight(HIDDEN, HIDDEN)
  info = onnx.helper.make_tensor_value_info
  body = onnx.helper.make_graph(
    [
      onnx.helper.make_node("Identity", ["go"], ["on"]),
      onnx.helper.make_node("MatMul", ["h", kernel], ["p"]),
      onnx.helper.make_node("Tanh", ["p"], ["t"]),
    ],
    "body",
    [info("n", 7, []), info("go", 9, []), info("h", 1, [2, HIDDEN])],
    [info("on", 9, []), info("t", 1, [2, HIDDEN])],
  )
  y = net.op("Loop", net.array(np.int64(3)), "", x, body=body)
  output = last(net.relu(net.linear(y, HIDDEN, 9)), 9)
  found, check = checked(net.save(tmp_path / "a.onnx", output))
  assert check.passes() and groups(found) == [9] and not left(net, found)
