"""Runs an experiment: `python experiments/run.py --flagfile=FILE [--flag=...]`.

Everything that a run is told is a flag, everything that it writes goes to
--workdir, and a run that was stopped continues when it is started again. A flag
behind the flagfile overrides it. `experiments/flags/` has one file per
published number; `quickstart.flags` is the place to begin.
"""

import pathlib
from typing import Any

from experiments import config
from experiments import options as options_lib
from experiments.tasks import members, outcome, variants
from experiments.tasks.property import Trainer
from sne_jax.learning import checkpoint, logging

NOT_IDENTITY = (
  "RunOptions.workdir",
  "RunOptions.title",
  "RunOptions.seeds",
  "RunOptions.only",
  "RunOptions.references",
)
"""Options that may change when a run continues."""


def main(argv: list[str]) -> None:
  """Reads the flags and runs what they ask for."""
  del argv
  parts = [
    config.from_flags(cls, prefix=options_lib.PREFIXES.get(cls, ""))
    for cls in options_lib.CLASSES
  ]
  options = options_lib.of(*parts)
  if not options.run.variants:
    print_summary(options, run(options))
    return
  workdir = claim(options)
  outcomes = {
    label: run(changed) for label, changed in variants.chosen(options).items()
  }
  variants.write(workdir, options, outcomes)
  for label, results in outcomes.items():
    print_summary(options, results, label)


def claim(options: options_lib.Options) -> pathlib.Path:
  """Makes the work directory the home of these options, and returns it."""
  workdir = pathlib.Path(options.run.workdir)
  resolved = config.resolved(*options.groups())
  checkpoint.claim_workdir(workdir, resolved, ignore=NOT_IDENTITY)
  text = config.to_flagfile(*options.groups(), prefixes=options_lib.PREFIXES)
  logging.write_atomically(workdir / "flags.txt", text)
  return workdir


def run(options: options_lib.Options) -> dict[str, Any]:
  """Runs all seeds of one configuration and writes its report."""
  workdir = claim(options)
  watch = outcome.Stopwatch()
  data = members.load(options)
  watch.lap("making or opening the zoo")
  trainer = Trainer(options, data)
  first = options.run.first_seed
  seeds = [
    trainer.run(workdir / f"seed{seed}", seed)
    for seed in range(first, first + options.run.seeds)
  ]
  watch.lap("training and evaluating all seeds")
  results = outcome.collect(options, data, seeds, watch.seconds)
  results["summary"] = outcome.summary(results)
  outcome.write(workdir, options, data, seeds, results)
  return results


def print_summary(options, results: dict[str, Any], label: str = "") -> None:
  """Prints the test metrics of a run beside its references."""
  where = pathlib.Path(options.run.workdir)
  lines = [f"{label or options.run.title} ({where / 'report.md'})"]
  for name, row in results["summary"].items():
    beside = ", ".join(
      f"{reference} {found['test'][name]['value']:.3g}"
      for reference, found in results["references"].items()
    )
    interval = f"[{row['low']:.3g}, {row['high']:.3g}]"
    lines.append(
      f"  test {name} {row['mean']:.3g} {interval if row['count'] > 1 else ''}"
      + (f"  ({beside})" if beside else "")
    )
  print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
  config.define_flags(*options_lib.CLASSES, prefixes=options_lib.PREFIXES)
  config.run_main(main)
