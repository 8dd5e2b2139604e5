"""Small ONNX files for tests: nodes one after another, and their check."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sne_jax.checkpoints import network
from sne_jax.networks import inference


class Net:
  """A graph in the making; every method returns the name of what it gives."""

  def __init__(self, seed=0, opset=17):
    self.rng = np.random.default_rng(seed)
    self.opset = opset
    self.nodes, self.arrays, self.inputs = [], {}, []
    self.domains = {"": opset}

  def input(self, *shape, name="x", kind=TensorProto.FLOAT):
    self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
    return name

  def weight(self, *shape, name=None):
    fan = np.prod(shape[1:]) if len(shape) > 1 else 4
    array = self.rng.standard_normal(shape) / np.sqrt(fan)
    return self.array(array.astype(np.float32), name)

  def array(self, values, name=None):
    name = name or f"w{len(self.arrays)}"
    self.arrays[name] = np.asarray(values)
    return name

  def ints(self, *values):
    return self.array(np.array(values, np.int64))

  def op(self, kind, *inputs, outputs=1, **given):
    names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
    domain = given.get("domain", "")
    self.domains.setdefault(domain, 1)
    self.nodes.append(helper.make_node(kind, inputs, names, **given))
    return names[0] if outputs == 1 else names

  def linear(self, x, into, out, bias=True):
    given = [self.weight(out, into)] + ([self.weight(out)] if bias else [])
    return self.op("Gemm", x, *given, transB=1)

  def dense(self, x, into, out):
    """As for inputs of more than two axes."""
    y = self.op("MatMul", x, self.weight(into, out))
    return self.op("Add", y, self.weight(out))

  def conv(self, x, into, out, size=3, **given):
    kernel = self.weight(out, into // given.get("group", 1), size, size)
    pads = [size // 2] * 4
    return self.op("Conv", x, kernel, self.weight(out), pads=pads, **given)

  def relu(self, x):
    return self.op("Relu", x)

  def model(self, *outputs, **options):
    info = lambda name: helper.make_tensor_value_info(
      name, TensorProto.FLOAT, None
    )
    graph = helper.make_graph(
      self.nodes,
      "graph",
      self.inputs,
      [info(name) for name in outputs],
      [numpy_helper.from_array(a, n) for n, a in self.arrays.items()],
    )
    opsets = [helper.make_opsetid(d, v) for d, v in self.domains.items()]
    return helper.make_model(
      graph, opset_imports=opsets, ir_version=8, **options
    )

  def save(self, path, *outputs, **options):
    onnx.save(self.model(*outputs, **options), path)
    return path


def checked(path, draws=3, override=None):
  """Loads a file, and runs it under the permutations that it claims."""
  net = network.load(path, override=override)
  graph, rng = net.tensors.graph, np.random.default_rng(1)
  check = inference.permutation_check(
    net.inferred,
    net.weights(),
    graph.forward,
    graph.example_input(rng),
    rng,
    draws,
  )
  return net, check


def groups(net):
  """Sizes of the groups, largest first."""
  return sorted((size for size, _ in net.spec.groups.values()), reverse=True)


HIDDEN = 6


def hidden(net):
  """A hidden layer, and what reads it."""
  x = net.relu(net.linear(net.input(2, 5), 5, HIDDEN))
  return x, lambda y, size=HIDDEN: net.linear(y, size, 3)


def images(net, x):
  x = net.op("GlobalAveragePool", x)
  return net.op("Flatten", x)


def left(net, found):
  """Weights of a graph that have no part in the network that is found."""
  real = [
    n for n, a in net.arrays.items() if a.dtype.kind == "f" and a.size > 1
  ]
  return {*real} & {*found.inferred.left_out}
