"""ONNX graphs, played and run: what is claimed leaves the output alone."""

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import network, reading
from sne_jax.networks.tracing import traced_onnx

onnx = pytest.importorskip("onnx")

from tests.checkpoints.graphs.onnx_models import (  # noqa: E402
  Net,
  checked,
  groups,
)


def images(net, x):
  x = net.op("GlobalAveragePool", x)
  return net.op("Flatten", x)


def gemms(net):
  """Kernels as [out, in] and [in, out], and inputs that lie on their side."""
  x = net.input(2, 5)
  x = net.relu(net.linear(x, 5, 6))
  x = net.relu(net.op("Gemm", x, net.weight(6, 6), net.weight(6), alpha=0.5))
  x = net.relu(net.op("Gemm", net.weight(6, 6), x, transB=1))  # [6, 2]
  x = net.op("Gemm", x, net.weight(4, 6), transA=1, transB=1, beta=0.5)
  return x, [6, 6, 6]


def matmuls(net):
  """Weights on the right and on the left, and of three axes."""
  x = net.input(2, 3, 6)
  x = net.relu(net.dense(x, 6, 6))
  x = net.op("Transpose", x, perm=[0, 2, 1])
  x = net.relu(net.op("MatMul", net.weight(6, 6), x))  # [2, 6, 3]
  x = net.relu(net.op("MatMul", net.weight(1, 6, 6), x))
  x = net.op("Transpose", x, perm=[0, 2, 1])
  return net.op("MatMul", x, net.weight(6, 4)), [6, 6, 6]


def ways(net):
  """Weights that come through other operators."""
  x = net.input(2, 6)
  kernel = net.op("Transpose", net.weight(6, 6), perm=[1, 0])
  x = net.relu(net.op("MatMul", x, kernel))
  kernel = net.op("Identity", net.op("Identity", net.weight(6, 6)))
  x = net.relu(net.op("MatMul", x, kernel))
  half = net.array(net.rng.standard_normal((6, 6)).astype(np.float16))
  x = net.relu(net.op("MatMul", x, net.op("Cast", half, to=1)))
  flat = net.op("Reshape", net.weight(36), net.ints(6, 6))
  x = net.relu(net.op("MatMul", x, flat))
  third = net.op("Mul", net.weight(6, 6), net.array(np.float32(0.3)))
  x = net.relu(net.op("MatMul", x, third))
  value = onnx.numpy_helper.from_array(
    net.rng.standard_normal((6, 4)).astype(np.float32)
  )
  return net.op("MatMul", x, net.op("Constant", value=value)), [6] * 5


def shared(net):
  """One initialiser of two layers ties what it reads to what it gives."""
  x = net.relu(net.linear(net.input(2, 6), 6, 6))
  kernel = net.weight(6, 6)
  for _ in range(2):
    x = net.relu(net.op("Gemm", x, kernel, transB=1))
  return net.linear(x, 6, 4), [6]


def resnet(net):
  """Batch norms folded; a shortcut with a layer, and one without."""

  def block(x, into, out, stride):
    y = net.relu(net.conv(x, into, out, strides=[stride, stride]))
    y = net.conv(y, out, out)
    if into != out:
      x = net.conv(x, into, out, 1, strides=[stride, stride])
    return net.relu(net.op("Add", x, y))

  x = net.relu(net.conv(net.input("n", 3, 8, 8), 3, 8))
  x = block(block(x, 8, 8, 1), 8, 12, 2)
  return net.linear(images(net, x), 12, 5), [12, 12, 8, 8]


def transposed(net):
  """Transposed convolutions: plain, of groups, and of each channel alone."""
  x = net.relu(net.conv(net.input(1, 3, 4, 4), 3, 8))
  x = net.op("ConvTranspose", x, net.weight(8, 8, 3, 3), net.weight(8))
  x = net.op("Tanh", x)
  x = net.op("ConvTranspose", x, net.weight(8, 3, 2, 2), net.weight(6), group=2)
  x = net.relu(x)
  x = net.op("ConvTranspose", x, net.weight(6, 1, 2, 2), net.weight(6), group=6)
  x = net.op("Tanh", x)
  return net.conv(x, 6, 2, 1), [8, 4, 3, 2]


