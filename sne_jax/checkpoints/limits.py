"""What a file may ask for before it is refused.

A file of a stranger can announce more than it holds: a header of gigabytes, a
million names, a small archive that unpacks to terabytes. Every reader counts
with one `Budget` before it takes memory.
"""

import dataclasses
import os

from sne_jax import errors

MAX_NAME = 1000
"""Characters of the name of a tensor."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """Limits of one checkpoint. Raise them for a file that you trust."""

  # Tensors, archive members or leaves of a tree.
  max_entries: int = 100_000
  # Bytes of all tensors together. They are mapped where the format allows, so
  # this may well be more than the memory.
  max_total_bytes: int = 1 << 40
  # Bytes that the tensors take, per byte of the file. Compression, and views
  # that repeat one number, make it large; honest weights stay below 3.
  max_ratio: float = 200.0
  # Total up to which the ratio is not looked at: small files may repeat.
  free_bytes: int = 1 << 26
  # Bytes of what describes the tensors: a header, an index, a pickle.
  max_header_bytes: int = 1 << 25

  def __post_init__(self):
    """Refuses limits that nothing passes."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not value > 0:
        raise ValueError(
          f"{field.name} must be above 0, got {value}; it limits what is read"
        )


class Budget:
  """What one checkpoint has used of its limits."""

  def __init__(self, path: str | os.PathLike, limits: Limits):
    """Starts at nothing.

    Args:
      path: the file, or folder, as errors name it.
      limits: of this checkpoint.
    """
    self.path = os.fspath(path)
    self.limits = limits
    self._entries = 0
    self._bytes = 0

  def take(self, name: str, num_bytes: int, *, stored: int) -> None:
    """Counts one entry.

    Args:
      name: of the entry, for the error.
      num_bytes: what it takes once read.
      stored: bytes of the file, or the files, that hold all entries.

    Raises:
      CheckpointError: a limit is passed; the line says which.
    """
    limits = self.limits
    if len(name) > MAX_NAME or not name.isprintable():
      raise errors.unreadable(
        self.path,
        f"a tensor is called {name[:50]!r}, {len(name)} characters",
        f"names are printable and of at most {MAX_NAME} characters",
      )
    self._entries += 1
    self._bytes += num_bytes
    if self._entries > limits.max_entries:
      raise self.fault(f"more than {limits.max_entries} entries", "max_entries")
    if self._bytes > limits.max_total_bytes:
      raise self.fault(
        f"with {name!r} its tensors take more than"
        f" {limits.max_total_bytes} bytes",
        "max_total_bytes",
      )
    allowed = max(limits.free_bytes, limits.max_ratio * stored)
    if self._bytes > allowed:
      raise self.fault(
        f"with {name!r} its tensors take {self._bytes} bytes but the file"
        f" has {stored}: it unpacks to more than {limits.max_ratio:g} times"
        " its size",
        "max_ratio",
      )

  def check_header(self, what: str, num_bytes: int) -> None:
    """Refuses a header, index or pickle that is too long.

    Raises:
      CheckpointError: it is longer than `max_header_bytes`.
    """
    if num_bytes > self.limits.max_header_bytes:
      raise self.fault(
        f"{what} of {num_bytes} bytes, where at most"
        f" {self.limits.max_header_bytes} are allowed",
        "max_header_bytes",
      )

  def fault(self, problem: str, limit: str) -> errors.CheckpointError:
    """Returns the error of a limit that is passed."""
    return errors.unreadable(
      self.path, problem, f"if you trust the file, raise {limit} of Limits"
    )
