"""Weights & Biases, offline: what a run records, once more in its form.

Nothing is sent anywhere: `wandb sync FOLDER` does that, if somebody wants it.
"""

import importlib.util
import os
import pathlib
from collections.abc import Mapping
from typing import Any

FOLDER = "wandb"
"""What wandb calls its folder in that of a run."""


def check_installed(project: str) -> None:
  """Checks that wandb is there where a project is named.

  Raises:
    ValueError: it is not; says how it is installed.
  """
  if not project:
    return
  try:
    found = importlib.util.find_spec("wandb")
  except ValueError:  # It is hidden: `sys.modules` holds None.
    found = None
  if found is None:
    raise ValueError(
      f"wandb is {project!r}, and the library of that name is not installed:"
      " pip install wandb, or leave the option out"
    )


class WandbRun:
  """One offline run; opened again, it is a new one, which is whole."""

  def __init__(
    self,
    folder: str | os.PathLike,
    project: str,
    name: str,
    config: Mapping[str, Any] | None = None,
  ):
    """Opens a run in `<folder>/wandb`.

    Args:
      folder: of what is recorded.
      project: its name there.
      name: of the run.
      config: options, of plain values.

    Raises:
      ValueError: wandb is not installed.
    """
    check_installed(project)
    import wandb  # pyright: ignore[reportMissingImports]

    self._wandb = wandb
    self._run = wandb.init(
      project=project,
      name=name,
      dir=str(folder),
      mode="offline",
      config=dict(config or {}),
      reinit="create_new",
      settings=wandb.Settings(console="off", silent=True),
    )

  def scalars(self, record: Mapping[str, Any]) -> None:
    """Adds the scalars of a record."""
    values = {k: v for k, v in record.items() if k != "step"}
    self._run.log(values, step=record["step"])

  def image(self, name: str, path: pathlib.Path, caption: str) -> None:
    """Adds a picture."""
    self._run.log({name: self._wandb.Image(str(path), caption=caption)})

  def text(self, name: str, text: str) -> None:
    """Adds nothing: options are the run's config."""
    del name, text

  def close(self) -> None:
    """Ends the run."""
    self._run.finish()
