"""Names of the Hub, against a stand-in for huggingface_hub."""

import sys
import types

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import reading
from sne_jax.checkpoints.formats import hub
from tests.checkpoints import samples


@pytest.fixture
def repository(tmp_path, monkeypatch):
  """A folder that the stand-in hands out, and the calls that it saw."""
  calls = []

  def snapshot_download(name, *, revision, allow_patterns):
    calls.append((name, revision, allow_patterns))
    if name == "nobody/nothing":
      raise OSError("404")
    return str(tmp_path)

  fake = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
  return tmp_path, calls


def test_a_repository_is_read(repository):
  folder, calls = repository
  arrays = samples.network()
  data = samples.safetensors_bytes(arrays)
  (folder / "model.safetensors").write_bytes(data)
  (folder / "config.json").write_text("{}")
  found = reading.read("hf://owner/name@v1.0")
  np.testing.assert_array_equal(
    found.entries["2.bias"].read(), arrays["2.bias"]
  )
  assert calls == [("owner/name", "v1.0", list(hub.SAFE))]


def test_other_formats_come_second(repository):
  folder, calls = repository
  (folder / "config.json").write_text("{}")
  with pytest.raises(errors.CheckpointError, match="no weights"):
    reading.read("hf://owner/name")
  data = samples.torch_bytes(samples.state_dict(samples.network()))
  (folder / "pytorch_model.bin").write_bytes(data)
  calls.clear()
  assert len(reading.read("hf://owner/name").entries) == 4
  assert [call[2] for call in calls] == [list(hub.SAFE), list(hub.OTHERS)]


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("hf://", "no name"),
    ("hf://a/b/c", "no name"),
    ("hf://a/../b", "no name"),
    ("hf://nobody/nothing", "cannot be downloaded .404"),
  ],
)
def test_false_names_are_refused(name, message, repository):
  with pytest.raises(errors.CheckpointError, match=message):
    reading.read(name)


def test_a_missing_library_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(errors.CheckpointError, match="pip install"):
    reading.read("hf://owner/name")
