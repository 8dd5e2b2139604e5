"""Keras and HDF5 files: arrays in the order of layers, none from elsewhere."""

import json
import zipfile

import ml_dtypes
import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import reading
from tests.checkpoints import samples

h5py = pytest.importorskip("h5py")


@pytest.fixture
def path(tmp_path):
  return tmp_path / "a.h5"


def write(path, edit):
  with h5py.File(path, "w") as file:
    edit(file)
  return path


def test_dtypes_are_exact(path):
  arrays = samples.odd()
  small = ("float8_e4m3fn", "float8_e5m2", "bfloat16")
  arrays = {n: a for n, a in arrays.items() if n not in small}
  arrays["big"] = np.arange(3, dtype=">f4")

  def edit(file):
    for name, array in arrays.items():
      file.create_dataset(name, data=array)
    file.create_dataset("packed", data=np.arange(9.0), compression="gzip")

  found = reading.read(write(path, edit))
  arrays["packed"] = np.arange(9.0)
  assert list(found.entries) == list(arrays) and found.format == "keras"
  for name, entry in found.entries.items():
    array = entry.read()
    assert array.dtype == arrays[name].dtype.newbyteorder("=")
    np.testing.assert_array_equal(array, arrays[name], name)


def test_bfloat16_as_keras_marks_it(path):
  want = np.array([0.5, -3.0], ml_dtypes.bfloat16)

  def edit(file):
    file.create_dataset("w", data=want).attrs["dtype"] = "bfloat16"

  (entry,) = reading.read(write(path, edit)).entries.values()
  assert entry.dtype == "bfloat16"
  np.testing.assert_array_equal(entry.read(), want)


@pytest.mark.parametrize("pack", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_has_its_architecture(pack, tmp_path):
  layers = samples.keras_layers()
  path = tmp_path / "a.keras"
  path.write_bytes(samples.keras_bytes(layers, pack=pack))
  found = reading.read(path)
  assert list(found.entries) == list(layers), "in the order of writing"
  for name, array in layers.items():
    np.testing.assert_array_equal(found.entries[name].read(), array)
  assert json.loads(found.metadata["config"]) == {"class_name": "Sequential"}
  names = json.loads(found.metadata["names"])
  assert names["layers/dense_b/vars"] == "dense_b"


def test_files_of_keras_2_list_their_layers(path):
  def edit(file):
    for layer in ("a", "b"):
      group = file.create_group(layer)
      group.attrs["weight_names"] = [f"{layer}/kernel:0", f"{layer}/bias:0"]
      group[f"{layer}/bias:0"] = np.zeros(1)
      group[f"{layer}/kernel:0"] = np.ones((1, 1))
    file.attrs["layer_names"] = np.array([b"b", b"a"])
    file["optimizer_weights/m"] = np.zeros(3)
    file.attrs["model_config"] = '{"class_name": "Sequential"}'

  found = reading.read(write(path, edit))
  due = ["b/b/kernel:0", "b/b/bias:0", "a/a/kernel:0", "a/a/bias:0"]
  assert list(found.entries) == due
  assert found.metadata["left_out"] == (
    "optimizer_weights (1 tensor: the trainer's)"
  )
  assert found.metadata["config"] == '{"class_name": "Sequential"}'


def test_two_names_of_one_array_are_tied(path):
  def edit(file):
    file["a"] = np.ones(3)
    file["b"] = file["a"]

  found = reading.read(write(path, edit))
  assert [e.tied_to for e in found.entries.values()] == [None, "a"]


def elsewhere(tmp_path):
  secret = tmp_path / "secret.h5"
  with h5py.File(secret, "w") as file:
    file["w"] = np.ones(3)
  return secret


def hostile(kind, tmp_path):
  secret = elsewhere(tmp_path)

  def edit(file):
    file["w"] = np.ones(3)
    if kind == "external link":
      file["x"] = h5py.ExternalLink(str(secret), "/w")
    elif kind == "soft link":
      file["x"] = h5py.SoftLink("/w")
    elif kind == "external storage":
      file.create_dataset("x", (3,), "f8", external=[(str(secret), 0, 24)])
    elif kind == "virtual":
      layout = h5py.VirtualLayout((3,), "f8")
      layout[:] = h5py.VirtualSource(str(secret), "w", (3,))
      file.create_virtual_dataset("x", layout)
    elif kind == "cycle":
      file.create_group("x")["y"] = file
    elif kind == "nothing stored":
      file.create_dataset("x", (1 << 20, 1 << 10), "f8")
    elif kind == "compound":
      file["x"] = np.zeros(2, "f4,i4")
    elif kind == "absurd":
      file.create_dataset("x", (1 << 60,), "f8", chunks=(1 << 10,))

  return edit


@pytest.mark.parametrize(
  ("kind", "message"),
  [
    ("external link", "'x' is a link to elsewhere"),
    ("soft link", "'x' is a link to elsewhere"),
    ("external storage", "'x' are in another file"),
    ("virtual", "'x' are in another file"),
    ("cycle", "contains itself"),
    ("nothing stored", "raise max_ratio"),
    ("compound", "dtype"),
    ("absurd", "shape|max_total_bytes"),
  ],
)
def test_what_leads_elsewhere_is_refused(kind, message, path, tmp_path):
  with pytest.raises(errors.CheckpointError, match=message):
    reading.read(write(path, hostile(kind, tmp_path)))


def test_texts_are_left_out_and_said(path):
  def edit(file):
    file["w"] = np.ones(3)
    file["label"] = "words"

  found = reading.read(write(path, edit))
  assert list(found.entries) == ["w"]
  assert found.metadata["left_out"] == "label (1 tensor)"
  with pytest.raises(errors.CheckpointError, match="no arrays"):
    reading.read(write(path, lambda file: file.create_group("a")))


def test_an_archive_without_weights_is_refused(tmp_path):
  path = tmp_path / "a.keras"
  path.write_bytes(samples.zip_bytes({"config.json": b"{}"}))
  with pytest.raises(errors.CheckpointError, match="no known kind"):
    reading.read(path)
