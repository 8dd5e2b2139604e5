r"""Runs an experiment: `python experiments/run.py --flagfile=FILE ...`.

A run makes or opens a zoo of trained networks, trains an encoder to predict a
property of them from their weights, once per seed, and reports on networks
that it has never seen. Begin with the one that takes a few minutes:

  python experiments/run.py --flagfile=experiments/flags/quickstart.flags

On networks of your own, with their labels in a table:

  python experiments/run.py --networks=FOLDER --table=labels.csv \
    --targets=accuracy --flagfile=experiments/flags/own.flags

Everything that a run is told is a flag, and a flag after the flagfile
overrides it; experiments/flags/ has one file per published number. --workdir
names the folder for everything that it writes:

  report.html            the results, to read
  report.md, figures/    the same as text and pictures
  results.json           the same, to compute with
  flags.txt, config.json the options, resolved; --flagfile=flags.txt repeats it
  environment.json       versions, device, revision of the code
  seed*/                 metrics.jsonl, tensorboard/, checkpoints/ of each seed

A run that was stopped, or killed, continues when the same command is given
again, and ends with the same numbers. --seeds=5 after --seeds=3 trains two
more. --variants=NAME compares variants of a run (listed in
experiments/comparisons/variants.py), --matrix=each encoders over several zoos,
trained on one and tested on all, --rates=1e-3,3e-3 --encoders=all encoders on
one zoo, each with the same search; those that are finished are not run again.
--pretrain=sane trains
without labels and probes the codes; --probes=all compares such encoders;
--sample_from=WORKDIR samples networks from what --pretrain has trained there,
or will train (a flagfile), and fine-tunes them. --edit=dilate trains an
editor of networks that are images.
"""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags, logging

from experiments.cli import console
from experiments.cli import options as options_lib
from experiments.comparisons import comparison as comparison_lib
from experiments.comparisons import contest, matrix, probing, variants
from experiments.tasks import (
  editing,
  members,
  outcome,
  own_networks,
  pretrain,
  sampling,
  zoos,
)
from experiments.tasks import property as property_lib
from sne_jax import digests
from sne_jax.atomic import write_atomically
from sne_jax.cli import claimed as claimed_lib
from sne_jax.cli import compiled, config, environment
from sne_jax.cli.reports import report
from sne_jax.learning.training.records import read_json

NOT_IDENTITY = (
  "RunOptions.workdir",
  "RunOptions.title",
  "RunOptions.seeds",
  "RunOptions.first_seed",
  "RunOptions.only",
  "RunOptions.references",
  "RunOptions.image_counts",
  "RunOptions.maps",
  "RunOptions.data_dir",
  "RunOptions.compilation_cache",
  "TrainOptions.keep",
  "TrainOptions.wandb",
)
"""Options that may change when a run continues."""


class RunFailed(RuntimeError):
  """No seed of a run has finished."""


