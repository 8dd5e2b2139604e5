"""ONNX files: initialisers, constants, and numbers kept in other files."""

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import network, reading
from sne_jax.checkpoints.formats import onnx_file
from tests.checkpoints import samples

onnx = pytest.importorskip("onnx")


def write(tmp_path, arrays=None, **options):
  path = tmp_path / "a.onnx"
  arrays = samples.network() if arrays is None else arrays
  path.write_bytes(samples.onnx_bytes(arrays, **options))
  return path


def test_all_dtypes_are_exact(tmp_path):
  arrays = samples.odd()
  found = reading.read(write(tmp_path, arrays))
  assert list(found.entries) == list(arrays)
  for name, entry in found.entries.items():
    array, want = entry.read(), arrays[name]
    assert (array.dtype, array.shape) == (want.dtype, want.shape)
    assert array.tobytes() == want.tobytes(), name


@pytest.mark.parametrize("name", [n for n in samples.odd() if n != "complex64"])
def test_numbers_in_typed_fields(name, tmp_path):
  array = samples.odd()[name]
  kind = {ours: theirs for theirs, ours in onnx_file.TYPES.items()}

  def change(model, onnx):
    flat = array.astype(np.float64).reshape(-1)
    made = onnx.helper.make_tensor(
      "w", kind[array.dtype.name], array.shape, flat.tolist()
    )
    model.graph.initializer.append(made)

  (entry,) = reading.read(write(tmp_path, {}, change=change)).entries.values()
  assert entry.dtype == array.dtype.name
  np.testing.assert_array_equal(entry.read(), array)


def test_constants_are_kept(tmp_path):
  from onnx import helper, numpy_helper

  inner = helper.make_graph(
    [helper.make_node("Identity", ["x"], ["y"])],
    "inner",
    [],
    [],
    [numpy_helper.from_array(np.ones(1), "x")],
  )
  nodes = [
    helper.make_node(
      "Constant", [], ["c"], value=numpy_helper.from_array(np.arange(3.0))
    ),
    helper.make_node("Constant", [], ["f"], value_float=0.5),
    helper.make_node("Constant", [], ["i"], value_ints=[1, 2]),
    helper.make_node("Constant", [], ["s"], value_string="words"),
    helper.make_node("If", ["q"], ["r"], "branch", then_branch=inner),
  ]
  found = reading.read(write(tmp_path, nodes=nodes))
  names = [*samples.network(), "c", "f", "i", "branch/x"]
  assert list(found.entries) == names
  np.testing.assert_array_equal(found.entries["c"].read(), np.arange(3.0))
  assert found.entries["f"].read() == np.float32(0.5)
  assert found.metadata["left_out"] == "s"
  assert found.metadata["producer"] == "test"


def outside(location, offset="0", length=None):
  def change(model, onnx):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    given = {"location": location, "offset": offset, "length": length}
    for key, value in given.items():
      if value is not None:
        tensor.external_data.add(key=key, value=value)

  return change


def test_numbers_in_another_file_are_mapped(tmp_path):
  array = samples.network()["0.weight"]
  (tmp_path / "data").mkdir()
  (tmp_path / "data" / "a.bin").write_bytes(b"xy" + array.tobytes())
  path = write(tmp_path, change=outside("data/a.bin", "2", "48"))
  entry = reading.read(path).entries["0.weight"]
  np.testing.assert_array_equal(entry.read(), array)
  assert not entry.read().flags.writeable


@pytest.mark.parametrize(
  ("location", "offset", "length", "message"),
  [
    ("../secret", "0", "48", "leads out"),
    ("/etc/passwd", "0", "48", "leads out"),
    ("data/../../secret", "0", "48", "leads out"),
    ("C:\\secret", "0", "48", "leads out"),
    ("", "0", "48", "leads out"),
    ("link", "0", "48", "leads out"),
    ("folder/secret", "0", "48", "leads out"),
    ("none", "0", "48", "no file"),
    ("near", "1", "48", "takes 48 bytes at 1 of 'near', which has 48"),
    ("near", "-1", "48", "lies at"),
    ("near", "1e3", "48", "lies at"),
    ("near", "9" * 30, "48", "lies at"),
    ("near", "0", "47", "takes 48 bytes"),
  ],
)
def test_paths_out_of_the_folder_are_refused(
  location, offset, length, message, tmp_path
):
  folder = tmp_path / "model"
  folder.mkdir()
  (tmp_path / "secret").write_bytes(bytes(48))
  (folder / "near").write_bytes(bytes(48))
  (folder / "link").symlink_to(tmp_path / "secret")
  (folder / "folder").symlink_to(tmp_path)
  path = write(folder, change=outside(location, offset, length))
  with pytest.raises(errors.CheckpointError, match=message):
    reading.read(path)


def alter(**fields):
  def change(model, onnx):
    tensor = model.graph.initializer[0]
    for name, value in fields.items():
      if name == "dims":
        tensor.dims[:] = value
      else:
        setattr(tensor, name, value)

  return change


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (alter(dims=[1 << 40]), "has not"),
    (alter(dims=[-4, -3]), "shape"),
    (alter(dims=[4, 3, 2]), "has not 96 bytes"),
    (alter(raw_data=b"123"), "has not 48"),
    (alter(data_type=11), "has not 96"),
    (alter(name="0.bias"), "two tensors are called '0.bias'"),
  ],
)
def test_damage_is_named(change, message, tmp_path):
  with pytest.raises(errors.CheckpointError, match=message):
    reading.read(write(tmp_path, change=change))


def test_tensors_that_are_no_arrays_are_left_out(tmp_path):
  found = reading.read(write(tmp_path, change=alter(data_type=22)))
  assert found.metadata["left_out"] == "0.weight" and len(found.entries) == 3
  with pytest.raises(errors.CheckpointError, match="no graph of ONNX"):
    reading.read(write(tmp_path, {}))


def test_the_graph_says_the_activation(tmp_path):
  rng = np.random.default_rng(0)
  shapes = {"a.weight": (6, 3), "a.bias": (6,), "b.weight": (2, 6)}
  tensors = [
    onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name)
    for name, shape in shapes.items()
  ]
  helper = onnx.helper
  value = lambda name, shape: helper.make_tensor_value_info(
    name, onnx.TensorProto.FLOAT, shape
  )
  nodes = [
    helper.make_node("Gemm", ["x", "a.weight", "a.bias"], ["h"], transB=1),
    helper.make_node("Tanh", ["h"], ["z"]),
    helper.make_node("Gemm", ["z", "b.weight"], ["logits"], transB=1),
    helper.make_node("Softmax", ["logits"], ["y"]),
  ]
  ends = [value("x", [1, 3])], [value("y", [1, 2])]
  graph = helper.make_graph(nodes, "graph", *ends, tensors)
  path = tmp_path / "model.onnx"
  onnx.save(helper.make_model(graph), path)
  assert network.load(path).spec.activations == ("tanh", "none")
