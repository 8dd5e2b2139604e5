"""Options of a sweep, which are there without Optuna and Ray, too."""

import dataclasses
import importlib.util

from sne_jax.learning.evaluation import metrics
from sne_jax.networks.checked import Checked, option

SAMPLERS = ("grid", "random", "tpe")
PRUNERS = ("none", "median", "hyperband")

NEEDED = {"optuna": "optuna>=5,<6", "ray": "ray>=2.52,<3"}
"""Optional libraries, as pip installs them, in a clone or beside a wheel."""


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


def need(library: str, otherwise: str = "") -> None:
  """Checks that an optional library of a sweep is there.

  Args:
    library: one of `NEEDED`.
    otherwise: what can be done without it.

  Raises:
    ValueError: it is not installed; says how it is.
  """
  try:
    there = importlib.util.find_spec(library) is not None
  except ValueError:  # It is hidden: `sys.modules` holds None.
    there = False
  if not there:
    raise ValueError(
      f"a sweep needs {library.capitalize()}, which is not installed: pip"
      f" install '{NEEDED[library]}'{otherwise}"
    )
