"""Names of models: those that ship with the library, folders, the Hub.

Dimensions: none.
"""

import difflib
import os
import re
from pathlib import Path

from sne_jax.sharing import folders, hub
from sne_jax.sharing.runs import PredictorError

HOME = Path(__file__).parent / "models"
"""Folders of the models that ship with the library, by name."""

_ON_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def shipped() -> tuple[str, ...]:
  """Returns the names of the models that ship with the library."""
  if not HOME.is_dir():
    return ()
  return tuple(sorted(p.name for p in HOME.iterdir() if folders.is_one(p)))


def find(name: str | os.PathLike, revision: str = "") -> Path:
  """Returns the folder of a model.

  Args:
    name: of a model that ships with the library; or a folder; or `owner/name`
      on the Hugging Face Hub, which is downloaded unless it is in the cache.
    revision: of the Hub: a branch, tag or commit; empty: the main one.

  Raises:
    PredictorError: there is none; the message suggests a name.
  """
  text = os.fspath(name)
  if not isinstance(name, os.PathLike) and text in shipped():
    return HOME / text
  if os.path.isdir(text):
    return Path(text)
  if not isinstance(name, os.PathLike) and _ON_HUB.fullmatch(text):
    return hub.download(text, revision)
  near = difflib.get_close_matches(text.lower(), shipped(), n=1)
  hint = f"did you mean {near[0]}? " if near else ""
  raise PredictorError(
    f"there is no model {text!r}; {hint}There are"
    f" {', '.join(shipped()) or 'none'} with the library, folders of"
    " save_pretrained, and owner/name on the Hugging Face Hub"
  )
