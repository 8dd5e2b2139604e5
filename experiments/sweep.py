r"""Searches over options: `python experiments/sweep.py --grid=...`.

A sweep is many runs of run.py that differ in some options, each in a process
of its own, as many at once as the machines have room for. All flags of run.py
are flags of a sweep; --grid or --random say what varies:

  python experiments/sweep.py --flagfile=experiments/flags/quickstart.flags \
    --grid="learning_rate=3e-4,1e-3,3e-3;head_width=32,128" --workdir=runs/grid
  python experiments/sweep.py --flagfile=experiments/flags/quickstart.flags \
    --random="learning_rate=log:1e-4:1e-2;layer_function=sab,deepsets" \
    --num_trials=16 --workdir=runs/random

--sampler=tpe chooses new values by what others have given; --pruner=median or
hyperband stops trials early whose validation metric falls behind: both are
Optuna's (pip install -e '.[sweep]'). Trials run on Ray, started on this machine
or, by --address, joined on a cluster; --address=none runs them one after
another without it. The trial that is best on the validation networks is
selected, and its test numbers, and no others, are reported. --workdir names the
folder for everything that a sweep writes:

  report.md, figures/    the table of all trials, and the figure
  results.json           the same, to compute with
  flags.txt, config.json the options, resolved; --flagfile=flags.txt repeats it
  study.journal          the study of Optuna, for optuna-dashboard
  trials/<number>/       the folder of each run; log.txt is what it said

A sweep that was stopped, or killed, continues when the same command is given
again: trials that are finished are not run again, and others resume. A trial
that fails is started again --retries times, then reported; the exit code is 1
if any has failed. --num_trials=32 after --num_trials=16 runs sixteen more.
"""

import contextlib
import os
import pathlib
import threading
import time
from collections.abc import Iterator
from concurrent import futures

import optuna
from absl import flags, logging
from optuna.trial import TrialState

from experiments import config, console, run
from experiments.sweeping import executors, launch, summary, trials
from experiments.sweeping import plan as plan_lib
from experiments.sweeping.plan import Plan
from sne_jax.learning import checkpoint, progress
from sne_jax.learning.logging import read_json, write_atomically
from sne_jax.zoo import errors, lock

ROOT = pathlib.Path(__file__).resolve().parents[1]
PREPARE = ROOT / "experiments" / "sweeping" / "prepare.py"
RUN = ROOT / "experiments" / "run.py"

FLAGS_FILE = "trial.flags"
LOG_FILE = "log.txt"
PATIENCE = 60.0
"""Seconds that trials of a sweep that was killed are given to end."""


class Programs:
  """What a sweep starts; tests put others in their place."""

  def __init__(self, trial: os.PathLike = RUN, prepare: os.PathLike = PREPARE):
    """Notes Python files that are given `--flagfile=...`."""
    self.trial, self.prepare = os.fspath(trial), os.fspath(prepare)


def main(
  argv: list[str],
  flag_values: flags.FlagValues = flags.FLAGS,
  programs: Programs | None = None,
) -> int:
  """Reads the flags and runs the trials that they ask for.

  Returns:
    0, or 1 where trials have failed; the report is written all the same.

  Raises:
    ValueError: options that are wrong, or do not fit the work directory or the
      zoo; Ray is missing; another process is at work in the folder.
    RayFailed: Ray cannot be started or reached.
  """
  del argv
  plan = plan_lib.make(flag_values)
  context = executors.choose(plan.sweep)
  with claimed(plan):
    study = trials.study_of(plan)
    failures: dict[int, str] = {}
    if any(trial.state == TrialState.WAITING for trial in study.trials):
      wait_for_orphans(plan)
      with context as executor:
        search = Search(plan, study, executor, programs or Programs())
        search.prepare()
        failures = search.run()
    outcomes = [
      trials.read(plan, number, failures.get(number, ""))
      for number in range(len(plan.planned))
    ]
    summary.write(plan, study, outcomes)
  print(summary.headline(plan, outcomes))
  print(f"The report is {plan.workdir / 'report.md'}")
  return 1 if any(outcome.failed for outcome in outcomes) else 0


