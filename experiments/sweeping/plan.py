"""From the flags of a sweep to its trials, all checked before any starts."""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from experiments import config
from experiments import options as options_lib
from experiments.sweeping import space as space_lib
from sne_jax.learning import metrics
from sne_jax.zoo import inr

NOT_SWEPT = frozenset({
  *("workdir", "title", "variants", "only", "references"),
  *("compilation_cache", "seeds", "first_seed"),
  *("matrix", "encoders", "rates", "search_share"),
  *("image_counts", "maps", "data_dir"),
  *("zoo", "test_zoos", "snapshots", "targets", "split", "split_seed"),
  *("train_members", "validation_members", "test_members", "target_scale"),
})  # fmt: skip
"""Options that say where a run is, or what it is judged on (as do those of
the zoo); a sweep compares trainings on one task."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions:
  """What to vary, and on which machines.

  Attributes:
    grid: options and lists of their values, every combination of which is a
      trial: learning_rate=1e-3,3e-3;head_width=32,64. In a shell, put it in
      quotes.
    random: options to draw anew for every trial, from a list or a range:
      learning_rate=log:1e-4:1e-2;dropout=uniform:0:0.3;encoder=sne,nft.
    num_trials: of a random search. Ask for more later, and those that are
      finished are kept.
    sweep_seed: of a random search; the same seed draws the same trials.
    metric: what the trials are ranked by, on the validation networks; its name
      in the reports of the trials, such as kendall_tau, or, where there are
      several targets, frequency kendall_tau.
    address: local starts Ray on this machine; auto, or host:port, uses a Ray
      cluster that is there already, which must find this folder, the zoo and
      workdir under the same paths on every machine. none: no Ray; trials run
      one after another on the whole of this machine.
    cpus_per_trial: cores for each trial, which decides how many run at once.
    gpus_per_trial: GPUs for each trial; 0.5 lets two share one. 0 trains on
      the CPU.
    retries: how often a trial that has failed is started again.
  """

  grid: str = ""
  random: str = ""
  num_trials: int = 16
  sweep_seed: int = 0
  metric: str = "kendall_tau"
  address: str = "local"
  cpus_per_trial: int = 1
  gpus_per_trial: float = 0.0
  retries: int = 1

  def __post_init__(self):
    """Raises `ValueError` for a value out of range."""
    if bool(self.grid) == bool(self.random):
      raise ValueError(
        f"grid is {self.grid!r} and random is {self.random!r}; give one of"
        " them, such as --grid='learning_rate=1e-3,3e-3'"
      )
    least = {"num_trials": 1, "sweep_seed": 0, "cpus_per_trial": 1}
    least |= {"gpus_per_trial": 0, "retries": 0}
    for name, bound in least.items():
      if not getattr(self, name) >= bound:
        raise ValueError(
          f"{name} is {getattr(self, name)}; must be at least {bound}"
        )
    if self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
      raise ValueError(
        f"gpus_per_trial is {self.gpus_per_trial}; give a share of one GPU, or"
        " a whole number of them"
      )
    if not self.address:
      raise ValueError("address is empty; give local, auto, host:port or none")
    if not set(self.metric.split()[-1:]) & set(metrics.HIGHER_IS_BETTER):
      raise ValueError(
        f"metric is {self.metric!r}; it must be, or end in, one of"
        f" {', '.join(metrics.HIGHER_IS_BETTER)}"
      )

  @property
  def higher_is_better(self) -> bool:
    """Whether the metric grows as predictions get better."""
    return metrics.HIGHER_IS_BETTER[self.metric.split()[-1]]


@dataclasses.dataclass(frozen=True)
class Trial:
  """One run of `run.py`, in a folder of its own."""

  number: int
  changes: dict[str, Any]  # The swept options.
  options: options_lib.Options
  folder: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Plan:
  """A sweep that can be run."""

  sweep: SweepOptions
  space: space_lib.Space
  trials: tuple[Trial, ...]
  workdir: pathlib.Path
  title: str

  def identity(self) -> dict[str, Any]:
    """Returns what makes two sweeps the same, for `config.json`.

    The number of trials is not part of it, nor is what is varied: the values
    that those options have outside the sweep decide nothing.
    """
    resolved = config.resolved(*self.trials[0].options.groups())
    for name, (cls, field, _) in swept_fields().items():
      if name in self.space:
        resolved[cls.__name__].pop(field, None)
    sweep: dict[str, Any] = {"space": space_lib.describe(self.space)}
    if self.sweep.random:
      sweep |= {"random": True, "sweep_seed": self.sweep.sweep_seed}
    return resolved | {"SweepOptions": sweep}

  def flagfile(self) -> str:
    """Returns the text of a flagfile that gives this sweep again."""
    base = self.trials[0].options.replaced(
      workdir=str(self.workdir), title=self.title
    )
    return config.to_flagfile(
      self.sweep, *base.groups(), prefixes=options_lib.PREFIXES
    )


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags of a sweep, and all those of a run."""
  config.define_flags(SweepOptions, flag_values=flag_values)
  options_lib.define_flags(flag_values)


def make(flag_values: flags.FlagValues = flags.FLAGS) -> Plan:
  """Returns the sweep that the flags ask for.

  Raises:
    ValueError: options that cannot be, or that do not go together in some
      trial, which the message names.
  """
  sweep = config.from_flags(SweepOptions, flag_values=flag_values)
  workdir = pathlib.Path(str(flag_values["workdir"].value))
  title = str(flag_values["title"].value)
  for name in ("variants", "only", "matrix", "rates"):
    if flag_values[name].value:
      raise ValueError(
        f"{name} is {flag_values[name].value!r}; a trial is one run, and no"
        " comparison (--variants, --matrix, --rates): leave it empty"
      )
  asked = "grid" if sweep.grid else "random"
  kinds = {name: kind for name, (_, _, kind) in swept_fields().items()}
  space = space_lib.parse(asked, sweep.grid or sweep.random, flag_values, kinds)
  if sweep.grid:
    found = space_lib.grid(space)
  else:
    found = [
      space_lib.draw(space, sweep.sweep_seed, number)
      for number in range(sweep.num_trials)
    ]
  trials = []
  for number, changes in enumerate(found):
    folder = workdir / "trials" / f"{number:04d}"
    own = {"workdir": str(folder), "title": f"{title}: trial {number}"}
    own |= {"references": False}
    try:
      options = options_lib.from_flags(flag_values, changes | own)
    except ValueError as error:
      raise ValueError(
        f"trial {number} ({space_lib.show_all(changes)}): {error}"
      ) from error
    trials.append(Trial(number, changes, options, folder))
  return Plan(sweep, space, tuple(trials), workdir, title)


def swept_fields() -> dict[str, tuple[type, str, type]]:
  """Returns class, name there and type of what can be swept, by name."""
  return {
    name: found
    for name, found in options_lib.fields().items()
    if name not in NOT_SWEPT and found[0] is not inr.InrZooOptions
  }
