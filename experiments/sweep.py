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

from absl import flags

from experiments.cli import console
from experiments.cli import options as options_lib
from experiments.sweeping import runs
from sne_jax.cli import config
from sne_jax.cli.sweeping import options as sweep_options
from sne_jax.cli.sweeping.subject import Programs


def main(
  argv: list[str],
  flag_values: flags.FlagValues = flags.FLAGS,
  programs: Programs | None = None,
) -> int:
  """Reads the flags and runs the trials that they ask for.

  Raises:
    ValueError, RayFailed: see `sweep.run`; Optuna is missing.
  """
  del argv
  sweep_options.need("optuna")
  from sne_jax.cli.sweeping import sweep  # It needs Optuna.

  return sweep.run(runs.SUBJECT, flag_values, programs)


if __name__ == "__main__":
  runs.define_flags()
  console.setup()
  swept = dataclasses.fields(sweep_options.SweepOptions)
  topics = {"What to vary, and where": [field.name for field in swept]}
  config.run_main(main, page=options_lib.page(__doc__, topics))
