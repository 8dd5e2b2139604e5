"""Orbax checkpoints of every layout, read one array at a time."""

import json
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from orbax.checkpoint import v1

from sne_jax import errors
from sne_jax.checkpoints import reading

TREE = {
  "params": {
    "Dense_0": {
      "kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
      "bias": jnp.ones(3, jnp.bfloat16),
    },
    "list": [np.arange(2), np.full((1, 1), 7.0)],
  }
}
TRAINER = {"step": 3, "opt_state": [{"mu": np.ones(2)}, None]}


def pytree(folder, **options):
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as saver:
    saver.save(folder, TREE | TRAINER)
  return folder


def manager(folder):
  with ocp.CheckpointManager(folder) as saver:
    saver.save(4, args=ocp.args.StandardSave(TREE))
  return folder / "4"


def new_api(folder):
  v1.save(folder, TREE)
  return folder


LAYOUTS = {
  "pytree": pytree,
  "zarr": lambda folder: pytree(folder, use_ocdbt=False),
  "zarr3": lambda folder: pytree(folder, use_zarr3=True),
  "manager": manager,
  "v1": new_api,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(layout, tmp_path):
  path = LAYOUTS[layout](tmp_path / "saved")
  found = reading.read(path)
  assert found.format == "orbax"
  due = {
    "params/Dense_0/bias": TREE["params"]["Dense_0"]["bias"],
    "params/Dense_0/kernel": TREE["params"]["Dense_0"]["kernel"],
    "params/list/0": TREE["params"]["list"][0],
    "params/list/1": TREE["params"]["list"][1],
  }
  assert list(found.entries) == list(due)
  for name, want in due.items():
    array = found.entries[name].read()
    assert isinstance(array, np.ndarray) and array.dtype == want.dtype
    np.testing.assert_array_equal(array, np.asarray(want), name)
  out = found.metadata.get("left_out", "")
  assert ("opt_state" in out) == (path == tmp_path / "saved" and layout != "v1")


def test_several_trees_ask_for_one(tmp_path):
  with ocp.CheckpointManager(tmp_path / "a") as saver:
    trees = {
      "one": ocp.args.StandardSave(TREE),
      "two": ocp.args.StandardSave(TREE),
    }
    saver.save(1, args=ocp.args.Composite(**trees))
  path = tmp_path / "a" / "1"
  with pytest.raises(errors.CheckpointError, match="2 trees .one, two"):
    reading.read(path)
  assert reading.find(tmp_path) == [str(path / "one"), str(path / "two")]
  assert reading.read(path / "two").entries


@pytest.fixture
def saved(tmp_path):
  return pytree(tmp_path / "saved", use_ocdbt=False)


def test_one_array_is_read_without_the_others(saved):
  found = reading.read(saved)
  for name in os.listdir(saved):
    if name.startswith("params.") and "kernel" not in name:
      (saved / name / ".zarray").unlink()
  kernel = found.entries["params/Dense_0/kernel"].read()
  np.testing.assert_array_equal(kernel, TREE["params"]["Dense_0"]["kernel"])
  with pytest.raises(errors.CheckpointError, match="list/0.*cannot be read"):
    found.entries["params/list/0"].read()


def change(saved, edit):
  file = saved / "_METADATA"
  table = json.loads(file.read_text())
  edit(table)
  file.write_text(json.dumps(table))


@pytest.mark.parametrize(
  "key", ["..", "../../etc", "a/../b", "a//b", "/etc", "", None, []]
)
def test_names_that_lead_out_are_refused(key, saved):
  def edit(table):
    leaf = next(iter(table["tree_metadata"].values()))
    leaf["key_metadata"][0]["key"] = key

  change(saved, edit)
  with pytest.raises(errors.CheckpointError, match="a leaf is called"):
    reading.read(saved)


@pytest.mark.parametrize(
  "text", ["", "{", "[]", "{}", '{"tree_metadata": 3}', '{"a": 1, "a": 2}']
)
def test_a_damaged_description_is_refused(text, saved):
  (saved / "_METADATA").write_text(text)
  with pytest.raises(errors.CheckpointError):
    reading.read(saved)


def test_links_are_refused(saved, tmp_path):
  (tmp_path / "secret").write_text("x")
  (saved / "link").symlink_to(tmp_path / "secret")
  with pytest.raises(errors.CheckpointError, match="'link' in it is a link"):
    reading.read(saved)


def test_an_array_larger_than_its_folder_is_refused(saved):
  file = next(pathlib.Path(saved).glob("*kernel/.zarray"))
  table = json.loads(file.read_text())
  table["shape"] = table["chunks"] = [1 << 20, 1 << 12]
  file.write_text(json.dumps(table))
  with pytest.raises(errors.CheckpointError, match="raise max_ratio"):
    reading.read(saved)
