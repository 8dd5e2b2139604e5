"""Keras files, written without Keras: a configuration and numbered arrays."""

import json

import numpy as np

from sne_jax.networks.tracing.keras_files import graph
from tests.checkpoints import samples


def value(name, call=0, place=0, shape=None):
  """What a layer gave, as an argument."""
  config = {"keras_history": [name, call, place]}
  if shape is not None:
    config["shape"] = [None, *shape]
  return {"class_name": "__keras_tensor__", "config": config}


def layer(kind, name, *calls, module="keras.layers", **config):
  """A layer, and what it is called with: a list of arguments for each call.

  A text is what the layer of that name gave first.
  """

  def filled(tree):
    if isinstance(tree, list):
      return [filled(item) for item in tree]
    return value(tree) if isinstance(tree, str) else tree

  return {
    "module": module,
    "class_name": kind,
    "registered_name": None,
    "name": name,
    "config": {"name": name} | config,
    "inbound_nodes": [{"args": filled(list(c)), "kwargs": {}} for c in calls],
  }


def given(*shape, name="in"):
  """An input."""
  return layer("InputLayer", name, batch_shape=[None, *shape])


def functional(*layers, inputs=("in",), outputs=None, name="model"):
  """A model whose last layer gives the output."""
  outputs = outputs or [[layers[-1]["name"], 0, 0]]
  return layer(
    "Functional",
    name,
    module="keras.src.models.functional",
    layers=list(layers),
    input_layers=[[i, 0, 0] for i in inputs],
    output_layers=outputs,
  )


def sequential(*layers, shape=None, name="model"):
  """A chain of layers."""
  built = {} if shape is None else {"build_input_shape": [None, *shape]}
  return layer("Sequential", name, module="keras", layers=list(layers), **built)


def arrays(seed=0, **shapes):
  """Random arrays; `dense__0` is the first variable of the layer `dense`.

  Variances, called `..._var`, are above 0.
  """
  rng = np.random.default_rng(seed)
  made = {}
  for name, shape in shapes.items():
    array = rng.normal(size=shape).astype(np.float32)
    if name.endswith("_var"):
      array, name = np.abs(array) + 0.5, name.removesuffix("_var")
    where, number = name.rsplit("__", 1)
    made[f"layers/{where.replace('___', '/layers/')}/vars/{number}"] = array
  return made


def archive(path, model, variables, names=None):
  """Writes a `.keras` file.

  Args:
    path: of the file.
    model: as `functional` and `sequential` give it.
    variables: arrays, by path.
    names: of layers, by path of the group of variables; none as in old files.
  """
  members = {
    "metadata.json": b"{}",
    "config.json": json.dumps(model).encode(),
    "model.weights.h5": hdf5(variables, names or {}),
  }
  path.write_bytes(samples.zip_bytes(members))
  return path


def hdf5(variables, names):
  """The bytes of an HDF5 file of arrays."""
  import io

  import h5py

  file = io.BytesIO()
  with h5py.File(file, "w") as group:
    for name, array in variables.items():
      group[name] = array
    for name, label in names.items():
      group.require_group(name).attrs["name"] = label
  return file.getvalue()


def legacy(path, model, layers):
  """Writes an `.h5` file as Keras 2 does.

  Args:
    path: of the file.
    model: its configuration.
    layers: for each layer of the model, arrays by the names of weights.
  """
  import h5py

  with h5py.File(path, "w") as file:
    file.attrs["model_config"] = json.dumps(model)
    weights = file.create_group("model_weights")
    weights.attrs["layer_names"] = [name.encode() for name in layers]
    for name, held in layers.items():
      group = weights.create_group(name)
      group.attrs["weight_names"] = [n.encode() for n in held]
      for label, array in held.items():
        group[label] = array
  return path


def runnable(network):
  found = network.tensors.graph
  assert isinstance(found, graph.KerasGraph)
  return found
