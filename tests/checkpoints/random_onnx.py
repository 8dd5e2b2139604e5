"""A random network as an ONNX graph, in the ways of several exporters."""

import numpy as np

from tests.checkpoints import random_names
from tests.checkpoints.drawn import judging, plans, running
from tests.checkpoints.random_rows import moved


def model(network):
  """Returns the model, the rows of its parameters, and how it flattens."""
  import onnx

  writer = _Writer(network)
  value = "input"
  values = [value]
  for number, node in enumerate(network.nodes):
    writer.at = f"/n{number}"
    given = [values[i] for i in node.inputs]
    values.append(writer.step(node, *given))
  out = network.nodes[-1].shape
  float_ = onnx.TensorProto.FLOAT
  info = onnx.helper.make_tensor_value_info
  batch = judging.INPUTS if writer.fixed else "N"
  tensors = [
    onnx.numpy_helper.from_array(np.asarray(a), name)
    for name, a in writer.tensors.items()
  ]
  if writer.shuffled:
    writer.rng.shuffle(tensors)
  graph = onnx.helper.make_graph(
    writer.nodes,
    "main_graph",
    [info("input", float_, [batch, *network.input_shape])],
    [info(values[-1], float_, [batch, *out])],
    tensors,
  )
  made = onnx.helper.make_model(
    graph,
    opset_imports=[onnx.helper.make_opsetid("", writer.opset)],
    producer_name="pytorch",
    ir_version=9,
  )
  onnx.checker.check_model(made)
  return made, writer.rows, writer.last


