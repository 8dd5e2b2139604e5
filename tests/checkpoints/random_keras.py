"""A random network as Keras 3 saves a functional or sequential model.

`.keras` archives name groups by class and number, and `.h5` files by the names
of layers. Images have channels last.
"""

import dataclasses
import io
import json
import re

import numpy as np

from tests.checkpoints import random_names, samples
from tests.checkpoints.drawn import graphs, plans, running
from tests.checkpoints.random_rows import depthwise, moved, shifted

VARIABLES = {
  **{"weight": "kernel", "bias": "bias", "scale": "gamma", "shift": "beta"},
  **{"mean": "moving_mean", "var": "moving_variance"},
}


def model(network, old: bool):
  """Returns the bytes of an archive, or of an old file, and the rows."""
  writer = _Writer(network)
  values = ["input_layer"]
  writer.layer(
    "InputLayer",
    (),
    batch_shape=[None, *writer.seen(network.input_shape)],
    dtype="float32",
  )
  for number, node in enumerate(network.nodes):
    if number in writer.merged:
      values.append(values[-1])
      writer.shapes[values[-1]] = [None, *writer.seen(node.shape)]
      continue
    given = [values[i] for i in node.inputs]
    values.append(writer.step(number, node, given))
    writer.shapes[values[-1]] = [None, *writer.seen(node.shape)]
  config = writer.config(values[-1])
  data = writer.hdf5(config) if old else writer.archive(config)
  return data, writer.rows


