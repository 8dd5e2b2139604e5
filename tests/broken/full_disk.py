"""Runs out of room at every stage: `python tests/broken/full_disk.py`.

Every stage (`stages.py`) runs on a small tmpfs of growing size, which needs the
right to mount, and under limits on the size of files and their number, which
needs none. Whatever was short has to be one line that names the folder, with
exit code 75; then the same command, with room, has to end as an unbroken run,
to the bit but for clocks, with no stray file. Exit code 1 if there was a fault.

  --places=8           sizes of each stage, evenly from nothing to all it takes
  --kinds=disk,readonly,filesize,files
  --stages=zoo,sweep   some of the stages; all by default
"""

import collections
import contextlib
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from absl import flags

KINDS = ("disk", "readonly", "filesize", "files")
PAGE = 4096
LARGE = 256 << 20

FLAGS = flags.FlagValues()  # Not those of the programs.
flags.DEFINE_integer("places", 8, "Sizes of each stage.", flag_values=FLAGS)
flags.DEFINE_list("kinds", list(KINDS), "What is short.", flag_values=FLAGS)
flags.DEFINE_list(
  "stages", [], "Names of stages; all by default.", flag_values=FLAGS
)
flags.DEFINE_string(
  "given", "", "Folder of what stages begin with, to keep.", flag_values=FLAGS
)


class Disk:
  """A file system of a size that can be changed."""

  def __init__(self, folder: pathlib.Path):
    """Mounts it."""
    self.folder = folder
    folder.mkdir(exist_ok=True)
    _call("mount", "-t", "tmpfs", "-o", f"size={LARGE}", "tmpfs", folder)

  def set(self, option: str) -> None:
    """Changes it: size=..., ro, rw."""
    _call("mount", "-o", f"remount,{option}", self.folder)

  def used(self) -> int:
    """Returns the bytes that are taken."""
    found = os.statvfs(self.folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _call(*words) -> None:
  subprocess.run([str(w) for w in words], check=True, capture_output=True)


@contextlib.contextmanager
def mounted(folder: pathlib.Path) -> Iterator[Disk | None]:
  """Gives a disk, or None where mounting is not allowed."""
  try:
    disk = Disk(folder)
  except (OSError, subprocess.CalledProcessError) as error:
    print(f"mounting is not allowed ({error}): no full disk is tried")
    folder.mkdir(exist_ok=True)
    yield None
    return
  try:
    yield disk
  finally:
    _call("umount", "-l", folder)


def unchecked() -> None:
  """Takes away the look before: what follows it has to hold, too."""
  from sne_jax import room

  room.check = lambda *_, **__: None


class Trial:
  """One stage, again and again in one folder."""

  def __init__(self, name, given, top, disk):
    """Runs it unbroken, and keeps what it has left."""
    from tests.broken import programs, stages

    self.name, self.given, self.work, self.disk = name, given, top / "w", disk
    self.words = stages.command(name, given, self.work)
    self.fresh()
    self.begun = disk.used() if disk else 0
    self.peak = 0

    def watch():
      self.peak = max(self.peak, disk.used() if disk else 0)

    ended = programs.Program(self.words).wait(watch)
    if ended.code:
      raise RuntimeError(f"{name} ends with {ended.code}: {ended.err}")
    self.expected = given / "expected" / name
    shutil.rmtree(self.expected, ignore_errors=True)
    shutil.copytree(self.work, self.expected)
    self.faults, self.counts = [], collections.Counter()

  def fresh(self) -> None:
    """Empties the folder, and puts there what the stage changes."""
    from tests.broken import stages

    if self.disk:
      self.disk.set("rw")
      self.disk.set(f"size={LARGE}")
    shutil.rmtree(self.work, ignore_errors=True)
    stages.prepare(self.name, self.given, self.work)

  def try_one(self, what: str, **how) -> None:
    """Runs it where something is short, then with room; notes faults."""
    from tests.broken import programs

    ended = programs.run(self.words, **how)
    line = ended.error.removeprefix("error: ")
    if self.disk:
      self.disk.set("rw")
      self.disk.set(f"size={LARGE}")
    if ended.code == 0:
      self.counts["finished"] += 1
    elif ended.code == 75 and line and str(self.work.parent) in line:
      self.counts["one line"] += 1
    else:
      self.note(what, f"exit {ended.code}: {ended.err}")
    print(f"  {what}: {ended.code} {line[:300]}", flush=True)
    again = programs.run(self.words)
    if again.code:
      self.note(what, f"with room, exit {again.code}: {again.err}")
      return

    found = programs.compared(self.expected, self.work)
    if found:
      self.note(what, f"with room: {found}")

  def note(self, what: str, fault: str) -> None:
    """Notes a fault."""
    self.faults.append(what)
    print(f"FAULT: {self.name}, {what}: {fault[-3000:]}", flush=True)

  def run(self, kinds) -> None:
    """Tries all kinds of shortage."""
    places = range(FLAGS.places)
    if self.disk and "disk" in kinds:
      pages = max(1, (self.peak - self.begun) // PAGE)
      for place in places:
        self.fresh()
        size = self.disk.used() + PAGE * (1 + pages * place // FLAGS.places)
        self.disk.set(f"size={size}")
        how = {"prepare": unchecked} if place % 4 else {}
        room = size - self.begun
        text = f"{room // 1000} of {(self.peak - self.begun) // 1000} kB"
        self.try_one(text + (", unchecked" if how else ""), **how)
    if self.disk and "readonly" in kinds:
      self.fresh()
      self.disk.set("ro")
      self.try_one("read-only")
    if "filesize" in kinds:
      for size in (6000, 20_000, 60_000, 100_000)[
        :: 1 if FLAGS.places > 4 else 2
      ]:
        self.fresh()
        limit = [(resource.RLIMIT_FSIZE, size)]
        self.try_one(f"files of {size} bytes", limits=limit)
    if "files" in kinds:  # With fewer the compiler's library aborts.
      for count in (16, 24, 32, 48)[:: 1 if FLAGS.places > 4 else 2]:
        self.fresh()
        limit = [(resource.RLIMIT_NOFILE, count)]
        self.try_one(f"{count} open files", limits=limit)


def main():
  """Tries all stages."""
  from tests.broken import programs, stages

  programs.load()
  faults, rows = 0, []
  with contextlib.ExitStack() as stack:
    top = FLAGS.given or stack.enter_context(tempfile.TemporaryDirectory())
    given = pathlib.Path(top).absolute()
    stages.made(given, programs.done)
    disk = stack.enter_context(mounted(given / "disk"))
    for name in FLAGS.stages or stages.STAGES:
      print(f"{name}:", flush=True)
      trial = Trial(name, given, given / "disk", disk)
      trial.run(FLAGS.kinds)
      faults += len(trial.faults)
      rows.append(f"{name}: {dict(trial.counts)}, {len(trial.faults)} faults")
  print("\n".join(rows))
  sys.exit(1 if faults else 0)


if __name__ == "__main__":
  import importlib

  importlib.import_module("programs").find_tests()
  FLAGS(sys.argv)
  main()