def flattened(net):
  """Pools, channels in groups and alone, then one axis of all places."""
  x = net.relu(net.conv(net.input("n", 1, 8, 8), 1, 6))
  x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
  x = net.relu(net.conv(x, 6, 8, group=2))
  x = net.op("Tanh", net.conv(x, 8, 16, group=8))
  x = net.op("AveragePool", x, kernel_shape=[3, 3], ceil_mode=1)
  x = net.op("Reshape", x, net.ints(0, -1))
  x = net.relu(net.linear(x, 64, 10))
  return net.linear(x, 10, 3), None


def norms(net):
  """Batch, layer and group norms, as operators."""
  x = net.conv(net.input(1, 3, 5, 5), 3, 8)
  stats = [net.weight(8) for _ in range(3)]
  stats += [net.array(net.rng.uniform(0.5, 2, 8).astype(np.float32))]
  x = net.relu(net.op("BatchNormalization", x, *stats))
  x = net.conv(x, 8, 8)
  x = net.op("InstanceNormalization", x, net.weight(8), net.weight(8))
  x = net.relu(x)
  x = net.linear(images(net, x), 8, 6)
  x = net.op("LayerNormalization", x, net.weight(6), net.weight(6))
  return net.linear(net.relu(x), 6, 4), [8, 8, 6]


def group_norm(net):
  """As PyTorch writes it: channels of groups are places of an instance norm."""
  x = net.conv(net.input(1, 3, 4, 4), 3, 8)
  y = net.op("Reshape", x, net.ints(0, 2, -1))
  ones = net.op("Constant", value_floats=[1.0, 1.0])
  zeros = net.op("Constant", value_floats=[0.0, 0.0])
  y = net.op("InstanceNormalization", y, ones, zeros)
  y = net.op("Reshape", y, net.op("Shape", x))
  y = net.op("Mul", y, net.weight(8, 1, 1))
  y = net.op("Add", y, net.weight(8, 1, 1))
  return net.linear(images(net, net.relu(y)), 8, 3), [4, 2]


def layer_norm_by_hand(net):
  """As before opset 17."""
  x = net.dense(net.input(2, 5), 5, 6)
  mean = net.op("ReduceMean", x, axes=[-1])
  apart = net.op("Sub", x, mean)
  two, small = net.array(np.float32(2)), net.array(np.float32(1e-5))
  var = net.op("ReduceMean", net.op("Pow", apart, two), axes=[-1])
  std = net.op("Sqrt", net.op("Add", var, small))
  x = net.op("Mul", net.op("Div", apart, std), net.weight(6))
  x = net.relu(net.op("Add", x, net.weight(6)))
  return net.dense(x, 6, 4), [6]


def transformer(net):
  """Words, positions, attention of heads, and sizes worked out in it."""
  words = net.input("n", "t", name="ids", kind=onnx.TensorProto.INT64)
  x = net.op("Gather", net.weight(11, 8), words)
  shape = net.op("Shape", words)
  count = net.op("Gather", shape, net.array(np.int64(1)))
  batch = net.op("Gather", shape, net.array(np.int64(0)))
  last = net.op("Unsqueeze", count, net.ints(0))
  table = net.op("Slice", net.weight(1, 64, 8), net.ints(0), last, net.ints(1))
  x = net.op("Add", x, table)
  sizes = [net.op("Unsqueeze", n, net.ints(0)) for n in (batch, count)]
  cut = net.op("Concat", *sizes, net.ints(2, 4), axis=0)

  def heads(x, *order):
    y = net.op("Reshape", net.dense(x, 8, 8), cut)
    return net.op("Transpose", y, perm=order)

  norm = lambda x: net.op("LayerNormalization", x, net.weight(8), net.weight(8))
  h = norm(x)
  q, k, v = heads(h, 0, 2, 1, 3), heads(h, 0, 2, 3, 1), heads(h, 0, 2, 1, 3)
  scores = net.op("Div", net.op("MatMul", q, k), net.array(np.float32(2)))
  y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
  y = net.op("Transpose", y, perm=[0, 2, 1, 3])
  y = net.op("Reshape", y, net.op("Concat", *sizes, net.ints(8), axis=0))
  x = net.op("Add", x, net.dense(y, 8, 8))
  y = net.dense(net.relu(net.dense(norm(x), 8, 12)), 12, 8)
  x = net.op("ReduceMean", norm(net.op("Add", x, y)), axes=[1], keepdims=0)
  return net.linear(x, 8, 3), [12, 8, 4, 4, 2]


