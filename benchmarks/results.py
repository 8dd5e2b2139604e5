"""How a benchmark writes what it found."""

import json
import math
import os
import pathlib
from typing import Any


def write(path: str | os.PathLike, value: Any) -> None:
  """Writes a value as JSON, and makes the folder where there is none."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
  """Returns a value as JSON can hold it: what is not finite becomes null."""
  if isinstance(value, dict):
    return {key: plain(entry) for key, entry in value.items()}
  if isinstance(value, list | tuple):
    return [plain(entry) for entry in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
