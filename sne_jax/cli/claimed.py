"""Work directories: each is the home of some options, and of no others."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sne_jax import atomic
from sne_jax.atomic import write_atomically
from sne_jax.cli import encoder_options
from sne_jax.learning.training import claims, workdirs
from sne_jax.zoo.store import lock

DATA_FILE = "data.json"
BEGUN = (
  *(claims.CONFIG, DATA_FILE, "flags.txt", "environment.json"),
  *("study.journal", "zoo.flags", "zoo.log"),
)
"""What a run, or a sweep, writes before anything is trained."""


@contextlib.contextmanager
def claim_workdir(
  folder: str | os.PathLike,
  resolved: Mapping[str, Any],
  flagfile: str,
  free: Sequence[str] = (),
) -> Iterator[pathlib.Path]:
  """Makes a work directory the home of some options, and of no others.

  Options that turn out to be wrong before anything was trained leave it free
  for others.

  Args:
    folder: the work directory.
    resolved: what `config.json` holds.
    flagfile: what `flags.txt` holds.
    free: options that may change when the run continues, as `Class.field`.

  Yields:
    The work directory. Until the body ends, other processes are refused.

  Raises:
    ValueError: it belongs to other options, or another process is at work.
  """
  workdir = pathlib.Path(folder)
  unused = (
    encoder_options.known().keys() - resolved.get("EncoderOptions", {}).keys()
  )
  ignore = (*free, *(f"EncoderOptions.{name}" for name in unused))
  with atomic.made_folders(workdir), lock.folder_lock(str(workdir)):
    is_new = claims.claim_workdir(workdir, resolved, ignore=ignore)
    workdirs.tidy(workdir)
    write_atomically(workdir / "flags.txt", flagfile)
    try:
      yield workdir
    except (Exception, SystemExit):
      if is_new and not _holds_training(workdir):
        for name in BEGUN:
          (workdir / name).unlink(missing_ok=True)
      raise


def _holds_training(workdir: pathlib.Path) -> bool:
  """Whether anything in a work directory took training to make."""
  if any(p.is_file() for p in workdir.glob("**/checkpoints/**/*")):
    return True
  return any(any(workdir.glob(p)) for p in ("**/result.json", "trials/*"))