def main(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Reads the flags and runs what they ask for.

  Raises:
    RunFailed: every training diverged; the report is written all the same.
    ValueError: options that are wrong or do not fit the work directory or the
      zoo, a damaged zoo, or another process at work in the same folder.
  """
  del argv
  options = own_networks.options_of(flag_values)
  options.warn_of_unused()
  words = (options.run.zoo, options.run.test_zoos or options.run.zoo)
  for text in words:
    zoos.check_there(*zoos.sources(text, options.run.data_dir))
  if options.run.sample_from:
    compiled.keep(options.run.compilation_cache)
    autoencoder = autoencoder_of(options.run.sample_from)
    with claimed(options) as workdir:
      task = sampling.prepared(options, autoencoder)
      claim(workdir, (options.run.zoo, autoencoder), task.checksums)
      sampling.run(task)
    print(f"The report is {workdir / 'report.md'}")  # noqa: T201
    return
  comparison = comparison_of(options.run)
  chosen = comparison.chosen(options) if comparison else {}
  compiled.keep(options.run.compilation_cache)
  with claimed(options) as workdir:
    if not comparison:
      outcomes = {"": run(options)}
    else:
      comparison.check(options)
      programs: dict[str, Any] = {}
      outcomes = run_all(chosen, programs)
      outcomes |= run_all(comparison.finals(options, outcomes), programs)
      page = comparison.page(options, outcomes)
      comparison_lib.write(workdir, options, outcomes, page)
  for label, results in outcomes.items():
    print_summary(label or options.run.title, results)
  where = workdir / "report.md"
  if not any(results["summary"] for results in outcomes.values()):
    failed = next(iter(outcomes.values()))["seeds"][0]["failed"]
    raise RunFailed(f"no seed has finished (see {where}): {failed}")
  print(f"The report is {where}")  # noqa: T201


def autoencoder_of(word: str) -> str:
  """Returns a work directory; a flagfile is run, or taken up, first.

  Raises:
    ValueError: the flagfile trains no autoencoder.
  """
  if not word.endswith(zoos.SUFFIX):
    return word
  options = options_lib.from_flags(options_lib.parsed(word))
  if not options.run.pretrain:
    raise ValueError(
      f"{word} trains no autoencoder; sample_from is a flagfile with"
      " --pretrain, or the work directory of such a run"
    )
  with claimed(options):
    run(options)
  return options.run.workdir


def comparison_of(
  run_options: options_lib.RunOptions,
) -> comparison_lib.Comparison | None:
  """Returns the comparison that is asked for; None: one run."""
  asked = (
    (run_options.matrix, matrix.COMPARISON),
    (run_options.rates, contest.COMPARISON),
    (run_options.probes, probing.COMPARISON),
    (run_options.variants, variants.COMPARISON),
  )
  return next((comparison for flag, comparison in asked if flag), None)


def run_all(
  chosen: dict[str, options_lib.Options], programs: dict[str, Any]
) -> dict[str, dict[str, Any]]:
  """Runs several configurations, and returns what each has given.

  Args:
    chosen: by label.
    programs: compiled programs that they share; see `run`.
  """
  outcomes = {}
  for place, (label, changed) in enumerate(chosen.items(), start=1):
    logging.info("%d of %d: %s", place, len(chosen), label)
    with claimed(changed):
      outcomes[label] = run(changed, programs)
  return outcomes


@contextlib.contextmanager
def claimed(options: options_lib.Options) -> Iterator[pathlib.Path]:
  """Makes the work directory the home of these options; see `claim_workdir`."""
  resolved = config.resolved(*options.groups())
  text = options_lib.to_flagfile(options)
  with claim_workdir(options.run.workdir, resolved, text) as workdir:
    machine = report.to_json(environment.environment())
    write_atomically(
      workdir / "environment.json", json.dumps(machine, indent=2) + "\n"
    )
    yield workdir


def claim_workdir(
  folder: str | os.PathLike, resolved: Mapping[str, Any], flagfile: str
) -> contextlib.AbstractContextManager[pathlib.Path]:
  """Makes a work directory the home of some options; see `claimed`."""
  return claimed_lib.claim_workdir(folder, resolved, flagfile, NOT_IDENTITY)


def run(
  options: options_lib.Options, programs: dict[str, Any] | None = None
) -> dict[str, Any]:
  """Runs all seeds of one configuration and writes its report.

  Seeds that are finished are taken as they are. A training that diverges is
  reported as such, and the others continue.

  Args:
    options: of the run, whose work directory is claimed.
    programs: compiled programs that trainings of equal shapes share; filled.

  Returns:
    What `results.json` holds.
  """
  workdir = pathlib.Path(options.run.workdir)
  began = time.monotonic()
  task, train, gathered = outcome, property_lib.train, members.gathered
  if options.run.pretrain:
    task, train = pretrain, pretrain.train
  if options.run.edit:
    task, train, gathered = editing, editing.train, editing.gathered
  data: Any = gathered(options)
  claim(workdir, data.names, members.fingerprint(data))
  seconds = {"loading the networks": time.monotonic() - began}
  sizes = ", ".join(f"{n} {part}" for part, n in data.sizes().items())
  logging.info("%s: networks: %s", options.run.title, sizes)
  programs = {} if programs is None else programs
  began = time.monotonic()
  seeds = train(options, data, workdir, programs)
  seconds["training and evaluating all seeds"] = time.monotonic() - began
  results = task.collect(options, data, seeds, seconds)
  task.write(workdir, options, data, seeds, results)
  return results


def claim(
  workdir: pathlib.Path, names: Sequence[str], now: Mapping[str, str]
) -> None:
  """Notes checksums of what a run is about; refuses if they have changed."""
  path = workdir / claimed_lib.DATA_FILE
  digests.check(workdir, (claimed_lib.DATA_FILE,))
  if not path.exists():
    write_atomically(path, json.dumps(now, indent=2) + "\n")
    return
  before = read_json(path)
  changed = [name for name in now if now[name] != before.get(name)]
  if changed:
    raise ValueError(
      f"{' or '.join(names)} has changed since the run in {workdir} began"
      f" ({', '.join(changed)}); choose another workdir, or restore the zoo"
    )


def print_summary(label: str, results: dict[str, Any]) -> None:
  """Prints the test metrics of a run beside its references."""
  lines = [label]
  for entry in results["seeds"]:
    if "failed" in entry:
      lines.append(f"  seed {entry['seed']} failed: {entry['failed']}")
  for name, row in results["summary"].items():
    beside = ", ".join(
      f"{reference} {parts['test'][name]['value']:.3g}"
      for reference, parts in results["references"].items()
      if name in parts.get("test", ())  # Too few images are left for some.
    )
    interval = f" [{row['low']:.3g}, {row['high']:.3g}]"
    lines.append(
      f"  test {name} {row['mean']:.3g}{interval if row['count'] > 1 else ''}"
      + (f"  ({beside})" if beside else "")
    )
  print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
  options_lib.define_flags()
  console.setup()
  config.run_main(main, page=options_lib.page(__doc__))
