"""Starts one program and waits for it, on whatever machine this is called.

  python sne_jax/cli/sweeping/launch.py PROGRAM [ARGUMENT...]

is what it starts: the program, which ends when its starter ends. Its standard
input is a pipe that only the starter holds open; however that process ends, the
operating system closes the pipe, and then the program is killed: a sweep that
is killed leaves no trial that computes, or writes.

Plain Python: a worker of a cluster imports nothing else to run it.
"""

import collections
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

MARK = "== "
"""Begins the line that a log has before each start of its program."""

POLL_SECONDS = 1.0


class Job(NamedTuple):
  """A program to run."""

  command: Sequence[str]  # This file, a Python file and its arguments.
  log: str  # File that its output is appended to.
  cwd: str
  environment: Mapping[str, str]  # Beside that of the process that starts it.
  stop: str = ""  # The program is killed once a file of this name exists.


class Ended(NamedTuple):
  """How a program has ended."""

  code: int | None  # As `subprocess` has it; None: nobody knows.
  error: str = ""  # What Ray says of it, if it was not the program.


def run(
  job: Job,
  share: Mapping[str, str],
  watch: Callable[[], None] = lambda: None,
) -> Ended:
  """Runs a program to its end; if this process ends before, so does it.

  Args:
    job: what to run.
    share: of the machine, as variables of the environment; what is set there
      already stays.
    watch: called now and then; what it raises ends the program.
  """
  with open(job.log, "a", encoding="utf-8") as log:
    log.write(f"{MARK}{' '.join(job.command[1:])}\n")
    log.flush()
    process = subprocess.Popen(
      [sys.executable, *job.command],
      stdin=subprocess.PIPE,  # Held open until this process ends.
      stdout=log,
      stderr=subprocess.STDOUT,
      cwd=job.cwd,
      env={**share, **os.environ, **job.environment},
      start_new_session=True,  # Ctrl-C is for the sweep.
    )
    try:
      while True:
        try:
          return Ended(process.wait(POLL_SECONDS))
        except subprocess.TimeoutExpired:
          watch()
          if job.stop and os.path.exists(job.stop):
            process.kill()
    finally:
      process.kill()
      process.wait()


def share_of(cpus: int, gpus: float | int) -> dict[str, str]:
  """Returns the variables that keep a program to its share of a machine.

  Ray itself says which GPUs a program sees. On a GPU that several share, each
  takes its part of the memory; alone, JAX would take most of it.
  """
  names = ("PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
  share = {name: str(cpus) for name in names}
  if 0 < gpus < 1 and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
    share["XLA_CLIENT_MEM_FRACTION"] = f"{0.9 * gpus:.3f}"
  return share


def last_words(ended: Ended, log: str | os.PathLike) -> str:
  """Returns one line that says why a program has failed: its error, if any."""
  with open(log, encoding="utf-8", errors="replace") as file:
    lines = [line.strip() for line in collections.deque(file, 1000)]
  starts = [i for i, line in enumerate(lines) if line.startswith(MARK)]
  lines = [line for line in lines[max(starts, default=-1) + 1 :] if line]
  known = [line for line in lines if line.startswith("error: ")] or lines
  said = ended.error or (known or [""])[-1].removeprefix("error: ")
  if ended.code is None or ended.code >= 0:
    return said or f"exit code {ended.code}, without a word"
  name = signal.Signals(-ended.code).name
  return f"killed by {name}" + (f"; last line: {said}" if said else "")


def _end_with_starter() -> None:
  while os.read(0, 1):
    pass
  os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
  threading.Thread(target=_end_with_starter, daemon=True).start()
  del sys.argv[0]
  sys.path[0] = os.path.dirname(sys.argv[0])  # As if it had been started.
  runpy.run_path(sys.argv[0], run_name="__main__")
