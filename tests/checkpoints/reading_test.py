"""Every format gives back what was written, exactly, by its first bytes."""

import os
import sys

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import limits, reading, tensors
from tests.checkpoints import samples

FORMATS = samples.all_formats()


def put(path, data):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)
  return str(path)


def same(found, want):
  """Whether an array is bit for bit another."""
  return (
    found.dtype == want.dtype
    and found.shape == want.shape
    and found.tobytes() == want.tobytes()
  )


def hold(found, arrays):
  assert list(found.entries) == list(arrays)
  for name, entry in found.entries.items():
    want = arrays[name]
    assert (entry.shape, entry.dtype) == (want.shape, want.dtype.name)
    assert same(entry.read(), want), name


@pytest.mark.parametrize("name", FORMATS)
def test_values_come_back_in_every_format(name, tmp_path):
  found = reading.read(put(tmp_path / name, FORMATS[name]))
  arrays = list(samples.network().values())
  if name == "one.npy":
    arrays = arrays[:1]
  assert len(found.entries) == len(arrays)
  for entry, want in zip(found.entries.values(), arrays, strict=True):
    assert same(entry.read(), want), entry.name
  tensors.check_finite(found)


@pytest.mark.parametrize("name", FORMATS)
def test_the_name_of_a_file_does_not_matter(name, tmp_path):
  want = reading.read(put(tmp_path / name, FORMATS[name]))
  for other in ("x", "x.bin", "x.pt", "x.npz"):
    found = reading.read(put(tmp_path / other, FORMATS[name]))
    assert found.format == want.format and found.entries == want.entries


def test_formats_are_named(tmp_path):
  kinds = {
    reading.read(put(tmp_path / name, data)).format
    for name, data in FORMATS.items()
  }
  optional = {"keras": "h5py", "onnx": "onnx", "gguf": "gguf"}
  due = {"safetensors", "torch", "flax", "npz"}
  due |= {kind for kind, library in optional.items() if samples.has(library)}
  assert kinds == due


@pytest.mark.parametrize("library", ["h5py", "onnx"])
def test_a_missing_library_is_named(library, tmp_path, monkeypatch):
  data = {"h5py": b"\x89HDF\r\n\x1a\n" + bytes(99), "onnx": b"\x08\x07" * 9}
  path = put(
    tmp_path / {"h5py": "a.h5", "onnx": "a.onnx"}[library], data[library]
  )
  monkeypatch.setitem(sys.modules, library, None)
  with pytest.raises(errors.CheckpointError, match=f"pip install {library}$"):
    reading.read(path)


def test_a_folder_of_one_checkpoint_is_read(tmp_path):
  put(tmp_path / "hub" / "config.json", b"{}")
  put(tmp_path / "hub" / "model.safetensors", FORMATS["net.safetensors"])
  hold(reading.read(tmp_path / "hub"), samples.network())
  put(tmp_path / "hub" / "other.pt", FORMATS["net.pt"])
  with pytest.raises(errors.CheckpointError, match="2 checkpoints.*name one"):
    reading.read(tmp_path / "hub")
  with pytest.raises(errors.CheckpointError, match="no file"):
    reading.read(tmp_path / "nowhere")


def test_find_lists_every_checkpoint_once(tmp_path):
  due = []
  for name in ("net10.pt", "net9.pt", "deep/net.npz", "deep/checkpoints"):
    data = FORMATS["net.npz" if name.endswith("npz") else "net.pt"]
    due.append(put(tmp_path / name, data))
  due.append(put(tmp_path / "damaged.safetensors", b"x"))
  for name in ("readme.md", "a.json", ".hidden.pt", "LICENSE"):
    put(tmp_path / name, b"words")
  assert set(reading.find(tmp_path)) == set(due)
  names = [os.path.basename(path) for path in reading.find(tmp_path)]
  assert names.index("net9.pt") < names.index("net10.pt")
  with pytest.raises(errors.CheckpointError, match="no folder"):
    reading.find(tmp_path / "nowhere")


def test_a_folder_called_as_a_checkpoint_is_refused_if_it_holds_none(tmp_path):
  data = samples.safetensors_bytes(samples.network())
  for name in ("a.pt", "b.pt", "plain", ".c.pt"):
    (tmp_path / name).mkdir()
  (tmp_path / "b.pt" / "d.pt").write_bytes(data)
  empty = str(tmp_path / "a.pt")
  assert reading.find(tmp_path) == [empty, str(tmp_path / "b.pt" / "d.pt")]
  with pytest.raises(errors.CheckpointError, match="a.pt: it holds 0 check"):
    reading.read(empty)


