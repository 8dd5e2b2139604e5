"""Programs of this project in processes that may be starved, or killed.

Each is a fork of this process, which has imported everything and has started
nothing, so that a program begins at once. `load()` comes first.
"""

import atexit
import contextlib
import os
import pathlib
import resource
import runpy
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]


def find_tests() -> None:
  """Makes `tests` this project's: some distributions install one, too."""
  sys.path.insert(0, str(ROOT))
  sys.modules["tests"] = types.ModuleType("tests")
  sys.modules["tests"].__path__ = [f"{ROOT}/tests"]


def load() -> None:
  """Imports what programs need; starts no thread and no device."""
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["MPLBACKEND"] = "Agg"
  os.environ["PYTHONPATH"] = str(ROOT)
  warnings.simplefilter("ignore")
  import matplotlib.pyplot
  import sklearn.ensemble
  import sklearn.linear_model

  import sne_jax.cli.main
  from experiments import convert_zoo, make_zoo, run, sweep
  from sne_jax.cli.commands import encode, predict, train

  del matplotlib, sklearn, sne_jax
  del convert_zoo, make_zoo, run, sweep, encode, predict, train
  assert threading.active_count() == 1


class Ended(NamedTuple):
  """How a program has ended, as a shell would see it; killed: below 0."""

  code: int
  out: str
  err: str

  @property
  def error(self) -> str:
    """The line that says what is wrong; empty where it is not one line."""
    lines = self.err.splitlines()
    at = [n for n, line in enumerate(lines) if line.startswith("error: ")]
    if len(at) != 1 or at[0] != len(lines) - 1 or "Traceback" in self.err:
      return ""
    return lines[-1]


class Program:
  """A program that was started."""

  def __init__(
    self,
    command: Sequence[str] | Callable[[], None],
    limits: Sequence[tuple[int, int]] = (),
    prepare: Callable[[], None] = lambda: None,
  ):
    """Starts it.

    Args:
      command: a file of this project, from its top, and arguments; or what is
        to be called.
      limits: of `resource.setrlimit`, with their values.
      prepare: is called in the process, before the program.
    """
    self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
    self._status: int | None = None  # As the system says it; None: it runs.
    sys.stdout.flush()
    self.pid = os.fork()
    if not self.pid:
      self._run(command, limits, prepare)

  def _run(self, command, limits, prepare):
    code = 1
    try:
      os.setsid()
      os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
      for number, file in enumerate(self._files, start=1):
        os.dup2(file.fileno(), number)
      signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # As an error instead.
      for kind, most in limits:
        resource.setrlimit(kind, (most, most))
      prepare()
      os.chdir(ROOT)
      sys.path[0] = str(ROOT)
      if callable(command):
        command()
      else:
        sys.argv = [str(ROOT / command[0]), *command[1:]]
        runpy.run_path(sys.argv[0], run_name="__main__")
      code = 0
    except SystemExit as ended:
      said = ended.code
      code = said if isinstance(said, int) else int(bool(said))
    except BaseException:  # noqa: BLE001
      traceback.print_exc()
    finally:
      with contextlib.suppress(Exception):
        threading._shutdown()  # pyright: ignore
        atexit._run_exitfuncs()
      with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
      os._exit(code)

  def wait(
    self, watch: Callable[[], None] = lambda: None, seconds: float = 900.0
  ) -> Ended:
    """Waits for its end; one that hangs is killed.

    Args:
      watch: is called meanwhile.
      seconds: after which it hangs.
    """
    until = time.monotonic() + seconds
    while self.runs():
      watch()
      if time.monotonic() > until:
        os.kill(self.pid, signal.SIGKILL)
        until += seconds
      time.sleep(0.02)
    self._wait_for_others()
    texts = []
    for file in self._files:
      file.seek(0)
      texts.append(file.read().decode(errors="replace"))
      file.close()
    return Ended(os.waitstatus_to_exitcode(self._status), *texts)

  def runs(self) -> bool:
    """Whether it has not ended."""
    if self._status is None:
      pid, status = os.waitpid(self.pid, os.WNOHANG)
      self._status = status if pid else None
    return self._status is None

  def kill(self) -> Ended:
    """Kills it, as a machine does, and waits for what it has started."""
    if self.runs():
      os.kill(self.pid, signal.SIGKILL)
    return self.wait()

  def _wait_for_others(self, seconds: float = 30.0) -> None:
    """Waits until no process of its session is left."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
      if not any(_session(pid) == self.pid for pid in os.listdir("/proc")):
        return
      time.sleep(0.02)
    raise RuntimeError("what a program has started does not end with it")


def run(command: Sequence[str] | Callable[[], None], **how) -> Ended:
  """Runs a program to its end."""
  return Program(command, **how).wait()


def done(command: Sequence[str] | Callable[[], None]) -> None:
  """Runs what has to succeed.

  Raises:
    RuntimeError: it has not.
  """
  ended = run(command)
  if ended.code:
    raise RuntimeError(f"{command} ends with {ended.code}: {ended.err}")


def compared(one: pathlib.Path, other: pathlib.Path) -> list[str]:
  """Returns how two folders differ; see `trees.difference`."""

  def compare():
    from absl import logging

    from tests.broken import trees

    logging.set_verbosity(logging.FATAL)
    print("\n".join(trees.difference(one, other)))  # noqa: T201

  ended = run(compare)
  if ended.code:
    return [f"cannot be compared: {ended.err}"]
  return [line for line in ended.out.split("\n") if line]


def _session(pid: str) -> int | None:
  """Returns the session of a process that lives."""
  try:
    state, *fields = (
      pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    )
  except (OSError, ValueError):
    return None
  return None if state == "Z" else int(fields[2])