class _Writer:
  """Layers as their configs have them, with the variables of each."""

  def __init__(self, network):
    self.network, self.plan = network, network.plan
    self.rng = np.random.default_rng(self.plan.style)
    flip = lambda p: bool(self.rng.random() < p)
    self.own_names, self.fused = flip(0.5), flip(0.5)
    line = random_names.is_line(network)
    used = [n.module for n in network.nodes if n.op == "module"]
    again = len(used) != len(set(used))
    self.sequential = line and not again and flip(0.7)
    self.layers, self.rows = [], []
    self.shapes = {"input_layer": [None, *self.seen(network.input_shape)]}
    self.variables: dict[str, list[tuple[str, np.ndarray]]] = {}
    self.by_module: dict[int, str] = {}
    self.merged: set[int] = set()
    self.counts: dict[str, int] = {}
    habit = random_names.habit_of(network)
    habit = "numbered" if habit == "custom" else habit
    self.names = random_names.prefixes(network, habit)

  def seen(self, shape):
    """A shape as Keras has it: channels last."""
    return [*shape[1:], shape[0]]

  def layer(self, kind, given, name="", again="", **config):
    """Adds a layer, or another use of one; returns its name and use."""
    args = [
      {
        "class_name": "__keras_tensor__",
        "config": {
          "shape": self.shapes[value],
          "dtype": "float32",
          "keras_history": [*self.split(value)],
        },
      }
      for value in given
    ]
    many = kind in ("Add", "Multiply", "Concatenate")
    node = {"args": [args] if many else args, "kwargs": {}}
    if again:
      item = next(v for v in self.layers if v["name"] == again)
      item["inbound_nodes"].append(node)
      return f"{again}@{len(item['inbound_nodes']) - 1}"
    name = name or self.auto(kind)
    self.layers.append(
      {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, **config},
        "registered_name": None,
        "name": name,
        "inbound_nodes": [node] if given else [],
      }
    )
    return name

  def auto(self, kind: str) -> str:
    """The name that Keras gives the next layer of a kind."""
    stem = snake(kind)
    number = self.counts[stem] = self.counts.get(stem, -1) + 1
    return f"{stem}_{number}" if number else stem

  def split(self, value: str):
    name, _, use = value.partition("@")
    return name, int(use or 0), 0

  def step(self, number: int, node, given):
    """Adds the layer of a node."""
    rank, op = self.plan.rank, node.op
    if op == "act":
      name = self.plan.activation
      if name == "relu" and self.rng.random() < 0.5:
        return self.layer("ReLU", given)
      return self.layer("Activation", given, activation=name)
    if op == "softmax":
      return self.layer("Softmax", given, axis=-1)
    if op == "sigmoid":
      return self.layer("Activation", given, activation=op)
    if op in ("add", "mul"):
      return self.layer("Add" if op == "add" else "Multiply", given)
    if op == "mean_keep":
      return self.layer(f"GlobalAveragePooling{rank}D", given, keepdims=True)
    if op == "concat":
      return self.layer("Concatenate", given, axis=-1)
    if op == "pool":
      two = [2] * rank
      return self.layer(
        f"MaxPooling{rank}D", given, pool_size=two, strides=two, padding="valid"
      )
    if op == "mean":
      return self.layer(f"GlobalAveragePooling{rank}D", given, keepdims=False)
    if op == "flatten":
      return self.layer("Flatten", given, data_format="channels_last")
    return self.module(number, node, given)

  def module(self, number: int, node, given):
    """Adds a layer with variables."""
    i = node.module
    if i in self.by_module:
      kind = next(
        v["class_name"] for v in self.layers if v["name"] == self.by_module[i]
      )
      return self.layer(kind, given, again=self.by_module[i])
    module = self.network.modules[i]
    kind, config, parts = self.described(number, node)
    name = ""
    if self.own_names:
      name = self.names[i][0].replace(".", "_")
      name = f"layer_{name}" if name[0].isdigit() else name
    value = self.layer(kind, given, name, **config)
    self.by_module[i] = value
    params = graphs.true_params(self.network)
    self.variables[value] = []
    for key, word, how in parts:
      if how == "depthwise":
        into, _, *size = params[key].shape
        row = depthwise("", key, (module.groups, into // module.groups, *size))
      elif how == "epsilon":
        row = shifted("", key, running.EPSILON)
      else:
        row = moved("", key, how or range(params[key].ndim))
      self.variables[value].append((word, row))
    if kind == "Normalization":
      self.variables[value].append(("count", None))
    return value

  def described(self, number: int, node):
    """Returns class, config and variables (key, word, order) of a module."""
    i = node.module
    module, rank = self.network.modules[i], self.plan.rank
    have = lambda *parts: [
      ((i, p), VARIABLES[p], ()) for p in parts if p in module.params
    ]
    if module.kind in plans.NORMS:
      return self.norm(i, module, have)
    shape = module.params["weight"].shape
    config = {"use_bias": "bias" in module.params, "activation": "linear"}
    after = self.network.nodes[number + 1 : number + 2]
    alone = [n for n in self.network.nodes if number + 1 in n.inputs]
    used = [n for n in self.network.nodes if n.module == i]
    if (
      (
        *(n.op for n in after),
        len(alone),
        len(used),
      )
      == ("act", 1, 1)
      and self.fused
      and after[0].inputs == (number + 1,)
    ):
      config["activation"] = self.plan.activation
      self.merged.add(number + 1)
    if module.kind == "dense":
      parts = [((i, "weight"), "kernel", (1, 0)), *have("bias")]
      return "Dense", {"units": shape[0], **config}, parts
    size, places = list(shape[2:]), range(2, 2 + len(shape) - 2)
    config |= {"kernel_size": size, "data_format": "channels_last"}
    if module.kind == "transposed":
      config |= {"strides": [2] * rank, "padding": "valid"}
      parts = [((i, "weight"), "kernel", (*places, 1, 0)), *have("bias")]
      return f"Conv{rank}DTranspose", {"filters": shape[1], **config}, parts
    config |= {"strides": [1] * rank, "padding": "same"}
    if module.groups == 1 or shape[1] != 1 or module.groups == 2:
      parts = [((i, "weight"), "kernel", (*places, 1, 0)), *have("bias")]
      config |= {"filters": shape[0], "groups": module.groups}
      return f"Conv{rank}D", config, parts
    config["depth_multiplier"] = shape[0] // module.groups
    mine = ((i, "weight"), "depthwise_kernel", "depthwise")
    if after and after[0].op == "module" and alone == [*after]:
      other = self.network.modules[after[0].module]
      if other.part == "point":
        return self.separable(number, after[0].module, other, config, mine)
    return f"DepthwiseConv{rank}D", config, [mine, *have("bias")]

  def separable(self, number, j, other, config, mine):
    """A depthwise convolution and the one behind it, as one layer."""
    rank = self.plan.rank
    self.merged.add(number + 1)
    config |= {
      "use_bias": "bias" in other.params,
      "filters": len(other.params["weight"]),
      "activation": "linear",
    }
    places = range(2, 2 + rank)
    parts = [mine, ((j, "weight"), "pointwise_kernel", (*places, 1, 0))]
    parts += [((j, "bias"), "bias", ())] if config["use_bias"] else []
    return f"SeparableConv{rank}D", config, parts

  def norm(self, i, module, have):
    """Class, config and variables of a norm."""
    epsilon = {"epsilon": running.EPSILON}
    affine = {"center": "shift" in module.params}
    affine["scale"] = "scale" in module.params
    if module.part == "entry" and not affine["scale"]:
      # Keras adds no epsilon to this variance.
      parts = [((i, "mean"), "mean", ()), ((i, "var"), "variance", "epsilon")]
      config = {"axis": [-1], "invert": False, "mean": None, "variance": None}
      return "Normalization", config, parts
    parts = have("scale", "shift", "mean", "var")
    if module.kind == "batch":
      config = {"axis": -1, **epsilon, **affine}
      return "BatchNormalization", config, parts
    if module.kind == "layer":
      return "LayerNormalization", {"axis": [-1], **epsilon, **affine}, parts
    groups = -1 if module.kind == "instance" else module.groups
    config = {"groups": groups, "axis": -1, **epsilon, **affine}
    return "GroupNormalization", config, parts

  def config(self, output: str):
    """The model's architecture."""
    if self.sequential:
      drop = ("name", "inbound_nodes")
      layers = [
        {k: v for k, v in item.items() if k not in drop} for item in self.layers
      ]
      return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "sequential", "layers": layers},
        "registered_name": None,
      }
    ends = [["input_layer", 0, 0], list(self.split(output))]
    if self.plan.style % 3 == 0:  # Older versions list them.
      ends = [[end] for end in ends]
    return {
      "module": "keras.src.models.functional",
      "class_name": "Functional",
      "config": {
        "name": "functional",
        "trainable": True,
        "layers": self.layers,
        "input_layers": ends[0],
        "output_layers": ends[1],
      },
      "registered_name": "Functional",
    }

  def stored(self, row):
    """A row's array; a depthwise kernel is [..., in, multiplier]."""
    return row.to(graphs.true_params(self.network)[row.key])

  def archive(self, config) -> bytes:
    """A `.keras` archive."""
    import h5py

    counts: dict[str, int] = {}
    file = io.BytesIO()
    with h5py.File(file, "w") as group:
      for item in self.layers:
        stem = snake(item["class_name"])
        number = counts[stem] = counts.get(stem, -1) + 1
        path = f"layers/{stem}_{number}" if number else f"layers/{stem}"
        inner = group.create_group(f"{path}/vars")
        inner.attrs["name"] = item["name"]
        for n, (_, row) in enumerate(self.variables.get(item["name"], [])):
          self.put(inner, str(n), f"{path}/vars/{n}", row)
      group.create_group("vars").attrs["name"] = config["config"]["name"]
    return samples.zip_bytes(
      {
        "metadata.json": b'{"keras_version": "3.11.0"}',
        "config.json": json.dumps(config).encode(),
        "model.weights.h5": file.getvalue(),
      }
    )

  def hdf5(self, config) -> bytes:
    """An older `.h5` file."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as top:
      top.attrs["keras_version"] = "3.11.0"
      top.attrs["backend"] = "tensorflow"
      top.attrs["model_config"] = json.dumps(
        {k: config[k] for k in ("class_name", "config")}
      )
      group = top.create_group("model_weights")
      names = [item["name"] for item in self.layers]
      group.attrs["layer_names"] = np.array([n.encode() for n in names])
      for item in self.layers:
        name = item["name"]
        inner = group.create_group(name)
        words = [f"{name}/{w}" for w, _ in self.variables.get(name, [])]
        inner.attrs["weight_names"] = np.array(
          [w.encode() for w in words] or [], dtype="S64"
        )
        for word, (_, row) in zip(
          words, self.variables.get(name, []), strict=True
        ):
          self.put(inner, word, f"model_weights/{name}/{word}", row)
    return file.getvalue()

  def put(self, group, name: str, full: str, row) -> None:
    """Writes one variable, and notes its row."""
    if row is None:
      group[name] = np.array(0, np.int64)
      return
    group[name] = self.stored(row)
    self.rows.append(dataclasses.replace(row, name=full))


def snake(kind: str) -> str:
  """A class as Keras writes it in names: Conv2DTranspose, conv2d_transpose."""
  name = re.sub(r"\W+", "", kind)
  name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
  return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
