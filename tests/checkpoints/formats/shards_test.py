"""Sharded checkpoints: all shards or one clear line."""

import json

import numpy as np
import pytest

from sne_jax import checkpoints, errors
from sne_jax.checkpoints import limits, reading
from tests.checkpoints import samples

INDEX = "model.safetensors.index.json"


def shard(number):
  return f"model-{number:05d}-of-00002.safetensors"


def write(folder, table=None, **changes):
  """Two shards of the network and their index."""
  arrays = samples.network()
  names = list(arrays)
  folder.mkdir(exist_ok=True)
  for number, part in enumerate((names[2:], names[:2]), 1):
    data = samples.safetensors_bytes({name: arrays[name] for name in part})
    (folder / shard(number)).write_bytes(data)
  table = table or {n: shard(1 if n in names[2:] else 2) for n in names}
  index = {"metadata": {"total_size": 104}, "weight_map": table} | changes
  (folder / INDEX).write_text(json.dumps(index))
  return folder / INDEX


def test_all_shards_are_read(tmp_path):
  path = write(tmp_path / "a")
  for found in (reading.read(path), reading.read(tmp_path / "a")):
    arrays = samples.network()
    assert sorted(found.entries) == sorted(arrays)
    assert found.format == "safetensors" and found.source == str(path)
    for name, array in arrays.items():
      np.testing.assert_array_equal(found.entries[name].read(), array)
  assert reading.find(tmp_path) == [str(path)], "the set is found once"


def test_shards_of_pytorch(tmp_path):
  data = samples.torch_bytes(samples.state_dict(samples.network()))
  (tmp_path / "pytorch_model-1.bin").write_bytes(data)
  table = dict.fromkeys(samples.network(), "pytorch_model-1.bin")
  path = tmp_path / "pytorch_model.bin.index.json"
  path.write_text(json.dumps({"weight_map": table}))
  assert len(reading.read(path).entries) == 4


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize(
  "stems", [("layers.{}",), ("net.{}.fc",), ("h{}", "k{}"), ("b{}_x",)]
)
def test_the_order_is_that_of_names_and_not_of_shards(kind, stems, tmp_path):
  names = [stem.format(n) + ".w" for stem in stems for n in range(12)]
  rng, table = np.random.default_rng(0), {}
  for number in range(3):
    some = [names[i] for i in rng.permutation(len(names)) if i % 3 == number]
    arrays = {name: np.full(2, names.index(name), np.float32) for name in some}
    data = (
      samples.torch_bytes(samples.state_dict(arrays))
      if kind == "bin"
      else samples.safetensors_bytes(arrays)
    )
    file = f"model-{3 - number}.{kind}"
    (tmp_path / file).write_bytes(data)
    table |= dict.fromkeys(some, file)
  path = tmp_path / f"model.{kind}.index.json"
  path.write_text(json.dumps({"weight_map": table}))
  found = reading.read(path)
  assert list(found.entries) == names
  for place, entry in enumerate(found.entries.values()):
    np.testing.assert_array_equal(entry.read(), place)
  # Of no format in which the order of the file is that of the layers.
  assert found.format == "safetensors"
  assert found.metadata["shards"].startswith("3 files of ")


def test_ties_are_to_the_first_by_name(tmp_path):
  one = samples.tensor(np.ones(3, np.float32))
  data = samples.torch_bytes(samples.Ordered({"z": one, "a": one, "m": one}))
  (tmp_path / "1.bin").write_bytes(data)
  other = {"b": np.ones(2, np.float32)}
  (tmp_path / "2.bin").write_bytes(
    samples.torch_bytes(samples.state_dict(other))
  )
  path = tmp_path / "pytorch_model.bin.index.json"
  table = {"z": "1.bin", "a": "1.bin", "b": "2.bin"}
  path.write_text(json.dumps({"weight_map": table}))
  ties = {n: e.tied_to for n, e in reading.read(path).entries.items()}
  assert ties == {"a": None, "b": None, "z": "a"}


def test_a_scale_may_lie_in_another_shard_than_its_tensor(tmp_path):
  import ml_dtypes

  w = np.ones((4, 3), ml_dtypes.float8_e4m3fn)
  parts = {"1.safetensors": {"w": w}}
  parts["2.safetensors"] = {"w_scale": np.full(4, 0.5, np.float32)}
  for file, arrays in parts.items():
    (tmp_path / file).write_bytes(samples.safetensors_bytes(arrays))
  path = tmp_path / INDEX
  table = {"w": "1.safetensors", "w_scale": "2.safetensors"}
  path.write_text(json.dumps({"weight_map": table}))
  found = reading.read(path)
  assert list(found.entries) == ["w"]
  np.testing.assert_array_equal(found.entries["w"].read(), 0.5)


