"""Compiled programs, kept in a folder so that the next start has them.

The folder is the user's own (`~/.cache/sne_jax` on Linux), one for each kind of
processor, since programs are made for one. SNE_JAX_CACHE names another, or
"none".
"""

import hashlib
import os
import pathlib
import platform
import re
import time

import jax
import platformdirs
from absl import logging
from jax.experimental.compilation_cache import compilation_cache

AUTO, NONE = "auto", "none"
VARIABLE = "SNE_JAX_CACHE"
DAYS = 30
"""Programs that nobody has used for so long are deleted."""


def keep(folder: str = AUTO) -> None:
  """Keeps compiled programs from here on.

  Args:
    folder: auto: the user's own, unless JAX was told of one; none, or empty:
      nowhere. A folder of the user's own that cannot be written is no error.

  Raises:
    ValueError: another folder cannot be made.
  """
  if folder == AUTO:
    if jax.config.values["jax_compilation_cache_dir"]:
      return
    path = own_folder()
    if path is None:
      return
    try:
      path.mkdir(parents=True, exist_ok=True)
      _forget(path)
    except OSError as error:
      logging.info("compiled programs are not kept: %s", error)
      return
  elif folder in (NONE, ""):
    return
  else:
    path = pathlib.Path(folder).absolute()
    try:
      path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise ValueError(
        f"compilation_cache is {folder}, which cannot be made"
        f" ({error.strerror}); name another folder, or none"
      ) from error
  jax.config.update("jax_compilation_cache_dir", str(path))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  compilation_cache.reset_cache()  # JAX looks at the folder only once.


def own_folder() -> pathlib.Path | None:
  """Returns the user's folder for this processor; None: there is to be none."""
  told = os.environ.get(VARIABLE, "")
  if told == NONE:
    return None
  home = pathlib.Path(told or platformdirs.user_cache_path("sne_jax"))
  return home.absolute() / "compiled" / _processor()


def _processor() -> str:
  """Returns a few digits that processors of equal instructions share."""
  said = [platform.machine(), platform.processor()]
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    said += re.findall(r"^(?:flags|Features)\s*:.*", text, re.MULTILINE)[:1]
  except OSError:
    pass
  return hashlib.sha256("\n".join(said).encode()).hexdigest()[:8]


def _forget(folder: pathlib.Path) -> None:
  """Deletes what nobody has used for `DAYS`."""
  before = time.time() - DAYS * 86400
  for path in folder.iterdir():
    try:
      used = path.stat()
      if max(used.st_mtime, used.st_atime) < before:
        path.unlink()
    except FileNotFoundError:  # Another process has deleted it.
      pass
