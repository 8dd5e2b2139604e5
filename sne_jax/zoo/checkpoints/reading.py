"""Any checkpoint by its first bytes: a file, a sharded set, a folder."""

import os

from sne_jax.zoo.checkpoints.limits import Limits
from sne_jax.zoo.checkpoints.tensors import Tensors


def read(path: str | os.PathLike, *, limits: Limits | None = None) -> Tensors:
  """Opens a checkpoint: names, shapes and dtypes now, numbers when asked for.

  The reader is chosen by what the file is, not by what it is called.

  Args:
    path: a file; an index of shards (`*.index.json`); an Orbax folder; or a
      folder that holds one checkpoint.
    limits: what the file may ask for; `Limits()` by default.

  Raises:
    CheckpointError: no checkpoint, a damaged, hostile or unknown one, or one
      whose library is not installed. One line: file, what, remedy.
  """
  raise NotImplementedError


def find(folder: str | os.PathLike) -> list[str]:
  """Returns the checkpoints in a folder and below, each once, sorted.

  A sharded set is found as its index, an Orbax checkpoint as its folder.
  Nothing is opened but first bytes; links that lead outside are left alone.

  Raises:
    CheckpointError: there is no such folder.
  """
  raise NotImplementedError
