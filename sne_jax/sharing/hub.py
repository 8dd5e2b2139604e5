"""Models on the Hugging Face Hub; huggingface_hub is optional.

Nothing but the files of `folders.FILES` is downloaded, and nothing is executed.

Dimensions: none.
"""

import importlib
import os
from pathlib import Path
from typing import Any

from sne_jax.sharing import folders
from sne_jax.sharing.runs import PredictorError


def download(name: str, revision: str = "") -> Path:
  """Downloads a model into the Hub's own cache, or finds it there.

  Args:
    name: `owner/name`.
    revision: a branch, tag or commit; empty: the main one.

  Returns:
    The folder of the snapshot.

  Raises:
    PredictorError: huggingface_hub is not installed, or there is no such model
      that can be reached.
  """
  library = _library(name)
  try:
    found = library.snapshot_download(
      name,
      revision=revision or None,
      allow_patterns=list(folders.FILES),
      endpoint=_endpoint(),
    )
  except Exception as error:  # noqa: BLE001 of the network, or of the Hub
    raise PredictorError(
      f"{name} is no folder, and cannot be had from the Hub"
      f" ({_line(error)}); check name and connection"
    ) from error
  return Path(found)


def upload(
  folder: str | os.PathLike, name: str, *, private: bool = False
) -> str:
  """Uploads a folder of `folders.write`; makes the repository where missing.

  Args:
    folder: that holds a model.
    name: `owner/name`.
    private: whether a new repository is for its owner alone.

  Returns:
    The address of the commit.

  Raises:
    PredictorError: huggingface_hub is not installed, or the Hub refuses.
  """
  library = _library(name)
  api = library.HfApi(endpoint=_endpoint())
  try:
    api.create_repo(name, private=private, exist_ok=True)
    done = api.upload_folder(
      repo_id=name,
      folder_path=folder,
      allow_patterns=list(folders.FILES),
      commit_message="Model of sne_jax",
    )
  except Exception as error:  # noqa: BLE001 of the network, or of the Hub
    raise PredictorError(
      f"{name} cannot be written to the Hub ({_line(error)}); check name and"
      " connection, and sign in by `hf auth login`"
    ) from error
  return str(done.commit_url)


def _library(name: str) -> Any:
  """Returns huggingface_hub.

  Raises:
    PredictorError: it is not installed.
  """
  try:
    return importlib.import_module("huggingface_hub")
  except ImportError as error:
    raise PredictorError(
      f"{name} is a name of the Hugging Face Hub, and huggingface_hub is not"
      " installed; pip install huggingface_hub"
    ) from error


def _endpoint() -> str | None:
  """Returns the address of another Hub, where the environment names one."""
  return os.environ.get("HF_ENDPOINT")


def _line(error: Exception) -> str:
  """Returns an error as one line, not a long one."""
  return " ".join(str(error).split())[:200] or type(error).__name__
