"""What a run ran on: versions, devices, revision. Never fails."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

import sne_jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "sne_jax")
"""The distributions whose versions are recorded."""


def environment() -> dict[str, Any]:
  """Returns plain values that name software and hardware.

  What cannot be found out is None: a run must not fail for its label. The
  revision is that of the source tree only if `sne_jax` lies at its top; it
  ends in `-dirty` where tracked files differ from it.
  """
  return {
    "versions": {"python": platform.python_version()}
    | {name: _version(name) for name in PACKAGES},
    "devices": _devices(),
    "cpu": _cpu_model(),
    "cpu_cores": os.cpu_count(),
    "platform": platform.platform(),
    "revision": _revision(),
  }


def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return getattr(sne_jax, "__version__", None) if name == "sne_jax" else None


def _devices() -> dict[str, Any] | None:
  try:
    devices = jax.devices()
  except RuntimeError:
    return None
  return {
    "backend": devices[0].platform,
    "kind": devices[0].device_kind,
    "count": len(devices),
  }


def _cpu_model() -> str | None:
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
  except OSError:
    return platform.processor() or None
  for line in text.splitlines():
    name, _, value = line.partition(":")
    if name.strip() == "model name":
      return value.strip()
  return platform.processor() or None


def _revision() -> str | None:
  package = pathlib.Path(next(iter(sne_jax.__path__))).resolve()
  top = _git(package, "rev-parse", "--show-toplevel")
  if top is None or pathlib.Path(top).resolve() != package.parent:
    return None
  revision = _git(package, "rev-parse", "--short=12", "HEAD")
  changes = _git(package, "status", "--porcelain", "--untracked-files=no")
  if revision is None or changes is None:
    return revision
  return revision + ("-dirty" if changes else "")


def _git(folder: pathlib.Path, *arguments: str) -> str | None:
  try:
    done = subprocess.run(
      ["git", "-C", str(folder), *arguments],
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return done.stdout.strip()
