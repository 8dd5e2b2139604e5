"""The version that is installed."""

import importlib.metadata


def installed() -> str:
  """Returns the version of the package; "unknown" for a bare source tree."""
  try:
    return importlib.metadata.version("sne_jax")
  except importlib.metadata.PackageNotFoundError:
    return "unknown"


VERSION = installed()
