"""Starts one program and waits for it, on whatever machine this is called.

Plain Python: a worker of a cluster imports nothing else to run it.
"""

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MARK = "== "
"""Begins the line that a log has before each start of its program."""

_TAIL = 65536  # Bytes of a log that are read for its last words.


class Job(NamedTuple):
  """A program to run."""

  command: Sequence[str]  # A Python file and its arguments.
  log: str  # File that its output is appended to.
  cwd: str
  child: str  # Path of child.py.
  environment: Mapping[str, str]  # Beside that of the process that starts it.


class Ended(NamedTuple):
  """How a program has ended."""

  code: int | None  # As `subprocess` has it; None: nobody knows.
  error: str = ""  # What the executor says of it, if it was not the program.


def run(job: Job, share: Mapping[str, str]) -> Ended:
  """Runs a program to its end; if this process ends before, so does it.

  Args:
    job: what to run.
    share: of the machine, as variables of the environment; what is set there
      already stays.
  """
  environment = {**share, **os.environ, **job.environment}
  with open(job.log, "a", encoding="utf-8") as log:
    log.write(f"{MARK}{' '.join(job.command)}\n")
    log.flush()
    process = subprocess.Popen(
      [sys.executable, job.child, *job.command],
      stdin=subprocess.PIPE,  # See child.py.
      stdout=log,
      stderr=subprocess.STDOUT,
      cwd=job.cwd,
      env=environment,
      start_new_session=True,  # Ctrl-C is for the sweep.
    )
    try:
      return Ended(process.wait())
    finally:
      process.kill()
      process.wait()


def share_of(cpus: int, gpus: float) -> dict[str, str]:
  """Returns the variables that keep a program to its share of a machine.

  Ray itself says which GPUs a program sees. On a GPU that several share, each
  takes its part of the memory; alone, JAX would take most of it.
  """
  share = {
    name: str(cpus)
    for name in ("PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
  }
  if 0 < gpus < 1 and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
    share["XLA_CLIENT_MEM_FRACTION"] = f"{0.9 * gpus:.3f}"
  return share


def last_words(ended: Ended, log: str | os.PathLike) -> str:
  """Returns one line that says why a program has failed."""
  said = ended.error or _last_line(pathlib.Path(log))
  if ended.code is None or ended.code >= 0:
    return said or f"exit code {ended.code}, without a word"
  try:
    name = signal.Signals(-ended.code).name
  except ValueError:
    name = f"signal {-ended.code}"
  return f"killed by {name}" + (f"; last line: {said}" if said else "")


def _last_line(log: pathlib.Path) -> str:
  """Returns the error of the latest start, or else its last line."""
  if not log.exists():
    return ""
  with log.open("rb") as file:
    file.seek(max(0, log.stat().st_size - _TAIL))
    lines = file.read().decode(errors="replace").splitlines()
  starts = [i for i, line in enumerate(lines) if line.startswith(MARK)]
  lines = lines[starts[-1] + 1 :] if starts else lines
  lines = [line.strip() for line in lines if line.strip()]
  errors = [line for line in lines if line.startswith("error: ")]
  return (errors or lines or [""])[-1].removeprefix("error: ")