def test_a_missing_shard_is_named(tmp_path):
  path = write(tmp_path / "a")
  (tmp_path / "a" / shard(2)).unlink()
  with pytest.raises(errors.CheckpointError, match="00002.* is missing"):
    reading.read(path)


def test_a_damaged_shard_is_named(tmp_path):
  path = write(tmp_path / "a")
  (tmp_path / "a" / shard(2)).write_bytes(b"x")
  with pytest.raises(errors.CheckpointError, match="00002"):
    reading.read(path)


@pytest.mark.parametrize(
  ("table", "message"),
  [
    ({"other": shard(1)}, "has no tensor 'other'"),
    ({"a": "../" + shard(1)}, "leads out"),
    ({"a": "/etc/passwd"}, "leads out"),
    ({"a": "deep/b.safetensors"}, "not beside"),
    ({"a": INDEX}, "no file of tensors"),
    ({"a": "."}, "no file of tensors"),
    ({"a": ["b"]}, "weight_map"),
    ([1], "weight_map"),
    ({"a": "b\0"}, "leads out"),
  ],
)
def test_a_false_index_is_refused(table, message, tmp_path):
  with pytest.raises(errors.CheckpointError, match=message):
    reading.read(write(tmp_path / "a", table))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {}}'])
def test_an_index_of_nothing_is_refused(text, tmp_path):
  (tmp_path / INDEX).write_text(text)
  with pytest.raises(errors.CheckpointError):
    reading.read(tmp_path / INDEX)


def test_tensors_that_the_index_does_not_name_are_said(tmp_path):
  table = dict.fromkeys(list(samples.network())[2:], shard(1))
  found = reading.read(write(tmp_path / "a", table | {"0.bias": shard(2)}))
  assert sorted(found.entries) == ["0.bias", "2.bias", "2.weight"]
  assert found.metadata["left_out"] == "0.weight (not in the index)"


def test_shards_are_not_followed_out_of_the_folder(tmp_path):
  path = write(tmp_path / "a")
  real = tmp_path / "elsewhere"
  (tmp_path / "a" / shard(2)).rename(real)
  (tmp_path / "a" / shard(2)).symlink_to(real)
  with pytest.raises(errors.CheckpointError, match="leads out of the folder"):
    reading.read(path)


def test_a_cache_of_the_hub_links_to_its_blobs(tmp_path):
  root = tmp_path / "models--a--b"
  (root / "blobs").mkdir(parents=True)
  (root / "snapshots").mkdir()
  folder = root / "snapshots" / "0123"
  path = write(folder)
  (folder / shard(2)).rename(root / "blobs" / "45")
  (folder / shard(2)).symlink_to(root / "blobs" / "45")
  assert len(reading.read(path).entries) == 4
  assert reading.find(tmp_path) == [str(path)]


def refusal(path):
  with pytest.raises(errors.CheckpointError) as error:
    checkpoints.load(path)
  return str(error.value)


def test_one_shard_is_not_read_as_the_whole(tmp_path):
  index = write(tmp_path / "a")
  path = tmp_path / "a" / shard(1)
  line = refusal(path)
  assert "it is shard 1 of 2 of a network; name the index of all" in line
  assert checkpoints.load(tmp_path / "a" / line.split()[-1]).spec.num_levels
  (tmp_path / "a" / shard(2)).unlink()
  assert f"missing beside it: {shard(2)}; put" in refusal(path)
  index.unlink()
  line = refusal(path)
  assert f"missing beside it: {shard(2)}, {INDEX}; put" in line
  by_folder = refusal(tmp_path / "a")
  assert by_folder.split("it is")[1] == line.split("it is")[1]
  found = checkpoints.load(path, override={"opaque": True})
  assert not found.spec.groups and len(found.spec.tensors) == 2
  whole = path.rename(tmp_path / "a" / "whole.safetensors")
  assert checkpoints.load(whole).spec.num_levels, "the last remedy"


@pytest.mark.parametrize(
  "name", ["a-00001-of-00001", "a-00003-of-00002", "a-1-of-2", "one-of-two"]
)
def test_other_names_are_of_no_shard(name, tmp_path):
  path = tmp_path / f"{name}.safetensors"
  path.write_bytes(samples.safetensors_bytes(samples.network()))
  assert checkpoints.load(path).spec.num_levels == 2


def test_limits_hold_for_the_whole(tmp_path):
  path = write(tmp_path / "a")
  small = limits.Limits(max_total_bytes=80)
  with pytest.raises(errors.CheckpointError, match="raise max_total_bytes"):
    reading.read(path, limits=small)