class _Writer:
  """Adds nodes; choices of the exporter are drawn from the plan's style."""

  def __init__(self, network):
    self.network = network
    self.rng = np.random.default_rng(network.plan.style)
    self.nodes, self.tensors, self.rows = [], {}, []
    flip = lambda p: bool(self.rng.random() < p)
    self.nameless = flip(0.3)  # onnx::Conv_12 instead of conv1.weight
    self.shuffled = flip(0.3)
    self.dense = ("gemm", "gemm", "gemm_in_out", "matmul")[self.rng.integers(4)]
    self.fixed = flip(0.3)
    self.last = flip(0.3)
    self.opset = 21 if flip(0.5) else 17
    self.plain_norms = flip(0.3)  # Layer norms of single steps.
    self.flat = ("Flatten", "Reshape")[self.rng.integers(2)]
    self.known: dict[tuple[int, str], str] = {}
    habit = random_names.habit_of(network)
    habit = "numbered" if habit == "custom" else habit
    self.names = random_names.prefixes(network, habit)
    self.at = ""

  def add(self, op, *inputs, count=1, **attributes):
    """Adds a node; returns the name of what it gives, or the names."""
    from onnx import helper

    number = len(self.nodes)
    out = [f"{self.at}/{op}_{number}_output_{i}" for i in range(count)]
    name = f"{self.at}/{op}_{number}"
    self.nodes.append(
      helper.make_node(op, list(inputs), out, name=name, **attributes)
    )
    return out[0] if count == 1 else out

  def constant(self, array):
    name = f"onnx::C_{len(self.tensors)}"
    self.tensors[name] = np.asarray(array)
    return name

  def param(self, module: int, part: str, order=()):
    """Names a parameter, once, stored with its axes in an order."""
    key = (module, part)
    if part not in self.network.modules[module].params:
      return ""
    if key not in self.known:
      name = f"{self.names[module][0]}.{random_names.TORCH[part]}"
      if self.nameless:
        name = f"onnx::Tensor_{100 + len(self.tensors)}"
      order = order or range(self.network.modules[module].params[part].ndim)
      row = moved(name, key, order)
      self.rows.append(row)
      self.tensors[name] = row.to(self.network.modules[module].params[part])
      self.known[key] = name
    return self.known[key]

  def step(self, node, x, *more):
    """Writes one node of the network."""
    op = node.op
    if op == "act":
      name = self.network.plan.activation
      if name == "silu":
        return self.add("Mul", x, self.add("Sigmoid", x))
      return self.add({"relu": "Relu", "tanh": "Tanh"}[name], x)
    if op == "sigmoid":
      return self.add("Sigmoid", x)
    if op in ("add", "mul"):
      return self.add(op.title(), x, *more)
    if op == "mean_keep":
      return self.add("GlobalAveragePool", x)
    if op == "concat":
      return self.add("Concat", x, *more, axis=1)
    rank = self.network.plan.rank
    if op == "pool":
      two = [2] * rank
      return self.add("MaxPool", x, kernel_shape=two, strides=two)
    if op == "mean":
      if self.rng.random() < 0.5:
        places = list(range(2, 2 + rank))
        if self.opset >= 18:
          axes = self.constant(np.array(places))
          return self.add("ReduceMean", x, axes, keepdims=0)
        return self.add("ReduceMean", x, axes=places, keepdims=0)
      return self.add("Flatten", self.add("GlobalAveragePool", x), axis=1)
    if op == "flatten":
      if self.last:
        x = self.add("Transpose", x, perm=[0, *range(2, 2 + rank), 1])
      if self.flat == "Reshape":
        shape = np.array([judging.INPUTS if self.fixed else -1, *node.shape])
        return self.add("Reshape", x, self.constant(shape))
      return self.add("Flatten", x, axis=1)
    if op == "softmax":
      return self.add("Softmax", x, axis=1)
    return self.module(node, x)

  def module(self, node, x):
    """Writes a layer or a norm."""
    i = node.module
    module = self.network.modules[i]
    if module.kind in plans.NORMS:
      return self.norm(i, module, node, x)
    trim = lambda *names: [n for n in names if n]
    if module.kind == "dense":
      if self.dense == "matmul":
        y = self.add("MatMul", x, self.param(i, "weight", (1, 0)))
        bias = self.param(i, "bias")
        return self.add("Add", *sorted((y, bias))) if bias else y
      order = (1, 0) if self.dense == "gemm_in_out" else (0, 1)
      names = trim(x, self.param(i, "weight", order), self.param(i, "bias"))
      extra = {} if self.dense == "gemm_in_out" else {"transB": 1}
      return self.add("Gemm", *names, **extra)
    names = trim(x, self.param(i, "weight"), self.param(i, "bias"))
    size = list(module.params["weight"].shape[2:])
    if module.kind == "transposed":
      steps = [2] * len(size)
      return self.add("ConvTranspose", *names, kernel_shape=size, strides=steps)
    half = [n // 2 for n in size] * 2
    extra = {"group": module.groups} if module.groups > 1 else {}
    return self.add("Conv", *names, kernel_shape=size, pads=half, **extra)

  def along(self, name: str, rank: int):
    """A vector that is multiplied or added along the channels."""
    return (
      name
      if not rank
      else self.add(
        "Reshape", name, self.constant(np.array([1, -1] + [1] * rank))
      )
    )

  def norm(self, i, module, node, x):
    """Writes a norm, in single steps where there is no operator."""
    rank = len(node.shape) - 1
    get = lambda part: self.param(i, part)
    size = node.shape[0]
    if module.kind == "batch":
      scale = get("scale") or self.constant(np.ones(size, np.float32))
      shift = get("shift") or self.constant(np.zeros(size, np.float32))
      names = (x, scale, shift, get("mean"), get("var"))
      return self.add("BatchNormalization", *names, epsilon=running.EPSILON)
    if module.kind == "layer":
      return self.layer_norm(i, rank, x)
    if module.kind == "instance" and rank:
      names = (x, get("scale"), get("shift"))
      return self.add("InstanceNormalization", *names, epsilon=running.EPSILON)
    if self.opset == 21:
      names = (x, get("scale"), get("shift"))
      extra = {"num_groups": module.groups, "epsilon": running.EPSILON}
      return self.add("GroupNormalization", *names, **extra)
    batch = judging.INPUTS if self.fixed else 0
    cut = self.constant(np.array([batch, module.groups, -1]))
    ones = self.constant(np.ones(module.groups, np.float32))
    zeros = self.constant(np.zeros(module.groups, np.float32))
    y = self.add("Reshape", x, cut)
    y = self.add(
      "InstanceNormalization", y, ones, zeros, epsilon=running.EPSILON
    )
    if self.fixed:
      whole = self.constant(np.array([batch, *node.shape]))
    else:
      whole = self.add("Shape", x)
    y = self.add("Reshape", y, whole)
    y = self.add("Mul", y, self.along(get("scale"), rank))
    return self.add("Add", y, self.along(get("shift"), rank))

  def layer_norm(self, i, rank: int, x):
    """A norm over the channels of every place."""
    scale, shift = self.param(i, "scale"), self.param(i, "shift")
    if rank:
      x = self.add("Transpose", x, perm=[0, *range(2, 2 + rank), 1])
    if self.plain_norms:
      mean = lambda v: (
        self.add("ReduceMean", v, self.constant(np.array([-1])), keepdims=1)
        if self.opset >= 18
        else self.add("ReduceMean", v, axes=[-1], keepdims=1)
      )
      d = self.add("Sub", x, mean(x))
      two = self.constant(np.float32(2))
      square = mean(self.add("Pow", d, two))
      epsilon = self.constant(np.float32(running.EPSILON))
      y = self.add("Div", d, self.add("Sqrt", self.add("Add", square, epsilon)))
      y = self.add("Add", self.add("Mul", y, scale), shift)
    else:
      y = self.add(
        "LayerNormalization", x, scale, shift, axis=-1, epsilon=running.EPSILON
      )
    back = [0, 1 + rank, *range(1, 1 + rank)]
    return self.add("Transpose", y, perm=back) if rank else y