def fused(net):
  """Queries, keys and values of one matrix, split or picked by number."""
  x = net.dense(net.input(1, 5, 8), 8, 8)
  y = net.op("Reshape", net.dense(x, 8, 24), net.ints(1, 5, 3, 2, 4))
  y = net.op("Transpose", y, perm=[2, 0, 3, 1, 4])
  q, k, v = (net.op("Gather", y, net.array(np.int64(i))) for i in range(3))
  k = net.op("Transpose", k, perm=[0, 1, 3, 2])
  y = net.op("MatMul", net.op("Softmax", net.op("MatMul", q, k), axis=3), v)
  y = net.op("Transpose", y, perm=[0, 2, 1, 3])
  x = net.op("Add", x, net.dense(net.op("Reshape", y, net.ints(1, 5, 8)), 8, 8))
  q, k, v = net.op("Split", net.dense(x, 8, 24), outputs=3, axis=-1)
  k = net.op("Transpose", k, perm=[0, 2, 1])
  y = net.op("MatMul", net.op("Softmax", net.op("MatMul", q, k), axis=-1), v)
  return net.dense(net.op("Add", x, net.dense(y, 8, 8)), 8, 3), None


def einsums(net):
  x = net.op("Einsum", net.input(2, 5), net.weight(6, 5), equation="bi,oi->bo")
  x = net.op("Tanh", x)
  x = net.op("Einsum", net.weight(6, 7), x, equation="io,bi->bo")
  return net.linear(net.relu(x), 7, 3), [7, 6]


def slopes(net):
  """PReLU of one slope, and of one for each channel."""
  x = net.conv(net.input(1, 3, 4, 4), 3, 6)
  x = net.conv(net.op("PRelu", x, net.weight(6, 1, 1)), 6, 5)
  x = images(net, net.op("PRelu", x, net.weight(1)))
  return net.linear(x, 5, 3), [6, 5]


def shuffled(net):
  """Channels that change places with places, and with each other."""
  x = net.relu(net.conv(net.input(1, 3, 4, 4), 3, 8))
  x = net.op("Reshape", x, net.ints(1, 2, 4, 4, 4))
  x = net.op("Transpose", x, perm=[0, 2, 1, 3, 4])
  x = net.conv(net.op("Reshape", x, net.ints(1, 8, 4, 4)), 8, 12)
  x = net.relu(net.op("DepthToSpace", x, blocksize=2))  # [1, 3, 8, 8]
  x = net.op("SpaceToDepth", net.conv(x, 3, 4), blocksize=2)
  return net.linear(images(net, net.relu(x)), 16, 3), None