def test_links_out_of_a_folder_are_left_alone(tmp_path):
  outside = put(tmp_path / "outside" / "net.pt", FORMATS["net.pt"])
  folder = tmp_path / "folder"
  inside = put(folder / "a.pt", FORMATS["net.pt"])
  (folder / "inner.pt").symlink_to(inside)
  (folder / "outer.pt").symlink_to(outside)
  (folder / "outer").symlink_to(tmp_path / "outside")
  (folder / "broken.pt").symlink_to(folder / "none")
  found = [os.path.basename(path) for path in reading.find(folder)]
  assert found == ["a.pt", "broken.pt", "inner.pt"]
  with pytest.raises(errors.CheckpointError, match="no file"):
    reading.read(folder / "broken.pt")


@pytest.mark.parametrize("field", ["max_entries", "max_ratio"])
def test_limits_that_nothing_passes_are_refused(field):
  with pytest.raises(ValueError, match=field):
    limits.Limits(**{field: type(getattr(limits.Limits(), field))(0)})


@pytest.mark.parametrize("name", FORMATS)
def test_limits_hold_in_every_format(name, tmp_path):
  path = put(tmp_path / name, FORMATS[name])
  if name != "one.npy":
    with pytest.raises(errors.CheckpointError, match="raise max_entries"):
      reading.read(path, limits=limits.Limits(max_entries=2))
  with pytest.raises(errors.CheckpointError, match="raise max_total_bytes"):
    reading.read(path, limits=limits.Limits(max_total_bytes=40))
  with pytest.raises(errors.CheckpointError, match="raise max_ratio"):
    reading.read(path, limits=limits.Limits(free_bytes=1, max_ratio=1e-3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_not_finite_is_refused_when_checked(value, dtype, tmp_path):
  arrays = samples.network()
  arrays["2.weight"] = arrays["2.weight"].astype(tensors.DTYPES[dtype])
  arrays["2.weight"][1, 2] = value
  arrays["count"] = np.array([3])
  data = samples.torch_bytes(samples.state_dict(arrays))
  found = reading.read(put(tmp_path / "a.pt", data))
  with pytest.raises(errors.CheckpointError, match="1 of 8.*'2.weight'"):
    tensors.check_finite(found)
  tensors.check_finite(found, ["0.weight", "count"])
  assert same(found.entries["2.weight"].read(), arrays["2.weight"])


def test_whole_blocks_are_searched_for_nan(tmp_path, monkeypatch):
  monkeypatch.setattr(tensors, "BLOCK", 16)
  array = np.zeros((20, 30), np.float32)
  array[::7, 3] = np.inf
  data = samples.safetensors_bytes({"a": array})
  found = reading.read(put(tmp_path / "a", data))
  assert tensors.not_finite(found.entries["a"]) == 3


def test_an_entry_that_changes_on_disk_is_noticed(tmp_path):
  path = put(tmp_path / "a", FORMATS["net.safetensors"])
  found = reading.read(path)
  os.truncate(path, 200)
  with pytest.raises(errors.CheckpointError, match="cut short"):
    found.entries["2.bias"].read()
  wrong = tensors.Entry("a", (2,), "float32", lambda: np.zeros(3, np.float32))
  with pytest.raises(errors.CheckpointError, match="announced"):
    wrong.read()


def test_tensors_say_what_they_are(tmp_path):
  found = reading.read(put(tmp_path / "a", FORMATS["net.safetensors"]))
  assert "safetensors, 4 tensors, 26 numbers" in repr(found)
  assert found.entries["0.weight"].num_bytes == 48


@pytest.mark.parametrize("name", ["net.safetensors", "net.npz", "net.pt"])
def test_a_part_that_no_name_begins_with_is_refused(name, tmp_path):
  path = put(tmp_path / "a", FORMATS[name])
  with pytest.raises(errors.CheckpointError, match="no tensors under 'model'"):
    reading.read(path, part="model")
  found = reading.read(path, part="2")
  assert list(found.entries) == ["2.weight", "2.bias"]
  assert found.metadata["left_out"] == "0 (2 tensors: read as part '0')"
