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

import dataclasses
import time

from absl import flags, logging

from experiments import run
from experiments.cli import console
from experiments.cli import options as options_lib
from experiments.sweeping import executors, search, summary, trials
from experiments.sweeping import plan as plan_lib
from experiments.sweeping.plan import Plan
from sne_jax import errors
from sne_jax.cli import config
from sne_jax.zoo.store import lock

PATIENCE = 60.0
"""Seconds that trials of a sweep that was killed are given to end."""


def main(
  argv: list[str],
  flag_values: flags.FlagValues = flags.FLAGS,
  programs: search.Programs | None = None,
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
  with run.claim_workdir(plan.workdir, plan.identity(), plan.flagfile()):
    study = trials.study_of(plan)
    failures: dict[int, str] = {}
    if not all(trial.state.is_finished() for trial in study.trials):
      wait_for_orphans(plan)
      with context as executor:
        programs = programs or search.Programs()
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


if __name__ == "__main__":
  plan_lib.define_flags()
  console.setup()
  names = [field.name for field in dataclasses.fields(plan_lib.SweepOptions)]
  page = options_lib.page(__doc__, {"What to vary, and where": names})
  config.run_main(main, page=page)