def joined(net):
  """Channels of one count each are parts of what reads them: a small U-Net."""
  a = net.relu(net.conv(net.input(1, 1, 8, 8), 1, 8))
  b = net.op("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2])
  b = net.relu(net.conv(b, 8, 12))
  kernel = net.weight(12, 8, 2, 2)
  b = net.op("ConvTranspose", b, kernel, net.weight(8), strides=[2, 2])
  x = net.op("Concat", a, b, axis=1)
  stats = [net.weight(16) for _ in range(3)]
  stats += [net.array(net.rng.uniform(0.5, 2, 16).astype(np.float32))]
  x = net.relu(net.conv(net.op("BatchNormalization", x, *stats), 16, 6))
  return net.conv(x, 6, 2), [12, 8, 8, 6]


def joined_in_two_orders(net):
  x = net.input(2, 5)
  a, b = (net.relu(net.linear(x, 5, 6)) for _ in range(2))
  pairs = [net.op("Concat", *pair, axis=1) for pair in ((a, b), (b, a))]
  return net.linear(net.relu(net.op("Add", *pairs)), 12, 3), [6]


def shuffled_blocks(net):
  """Blocks that are shuffled and cut anew: what is sure is little."""
  a = net.relu(net.conv(net.input(1, 3, 4, 4), 3, 8))
  x = net.op("Concat", a, net.relu(net.conv(a, 8, 8)), axis=1)
  x = net.op("Reshape", x, net.ints(1, 2, 8, 4, 4))
  x = net.op("Transpose", x, perm=[0, 2, 1, 3, 4])
  x = net.op("Reshape", x, net.ints(1, 16, 4, 4))
  parts = net.op("Split", x, outputs=2, axis=1)
  x = net.op("Add", *(net.relu(net.conv(p, 8, 6)) for p in parts))
  return net.linear(images(net, x), 6, 3), None


def one_output(net):
  """A bias of one number is a weight."""
  x = net.relu(net.dense(net.input(2, 4), 4, 6))
  return net.dense(x, 6, 1), [6]


BUILDS = [
  *(gemms, matmuls, ways, shared, resnet, transposed, flattened, norms),
  *(group_norm, layer_norm_by_hand, transformer, fused, einsums, slopes),
  *(one_output, joined, joined_in_two_orders),
]


@pytest.mark.parametrize("build", BUILDS)
def test_graphs_are_read_in_full(build, tmp_path):
  net = Net()
  output, sizes = build(net)
  found, check = checked(net.save(tmp_path / "a.onnx", output))
  assert check.passes(), check
  assert check.control > 1e-3 and check.log_order > 1
  assert found.inferred.how == "traced" and not found.inferred.guesses
  if sizes is not None:
    assert groups(found) == sizes
  assert not left(net, found)


def left(net, found):
  """Weights of a graph that have no part in the network that is found."""
  real = [
    n for n, a in net.arrays.items() if a.dtype.kind == "f" and a.size > 1
  ]
  return {*real} & {*found.inferred.left_out}


@pytest.mark.parametrize("build", [shuffled, shuffled_blocks])
def test_what_is_read_in_part(build, tmp_path):
  """Channels that become places, or parts of parts, stay."""
  net = Net()
  output, _ = build(net)
  found, check = checked(net.save(tmp_path / "a.onnx", output))
  assert check.passes() and groups(found) and not left(net, found)


HIDDEN = 6


def hidden(net):
  """A hidden layer, and what reads it."""
  x = net.relu(net.linear(net.input(2, 5), 5, HIDDEN))
  return x, lambda y, size=HIDDEN: net.linear(y, size, 3)


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


@pytest.mark.parametrize("kind", ["tensor", "channel", "block"])
def test_quantised_weights_are_read_as_numbers(kind, tmp_path):
  net = Net(opset=21)
  raw = net.rng.integers(-128, 128, (HIDDEN, 4)).astype(np.int8)
  shape = {"tensor": (), "channel": (HIDDEN,), "block": (HIDDEN, 2)}[kind]
  scale = net.rng.uniform(0.01, 0.02, shape).astype(np.float32)
  zero = net.rng.integers(-9, 9, shape).astype(np.int8)
  given = {"axis": 0} if kind == "channel" else {}
  given = {"axis": 1, "block_size": 2} if kind == "block" else given
  kernel = net.op(
    "DequantizeLinear", *map(net.array, (raw, scale, zero)), **given
  )
  x = net.relu(net.op("Gemm", net.input(2, 4), kernel, transB=1))
  path = net.save(tmp_path / "a.onnx", net.linear(x, HIDDEN, 3))
  found, check = checked(path)
  assert check.passes() and groups(found) == [HIDDEN]
  if kind == "channel":
    scale, zero = scale[:, None], zero[:, None]
  if kind == "block":
    scale, zero = scale.repeat(2, 1), zero.repeat(2, 1)
  want = (raw.astype(np.float32) - zero) * scale
  np.testing.assert_allclose(
    found.spec.unflatten(found.weights())[kernel], want, rtol=1e-6
  )
  assert "int8" in found.inferred.left_out["w0"]


@pytest.mark.parametrize(
  ("scale", "given"),
  [
    ((HIDDEN + 1,), {"axis": 0}),
    ((HIDDEN,), {"axis": 7}),
    ((2, 2, 2), {}),
    ((HIDDEN, 2), {"axis": 1, "block_size": 1 << 50}),
    ((HIDDEN, 2), {"axis": 1, "block_size": -2}),
  ],
)
def test_scales_that_do_not_fit_are_refused(scale, given, tmp_path):
  net = Net(opset=21)
  arrays = np.ones((HIDDEN, 4), np.int8), np.ones(scale, np.float32)
  kernel = net.op("DequantizeLinear", *map(net.array, arrays), **given)
  output = net.op("MatMul", net.input(1, HIDDEN), kernel)
  path = net.save(tmp_path / "a.onnx", output)
  with pytest.raises(errors.CheckpointError, match="scales of"):
    reading.read(path)


def test_operators_on_quantised_numbers_are_pinned(tmp_path):
  net = Net(opset=21)
  x, last = hidden(net)
  scale, zero = net.array(np.float32(0.1)), net.array(np.int8(0))
  q = net.op("QuantizeLinear", x, scale, zero)
  kernel = net.array(net.rng.integers(-99, 99, (HIDDEN, 8)).astype(np.int8))
  y = net.op("QLinearMatMul", q, scale, zero, kernel, scale, zero, scale, zero)
  y = net.op("DequantizeLinear", y, scale, zero)
  found, check = checked(net.save(tmp_path / "a.onnx", last(y, 8)))
  assert check.passes() and not groups(found)
  assert "int8" in found.inferred.left_out[kernel]
  assert "QLinearMatMul" in found.inferred.guesses[0]


def test_what_has_no_part_in_the_output_is_left_out(tmp_path):
  net = Net()
  x, last = hidden(net)
  net.linear(x, HIDDEN, HIDDEN)
  spare = net.weight(3, 3)
  path = net.save(tmp_path / "a.onnx", last(x))
  found, check = checked(path)
  assert check.passes() and groups(found) == [HIDDEN]
  assert left(net, found) == {"w2", "w3", spare}
  assert all("no part" in why for why in found.inferred.left_out.values())


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21, 23])
def test_many_opsets(opset, tmp_path):
  """What were attributes became inputs."""
  net = Net(opset=opset)
  x = net.relu(net.conv(net.input("n", 3, 6, 6), 3, 8))
  x = net.op(
    "ReduceMean",
    x,
    *([net.ints(2, 3)] if opset >= 18 else []),
    **({} if opset >= 18 else {"axes": [2, 3]}),
  )
  if opset < 13:
    x = net.op("Squeeze", x, axes=[2, 3])
    x = net.op("Softmax", x, axis=1)
  else:
    x = net.op("Softmax", net.op("Squeeze", x, net.ints(2, 3)))
  if opset >= 10:
    given = [net.ints(0), net.ints(2**62), net.ints(1)]
    x = net.op("Slice", x, *given)
  x = net.op(
    "Unsqueeze",
    x,
    *([net.ints(2)] if opset >= 13 else []),
    **({} if opset >= 13 else {"axes": [2]}),
  )
  x = net.op("Flatten", x)
  found, check = checked(
    net.save(tmp_path / "a.onnx", net.linear(x, 8, 3)), draws=1
  )
  assert check.passes() and groups(found) == [8]


