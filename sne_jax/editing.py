"""Trains editors of networks that are images, by `fit_editor`.

Dimensions: `N` networks of `P` weights, images of `C` channels, `H` by `W`.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from sne_jax import editor as editor_lib
from sne_jax.encoders import editor as editor_model
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.editing import program, rendering
from sne_jax.learning.per_weight import program as per_weight
from sne_jax.learning.per_weight import training
from sne_jax.learning.per_weight.training import stacked
from sne_jax.networks.checked import option
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo.inrs import image_zoo


class Examples(NamedTuple):
  """Networks, and what each is to show when it is edited."""

  networks: Networks
  images: np.ndarray  # uint8 [N, C, H, W]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditRecipe(training.Recipe):
  """All that decides what an editor becomes, beside networks and seed.

  The other fields are those of `learning.per_weight.training.Recipe`.

  Attributes:
    edit: what the images were made by; a name, for whoever reads it.
    scale: what changes are multiplied by at the start.
  """

  KIND: ClassVar[str] = "an editor"
  CHOSEN_BY: ClassVar[str] = "the error of what its networks show"

  edit: str = "dilate"
  scale: float = option(editor_model.SCALE, least=0)


def fit_editor(
  train: Examples,
  val: Examples,
  *,
  seed: int = 0,
  workdir: Any = None,
  programs: dict[str, Any] | None = None,
  **recipe: Any,
) -> editor_lib.Editor:
  """Trains an editor: a change of every weight, judged by what is shown.

  Args:
    train: networks to train on, all of one architecture, and what they are to
      show; see `learning.editing.targets`.
    val: others, whose error chooses the checkpoint.
    seed: of parameters, batches and dropout.
    workdir: folder for checkpoints and description, for `Editor.load`; what
      was killed is resumed there. None leaves nothing behind.
    programs: compiled programs to share with other calls; a dict that the
      caller holds and `fit_editor` fills.
    **recipe: the fields of `EditRecipe`.

  Raises:
    TrainingDiverged: the loss has left the finite numbers.
    ValueError: networks that are no images, or of several architectures,
      images or options that do not fit them, or `workdir` holds a training of
      others.
  """
  how = EditRecipe(**recipe)
  spec = _checked(train, val, how)
  description = per_weight.describe(
    spec,
    stacked(train.networks),
    encoder=how.encoder,
    options=how.options,
    chunks=how.chunks,
    edit=how.edit,
    scale=how.scale,
  )
  size, held_out = train.images.shape[2:], stacked(val.networks)

  def make_loss(model):
    render = rendering.make_render_fn(model.spec, *size)
    return lambda edited, images: jnp.mean((render(edited) - images) ** 2)

  def evaluate(model, params) -> float:
    edited = model.run(params, held_out)
    return float(program.errors(spec, edited, val.images).mean())

  task = training.Task(
    title=f"{how.edit} by {how.encoder}",
    file=editor_lib.FILE,
    description=description,
    key=list(size),
    build=program.Program,
    make_loss=make_loss,
    targets=train.images,
    prepare=rendering.signed,
    evaluate=evaluate,
    digests={
      "images": {
        part: training.digest(some.images)
        for part, some in (("train", train), ("val", val))
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
    return editor_lib.Editor.load(workdir)
  params, results, model = fitted
  return editor_lib.Editor(description, params, results, model)


def _checked(train: Examples, val: Examples, how: EditRecipe) -> NetworkSpec:
  """Returns the one architecture; raises unless all fit together."""
  spec = training.checked(train.networks, val.networks, how)
  image_zoo.form_of(spec)
  channels = spec.tensors[-1].shape[0]
  for part, some in (("train", train), ("val", val)):
    shape, count = some.images.shape, len(some.networks)
    if shape[:2] != (count, channels) or shape[2:] != train.images.shape[2:]:
      raise ValueError(
        f"{part} images have shape {shape}, but there are {count} networks of"
        f" {channels} channels; give one image for each, all of one size"
      )
  return spec
