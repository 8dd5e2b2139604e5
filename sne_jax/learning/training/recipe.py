"""What a training is told, and what it makes of that before the first step.

Dimensions: `N` networks, `T` targets.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sne_jax.encoders import table
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.data.pipeline import DataOptions
from sne_jax.learning.evaluation import classes
from sne_jax.learning.objectives import invariance
from sne_jax.learning.objectives.invariance import InvarianceOptions
from sne_jax.learning.objectives.model import HeadOptions
from sne_jax.learning.selfsup import pretraining
from sne_jax.learning.training import loop as training
from sne_jax.learning.training import optimizers, parallel, program
from sne_jax.learning.training.loop import TrainOptions
from sne_jax.learning.training.optimizers import OptimizerOptions
from sne_jax.networks import chunking, phases
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.chunking import ChunkOptions

MONITORS = ("loss", "kendall_tau")
"""What is measured on the validation part while training on numbers."""

LOSSES = ("mse", "bce", classes.LOSS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
  """All that decides what a training gives, beside networks and seed.

  Its fields are arguments of `sne_jax.fit`.
  """

  encoder: str = "sne"
  options: Any = None
  chunks: ChunkOptions = ChunkOptions()
  head: HeadOptions = HeadOptions()
  loss: str = option("mse", choices=LOSSES)
  data: DataOptions = DataOptions()
  optimizer: OptimizerOptions = OptimizerOptions()
  training: TrainOptions = TrainOptions()
  invariance: InvarianceOptions = InvarianceOptions()
  init_from: str = ""
  devices: int = 0

  def __post_init__(self):
    super().__post_init__()
    options = table.options_for(self.encoder, self.options)
    object.__setattr__(self, "options", options)
    known = classes.MONITORS if self.loss == classes.LOSS else MONITORS
    if self.training.monitor not in known:
      raise ValueError(
        f"monitor is {self.training.monitor!r}, and loss is {self.loss};"
        f" choose {' or '.join(known)}"
      )
    if self.head.collapsed and self.loss == classes.LOSS:
      raise ValueError(
        f"head.collapsed is on, and loss is {self.loss}; it is for numbers"
      )
    rate = self.optimizer.probe_rate
    if rate and not table.row(self.encoder).has_probes(self.options):
      raise ValueError(
        f"probe_rate is {rate:g}, but the encoder {self.encoder} with these"
        " options has no learned inputs; leave it 0"
      )
    if self.init_from and self.encoder != "sne":
      raise ValueError(
        f"init_from is {self.init_from!r}, but the encoder is {self.encoder};"
        " it is for sne"
      )


class Compiled(NamedTuple):
  """What trainings of equal shapes share."""

  model: program.Program
  init: Any
  update: Any
  mesh: Any


def describe(
  train: Networks, recipe: Recipe, seeds: Sequence[int] = (0,)
) -> dict[str, Any]:
  """Returns what `model.json` holds: all that a `Predictor` must know.

  Args:
    train: the training networks; classes as numbers.
    recipe: of the training.
    seeds: of the trainings; each begins with its own pretraining, if any.

  Raises:
    ValueError: the encoder does not read the networks, or not as those that
      `init_from` was pretrained on.
  """
  pairs, folding = train.pairs(), {}
  if recipe.data.fold_phases:
    folding = {"phases": phases.measure(train.specs)}
    pairs = [(spec, phases.fold(spec, weights)) for spec, weights in pairs]
  measured = table.measure(recipe.encoder, recipe.options, pairs)
  spread = train.targets.std(axis=0)
  scaling = {
    "target_mean": train.targets.mean(axis=0).tolist(),
    "target_spread": np.where(spread > 0, spread, 1.0).tolist(),
  }
  used = [train.specs[number] for number in sorted(set(train.numbers))]
  description = {
    "encoder": recipe.encoder,
    "encoder_options": dataclasses.asdict(recipe.options),
    "chunk_options": dataclasses.asdict(chunking.resolved(recipe.chunks, used)),
    **measured,
    **folding,
    "head": {
      "hidden_width": recipe.head.hidden_width,
      "dropout": recipe.head.dropout,
    },
    **(_collapsed(train, recipe.head) if recipe.head.collapsed else {}),
    "targets": list(train.labels),
    "loss": recipe.loss,
    **({"classes": list(train.classes)} if train.classes else scaling),
    "max_level": max(spec.num_levels for spec in used) - 1,
  }
  if recipe.init_from:
    description |= pretraining.measured(recipe.init_from, seeds, description)
  return description


def _collapsed(train: Networks, head: HeadOptions) -> dict[str, Any]:
  """Returns the commonest value of every target, and how near it counts.

  Raises:
    ValueError: no two networks have the same.
  """
  values = []
  for name, column in zip(train.labels, train.targets.T, strict=True):
    each, counts = np.unique(column, return_counts=True)
    if counts.max() < 2:
      raise ValueError(
        "the head is to predict which networks have collapsed, but no two of"
        f" the {len(column)} training networks have the same {name}; leave"
        " head.collapsed (--head_collapsed) out"
      )
    values.append(float(each[counts.argmax()]))
  return {"collapsed": {"values": values, "within": head.collapsed_within}}


def collapsed_note(train: Networks, description: dict[str, Any]) -> list[str]:
  """Says that the head predicts apart which networks have collapsed."""
  if "collapsed" not in description:
    return []
  values, within = (description["collapsed"][k] for k in ("values", "within"))
  gone = np.abs(train.targets - np.array(values)) <= within
  return [
    "**The head predicts apart which networks have collapsed**: their predicted"
    f" {name} is exactly {value:g}, so they are tied, and"
    f" {'exactly' if not within else f'within {within:g} of'} that is the"
    f" {name} of {count} of {len(train)} training networks"
    for name, value, count in zip(
      train.labels, values, gone.sum(axis=0), strict=True
    )
  ]


def checked(train, val, tests, recipe):
  """Returns the parts, classes as numbers; refuses what nobody can learn."""
  for part, networks in {"train": train, "val": val, **tests}.items():
    if not isinstance(networks, Networks):
      raise ValueError(
        f"the {part} networks are {type(networks).__name__}; make them by"
        " Networks.from_files or Networks.of, with targets"
      )
    if not len(networks):
      raise ValueError(f"there are no {part} networks; give at least one")
    if not networks.targets.shape[1]:
      raise ValueError(
        f"the {part} networks have no targets; name at least one"
      )
    if networks.labels != train.labels:
      raise ValueError(
        f"the targets of {part} are {', '.join(networks.labels)}, and those of"
        f" train {', '.join(train.labels)}; give all parts the same"
      )
  if recipe.loss == classes.LOSS:
    names = train.classes
    if not names:
      names = classes.names_of(train.class_names())
    each = lambda n: n.classified(names)
    return each(train), each(val), {p: each(n) for p, n in tests.items()}
  if train.targets.dtype.kind == "U":
    raise ValueError(
      f"the target {train.labels[0]!r} is text (first:"
      f" {str(train.targets[0, 0])!r}), and loss is {recipe.loss}; use"
      f" loss={classes.LOSS!r}, or name a column of numbers"
    )
  if train.classes:
    raise ValueError(
      f"the target {train.labels[0]!r} is of classes, and loss is"
      f" {recipe.loss}; use loss={classes.LOSS!r}"
    )
  return train, val, tests


def scaled_targets(networks: Networks, description, mixes: bool) -> Networks:
  """Returns targets as the loss takes them.

  Args:
    networks: to train on.
    description: of `describe`.
    mixes: whether targets are mixed: of classes, as probabilities.
  """
  if networks.classes:
    if not mixes:
      return networks
    certain = classes.certain(networks.targets, len(networks.classes))
    return dataclasses.replace(networks, targets=certain)
  if description["loss"] == "bce":
    low, high = networks.targets.min(), networks.targets.max()
    if low < 0 or high > 1:
      raise ValueError(
        f"loss bce needs targets in [0, 1], but {description['targets']} go"
        f" from {low:g} to {high:g}; use loss mse"
      )
    return networks
  mean = np.asarray(description["target_mean"])[None, :]
  spread = np.asarray(description["target_spread"])[None, :]
  return dataclasses.replace(
    networks, targets=(networks.targets - mean) / spread
  )


def _collapsing(description) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns what networks collapse to, as the loss takes targets."""
  if "collapsed" not in description:
    return None
  values = np.array(description["collapsed"]["values"])
  within = np.full(len(values), description["collapsed"]["within"])
  if description["loss"] == "bce":
    return values, within
  spread = np.array(description["target_spread"])
  return (values - description["target_mean"]) / spread, within / spread


def key(description, recipe: Recipe, train: Networks) -> str:
  """Returns what tells programs apart: all that they depend on."""
  steps, data = recipe.training.num_steps, recipe.data
  optimizer = optimizers.constants(recipe.optimizer, steps)
  how = dataclasses.asdict(recipe.invariance)
  first = train.specs[0].digest
  key = [description, optimizer, data.augment_mixup, how, recipe.devices, first]
  return json.dumps(key, sort_keys=True)


def compiled(description, recipe: Recipe, train: Networks) -> Compiled:
  """Builds model, loss and update."""
  model, first = program.Program(description), train.specs[0]
  task = recipe.loss
  if train.classes and recipe.data.augment_mixup != "none":
    task = "soft_classes"  # A mixed network is between classes.
  mesh = parallel.make_mesh(recipe.devices or None)
  loss = invariance.make_loss(
    model.net, task, recipe.invariance, _collapsing(description)
  )
  update = training.make_update_fn(
    loss,
    optimizers.make_optimizer(recipe.optimizer, recipe.training.num_steps),
    ema_decay=recipe.optimizer.ema_decay,
    mesh=mesh,
  )
  init = functools.partial(program.init_params, model.net, model.encoder, first)
  return Compiled(model, jax.jit(init), update, mesh)