def test_numbers_in_another_file(tmp_path):
  net = Net()
  x, last = hidden(net)
  model = net.model(last(x))
  onnx.save(
    model,
    tmp_path / "a.onnx",
    save_as_external_data=True,
    location="a.bin",
    size_threshold=0,
  )
  assert (tmp_path / "a.bin").stat().st_size
  found, check = checked(tmp_path / "a.onnx")
  assert check.passes() and groups(found) == [HIDDEN]


def test_a_function_of_the_file_is_not_what_it_is_called(tmp_path):
  net = Net()
  x, last = hidden(net)
  net.domains["eggs"] = 1
  kinds = ["com.microsoft", "Gelu"]
  y = net.op(kinds[1], x, domain=kinds[0])
  body = [onnx.helper.make_node("CumSum", ["a", "one"], ["b"])]
  body.insert(0, onnx.helper.make_node("Constant", [], ["one"], value_int=1))
  function = onnx.helper.make_function(
    *kinds, ["a"], ["b"], body, [onnx.helper.make_opsetid("", 17)]
  )
  output = last(net.op("Reshape", y, net.ints(2, HIDDEN)))
  path = net.save(tmp_path / "a.onnx", output, functions=[function])
  assert not network.load(path).spec.groups
  without = net.save(tmp_path / "b.onnx", output)
  assert groups(network.load(without)) == [HIDDEN]


@pytest.mark.parametrize(
  ("kinds", "names"),
  [
    (["Relu", "Tanh"], "relu tanh none"),
    (["Sigmoid", ("LeakyRelu", {"alpha": 0.01})], "sigmoid leaky_relu none"),
    (["Relu", ("LeakyRelu", {"alpha": 0.2})], "relu unknown none"),
    (["Relu", "LayerNormalization"], "relu none none none"),
    ([("Gelu", {"approximate": "tanh"}), "Gelu"], "unknown gelu none"),
    (["Elu", "Softplus"], ""),
  ],
)
def test_activations_by_level(kinds, names, tmp_path):
  """What comes after the outputs alone does not count."""
  net = Net(opset=20)
  x = net.input(2, HIDDEN)
  for kind in kinds:
    kind, given = (kind, {}) if isinstance(kind, str) else kind
    x = net.linear(x, HIDDEN, HIDDEN)
    norm = [net.weight(HIDDEN)] if kind == "LayerNormalization" else []
    x = net.op(kind, x, *norm, **given)
  output = net.op("Softmax", net.linear(x, HIDDEN, 3))
  path = net.save(tmp_path / "a.onnx", output)
  names = tuple(names.split())
  assert network.load(path).spec.activations == names
  said = network.load(path, override={"activation": "silu"}).spec.activations
  wanted = [n.replace("unknown", "silu") for n in names]
  assert said == (tuple(wanted) or ("silu", "silu", "none"))


