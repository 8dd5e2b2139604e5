"""Where the trials run: on Ray, one machine or many, or on this machine alone.

This is the only module that knows Ray.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

from absl import logging

from sne_jax.cli.sweeping import launch
from sne_jax.cli.sweeping import options as options_lib
from sne_jax.cli.sweeping.options import SweepOptions

KNOCK_SECONDS = 10.0


class RayFailed(RuntimeError):
  """Ray did not start, or is gone."""


class Executor(NamedTuple):
  """What runs programs; when its context ends, so do these.

  Attributes:
    run: `(job, watch) -> Ended`, when it has ended; meanwhile `watch()` is
      called now and then, and what that raises is raised.
    room: how many programs can run at once.
  """

  run: Callable[[launch.Job, Callable[[], None]], launch.Ended]
  room: int


def choose(sweep: SweepOptions) -> contextlib.AbstractContextManager[Executor]:
  """Returns the executor that the options ask for; nothing is started yet.

  Raises:
    ValueError: Ray is not installed.
  """
  if sweep.address == "none":
    whole = lambda job, watch: launch.run(job, {}, watch)
    return contextlib.nullcontext(Executor(whole, 1))
  one_by_one = "; or give --address=none to run trials one after another"
  options_lib.need("ray", one_by_one)
  return on_ray(sweep)


@contextlib.contextmanager
def on_ray(sweep: SweepOptions) -> Iterator[Executor]:
  """Starts Ray, or joins the cluster.

  Raises:
    RayFailed: neither works; the message says why.
    ValueError: this machine is smaller than a trial.
  """
  os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Tells nobody.
  here = sweep.address == "local"
  if here:  # What listens on this machine answers to its own user alone.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
  elif sweep.address != "auto":
    _knock(sweep.address)
  import ray  # pyright: ignore[reportMissingImports]

  options = {"include_dashboard": False} if here else {}
  options |= {"configure_logging": False, "log_to_driver": False}
  try:
    ray.init(address=sweep.address, **options)
  except Exception as error:
    raise RayFailed(
      f"Ray cannot be {'started' if here else 'reached'}"
      f" (address={sweep.address}): {_first_line(error)};"
      " --address=none does without it"
    ) from error
  # By value: machines of a cluster need not know this package to run it.
  ray.cloudpickle.register_pickle_by_value(launch)
  cpus, gpus = sweep.cpus_per_trial, sweep.gpus_per_trial
  # Ray retries nothing: the sweep counts attempts, and reports them.
  remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(launch.run)
  share = launch.share_of(cpus, gpus)

  def run(job: launch.Job, watch: Callable[[], None]) -> launch.Ended:
    reference = remote.remote(job, share)
    while not ray.wait([reference], timeout=1.0)[0]:
      watch()
    try:
      return ray.get(reference)
    except ray.exceptions.RayError as error:
      return launch.Ended(None, f"Ray: {_first_line(error)}")

  try:
    yield Executor(run, _room(ray.nodes(), sweep, here))
  finally:
    ray.shutdown()  # Its workers end, and with them their programs.


def _room(nodes, sweep: SweepOptions, here: bool) -> int:
  """Returns how many trials can run at once; Ray would wait where none can.

  Raises:
    ValueError: none ever can on this machine.
  """
  asked = {"CPU": sweep.cpus_per_trial, "GPU": sweep.gpus_per_trial}
  machines = [node["Resources"] for node in nodes if node["Alive"]]
  room = sum(
    min(int(machine.get(kind, 0) // n) for kind, n in asked.items() if n)
    for machine in machines
  )
  if not room:
    has = [f"{m.get('CPU', 0):g} and {m.get('GPU', 0):g}" for m in machines]
    text = (
      f"a trial asks for {asked['CPU']} CPUs and {asked['GPU']:g} GPUs"
      " (cpus_per_trial, gpus_per_trial), but no machine has both; they have"
      f" {', '.join(has)}"
    )
    if here:
      raise ValueError(text)
    logging.warning("%s; waiting for one to join", text)
  if not asked["GPU"] and any(m.get("GPU", 0) for m in machines):
    logging.warning(
      "gpus_per_trial is 0: trials train on the CPU, though there are GPUs"
    )
  return max(room, 1)


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
