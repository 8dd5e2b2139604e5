"""Compiled programs are kept, and found again by the next process."""

import os
import pathlib
import sys
import time

import jax
import numpy as np
import pytest
from jax import monitoring
from jax.experimental.compilation_cache import compilation_cache

from sne_jax.cli import compiled


@pytest.fixture(autouse=True)
def restored():
  names = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
  )
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update("jax_compilation_cache_dir", None)  # Of other tests.
  compilation_cache.reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


@pytest.fixture
def hits():
  """Returns `hits()`: how many programs are found, of one compiled anew."""
  events = []
  listen = lambda event, **_: events.append(event)
  monitoring.register_event_listener(listen)

  def count():
    events.clear()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.jit(lambda x: jax.numpy.linalg.inv(x @ x.T))(np.eye(30))
    return sum(name.endswith("cache_hits") for name in events)

  yield count
  monitoring.unregister_event_listener(listen)


def test_the_next_process_finds_what_one_has_compiled(
  tmp_path, monkeypatch, hits
):
  monkeypatch.setenv(compiled.VARIABLE, str(tmp_path))
  compiled.keep("none")
  assert hits() == 0 and not any(tmp_path.iterdir())
  compiled.keep()
  (kept,) = (tmp_path / "compiled").iterdir()  # Of this processor.
  assert hits() == 0 and any(kept.iterdir())
  assert hits() > 0
  old = time.time() - (compiled.DAYS + 1) * 86400
  for path in kept.iterdir():
    os.utime(path, (old, old))
  jax.config.update("jax_compilation_cache_dir", None)
  compiled.keep()
  assert not any(kept.iterdir())  # Nobody had used them for long.
  assert hits() == 0


def test_a_folder_that_cannot_be_had_is_no_error(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv(compiled.VARIABLE, str(tmp_path / "file"))
  compiled.keep()
  assert jax.config.values["jax_compilation_cache_dir"] is None
  with pytest.raises(ValueError, match="compilation_cache is .*or none"):
    compiled.keep(str(tmp_path / "file" / "folder"))


def test_who_has_told_jax_is_not_contradicted(tmp_path, monkeypatch):
  monkeypatch.setenv(compiled.VARIABLE, str(tmp_path / "ours"))
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
  compiled.keep()
  assert jax.config.values["jax_compilation_cache_dir"] == str(
    tmp_path / "theirs"
  )


def test_the_folder_is_the_users(monkeypatch, tmp_path):
  monkeypatch.setenv(compiled.VARIABLE, "none")
  assert compiled.own_folder() is None
  monkeypatch.delenv(compiled.VARIABLE)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  folder = compiled.own_folder()
  assert folder is not None and "sne_jax" in folder.parts
  if sys.platform == "linux":
    assert folder.is_relative_to(pathlib.Path(tmp_path))
