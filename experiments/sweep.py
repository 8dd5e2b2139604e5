r"""Searches over options: `python experiments/sweep.py --grid=...`.

A sweep is many runs of run.py that differ in some options, each in a process
of its own, as many at once as the machines have room for. All flags of run.py
are flags of a sweep; --grid or --random say what varies:

  python experiments/sweep.py --flagfile=experiments/flags/quickstart.flags \
    --grid="learning_rate=3e-4,1e-3,3e-3;head_width=32,128" --workdir=runs/grid
  python experiments/sweep.py --flagfile=experiments/flags/quickstart.flags \
    --random="learning_rate=log:1e-4:1e-2;layer_function=sab,deepsets" \
    --num_trials=16 --workdir=runs/random

Trials run on Ray (pip install -e '.[sweep]'), started on this machine or, by
--address, joined on a cluster; --address=none runs them one after another
without it. The trial that is best on the validation networks is selected, and
its test numbers, and no others, are reported. --workdir names the folder for
everything that a sweep writes:

  report.md, figures/    the table of all trials, and the figure
  results.json           the same, to compute with
  flags.txt, config.json the options, resolved; --flagfile=flags.txt repeats it
  trials/<number>/       the folder of each run; log.txt is what it said

A sweep that was stopped, or killed, continues when the same command is given
again: trials that are finished are not run again, and others go on where they
were. --num_trials=32 after --num_trials=16 runs sixteen more. A trial that
fails is started again --retries times, then reported; the exit code is 1 if
any has failed.
"""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Iterator, Sequence

from absl import flags, logging

from experiments import config, console, run
from experiments import options as options_lib
from experiments.sweeping import collect, executors, launch, summary
from experiments.sweeping import plan as plan_lib
from experiments.sweeping.collect import Outcome
from experiments.sweeping.plan import Plan, Trial
from sne_jax.learning import checkpoint, progress
from sne_jax.learning.logging import write_atomically
from sne_jax.zoo import errors, lock

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHILD = ROOT / "experiments" / "sweeping" / "child.py"
PREPARE = ROOT / "experiments" / "sweeping" / "prepare.py"
RUN = ROOT / "experiments" / "run.py"

FLAGS_FILE = "trial.flags"
LOG_FILE = "log.txt"
ZOO = -1  # Where trials have their number.
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
  programs = programs or Programs()
  plan = plan_lib.make(flag_values)
  executor = executors.choose(plan.sweep)
  with claimed(plan):
    outcomes = [collect.read(trial, plan.sweep) for trial in plan.trials]
    left = [outcome.trial for outcome in outcomes if outcome.failed]
    if left:
      wait_for_orphans(left)
      with executor:
        prepare(executor, plan, programs)
        failures = run_trials(executor, plan, outcomes, programs)
      outcomes = [
        collect.read(trial, plan.sweep, failures.get(trial.number, ""))
        for trial in plan.trials
      ]
    summary.write(plan, outcomes)
  failed = sum(bool(outcome.failed) for outcome in outcomes)
  best = collect.selected(collect.ranked(plan, outcomes))
  print(summary.headline(plan, best, failed))
  print(f"The report is {plan.workdir / 'report.md'}")
  return 1 if failed else 0


@contextlib.contextmanager
def claimed(plan: Plan) -> Iterator[None]:
  """Makes the work directory the home of this sweep, and of no other.

  Raises:
    ValueError: it belongs to something else, or another process is at work.
  """
  plan.workdir.parent.mkdir(parents=True, exist_ok=True)
  with lock.folder_lock(str(plan.workdir)):
    is_new = checkpoint.claim_workdir(
      plan.workdir, plan.identity(), ignore=run.NOT_IDENTITY
    )
    write_atomically(plan.workdir / "flags.txt", plan.flagfile())
    try:
      yield
    except (ValueError, executors.RayFailed):
      # Nothing was trained: the folder is free for what was meant.
      if is_new and not any(plan.workdir.glob("trials/*")):
        (plan.workdir / checkpoint.CONFIG).unlink(missing_ok=True)
      raise


