"""From the flags of a sweep to its trials, all checked before any starts."""

import dataclasses
import pathlib
from typing import Any

import optuna
from absl import flags

from experiments.cli import options as options_lib
from experiments.sweeping import space as space_lib
from experiments.tasks import own_networks
from sne_jax.cli import config, encoder_options
from sne_jax.encoders import table
from sne_jax.learning.evaluation import metrics
from sne_jax.networks.checked import Checked, option
from sne_jax.zoo.inrs import generate

SWEPT_OF_RUN = (
  *("encoder", "head_width", "head_dropout", "loss", "train_share"),
  *("init_from", "pretrain", "devices", "head_collapsed"),
  "head_collapsed_within",
)
"""Options of `RunOptions` that can be swept. The others say where a run is, or
what it is judged on, as those of the zoo do; a sweep compares trainings on one
task."""

SAMPLERS = ("grid", "random", "tpe")
PRUNERS = ("none", "median", "hyperband")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions(Checked):
  """What to vary, and on which machines.

  Attributes:
    grid: options and lists of their values, every combination of which is a
      trial: learning_rate=1e-3,3e-3;head_width=32,64. In a shell, put it in
      quotes.
    random: options to draw anew for every trial, from a list or a range:
      learning_rate=log:1e-4:1e-2;dropout=uniform:0:0.3;encoder=sne,nft.
    sampler: how values are chosen. grid: every combination of lists; random:
      each trial by itself; tpe: by what the finished trials have given (Optuna,
      tree-structured Parzen estimators). Empty: grid for --grid, random for
      --random.
    pruner: whether trials whose first seed falls behind are stopped early, by
      the validation metric while they train (by the validation loss, where
      training does not measure the metric). median: worse than half of the
      others at the same step; hyperband: successive halving (both of Optuna);
      none: all are trained to their end.
    num_trials: of a search that is no grid. Ask for more later, and those that
      are finished are kept.
    sweep_seed: of a search that is no grid; the same seed of a random search
      draws the same trials.
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
  sampler: str = option("", choices=("", *SAMPLERS))
  pruner: str = option("none", choices=PRUNERS)
  num_trials: int = option(16, least=1)
  sweep_seed: int = option(0, least=0)
  metric: str = "kendall_tau"
  address: str = "local"
  cpus_per_trial: int = option(1, least=1)
  gpus_per_trial: float = option(0.0, least=0)
  retries: int = option(1, least=0)

  def __post_init__(self):
    super().__post_init__()
    if bool(self.grid) == bool(self.random):
      raise ValueError(
        f"grid is {self.grid!r} and random is {self.random!r}; give one of"
        " them, such as --grid='learning_rate=1e-3,3e-3'"
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

  @property
  def chosen_sampler(self) -> str:
    """`sampler`, or what it stands for where it is empty."""
    return self.sampler or ("grid" if self.grid else "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """A sweep that can be run.

  Attributes:
    sweep: options of the sweep.
    space: what is varied.
    planned: of every trial, the values of the swept options; empty where they
      depend on the results of others (`tpe`).
    base: options of a run; those that are swept have some value.
  """

  sweep: SweepOptions
  space: space_lib.Space
  planned: tuple[dict[str, Any], ...]
  base: options_lib.Options

  @property
  def workdir(self) -> pathlib.Path:
    """The folder of the sweep."""
    return pathlib.Path(self.base.run.workdir)

  def folder(self, number: int) -> pathlib.Path:
    """Returns the folder of a trial."""
    return self.workdir / "trials" / f"{number:04d}"

  def options(
    self, number: int, changes: dict[str, Any]
  ) -> options_lib.Options:
    """Returns the options of a trial, by the names of flags.

    Raises:
      ValueError: options that do not go together; names the trial.
    """
    mine = {"title": f"{self.base.run.title}: trial {number}"}
    mine |= {"workdir": str(self.folder(number)), "references": False}
    try:
      return self.base.replaced(**changes, **mine)
    except ValueError as error:
      raise ValueError(
        f"trial {number} ({space_lib.show_all(changes)}): {error}"
      ) from error

  def sampler(self, number: int) -> optuna.samplers.BaseSampler:
    """Returns what chooses the values of a trial that are not planned.

    Seeded by the trial: one seed for all would repeat itself in a sweep that
    is resumed.
    """
    seed = space_lib.seed_of(self.sweep.sweep_seed, number)
    return optuna.samplers.TPESampler(seed=seed)

  def pruner(self) -> optuna.pruners.BasePruner:
    """Returns what stops trials early; its resource is a training step."""
    if self.sweep.pruner == "hyperband":
      train = self.base.train
      return optuna.pruners.HyperbandPruner(
        min_resource=min(train.eval_every, train.num_steps),
        max_resource=train.num_steps,
      )
    if self.sweep.pruner == "median":
      return optuna.pruners.MedianPruner()
    return optuna.pruners.NopPruner()

  @property
  def encoders(self) -> tuple[str, ...]:
    """Names of the encoders that take part in any trial."""
    return _encoders(self.base, self.space)

  def identity(self) -> dict[str, Any]:
    """Returns what makes two sweeps the same, for `config.json`.

    The number of trials is not part of it, nor is what is varied: the values
    that those options have outside the sweep decide nothing.
    """
    resolved = config.resolved(*self.base.groups(self.encoders))
    for name, (cls, field, _) in swept_fields().items():
      if name in self.space:
        resolved[cls.__name__].pop(field, None)
    sweep: dict[str, Any] = {"space": space_lib.describe(self.space)}
    sweep["sampler"] = self.sweep.chosen_sampler
    if sweep["sampler"] != "grid":
      sweep["sweep_seed"] = self.sweep.sweep_seed
    return resolved | {"SweepOptions": sweep}

  def flagfile(self) -> str:
    """Returns the text of a flagfile that gives this sweep again."""
    groups = (self.sweep, *self.base.groups(self.encoders))
    return config.to_flagfile(*groups, prefixes=options_lib.PREFIXES)


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
  for name in ("variants", "matrix", "rates", "probes", "sample_from"):
    if flag_values[name].value:
      raise ValueError(
        f"{name} is {flag_values[name].value!r}; a trial is one run, and no"
        " comparison of several: leave it empty"
      )
  asked = "grid" if sweep.grid else "random"
  kinds = {name: kind for name, (_, _, kind) in swept_fields().items()}
  text = sweep.grid or sweep.random
  space = space_lib.parse(asked, text, kinds, flag_values)
  draw = lambda number: space_lib.draw(space, sweep.sweep_seed, number)
  if sweep.chosen_sampler == "grid":
    planned = space_lib.grid(space)
  elif sweep.chosen_sampler == "random":
    planned = [draw(number) for number in range(sweep.num_trials)]
  else:
    planned = [{}] * sweep.num_trials
  # Options that are swept need not fit the others before they are.
  for name, value in planned[0].items():
    if name in flag_values:
      flag_values[name].value = value
  base = own_networks.options_of(flag_values)
  encoders = _encoders(base, space)
  for name in space:
    having = encoder_options.owners(name)
    if having and not set(having) & set(encoders):
      raise ValueError(
        f"{asked}: {name} is an option of {' and '.join(having)}, and the"
        f" encoder is {', '.join(encoders)}; set --encoder={having[0]}, or"
        " leave it out"
      )
  base.warn_of_unused(encoders)
  plan = Plan(sweep=sweep, space=space, planned=tuple(planned), base=base)
  for number, changes in enumerate(planned):
    plan.options(number, changes)  # Raises.
  return plan


def _encoders(
  base: options_lib.Options, space: space_lib.Space
) -> tuple[str, ...]:
  """Returns the encoders of the base and those that the trials choose."""
  names = [*base.run.encoders_in_use()]
  for name in ("encoder", "pretrain"):
    names += getattr(space.get(name), "choices", ())
  return tuple(dict.fromkeys(n for n in names if n in table.ENCODERS))


def swept_fields() -> dict[str, tuple[type, str, type]]:
  """Returns class, field and type of every option that can be swept, by name.

  The name is that of its flag, or, of an option of an encoder, that of
  `--encoder_option`.
  """
  return {
    name: field
    for name, field in options_lib.fields().items()
    if field[0] is not generate.InrZooOptions
    and (field[0] is not options_lib.RunOptions or name in SWEPT_OF_RUN)
  }
