"""Trains predictors of winning tickets, by `fit_masker`; see design note 0018.

Dimensions: `N` networks of `P` weights.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from sne_jax import masker as masker_lib
from sne_jax.encoders import masker as masker_model
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.per_weight import program, training
from sne_jax.networks.checked import option
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo.tickets import pruning


class Tickets(NamedTuple):
  """First weights, and which of them to keep."""

  networks: Networks
  masks: np.ndarray  # bool [N, P]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskRecipe(training.Recipe):
  """All that decides what a masker becomes, beside networks and seed.

  The other fields are those of `learning.per_weight.training.Recipe`.

  Attributes:
    positive_weight: what the loss of a weight that is kept is times; 0: as many
      as there are pruned for each that is kept, so that both count the same.
  """

  KIND: ClassVar[str] = "a masker"
  DOES: ClassVar[str] = "predict masks"
  CHOSEN_BY: ClassVar[str] = "its loss on masks"

  positive_weight: float = option(0.0, least=0)


def fit_masker(
  train: Tickets,
  val: Tickets,
  *,
  seed: int = 0,
  workdir: Any = None,
  programs: dict[str, Any] | None = None,
  **recipe: Any,
) -> masker_lib.Masker:
  """Trains a predictor of masks: binary cross-entropy of every weight.

  Args:
    train: networks to train on, all of one architecture, and their masks.
    val: others, whose loss chooses the checkpoint.
    seed: of parameters, batches and dropout.
    workdir: folder for checkpoints and description, for `Masker.load`; what
      was killed is resumed there. None leaves nothing behind.
    programs: compiled programs to share with other calls; a dict that the
      caller holds and `fit_masker` fills.
    **recipe: the fields of `MaskRecipe`.

  Raises:
    TrainingDiverged: the loss has left the finite numbers.
    ValueError: networks of several architectures, masks of another one, options
      that do not fit, or `workdir` holds a training of others.
  """
  how = MaskRecipe(**recipe)
  spec = _checked(train, val, how)
  some = pruning.prunable(spec)
  density = float(train.masks[:, some].mean())
  description = program.describe(
    spec,
    training.stacked(train.networks),
    encoder=how.encoder,
    options=how.options,
    chunks=how.chunks,
    density=density,
  )
  weight = how.positive_weight or (1 - density) / density
  held_out = training.stacked(val.networks)

  def loss_of(logits, masks):
    each = optax.sigmoid_binary_cross_entropy(logits, masks)
    counts = jnp.where(masks > 0, weight, 1.0) * some[None]
    return (each * counts).sum() / counts.sum()

  def evaluate(model, params) -> float:
    logits = model.run(params, held_out)
    return float(loss_of(logits, val.masks.astype(np.float32)))

  task = training.Task(
    title=f"masks by {how.encoder}",
    file=masker_lib.FILE,
    description=description,
    key=weight,
    build=lambda told: program.Program(told, masker_model.build),
    make_loss=lambda model: loss_of,
    targets=train.masks,
    prepare=lambda rows: rows.astype(np.float32),
    evaluate=evaluate,
    digests={
      "masks": {
        part: training.digest(tickets.masks)
        for part, tickets in (("train", train), ("val", val))
      }
    },
  )
  fitted = training.fit(
    *(task, how, train.networks, val.networks),
    seed=seed,
    workdir=workdir,
    programs=programs,
  )
  if fitted is None:
    return masker_lib.Masker.load(workdir)
  params, results, model = fitted
  return masker_lib.Masker(description, params, results, model)


def _checked(train: Tickets, val: Tickets, how: MaskRecipe) -> NetworkSpec:
  """Returns the one architecture; raises unless all fit together."""
  spec = training.checked(train.networks, val.networks, how)
  for part, tickets in (("train", train), ("val", val)):
    pruning.check(spec, tickets.masks)
    if len(tickets.masks) != len(tickets.networks):
      raise ValueError(
        f"there are {len(tickets.networks)} {part} networks and"
        f" {len(tickets.masks)} masks; give one mask for each"
      )
  share = train.masks[:, pruning.prunable(spec)].mean()
  if not 0 < share < 1:
    raise ValueError(
      f"masks of the training keep {'all' if share else 'none'} of the weights,"
      " so there is nothing to predict; give masks that keep some"
    )
  return spec
