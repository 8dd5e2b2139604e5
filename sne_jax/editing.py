"""Trains editors of networks that are images, by `fit_editor`.

Dimensions: `N` networks of `P` weights, `D` devices, images of `C` channels,
`H` by `W`.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sne_jax import atomic, digests
from sne_jax import editor as editor_lib
from sne_jax.encoders import editor as editor_model
from sne_jax.encoders import table
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.data.pipeline import DataOptions
from sne_jax.learning.editing import program, rendering
from sne_jax.learning.training import (
  loop,
  optimizers,
  parallel,
  workdirs,
)
from sne_jax.learning.training.loop import TrainOptions
from sne_jax.learning.training.optimizers import OptimizerOptions
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.chunking import ChunkOptions
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo import batching
from sne_jax.zoo.inrs import image_zoo


class Examples(NamedTuple):
  """Networks, and what each is to show when it is edited."""

  networks: Networks
  images: np.ndarray  # uint8 [N, C, H, W]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditRecipe(Checked):
  """All that decides what an editor becomes, beside networks and seed.

  Attributes:
    edit: what the images were made by; a name, for whoever reads it.
    encoder: name of an encoder that gives a value for every weight.
    options: its options; None: the defaults.
    chunks: how layers are cut into chunks, where the encoder does so.
    scale: what changes are multiplied by at the start.
    data: of it, `batch_size` alone.
    optimizer: how parameters follow gradients.
    training: how long to train; validation loss chooses the checkpoint.
    devices: local devices that share every batch; 0: all.
  """

  edit: str = "dilate"
  encoder: str = "sne"
  options: Any = None
  chunks: ChunkOptions = ChunkOptions()
  scale: float = option(editor_model.SCALE, least=0)
  data: DataOptions = DataOptions()
  optimizer: OptimizerOptions = OptimizerOptions()
  training: TrainOptions = TrainOptions()
  devices: int = 0

  def __post_init__(self):
    super().__post_init__()
    editor_model.of_every_weight(self.encoder)  # Raises.
    options = table.options_for(self.encoder, self.options)
    object.__setattr__(self, "options", options)
    if self.training.monitor != "loss":
      raise ValueError(
        f"monitor is {self.training.monitor!r}, but an editor is chosen by the"
        " error of what its networks show; use monitor=loss"
      )
    if self.data.micro_batches > 1:
      raise ValueError(
        f"micro_batches is {self.data.micro_batches}, but editors take whole"
        " batches; use micro_batches=1"
      )


class _Batch(NamedTuple):
  """The networks of a step, with a leading axis of devices."""

  weights: Any  # [D, b, P]
  images: Any  # [D, b, C, H, W], in [-1, 1]
  template: Any


class _Compiled(NamedTuple):
  """What trainings of equal shapes share."""

  model: program.Program
  init: Any
  update: Any
  mesh: Any


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
  folder = None if workdir is None else pathlib.Path(workdir)
  spec = _checked(train, val, how)
  description = program.describe(
    how.edit,
    spec,
    stacked(train.networks),
    encoder=how.encoder,
    options=how.options,
    chunks=how.chunks,
    scale=how.scale,
  )
  parts = {"train": train, "val": val}
  if folder is not None:
    config = workdirs.config_of(how, {p: e.networks for p, e in parts.items()})
    config["images"] = {p: _digest(e.images) for p, e in parts.items()}
    workdirs.claim(folder, config | {"seed": seed})
    if (folder / workdirs.RESULT_FILE).exists():
      return editor_lib.Editor.load(folder)
    digests.drop(folder)
    text = json.dumps(description, sort_keys=True)
    atomic.write_atomically(folder / editor_lib.FILE, text)
  size = train.images.shape[2:]
  built = _compiled(
    description, how, size, {} if programs is None else programs
  )
  steps = how.training.num_steps
  state = loop.init_state(
    built.init(seed),
    optimizers.make_optimizer(how.optimizer, steps),
    jax.random.key(seed),
    ema_decay=how.optimizer.ema_decay,
    mesh=built.mesh,
  )
  held_out = stacked(val.networks)

  def evaluate(params) -> dict[str, float]:
    edited = built.model.edit(jax.device_get(params), held_out)
    return {"loss": float(program.errors(spec, edited, val.images).mean())}

  fitted = loop.fit(
    state,
    built.update,
    _batches(built, train, how.data.batch_size, seed),
    evaluate,
    how.training,
    folder,
    schedule=optimizers.make_schedule(how.optimizer, steps),
    title=f"{how.edit} by {how.encoder}, seed {seed}",
  )
  params = jax.device_get(fitted.best_params)
  done = int(fitted.state.step)
  results: dict[str, Any] = {
    "seed": seed,
    "num_params": sum(x.size for x in jax.tree.leaves(params)),
    "best_step": fitted.best_step,
    "val_loss": fitted.best_metrics.get("loss"),
    "steps": done,
    "train_seconds": fitted.seconds,
    "networks_per_second": (
      done * how.data.batch_size / max(fitted.seconds, 1e-9)
    ),
  }
  if folder is not None:
    text = atomic.json_text(results, allow_nan=True)
    workdirs.finish(folder, {workdirs.RESULT_FILE: text})
  return editor_lib.Editor(description, params, results, built.model)


def stacked(networks: Networks) -> np.ndarray:
  """Returns the weights `[N, P]` of networks of one architecture."""
  return np.stack([np.asarray(v, np.float32) for v in networks.vectors])


def _checked(train: Examples, val: Examples, how: EditRecipe) -> NetworkSpec:
  """Returns the one architecture; raises unless all fit together."""
  specs = {}
  for part, some in (("train", train), ("val", val)):
    if not len(some.networks):
      raise ValueError(f"there are no {part} networks; give at least one")
    specs |= {some.networks.specs[n]: None for n in some.networks.numbers}
  if len(specs) > 1:
    one, other = [spec.describe() for spec in specs][:2]
    raise ValueError(
      f"an editor is of one architecture, got {one} and {other}; choose"
      " networks of one"
    )
  (spec,) = specs
  image_zoo.form_of(spec)
  channels = spec.tensors[-1].shape[0]
  for part, some in (("train", train), ("val", val)):
    shape, count = some.images.shape, len(some.networks)
    if shape[:2] != (count, channels) or shape[2:] != train.images.shape[2:]:
      raise ValueError(
        f"{part} images have shape {shape}, but there are {count} networks of"
        f" {channels} channels; give one image for each, all of one size"
      )
  size = how.data.batch_size
  devices = parallel.make_mesh(how.devices or None).size
  if size % devices:
    raise ValueError(
      f"batch_size is {size} over {devices} devices; use a multiple of these"
    )
  if size > len(train.networks):
    raise ValueError(
      f"batch_size is {size}, but there are {len(train.networks)} training"
      " networks; use no more than these"
    )
  return spec


def _digest(images: np.ndarray) -> str:
  """Returns a checksum of images."""
  sums = hashlib.sha256(repr((images.shape, str(images.dtype))).encode())
  sums.update(np.ascontiguousarray(images).data)
  return sums.hexdigest()


def _compiled(description, how: EditRecipe, size, programs) -> _Compiled:
  """Returns what trains; built once for equal shapes and measures."""
  steps = how.training.num_steps
  optimizer = optimizers.constants(how.optimizer, steps)
  key = json.dumps(
    [description, optimizer, list(size), how.devices], sort_keys=True
  )
  if key in programs:
    return programs[key]
  model = program.Program(description)
  mesh = parallel.make_mesh(how.devices or None)
  render = rendering.make_render_fn(model.spec, *size)

  def loss_fn(params, batch: _Batch, key):
    edited: Any = model.applied(params, batch.template, batch.weights, key)
    return jnp.mean((render(edited) - batch.images) ** 2), {}

  update = loop.make_update_fn(
    loss_fn,
    optimizers.make_optimizer(how.optimizer, steps),
    ema_decay=how.optimizer.ema_decay,
    mesh=mesh,
  )
  programs[key] = _Compiled(model, jax.jit(model.init), update, mesh)
  return programs[key]


def _batches(built: _Compiled, train: Examples, count: int, seed: int):
  """Returns the batch of a step, on the devices."""
  devices = built.mesh.size
  one = built.model.packer.template([0] * (count // devices))
  stack = lambda *leaves: np.stack(leaves)
  template = parallel.shard(jax.tree.map(stack, *[one] * devices), built.mesh)
  weights = stacked(train.networks)
  place = functools.partial(parallel.shard, mesh=built.mesh)

  def batch(step: int) -> _Batch:
    rows = batching.batch_rows(seed, step, count, np.arange(len(weights)))
    shaped = lambda x: place(x.reshape(devices, count // devices, *x.shape[1:]))
    images = rendering.signed(train.images[rows])
    return _Batch(shaped(weights[rows]), shaped(images), template)

  return batch