def wait_for_orphans(trials: Sequence[Trial]) -> None:
  """Waits until trials of a sweep that was killed have ended, too.

  They end by themselves, but on other machines that can take some seconds.

  Raises:
    ValueError: one does not.
  """
  deadline = time.monotonic() + PATIENCE
  for trial in trials:
    while trial.folder.exists():
      try:
        with lock.folder_lock(str(trial.folder)):
          break
      except errors.ZooError:
        if time.monotonic() > deadline:
          raise
        logging.info("waiting for trial %d to end", trial.number)
        time.sleep(1.0)


def prepare(
  executor: executors.Executor, plan: Plan, programs: Programs
) -> None:
  """Has the zoo made, or checked, before trials need it.

  Raises:
    ValueError: what is wrong with it.
  """
  log = plan.workdir / "zoo.log"
  flagfile = plan.workdir / "zoo.flags"
  write_atomically(flagfile, _flags(plan.trials[0]))
  logging.info("preparing the zoo; %s says how far it is", log)
  executor.submit(ZOO, _job(programs.prepare, flagfile, log))
  while executor.pending:
    for _, ended in executor.wait(1.0):
      if ended.code != 0:
        raise ValueError(launch.last_words(ended, log))
  flagfile.unlink()


def run_trials(
  executor: executors.Executor,
  plan: Plan,
  outcomes: Sequence[Outcome],
  programs: Programs,
) -> dict[int, str]:
  """Runs the trials that are not finished, and those that fail again.

  Returns:
    By number of the trials that have failed for good, why.

  Raises:
    ValueError: trials do not report the metric that is asked for.
  """
  by_number = {o.trial.number: o.trial for o in outcomes if o.failed}
  attempts = dict.fromkeys(by_number, 0)
  failures: dict[int, str] = {}
  best = collect.selected(collect.ranked(plan, outcomes))
  done, total = len(outcomes) - len(by_number), len(outcomes)

  def submit(trial: Trial) -> None:
    attempts[trial.number] += 1
    trial.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(trial.folder / FLAGS_FILE, _flags(trial))
    log = trial.folder / LOG_FILE
    executor.submit(
      trial.number, _job(programs.trial, trial.folder / FLAGS_FILE, log)
    )

  for trial in by_number.values():
    submit(trial)
  with progress.Progress("trials") as shown:
    shown.update(done, total)
    while executor.pending:
      for number, ended in executor.wait(1.0):
        trial = by_number[number]
        words = launch.last_words(ended, trial.folder / LOG_FILE)
        failed = words if ended.code != 0 else ""
        outcome = collect.read(trial, plan.sweep, failed)
        if not outcome.failed:
          done += 1
          best = collect.selected(
            collect.ranked(plan, [outcome, *([best] if best else [])])
          )
          continue
        again = attempts[number] <= plan.sweep.retries
        logging.warning(
          "trial %d failed%s: %s",
          *(number, ", and is started again" if again else "", outcome.failed),
        )
        if again:
          submit(trial)
        else:
          failures[number] = outcome.failed
          done += 1
      shown.update(done, total, _message(plan, best, len(failures)))
  return failures


def _job(program: str, flagfile: pathlib.Path, log: pathlib.Path) -> launch.Job:
  paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
  return launch.Job(
    command=(program, f"--flagfile={flagfile.absolute()}"),
    log=str(log.absolute()),
    cwd=os.getcwd(),
    child=str(CHILD),
    environment={"PYTHONPATH": os.pathsep.join(paths)},
  )


def _flags(trial: Trial) -> str:
  return options_lib.to_flagfile(trial.options)


def _message(plan: Plan, best: Outcome | None, failed: int) -> str:
  parts = []
  if best is not None:
    parts.append(
      f"best {plan.sweep.metric} {best.value:.4g} (trial {best.trial.number})"
    )
  if failed:
    parts.append(f"{failed} failed")
  return ", ".join(parts)


if __name__ == "__main__":
  plan_lib.define_flags()
  console.setup()
  names = [field.name for field in dataclasses.fields(plan_lib.SweepOptions)]
  page = options_lib.page(__doc__, {"What to vary, and where": names})
  config.run_main(main, page=page)
