"""ONNX graphs, played and run: what is claimed leaves the output alone."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from tests.checkpoints.graphs.onnx_models import (  # noqa: E402
  Net,
  checked,
  groups,
  images,
  left,
)


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


@pytest.mark.parametrize("build", [shuffled, shuffled_blocks])
def test_what_is_read_in_part(build, tmp_path):
  """Channels that become places, or parts of parts, stay."""
  net = Net()
  output, _ = build(net)
  found, check = checked(net.save(tmp_path / "a.onnx", output))
  assert check.passes() and groups(found) and not left(net, found)
