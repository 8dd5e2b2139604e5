"""Runs the trials of a sweep: each is a program, started again if it fails."""

import contextlib
import errno
import os
import pathlib
import threading
from concurrent import futures

import optuna
from absl import logging

from sne_jax import room
from sne_jax.atomic import write_atomically
from sne_jax.cli.sweeping import launch, trials
from sne_jax.cli.sweeping.executors import Executor
from sne_jax.cli.sweeping.plan import Plan
from sne_jax.cli.sweeping.subject import Programs, Run
from sne_jax.learning.training import progress

FLAGS_FILE = "trial.flags"
LOG_FILE = "log.txt"


def prepare(plan: Plan, executor: Executor, programs: Programs) -> None:
  """Has the zoo made, or checked, before trials need it.

  Raises:
    ValueError: what is wrong with it.
  """
  log, flagfile = plan.workdir / "zoo.log", plan.workdir / "zoo.flags"
  write_atomically(flagfile, plan.run_flags(plan.base))
  logging.info("preparing the zoo; %s says how far it is", log)
  ended = executor.run(
    _job(plan, programs.prepare, flagfile, log), lambda: None
  )
  words = launch.last_words(ended, log) if ended.code != 0 else ""
  check_room(ended, words, plan)
  if words:
    raise ValueError(words)
  flagfile.unlink()


def check_room(ended: launch.Ended, words: str, plan: Plan) -> None:
  """Ends the sweep where a program of it had no room: the next has none, too.

  Raises:
    NoRoom: it had none.
  """
  if ended.code != room.EXIT_CODE:
    return
  if "; " in words:
    raise room.NoRoom(errno.ENOSPC, words)
  with room.writing(plan.workdir, "a trial"):  # Its log had no room either.
    raise OSError(errno.ENOSPC, "")


class Search:
  """Runs the trials of a study that wait, each from a thread of its own."""

  def __init__(
    self,
    plan: Plan,
    study: optuna.Study,
    executor: Executor,
    programs: Programs,
  ):
    """Notes what to run, and where; nothing is started yet."""
    self._plan, self._study = plan, study
    self._executor, self._programs = executor, programs
    self._asking, self._closing = threading.Lock(), threading.Event()
    self._failures: dict[int, str] = {}

  def run(self) -> dict[int, str]:
    """Runs trials until none waits.

    Returns:
      By number of the trials that have failed for good, why.

    Raises:
      ValueError: trials do not report the metric that is asked for.
    """
    every = self._study.get_trials(deepcopy=False)
    left = sum(not trial.state.is_finished() for trial in every)
    with (
      progress.Progress("trials") as shown,
      futures.ThreadPoolExecutor(self._executor.room) as pool,
    ):
      shown.update(len(every) - left, len(every))
      try:
        pending = [pool.submit(self._run_next) for _ in range(left)]
        for future in futures.as_completed(pending):
          future.result()
          left -= 1
          shown.update(len(every) - left, len(every), self._message())
      finally:
        self._closing.set()
    return self._failures

  def _run_next(self) -> None:
    """Runs the next trial to its end, again where it fails."""
    if self._closing.is_set():
      return
    try:
      with self._asking:
        trial = trials.ask(self._plan, self._study)
      try:
        options = self._plan.options(trial.number, trial.params)
      except ValueError as error:  # They do not go together.
        why = str(error)
      else:
        why = self._attempt(trial, options)
      if why:
        self._failures[trial.number] = why
      outcome = trials.read(self._plan, trial.number, why)
      trials.end(self._plan, self._study, trial, outcome)
    except BaseException:
      self._closing.set()  # Before this thread takes the next.
      raise

  def _attempt(self, trial: optuna.Trial, options: Run) -> str:
    """Runs a trial up to `retries` times more; returns why it has failed."""
    folder = self._plan.folder(trial.number)
    flagfile, log = folder / FLAGS_FILE, folder / LOG_FILE
    write_atomically(flagfile, self._plan.run_flags(options))
    job = _job(self._plan, self._programs.trial, flagfile, log)
    job = job._replace(stop=str((folder / trials.STOP).absolute()))

    def watch():
      if self._closing.is_set():
        raise futures.CancelledError
      if self._plan.sweep.pruner != "none":
        trials.watch(self._plan, self._study, trial, options.num_steps)

    why = ""
    for left in reversed(range(self._plan.sweep.retries + 1)):
      ended = self._executor.run(job, watch)
      words = launch.last_words(ended, log) if ended.code != 0 else ""
      check_room(ended, words, self._plan)
      why = trials.read(self._plan, trial.number, words).failed
      if not why:
        break
      again = ", and is started again" if left else ""
      logging.warning("trial %d failed%s: %s", trial.number, again, why)
    return why

  def _message(self) -> str:
    """Returns the best so far, and how many have failed."""
    failed = f"{len(self._failures)} failed" if self._failures else ""
    with contextlib.suppress(ValueError):  # None is finished.
      best, metric = self._study.best_trial, self._plan.sweep.metric
      shown = f"best {metric} {best.value:.4g} (trial {best.number})"
      return f"{shown}, {failed}" if failed else shown
    return failed


def _job(
  plan: Plan, program: os.PathLike, flagfile: pathlib.Path, log: pathlib.Path
) -> launch.Job:
  there = os.environ.get("PYTHONPATH")
  paths = [str(plan.subject.root), *([there] if there else [])]
  return launch.Job(
    command=(
      launch.__file__,
      str(program),
      f"--flagfile={flagfile.absolute()}",
    ),
    log=str(log.absolute()),
    cwd=os.getcwd(),
    environment={"PYTHONPATH": os.pathsep.join(paths)},
  )
