"""Who runs the trials: Ray, on one machine or many, or this process.

An executor is a context. `submit(key, job)` hands it a program, `wait(seconds)`
returns those that have ended since, and `pending` counts those that have not.
When the context ends, so do the programs that are still running.

This is the only module that knows Ray.
"""

import collections
import importlib.util
import os
import socket
from collections.abc import Iterator
from typing import Any, Protocol

from absl import logging

from experiments.sweeping import launch
from experiments.sweeping.plan import SweepOptions

INSTALL = "pip install -e '.[sweep]'"
KNOCK_SECONDS = 10.0
Found = list[tuple[int, launch.Ended]]
"""Keys of programs, and how these have ended."""


class RayFailed(RuntimeError):
  """Ray did not start, or is gone."""


class Executor(Protocol):
  """See the module."""

  def __enter__(self) -> "Executor":
    """Takes what it needs; returns itself."""
    ...

  def __exit__(self, *unused) -> None:
    """Ends the programs that are still running."""

  @property
  def pending(self) -> int:
    """Programs that have been submitted and not been returned."""
    ...

  def submit(self, key: int, job: launch.Job) -> None:
    """Runs a program as soon as there is room."""

  def wait(self, seconds: float) -> Found:
    """Returns the programs that have ended, if need be after a while."""
    ...


def choose(sweep: SweepOptions) -> Executor:
  """Returns the executor that the options ask for; nothing is started yet.

  Raises:
    ValueError: Ray is not installed.
  """
  if sweep.address == "none":
    return InProcess()
  if importlib.util.find_spec("ray") is None:
    raise ValueError(
      f"a sweep needs Ray, which is not installed: {INSTALL}; or give"
      " --address=none to run the trials one after another without it"
    )
  return OnRay(sweep)


class InProcess:
  """One program after another, each with the whole machine."""

  def __init__(self):
    """Begins with nothing to do."""
    self._queue: collections.deque = collections.deque()

  def __enter__(self):
    """Returns itself."""
    return self

  def __exit__(self, *unused):
    """Forgets what has not begun; `launch.run` ends what has."""
    self._queue.clear()

  @property
  def pending(self) -> int:
    """Programs that have not begun."""
    return len(self._queue)

  def submit(self, key: int, job: launch.Job) -> None:
    """Puts a program at the end of the queue."""
    self._queue.append((key, job))

  def wait(self, seconds: float) -> Found:
    """Runs the next program to its end, however long that takes."""
    del seconds
    key, job = self._queue.popleft()
    return [(key, launch.run(job, {}))]


class OnRay:
  """As many programs at once as there is room for, on one machine or many."""

  def __init__(self, sweep: SweepOptions):
    """Notes the options; Ray is started, or joined, by the context."""
    self._sweep = sweep
    self._keys: dict[Any, int] = {}  # By Ray's reference.

  def __enter__(self):
    """Starts Ray, or joins the cluster.

    Raises:
      RayFailed: neither works; the message says why.
      ValueError: this machine is smaller than a trial.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Tells nobody.
    here = self._sweep.address == "local"
    if here:  # What listens on this machine answers to its own user alone.
      os.environ.setdefault("RAY_AUTH_MODE", "token")
    elif self._sweep.address != "auto":
      _knock(self._sweep.address)
    import ray

    self._ray = ray
    more = {"include_dashboard": False} if here else {}
    try:
      ray.init(
        address=self._sweep.address,
        configure_logging=False,
        log_to_driver=False,
        **more,
      )
    except Exception as error:
      raise RayFailed(
        f"Ray cannot be {'started' if here else 'reached'}"
        f" (address={self._sweep.address}): {_first_line(error)};"
        " --address=none does without it"
      ) from error
    try:
      self._check_room(here)
    except BaseException:
      self.__exit__()
      raise
    # By value: machines of a cluster need not know this package to run it.
    ray.cloudpickle.register_pickle_by_value(launch)
    self._run = ray.remote(
      num_cpus=self._sweep.cpus_per_trial,
      num_gpus=self._sweep.gpus_per_trial,
      max_retries=0,  # Retries are ours: they are counted and reported.
    )(launch.run)
    return self

  def __exit__(self, *unused):
    """Leaves Ray: its workers end, and with them their programs."""
    self._keys.clear()
    self._ray.shutdown()

  @property
  def pending(self) -> int:
    """Programs that are running, or wait for room."""
    return len(self._keys)

  def submit(self, key: int, job: launch.Job) -> None:
    """Hands a program to Ray."""
    sweep = self._sweep
    share = launch.share_of(sweep.cpus_per_trial, sweep.gpus_per_trial)
    self._keys[self._run.remote(job, share)] = key

  def wait(self, seconds: float) -> Found:
    """Returns what has ended, at the latest after some seconds."""
    ready, _ = self._ray.wait(
      list(self._keys), num_returns=len(self._keys), timeout=seconds
    )
    return list(self._collect(ready))

  def _collect(self, ready) -> Iterator[tuple[int, launch.Ended]]:
    for reference in ready:
      key = self._keys.pop(reference)
      try:
        yield key, self._ray.get(reference)
      except self._ray.exceptions.RayError as error:
        yield key, launch.Ended(None, f"Ray: {_first_line(error)}")

  def _check_room(self, here: bool) -> None:
    """Refuses trials that no machine could ever run; Ray would wait."""
    sweep = self._sweep
    asked = {"CPU": sweep.cpus_per_trial, "GPU": sweep.gpus_per_trial}
    machines = [
      node["Resources"] for node in self._ray.nodes() if node["Alive"]
    ]
    if not any(
      all(machine.get(kind, 0) >= count for kind, count in asked.items())
      for machine in machines
    ):
      has = ", ".join(
        f"{m.get('CPU', 0):g} and {m.get('GPU', 0):g}" for m in machines
      )
      text = (
        f"a trial asks for {asked['CPU']} CPUs and {asked['GPU']:g} GPUs"
        " (cpus_per_trial, gpus_per_trial), but no machine has both; they have"
        f" {has}"
      )
      if here:
        raise ValueError(text)
      logging.warning("%s; waiting for one to join", text)
    if not sweep.gpus_per_trial and any(m.get("GPU", 0) for m in machines):
      logging.warning(
        "gpus_per_trial is 0: trials train on the CPU, though there are GPUs"
      )


def _knock(address: str) -> None:
  """Refuses an address where nobody listens; Ray would try for minutes."""
  host, _, port = address.rpartition("://")[2].rpartition(":")
  try:
    socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
  except (OSError, ValueError, OverflowError) as error:
    raise RayFailed(
      f"Ray cannot be reached (address={address}): {error}; give local, auto,"
      " the host:port of a cluster, or none"
    ) from error


def _first_line(error: BaseException) -> str:
  lines = [line for line in str(error).splitlines() if line.strip()]
  return lines[0].strip() if lines else type(error).__name__
