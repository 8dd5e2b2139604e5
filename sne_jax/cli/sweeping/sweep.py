"""A whole sweep: from its flags to its report."""

import time

from absl import flags, logging

from sne_jax import errors
from sne_jax.cli import claimed
from sne_jax.cli.sweeping import executors, search, summary, trials
from sne_jax.cli.sweeping import plan as plan_lib
from sne_jax.cli.sweeping.plan import Plan
from sne_jax.cli.sweeping.subject import Programs, Subject
from sne_jax.zoo.store import lock

PATIENCE = 60.0
"""Seconds that trials of a sweep that was killed are given to end."""


def run(
  subject: Subject,
  flag_values: flags.FlagValues = flags.FLAGS,
  programs: Programs | None = None,
) -> int:
  """Reads the flags and runs the trials that they ask for.

  Args:
    subject: what is swept.
    flag_values: of the sweep, and of a run.
    programs: those in the place of the subject's.

  Returns:
    0, or 1 where trials have failed; the report is written all the same.

  Raises:
    ValueError: options that are wrong, or do not fit the work directory or the
      zoo; Ray is missing; another process is at work in the folder.
    RayFailed: Ray cannot be started or reached.
  """
  plan = plan_lib.make(subject, flag_values)
  context = executors.choose(plan.sweep)
  identity, flagfile = plan.identity(), plan.flagfile()
  with claimed.claim_workdir(plan.workdir, identity, flagfile, subject.free):
    study = trials.study_of(plan)
    failures: dict[int, str] = {}
    if not all(trial.state.is_finished() for trial in study.trials):
      wait_for_orphans(plan)
      with context as executor:
        programs = programs or subject.programs
        search.prepare(plan, executor, programs)
        failures = search.Search(plan, study, executor, programs).run()
    outcomes = [
      trials.read(plan, number, failures.get(number, ""))
      for number in range(len(plan.planned))
    ]
    print(summary.write(plan, study, outcomes))
  print(f"The report is {plan.workdir / 'report.md'}")
  return 1 if any(outcome.failed for outcome in outcomes) else 0


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
