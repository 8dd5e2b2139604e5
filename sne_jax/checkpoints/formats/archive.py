"""Zip archives of strangers: PyTorch, Keras and NumPy files are such.

Everything is checked before a member is touched: names that lead elsewhere,
links, members that share bytes, sizes that do not add up, compression bombs.
"""

import os
import stat
import struct
import zipfile
import zlib

from sne_jax import errors
from sne_jax.checkpoints import foreign
from sne_jax.checkpoints.limits import Budget

DAMAGE = (
  *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error),
  *(OSError, ValueError, EOFError, OverflowError, NotImplementedError),
  *(RuntimeError, KeyError, IndexError),
)
"""What the standard library raises on a damaged archive."""

MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of an archive, and of an empty one."""

_LOCAL = struct.Struct("<4s5H3I2H")  # A member's own header.
_END_SIZE = 22  # The record that ends an archive, without its comment.


class Archive:
  """A zip archive whose list of members has been checked.

  Attributes:
    path: the file.
    size: its bytes.
    members: sizes in bytes by name, in the order of the archive; folders are
      left out.
  """

  def __init__(self, path: str, budget: Budget):
    """Reads and checks the list of members.

    Raises:
      CheckpointError: the archive is damaged or hostile.
    """
    self.path = path
    self.size = foreign.file_size(path)
    self._budget = budget
    with foreign.guard(path, "a damaged zip archive", DAMAGE):
      self._check_length()
      with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        limit = budget.limits.max_entries
        if len(infos) > limit:
          raise budget.fault(
            f"{len(infos)} members of an archive, "
            f"where at most {limit} are allowed",
            "max_entries",
          )
        self._starts = self._data_starts(infos, archive.start_dir)
    self._infos = {i.filename: i for i in infos if not i.is_dir()}
    self.members = {name: i.file_size for name, i in self._infos.items()}

  def offset(self, name: str) -> int | None:
    """Returns where a member's bytes begin in the file; None if compressed."""
    stored = self._infos[name].compress_type == zipfile.ZIP_STORED
    return self._starts[name] if stored else None

  def read(self, name: str) -> bytes:
    """Returns a member's bytes, unpacked, their checksum compared.

    Raises:
      CheckpointError: it is damaged, or unpacks to more than it announces.
    """
    info = self._infos[name]
    with (
      foreign.guard(self.path, f"member {name!r} is damaged", DAMAGE),
      zipfile.ZipFile(self.path) as archive,
      archive.open(info) as file,
    ):
      data = file.read(info.file_size + 1)
    if len(data) != info.file_size:
      raise self._bad(f"member {name!r} has not the size that it announces")
    return data

  def read_head(self, name: str, num_bytes: int) -> bytes:
    """Returns the first bytes of a member, unpacked.

    Raises:
      CheckpointError: it is damaged.
    """
    with (
      foreign.guard(self.path, f"member {name!r} is damaged", DAMAGE),
      zipfile.ZipFile(self.path) as archive,
      archive.open(self._infos[name]) as file,
    ):
      return file.read(num_bytes)

  def _check_length(self) -> None:
    """Refuses a list of members too long to be parsed."""
    with open(self.path, "rb") as file:
      file.seek(max(0, self.size - _END_SIZE - (1 << 16)))
      tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END_SIZE > len(tail):
      raise self._bad("a zip archive cut short: it has no list of members")
    count, length = struct.unpack("<HI", tail[at + 10 : at + 16])
    wide = tail.rfind(b"PK\x06\x06", 0, at)
    if wide >= 0 and wide + 56 <= len(tail):
      count, length = struct.unpack("<QQ", tail[wide + 32 : wide + 48])
    self._budget.check_header(f"a list of {count} members", length)

  def _data_starts(self, infos: list, end: int) -> dict[str, int]:
    """Checks every member; returns where the bytes of each begin."""
    starts, previous = {}, (0, "its beginning")
    with open(self.path, "rb") as file:
      for info in sorted(infos, key=lambda i: i.header_offset):
        self._check_member(info, starts)
        file.seek(info.header_offset)
        local = _LOCAL.unpack(file.read(_LOCAL.size))
        if local[0] != b"PK\x03\x04":
          raise self._bad(f"member {info.filename!r} is not where it should be")
        start = info.header_offset + _LOCAL.size + local[9] + local[10]
        if info.header_offset < previous[0]:
          raise self._bad(
            f"members {previous[1]!r} and {info.filename!r} overlap"
          )
        previous = (start + info.compress_size, info.filename)
        if previous[0] > end:
          raise self._bad(f"member {info.filename!r} leaves the archive")
        starts[info.filename] = start
    return starts

  def _check_member(self, info: zipfile.ZipInfo, seen: dict) -> None:
    name = info.filename
    check_path(self.path, name)
    if name in seen:
      raise self._bad(f"two members are called {name!r}")
    if stat.S_ISLNK(info.external_attr >> 16):
      raise self._bad(f"member {name!r} is a link")
    if info.flag_bits & 1:
      raise errors.unreadable(
        self.path, f"member {name!r} is encrypted", "save it unencrypted"
      )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise errors.unreadable(
        self.path,
        f"member {name!r} is packed by method {info.compress_type}",
        "save it unpacked, or with deflate",
      )
    stored = info.compress_type == zipfile.ZIP_STORED
    if stored and info.compress_size != info.file_size:
      raise self._bad(f"member {name!r} has two sizes")
    limits = self._budget.limits
    allowed = max(limits.free_bytes, limits.max_ratio * info.compress_size)
    if info.file_size > allowed:
      raise self._budget.fault(
        f"member {name!r} unpacks from {info.compress_size} to"
        f" {info.file_size} bytes",
        "max_ratio",
      )

  def _bad(self, problem: str) -> errors.CheckpointError:
    return errors.unreadable(self.path, problem)


def check_path(path: str, name: str) -> None:
  """Refuses a name inside a file that leads out of its folder.

  Raises:
    CheckpointError: absolute, with "..", a drive, a backslash or a NUL.
  """
  parts = name.split("/")
  if (
    not name
    or ".." in parts
    or name.startswith("/")
    or any(c in name for c in "\\\0")
    or os.path.splitdrive(name)[0]
    or (len(parts[0]) == 2 and parts[0][1] == ":")
  ):
    raise errors.unreadable(
      path,
      f"the name {name!r} in it leads out of its folder",
      "do not trust this file; get it from its source",
    )