@contextlib.contextmanager
def claimed(plan: Plan) -> Iterator[None]:
  """Makes the work directory the home of this sweep, and of no other.

  Raises:
    ValueError: it belongs to something else, or another process is at work.
  """
  plan.workdir.parent.mkdir(parents=True, exist_ok=True)
  path = plan.workdir / checkpoint.CONFIG
  with lock.folder_lock(str(plan.workdir)):
    before = read_json(path).get("SweepOptions") if path.exists() else None
    if before is not None and "sampler" not in before:
      raise ValueError(
        f"{plan.workdir} holds a sweep of an earlier version, which cannot be"
        " resumed; choose another workdir"
      )
    is_new = checkpoint.claim_workdir(
      plan.workdir, plan.identity(), ignore=run.NOT_IDENTITY
    )
    write_atomically(plan.workdir / "flags.txt", plan.flagfile())
    try:
      yield
    except (ValueError, executors.RayFailed):
      # Nothing was trained: the folder is free for what was meant.
      if is_new and not any(plan.workdir.glob("trials/*")):
        path.unlink(missing_ok=True)
      raise


def wait_for_orphans(plan: Plan) -> None:
  """Waits until trials of a sweep that was killed have ended, too.

  They end by themselves, but on other machines that can take some seconds.

  Raises:
    ValueError: one does not.
  """
  deadline = time.monotonic() + PATIENCE
  for folder in sorted(plan.workdir.glob("trials/[0-9]*[0-9]")):
    while True:
      try:
        with lock.folder_lock(str(folder)):
          break
      except errors.ZooError:
        if time.monotonic() > deadline:
          raise
        logging.info("waiting for %s to end", folder)
        time.sleep(1.0)


class Search:
  """Runs the trials of a study that wait, each from a thread of its own."""

  def __init__(
    self,
    plan: Plan,
    study: optuna.Study,
    executor: executors.Executor,
    programs: Programs,
  ):
    """Notes what to run, and where; nothing is started yet."""
    self._plan, self._study = plan, study
    self._executor, self._programs = executor, programs
    self._asking, self._closing = threading.Lock(), threading.Event()
    self._failures: dict[int, str] = {}

  def prepare(self) -> None:
    """Has the zoo made, or checked, before trials need it.

    Raises:
      ValueError: what is wrong with it.
    """
    log = self._plan.workdir / "zoo.log"
    flagfile = self._plan.workdir / "zoo.flags"
    write_atomically(flagfile, plan_lib.flags_of(*self._plan.base.groups()))
    logging.info("preparing the zoo; %s says how far it is", log)
    job = _job(self._programs.prepare, flagfile, log)
    ended = self._executor.run(job, lambda: None)
    if ended.code != 0:
      raise ValueError(launch.last_words(ended, log))
    flagfile.unlink()

  def run(self) -> dict[int, str]:
    """Runs trials until none waits.

    Returns:
      By number of the trials that have failed for good, why.

    Raises:
      ValueError: trials do not report the metric that is asked for.
    """
    every = self._study.get_trials(deepcopy=False)
    left = sum(trial.state == TrialState.WAITING for trial in every)
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
        why = self._attempt(trial)
      except plan_lib.OptionsError as error:
        why = str(error)
      if why:
        self._failures[trial.number] = why
      outcome = trials.read(self._plan, trial.number, why)
      trials.end(self._plan, self._study, trial, outcome)
    except BaseException:
      self._closing.set()  # Before this thread takes the next.
      raise

  def _attempt(self, trial: optuna.Trial) -> str:
    """Runs a trial up to `retries` times more; returns why it has failed."""
    folder = self._plan.folder(trial.number)
    flagfile, log = folder / FLAGS_FILE, folder / LOG_FILE
    options = self._plan.options(trial.number, trial.params)
    write_atomically(flagfile, plan_lib.flags_of(*options.groups()))
    job = _job(self._programs.trial, flagfile, log)
    job = job._replace(stop=str((folder / trials.STOP).absolute()))

    def watch():
      if self._closing.is_set():
        raise futures.CancelledError
      if self._plan.sweep.pruner != "none":
        trials.watch(self._plan, self._study, trial, options.train.num_steps)

    why = ""
    for left in reversed(range(self._plan.sweep.retries + 1)):
      ended = self._executor.run(job, watch)
      words = launch.last_words(ended, log) if ended.code != 0 else ""
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


def _job(program: str, flagfile: pathlib.Path, log: pathlib.Path) -> launch.Job:
  paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
  return launch.Job(
    command=(launch.__file__, program, f"--flagfile={flagfile.absolute()}"),
    log=str(log.absolute()),
    cwd=os.getcwd(),
    environment={"PYTHONPATH": os.pathsep.join(paths)},
  )


if __name__ == "__main__":
  plan_lib.define_flags()
  console.setup()
  config.run_main(main)
