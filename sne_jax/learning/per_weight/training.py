"""Trains a model of weights in, values out, by any loss of the values.

Dimensions: `N` networks of `P` weights, `D` devices.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from sne_jax import atomic, digests
from sne_jax.encoders import editor, table
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.data.pipeline import DataOptions
from sne_jax.learning.per_weight import program
from sne_jax.learning.training import loop, optimizers, parallel, workdirs
from sne_jax.learning.training.loop import TrainOptions
from sne_jax.learning.training.optimizers import OptimizerOptions
from sne_jax.networks.checked import Checked
from sne_jax.networks.chunking import ChunkOptions
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo import batching


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
  """All that decides what a model becomes, beside its task, networks and seed.

  Attributes:
    encoder: name of an encoder that gives a value for every weight.
    options: its options; None: the defaults.
    chunks: how layers are cut into chunks, where the encoder does so.
    data: of it, `batch_size` alone.
    optimizer: how parameters follow gradients.
    training: how long to train; validation loss chooses the checkpoint.
    devices: local devices that share every batch; 0: all.
  """

  KIND: ClassVar[str] = "a model"
  DOES: ClassVar[str] = "edit"
  CHOSEN_BY: ClassVar[str] = "its loss"

  encoder: str = "sne"
  options: Any = None
  chunks: ChunkOptions = ChunkOptions()
  data: DataOptions = DataOptions()
  optimizer: OptimizerOptions = OptimizerOptions()
  training: TrainOptions = TrainOptions()
  devices: int = 0

  def __post_init__(self):
    super().__post_init__()
    editor.of_every_weight(self.encoder, self.DOES)  # Raises.
    options = table.options_for(self.encoder, self.options)
    object.__setattr__(self, "options", options)
    if self.training.monitor != "loss":
      raise ValueError(
        f"monitor is {self.training.monitor!r}, but {self.KIND} is chosen by"
        f" {self.CHOSEN_BY}; use monitor=loss"
      )
    if self.data.micro_batches > 1:
      raise ValueError(
        f"micro_batches is {self.data.micro_batches}, but {self.KIND} takes"
        " whole batches; use micro_batches=1"
      )


class Task(NamedTuple):
  """What values of weights are trained for.

  Attributes:
    title: of the training.
    file: its name, in the work directory, for the description.
    description: of `program.describe`.
    key: what decides the program beside the description; plain values.
    build: from a description to its program.
    make_loss: from the program to the loss of values `[B, P]` and targets.
    targets: of the training networks, `[N, ...]`.
    prepare: from rows of the targets to what the loss takes.
    evaluate: from program and parameters to the loss on validation networks.
    digests: checksums of the targets, by what they are and part.
  """

  title: str
  file: str
  description: Mapping[str, Any]
  key: Any
  build: Callable[[Mapping[str, Any]], program.Program]
  make_loss: Callable[[program.Program], Callable[[Any, Any], Any]]
  targets: np.ndarray
  prepare: Callable[[np.ndarray], np.ndarray]
  evaluate: Callable[[Any, Any], float]
  digests: Mapping[str, Mapping[str, str]]


class Fitted(NamedTuple):
  """A trained model."""

  params: Any
  results: dict[str, Any]
  model: Any  # The program.


class _Batch(NamedTuple):
  """The networks of a step, with a leading axis of devices."""

  weights: Any  # [D, b, P]
  targets: Any  # [D, b, ...]
  template: Any


class _Compiled(NamedTuple):
  """What trainings of equal shapes share."""

  model: program.Program
  init: Any
  update: Any
  mesh: Any


def fit(
  task: Task,
  how: Recipe,
  train: Networks,
  val: Networks,
  *,
  seed: int,
  workdir: Any = None,
  programs: dict[str, Any] | None = None,
) -> Fitted | None:
  """Trains a model.

  Args:
    task: what for.
    how: see `Recipe`.
    train: of `checked`.
    val: likewise.
    seed: of parameters, batches and dropout.
    workdir: folder for checkpoints and description; what was killed is resumed
      there. None leaves nothing behind.
    programs: compiled programs to share with other calls; filled.

  Returns:
    The model; None where `workdir` holds it finished.

  Raises:
    TrainingDiverged: the loss has left the finite numbers.
    WorkdirError: `workdir` holds a training of others.
  """
  folder = None if workdir is None else pathlib.Path(workdir)
  if folder is not None:
    config = workdirs.config_of(how, {"train": train, "val": val})
    config |= {name: dict(sums) for name, sums in task.digests.items()}
    workdirs.claim(folder, config | {"seed": seed})
    if (folder / workdirs.RESULT_FILE).exists():
      return None
    digests.drop(folder)
    text = json.dumps(task.description, sort_keys=True)
    atomic.write_atomically(folder / task.file, text)
  built = _compiled(task, how, {} if programs is None else programs)
  steps = how.training.num_steps
  state = loop.init_state(
    built.init(seed),
    optimizers.make_optimizer(how.optimizer, steps),
    jax.random.key(seed),
    ema_decay=how.optimizer.ema_decay,
    mesh=built.mesh,
  )
  fitted = loop.fit(
    state,
    built.update,
    _batches(built, task, train, how.data.batch_size, seed),
    lambda params: {"loss": task.evaluate(built.model, jax.device_get(params))},
    how.training,
    folder,
    schedule=optimizers.make_schedule(how.optimizer, steps),
    title=f"{task.title}, seed {seed}",
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
  return Fitted(params, results, built.model)


def stacked(networks: Networks) -> np.ndarray:
  """Returns the weights `[N, P]` of networks of one architecture."""
  return np.stack([np.asarray(v, np.float32) for v in networks.vectors])


def checked(train: Networks, val: Networks, how: Recipe) -> NetworkSpec:
  """Returns the one architecture of networks.

  Raises:
    ValueError: there are none or too few, or they are of several.
  """
  specs = {}
  for part, some in (("train", train), ("val", val)):
    if not len(some):
      raise ValueError(f"there are no {part} networks; give at least one")
    specs |= {some.specs[n]: None for n in some.numbers}
  if len(specs) > 1:
    one, other = [spec.describe() for spec in specs][:2]
    raise ValueError(
      f"{how.KIND} is of one architecture, got {one} and {other}; choose"
      " networks of one"
    )
  (spec,) = specs
  size = how.data.batch_size
  devices = parallel.make_mesh(how.devices or None).size
  if size % devices:
    raise ValueError(
      f"batch_size is {size} over {devices} devices; use a multiple of these"
    )
  if size > len(train):
    raise ValueError(
      f"batch_size is {size}, but there are {len(train)} training"
      " networks; use no more than these"
    )
  return spec


def digest(array: np.ndarray) -> str:
  """Returns a checksum of targets."""
  sums = hashlib.sha256(repr((array.shape, str(array.dtype))).encode())
  sums.update(np.ascontiguousarray(array).data)
  return sums.hexdigest()


def _compiled(task: Task, how: Recipe, programs: dict[str, Any]) -> _Compiled:
  """Returns what trains; built once for equal shapes and measures."""
  steps = how.training.num_steps
  optimizer = optimizers.constants(how.optimizer, steps)
  key = json.dumps(
    [task.description, optimizer, task.key, how.devices], sort_keys=True
  )
  if key in programs:
    return programs[key]
  model = task.build(task.description)
  mesh = parallel.make_mesh(how.devices or None)
  loss_of = task.make_loss(model)

  def loss_fn(params, batch: _Batch, key):
    values: Any = model.applied(params, batch.template, batch.weights, key)
    return loss_of(values, batch.targets), {}

  update = loop.make_update_fn(
    loss_fn,
    optimizers.make_optimizer(how.optimizer, steps),
    ema_decay=how.optimizer.ema_decay,
    mesh=mesh,
  )
  programs[key] = _Compiled(model, jax.jit(model.init), update, mesh)
  return programs[key]


def _batches(
  built: _Compiled, task: Task, train: Networks, count: int, seed: int
):
  """Returns the batch of a step, on the devices."""
  devices = built.mesh.size
  one = built.model.packer.template([0] * (count // devices))
  stack = lambda *leaves: np.stack(leaves)
  template = parallel.shard(jax.tree.map(stack, *[one] * devices), built.mesh)
  weights = stacked(train)
  place = functools.partial(parallel.shard, mesh=built.mesh)

  def batch(step: int) -> _Batch:
    rows = batching.batch_rows(seed, step, count, np.arange(len(weights)))
    shaped = lambda x: place(x.reshape(devices, count // devices, *x.shape[1:]))
    targets = task.prepare(task.targets[rows])
    return _Batch(shaped(weights[rows]), shaped(targets), template)

  return batch
