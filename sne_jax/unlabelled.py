"""Trains encoders without labels, by `pretrain`.

Dimensions: `N` networks, `P` weights of one, `D` devices.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sne_jax import atomic, digests
from sne_jax.encoders import table
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.data.pipeline import DataOptions
from sne_jax.learning.selfsup import methods, pretraining
from sne_jax.learning.selfsup.contrast import ContrastOptions
from sne_jax.learning.selfsup.methods import PretrainOptions
from sne_jax.learning.selfsup.views import ViewOptions
from sne_jax.learning.training import loop as training
from sne_jax.learning.training import (
  optimizers,
  parallel,
  train_state,
  workdirs,
)
from sne_jax.learning.training.loop import TrainOptions
from sne_jax.learning.training.optimizers import OptimizerOptions
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.chunking import ChunkOptions
from sne_jax.zoo import batching


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainRecipe(Checked):
  """All that decides what a pretraining gives, beside networks and seed.

  Attributes:
    method: one of `methods.METHODS`: sne, sane, hyper_representation.
    encoder: options of the encoder of that name; None: the defaults.
    chunks: how layers are cut into chunks, for SNE.
    view: how both views of a network are drawn.
    losses: what is mixed; SNE has the contrast alone.
    options: the others.
    data: of it, `batch_size` alone.
    optimizer: how parameters follow gradients.
    training: how long to train; validation loss chooses the checkpoint.
    devices: local devices that share every batch; 0: all.
  """

  method: str = option("sne", choices=methods.METHODS)
  encoder: Any = None
  chunks: ChunkOptions = ChunkOptions()
  view: ViewOptions = ViewOptions()
  losses: ContrastOptions = ContrastOptions()
  options: PretrainOptions = PretrainOptions()
  data: DataOptions = DataOptions()
  optimizer: OptimizerOptions = OptimizerOptions()
  training: TrainOptions = TrainOptions()
  devices: int = 0

  def __post_init__(self):
    super().__post_init__()
    encoder = table.options_for(
      self.method, self.encoder, field="encoder", whose="method"
    )
    object.__setattr__(self, "encoder", encoder)
    if self.training.monitor != "loss":
      raise ValueError(
        f"monitor is {self.training.monitor!r}, but pretraining knows no labels"
        " and chooses by validation loss; use monitor=loss"
      )
    if self.data.micro_batches > 1:
      raise ValueError(
        f"micro_batches is {self.data.micro_batches}, but pretraining contrasts"
        " the networks of a batch with each other; use micro_batches=1"
      )

  def check_batches(self, networks: int) -> None:
    """Raises unless batches divide, and have somebody to contrast with."""
    count = self.data.batch_size
    if count > networks:
      raise ValueError(
        f"batch_size is {count}, but there are {networks} training networks,"
        " and a network is not contrasted with itself; use batch_size="
        f"{networks} or less"
      )
    devices = parallel.make_mesh(self.devices or None).size
    if count % devices or count // devices < 2:
      raise ValueError(
        f"batch_size is {count} over {devices} devices; contrast needs a"
        " multiple of the devices, and at least 2 networks on each"
      )


class _Compiled(NamedTuple):
  """What pretrainings of equal shapes share."""

  method: methods.Method
  init: Any
  update: Any
  evaluate: Any
  mesh: Any


def pretrain(
  train: Networks,
  val: Networks,
  *,
  seed: int = 0,
  workdir: Any = None,
  programs: dict[str, Any] | None = None,
  untrained: bool = False,
  seen: Sequence[str] = (),
  **recipe: Any,
) -> pretraining.Pretrained:
  """Trains an encoder without labels.

  Args:
    train: the networks to train on, all of one architecture; targets are not
      looked at.
    val: others, whose loss chooses the checkpoint.
    seed: of parameters, batches, views and dropout.
    workdir: folder for checkpoints and description, for `Pretrained.load`,
      `fit(init_from=...)` and the programs of `experiments/`; what was killed
      is resumed there. None leaves nothing behind.
    programs: compiled programs to share with other calls; a dict that the
      caller holds and `pretrain` fills.
    untrained: keep the first parameters, as a baseline.
    seen: what the networks are called, to be kept beside the description.
    **recipe: the fields of `PretrainRecipe`.

  Raises:
    TrainingDiverged: the loss has left the finite numbers.
    ValueError: networks of several architectures, options that do not fit
      them, or `workdir` holds a training of others.
  """
  how = PretrainRecipe(**recipe)
  folder = None if workdir is None else pathlib.Path(workdir)
  if not untrained:
    how.check_batches(len(train))
  description = describe(train, val, how)
  if folder is not None:
    config = workdirs.config_of(how, {"train": train, "val": val})
    workdirs.claim(folder, config | {"untrained": untrained, "seed": seed})
    if (folder / workdirs.RESULT_FILE).exists():
      return pretraining.Pretrained.load(folder)
    digests.drop(folder)
    text = json.dumps(description | {"seen": list(seen)}, sort_keys=True)
    atomic.write_atomically(folder / pretraining.FILE, text)
  built = _compiled(description, how, {} if programs is None else programs)
  steps = how.training.num_steps
  state = training.init_state(
    built.init(seed),
    optimizers.make_optimizer(how.optimizer, steps),
    jax.random.key(seed),
    ema_decay=how.optimizer.ema_decay,
    mesh=built.mesh,
  )
  results: dict[str, Any] = {"seed": seed, "best_step": 0}
  results |= {"train_seconds": 0.0, "networks_per_second": 0.0}
  params = state.params
  if not untrained:
    inputs = [
      pretraining.prepared(description, stacked(part)) for part in (train, val)
    ]
    fitted = training.fit(
      state,
      built.update,
      _batches(built, inputs[0], how.data.batch_size, seed),
      functools.partial(built.evaluate, inputs[1]),
      how.training,
      folder,
      schedule=optimizers.make_schedule(how.optimizer, steps),
      title=f"{how.method} seed {seed}",
    )
    params, done = fitted.best_params, int(fitted.state.step)
    results |= {
      "best_step": fitted.best_step,
      "train_seconds": fitted.seconds,
      "networks_per_second": (
        done * how.data.batch_size / max(fitted.seconds, 1e-9)
      ),
      "val_loss": fitted.best_metrics.get("loss"),
    }
  params = jax.device_get(params)
  results["num_params"] = sum(x.size for x in jax.tree.leaves(params))
  if folder is not None:
    if untrained:
      train_state.Checkpoints(folder).save_best(0, params, {})
    text = atomic.json_text(results, allow_nan=True)
    workdirs.finish(folder, {workdirs.RESULT_FILE: text})
  return pretraining.Pretrained(description, params, results)


def describe(
  train: Networks, val: Networks, recipe: PretrainRecipe
) -> dict[str, Any]:
  """Returns what `pretrained.json` holds.

  Raises:
    ValueError: networks of several architectures, or none.
  """
  for part, networks in (("train", train), ("val", val)):
    if not len(networks):
      raise ValueError(f"there are no {part} networks; give at least one")
  layouts = {n.specs[k].layout for n in (train, val) for k in set(n.numbers)}
  if len(layouts) > 1:
    one, other = sorted(spec.describe() for spec in layouts)[:2]
    raise ValueError(
      f"pretraining is about one architecture, got {one} and {other}; choose"
      " networks of one"
    )
  return pretraining.describe(
    recipe.method,
    next(iter(layouts)),
    stacked(train),
    encoder=recipe.encoder,
    chunk=recipe.chunks,
    view=recipe.view,
    losses=recipe.losses,
    options=recipe.options,
  )


def stacked(networks: Networks) -> np.ndarray:
  """Returns the weights `[N, P]` of networks of one architecture."""
  return np.stack([np.asarray(vector) for vector in networks.vectors])


def _compiled(
  description: Mapping[str, Any],
  recipe: PretrainRecipe,
  programs: dict[str, Any],
) -> _Compiled:
  """Returns what trains; built once for equal shapes."""
  changing = dict(description)
  if recipe.method != "sne":
    del changing["measured"], changing["reference"]  # Of the data alone.
  steps, count = recipe.training.num_steps, recipe.data.batch_size
  optimizer = optimizers.constants(recipe.optimizer, steps)
  parts = [changing, optimizer, count, recipe.devices]
  key = json.dumps(parts, sort_keys=True)
  if key in programs:
    return programs[key]
  method = methods.build(description)
  mesh = parallel.make_mesh(recipe.devices or None)
  update = training.make_update_fn(
    lambda params, batch, key: method.loss(params, batch, key, True),
    optimizers.make_optimizer(recipe.optimizer, steps),
    ema_decay=recipe.optimizer.ema_decay,
    mesh=mesh,
  )
  evaluate = _evaluation(method, count)
  built = _Compiled(method, jax.jit(method.init), update, evaluate, mesh)
  programs[key] = built
  return built


def _evaluation(method: methods.Method, count: int):
  """Returns `evaluate(weights, params)`: mean losses of fixed views."""
  compiled = jax.jit(
    lambda params, batch, key: method.loss(params, batch, key, False)
  )
  placed = functools.cache(lambda n: jax.device_put(method.template(n)))

  def evaluate(weights: np.ndarray, params) -> dict[str, float]:
    size = min(count, len(weights))
    order = batching.epoch_order(0, 0, len(weights))
    params = jax.device_get(params)
    losses = []
    for place in range(len(weights) // size):
      rows = weights[order[place * size : (place + 1) * size]]
      batch = methods.Batch(rows, placed(size))
      loss, parts = compiled(params, batch, jax.random.key(place))
      losses.append(jax.device_get(parts | {"loss": loss}))
    return {k: float(np.mean([f[k] for f in losses])) for k in losses[0]}

  return evaluate


def _batches(built: _Compiled, weights, count: int, seed: int):
  """Returns the batch of a step, `[D, b, ...]`, on the devices."""
  devices = built.mesh.size
  one = built.method.template(count // devices)
  stack = lambda *leaves: np.stack(leaves)
  template = parallel.shard(jax.tree.map(stack, *[one] * devices), built.mesh)
  rows = np.arange(len(weights))

  def batch(step: int) -> methods.Batch:
    chosen = batching.batch_rows(seed, step, count, rows)
    part = weights[chosen].reshape(devices, count // devices, -1)
    return methods.Batch(parallel.shard(part, built.mesh), template)

  return batch
