"""From the flags of a sweep to its trials, all checked before any starts."""

import dataclasses
import pathlib
from typing import Any

import optuna
from absl import flags

from sne_jax.cli import config, encoder_options
from sne_jax.cli.sweeping import space as space_lib
from sne_jax.cli.sweeping.options import SweepOptions
from sne_jax.cli.sweeping.subject import Run, Subject
from sne_jax.encoders import table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """A sweep that can be run.

  Attributes:
    subject: what is swept.
    sweep: options of the sweep.
    space: what is varied.
    planned: of every trial, the values of the swept options; empty where they
      depend on the results of others (`tpe`).
    base: options of a run; those that are swept have some value.
  """

  subject: Subject
  sweep: SweepOptions
  space: space_lib.Space
  planned: tuple[dict[str, Any], ...]
  base: Run

  @property
  def workdir(self) -> pathlib.Path:
    """The folder of the sweep."""
    return pathlib.Path(self.base.workdir)

  def folder(self, number: int) -> pathlib.Path:
    """Returns the folder of a trial."""
    return self.workdir / "trials" / f"{number:04d}"

  def options(self, number: int, changes: dict[str, Any]) -> Run:
    """Returns the options of a trial, by the names of flags.

    Raises:
      ValueError: options that do not go together; names the trial.
    """
    title = f"{self.base.title}: trial {number}"
    try:
      return self.base.of_trial(self.folder(number), title, changes)
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
      steps = self.base.num_steps
      return optuna.pruners.HyperbandPruner(
        min_resource=min(self.base.eval_every, steps), max_resource=steps
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
    for name, (cls, field, _) in self.subject.fields().items():
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
    return config.to_flagfile(*groups, prefixes=self.subject.prefixes)

  def run_flags(self, run: Run) -> str:
    """Returns the text of a flagfile that gives one run."""
    return config.to_flagfile(*run.groups(), prefixes=self.subject.prefixes)


def make(subject: Subject, flag_values: flags.FlagValues = flags.FLAGS) -> Plan:
  """Returns the sweep that the flags ask for.

  Args:
    subject: what is swept.
    flag_values: the flags of the sweep and of a run.

  Raises:
    ValueError: options that cannot be, or that do not go together in some
      trial, which the message names.
  """
  sweep = config.from_flags(SweepOptions, flag_values=flag_values)
  for name in subject.refused:
    if flag_values[name].value:
      raise ValueError(
        f"{name} is {flag_values[name].value!r}; a trial is one run, and no"
        " comparison of several: leave it empty"
      )
  asked = "grid" if sweep.grid else "random"
  kinds = {name: kind for name, (_, _, kind) in subject.fields().items()}
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
  base = subject.options_of(flag_values)
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
  plan = Plan(
    subject=subject,
    sweep=sweep,
    space=space,
    planned=tuple(planned),
    base=base,
  )
  for number, changes in enumerate(planned):
    plan.options(number, changes)  # Raises.
  return plan


def _encoders(base: Run, space: space_lib.Space) -> tuple[str, ...]:
  """Returns the encoders of the base and those that the trials choose."""
  names = [*base.encoders_in_use()]
  for name in ("encoder", "pretrain"):
    names += getattr(space.get(name), "choices", ())
  return tuple(dict.fromkeys(n for n in names if n in table.ENCODERS))
