"""Random ONNX networks: read in full, and nothing claimed that is not so."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from tests.checkpoints.graphs.onnx_models import (  # noqa: E402
  Net,
  checked,
)

WIDTHS = (4, 6, 8)
ACTS = ("Relu", "Tanh", "Sigmoid", "LeakyRelu", "Elu", "Softplus")


class Random(Net):
  """Draws layers, one after another."""

  def one_of(self, *choices):
    return choices[self.rng.integers(len(choices))]

  def chance(self, share=0.5):
    return self.rng.random() < share

  def act(self, x):
    if self.chance(0.1):
      return self.op("Mul", x, self.op("Sigmoid", x))
    return self.op(self.one_of(*ACTS), x)

  def vector(self, size, places=0):
    return self.weight(size, *(1,) * places)

  def batch_norm(self, x, size):
    stats = [self.weight(size) for _ in range(3)]
    var = self.rng.uniform(0.5, 2, size).astype(np.float32)
    return self.op("BatchNormalization", x, *stats, self.array(var))

  def group_norm(self, x, size, groups):
    y = self.op("Reshape", x, self.ints(0, groups, -1))
    given = [np.ones(groups, np.float32), np.zeros(groups, np.float32)]
    given = [
      self.op("Constant", value=onnx.numpy_helper.from_array(a)) for a in given
    ]
    y = self.op("InstanceNormalization", y, *given)
    y = self.op("Reshape", y, self.op("Shape", x))
    y = self.op("Mul", y, self.vector(size, 2))
    return self.op("Add", y, self.vector(size, 2))

  def norm(self, x, size):
    kind = self.one_of("batch", "instance", "group", "none", "none")
    if kind == "batch":
      return self.batch_norm(x, size)
    if kind == "instance":
      given = self.weight(size), self.weight(size)
      return self.op("InstanceNormalization", x, *given)
    return self.group_norm(x, size, 2) if kind == "group" else x

  def convolve(self, x, into, out):
    """Keeps height and width."""
    kind = self.one_of("conv", "conv", "small", "transposed", "groups", "both")
    if kind == "small":
      return self.conv(x, into, out, 1)
    if kind == "groups":
      return self.conv(x, into, out, group=2)
    if kind == "both":  # A channel each, and then all.
      return self.conv(self.conv(x, into, into, group=into), into, out, 1)
    if kind == "transposed":
      group = self.one_of(1, 1, 2)
      bias = [self.weight(out)] if self.chance() else []
      kernel = self.weight(into, out // group, 3, 3)
      pads = [1] * 4
      return self.op("ConvTranspose", x, kernel, *bias, group=group, pads=pads)
    return self.conv(x, into, out)

  def mixed(self, x, size):
    """Channels that are joined, cut, shuffled or gated; returns their count."""
    kind = self.one_of("join", "halves", "shuffle", "gate", "slope", "turn")
    if kind == "join":
      out = self.one_of(size, size, *WIDTHS)
      y = self.act(self.conv(x, size, out, 1))
      return self.op("Concat", *self.one_of((x, y), (y, x)), axis=1), size + out
    if kind == "halves":
      y = self.conv(x, size, 2 * size, 1)
      y, z = self.op("Split", y, outputs=2, axis=1)
      return self.op("Mul", y, self.op("Sigmoid", z)), size
    if kind == "shuffle":
      y = self.op("Reshape", x, self.ints(0, 2, size // 2, 6, 6))
      y = self.op("Transpose", y, perm=[0, 2, 1, 3, 4])
      return self.op("Reshape", y, self.ints(0, size, 6, 6)), size
    if kind == "gate":
      y = self.conv(self.op("GlobalAveragePool", x), size, 4, 1)
      y = self.op("Sigmoid", self.conv(self.act(y), 4, size, 1))
      return self.op("Mul", x, y), size
    if kind == "slope":
      return self.op("PRelu", x, self.vector(size, 2)), size
    y = self.op("Transpose", x, perm=[0, 2, 3, 1])
    y = self.layer_norm(self.dense(y, size, size), size)
    return self.op("Transpose", y, perm=[0, 3, 1, 2]), size

  def images(self):
    into = self.one_of(1, 3)
    size = self.one_of(WIDTHS[0], *WIDTHS)
    x = self.input(self.one_of("n", 1, 2), into, 6, 6)
    x = self.act(self.norm(self.conv(x, into, size), size))
    for _ in range(self.rng.integers(0, 4)):
      out = self.one_of(size, size, *WIDTHS)
      y = self.norm(x, size) if self.chance(0.2) else x
      y = self.norm(self.convolve(y, size, out), out)
      if self.chance(0.4):
        if self.chance():
          y = self.convolve(self.act(y), out, out)
        short = x if out == size else self.conv(x, size, out, 1)
        y = self.op("Add", *((y, short) if self.chance() else (short, y)))
      x, size = self.act(y), out
      if self.chance(0.3):
        x, size = self.mixed(x, size)
    end = self.one_of("mean", "max", "flat", "pool", "sum")
    if end == "sum":
      return self.op("ReduceMean", x, axes=[2, 3], keepdims=0), size
    if end == "pool":
      x = self.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    elif end != "flat":
      kind = {"mean": "GlobalAveragePool", "max": "GlobalMaxPool"}[end]
      x = self.op(kind, x)
    places = {"flat": 36, "pool": 9}.get(end, 1)
    return self.op("Flatten", x), size * places

  def layer(self, x, into, out):
    kind = self.one_of("gemm", "matmul", "turned", "left")
    if kind == "gemm":
      return self.linear(x, into, out, self.chance())
    if kind == "turned":
      return self.op("Gemm", x, self.weight(into, out), self.weight(out))
    if kind == "left":
      x = self.op("Transpose", x, perm=[1, 0])
      y = self.op("MatMul", self.weight(out, into), x)
      return self.op("Transpose", y, perm=[1, 0])
    return self.dense(x, into, out)

  def layer_norm(self, x, size):
    return self.op(
      "LayerNormalization", x, self.weight(size), self.weight(size)
    )

  def attention(self, x, size, heads):
    def cut(order):
      y = self.dense(x, size, size)
      y = self.op("Reshape", y, self.ints(0, 0, heads, size // heads))
      return self.op("Transpose", y, perm=order)

    q, k, v = (
      cut(order) for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    scores = self.op("Softmax", self.op("MatMul", q, k), axis=-1)
    y = self.op("Transpose", self.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    y = self.op("Reshape", y, self.ints(0, 0, size))
    return self.dense(y, size, size)

  def tokens(self):
    size = self.one_of(*WIDTHS)
    x = self.dense(self.input("n", 5, 3), 3, size)
    x = self.op("Add", x, self.weight(1, 5, size))
    for _ in range(self.rng.integers(1, 3)):
      y = self.layer_norm(x, size) if self.chance() else x
      x = self.op("Add", x, self.attention(y, size, 2))
      y = self.layer_norm(x, size) if self.chance() else x
      out = self.one_of(*WIDTHS)
      y = self.dense(self.act(self.dense(y, size, out)), out, size)
      x = self.op("Add", y, x)
    return self.op("ReduceMean", x, axes=[1], keepdims=0), size

  def vectors(self):
    size = self.one_of(3, 4)
    return self.input(self.one_of("n", 2), size), size

  def network(self):
    x, size = self.one_of(self.images, self.tokens, self.vectors)()
    for _ in range(self.rng.integers(1, 4)):
      out = self.one_of(size, *WIDTHS) if size < 9 else self.one_of(*WIDTHS)
      if out == size and self.chance(0.3):  # One layer, used twice.
        kernel = self.weight(size, size)
        y = self.op("MatMul", self.act(self.op("MatMul", x, kernel)), kernel)
      else:
        y = self.layer(x, size, out)
      if self.chance(0.2):
        y = self.layer_norm(y, out)
      elif self.chance(0.2):
        y = self.batch_norm(y, out)
      if out == size and self.chance():
        y = self.op("Add", x, y)
      x, size = self.act(y), out
    y = self.layer(x, size, 3)
    return self.op("Softmax", y, axis=1) if self.chance(0.3) else y


def tried(seed, tmp_path):
  """Reads a random network; returns whether in full, and how outputs move.

  In full: every weight is in the spec, and nothing is pinned but what all
  inputs, outputs and places pin. A few networks have no symmetry at all: one
  whose inputs are added to all its layers.
  """
  net = Random(seed)
  path = net.save(tmp_path / f"{seed}.onnx", net.network())
  found, check = checked(path, draws=2)
  held = {name for name, array in net.arrays.items() if array.dtype.kind == "f"}
  in_spec = {source.name for source in found.inferred.sources}
  full = not found.inferred.guesses and held <= in_spec
  return full, check


def test_random_networks(tmp_path):
  results = [tried(seed, tmp_path) for seed in range(22, 38)]
  for full, check in results:
    assert check.change < 1e-4 and check.log_order > 1 and full
  assert sum(check.control > 1e-4 for _, check in results) >= 15


@pytest.mark.slow
def test_many_random_networks(tmp_path):
  results = [tried(seed, tmp_path) for seed in range(1000, 1200)]
  assert all(check.change < 1e-4 for _, check in results)
  assert sum(full for full, _ in results) >= 0.95 * len(results)
  assert sum(check.log_order > 1 for _, check in results) >= 0.9 * len(results)
