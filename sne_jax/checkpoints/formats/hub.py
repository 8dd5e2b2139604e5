"""Checkpoints of the Hugging Face Hub, by name: `hf://owner/name@revision`.

huggingface_hub is optional and imported only here. Nothing but files of
weights and `config.json` is downloaded, safetensors where there are any.
"""

import os
import re

from sne_jax import errors
from sne_jax.checkpoints import foreign

SCHEME = "hf://"
SAFE = ("*.safetensors", "*.safetensors.index.json", "config.json")
OTHERS = ("*.bin", "*.bin.index.json", "*.msgpack", "*.h5", "*.onnx")


def download(name: str) -> str:
  """Downloads a repository's weights into the Hub's own cache.

  Args:
    name: `hf://owner/name`, with `@revision` where it is not the main one.

  Returns:
    The folder of the snapshot.

  Raises:
    CheckpointError: no such name, huggingface_hub is not installed, the
      download failed, or the repository has no weights.
  """
  match = re.fullmatch(r"hf://([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?", name)
  if match is None:
    raise errors.unreadable(name, "no name of the Hub", "hf://owner/name")
  library = foreign.library(
    "huggingface_hub", name, "huggingface_hub is not installed"
  )
  for patterns in (SAFE, OTHERS):
    try:
      folder = library.snapshot_download(
        match[1], revision=match[2], allow_patterns=list(patterns)
      )
    except Exception as error:  # noqa: BLE001 of the network, or of the Hub
      raise errors.unreadable(
        name, f"cannot be downloaded ({error})", "check name and connection"
      ) from error
    ends = tuple(pattern.removeprefix("*") for pattern in patterns)
    files = [f for f in os.listdir(folder) if f.endswith(ends)]
    if any(file != "config.json" for file in files):
      return folder
  raise errors.unreadable(
    name, "the repository has no weights", "name one that has"
  )