def test_open_sizes_are_found(tmp_path):
  """The dense layer says how large images are."""
  net = Net()
  x = net.relu(net.conv(net.input("n", 1, "h", "w"), 1, 4))
  x = net.relu(net.linear(net.op("Flatten", x), 4 * 28 * 28, 6))
  found, check = checked(net.save(tmp_path / "a.onnx", net.linear(x, 6, 3)))
  assert check.passes() and groups(found) == [6, 4]
  assert not found.inferred.guesses


def test_rows_of_a_table_that_other_lengths_need_do_not_move(tmp_path):
  net = Net()
  words = net.input(1, "t", name="ids", kind=onnx.TensorProto.INT64)
  x = net.op("Gather", net.weight(11, 8), words)
  last = net.op("Slice", net.op("Shape", words), net.ints(1), net.ints(2))
  table = net.op("Slice", net.weight(1, 64, 8), net.ints(0), last, net.ints(1))
  x = net.op("ReduceMean", net.op("Add", x, table), axes=[1], keepdims=0)
  found = network.load(net.save(tmp_path / "a.onnx", net.linear(x, 8, 3)))
  assert groups(found) == [8]


def chain(net, count):
  x, last = hidden(net)
  for _ in range(count):
    x = net.op("Neg", x)
  return last(x)


def cycle(net):
  output = chain(net, 3)
  net.nodes[2].input[0] = net.nodes[4].output[0]
  return output


def twice(net):
  output = chain(net, 3)
  net.nodes[3].output[0] = net.nodes[4].output[0]
  net.nodes[4].input[0] = net.nodes[2].output[0]
  return output


def unweighted(net):
  net.weight(2, 2)
  return net.relu(net.input(2, 2))


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (cycle, "is used before any operator gives it"),
    (twice, "two operators give 'v4_0'"),
    (lambda net: chain(net, 50), "more than 50 operators"),
    (unweighted, "no weight has a part"),
    (lambda net: hidden(net) and "nowhere", "'nowhere' is used before"),
  ],
)
def test_graphs_that_cannot_be_played_are_refused(
  build, message, tmp_path, monkeypatch
):
  monkeypatch.setattr(traced_onnx, "MAX_NODES", 50)
  net = Net()
  path = net.save(tmp_path / "a.onnx", build(net))
  with pytest.raises(errors.CheckpointError, match=message) as error:
    network.load(path)
  assert "\n" not in str(error.value) and '{"opaque": true}' in str(error.value)
  found = network.load(path, override={"opaque": True})
  assert not found.spec.groups and left(net, found) == set()


def test_numbers_without_a_graph_go_by_their_names(tmp_path):
  net = Net()
  shapes = {"a.weight": (6, 5), "a.bias": (6,)}
  shapes |= {"b.weight": (3, 6), "b.bias": (3,)}
  for name, shape in shapes.items():
    net.weight(*shape, name=name)
  net.input(1, 5)
  found = network.load(net.save(tmp_path / "a.onnx"))
  assert (
    found.inferred.how == "guessed" and reading.read(found.path).graph is None
  )


def test_hostile_sizes_take_no_memory(tmp_path):
  net = Net()
  x, last = hidden(net)
  for shape in ((1 << 40, 1 << 40), (-5,), (1 << 62,), (0, 0)):
    y = net.op("ConstantOfShape", net.ints(*shape))
    x = net.op("Add", x, net.op("ReduceSum", y, keepdims=0))
  many = net.ints(1 << 40, 1)
  x = net.op("Slice", net.op("Tile", x, many), net.ints(0), net.ints(2))
  one, end = net.array(np.int64(1)), net.array(np.int64(1 << 62))
  y = net.op("Range", net.array(np.int64(0)), end, one)
  output = net.op("Add", last(x), net.op("Cast", net.op("Size", y), to=1))
  found = network.load(net.save(tmp_path / "a.onnx", output))
  assert not left(net, found)
