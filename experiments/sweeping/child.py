"""Runs a program that ends when whoever has started it ends.

  python experiments/sweeping/child.py PROGRAM [ARGUMENT...]

Standard input is a pipe that only the starter holds open. However that
process ends, the operating system closes the pipe, and then this one ends at
once: a sweep that is killed leaves nobody behind who computes, or writes. It
asks nothing of the platform, and starts no process in between that might die
first.
"""

import os
import runpy
import signal
import sys
import threading


def _end_with_starter() -> None:
  while os.read(0, 1):
    pass
  os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
  threading.Thread(target=_end_with_starter, daemon=True).start()
  del sys.argv[0]
  sys.path[0] = os.path.dirname(sys.argv[0])  # As if it had been started.
  runpy.run_path(sys.argv[0], run_name="__main__")
