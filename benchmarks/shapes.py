"""The shapes of training steps that are measured, and the steps themselves.

A step is what training runs: forward, backward and optimizer of
`training.make_update_fn`, on a batch of the real pipeline; only the networks'
weights are random.

Dimensions: `B` networks of a batch, `P` weights of a network.
"""

import dataclasses
import functools
import math
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import machine
from experiments.cli import options as options_lib
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.learning.data import pipeline
from sne_jax.learning.objectives import model
from sne_jax.learning.training import loop, recipe, trainer
from sne_jax.networks import chunking, families
from sne_jax.networks.spec import NetworkSpec

FLAGFILE = (
  pathlib.Path(__file__).parents[1] / "experiments/flags/inr_frequency.flags"
)

CURVE_BATCH = 64_000
"""Weights of a batch of the cost curve: small networks come several at once,
since one of them alone would measure the overhead of a call."""


MEMBERS = 20
"""Networks of each architecture of the wild park, as in its flagfile."""

READS = ("none", "outputs", "hidden")
"""What SNE reads of what networks answer, least first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """A shape of a training step."""

  name: str
  specs: tuple[NetworkSpec, ...]
  batch_size: int  # Networks per step, shared evenly among the specs.
  sne: SNEOptions
  chunk: chunking.ChunkOptions

  @property
  def label(self) -> str:
    """The name with the size of the batch."""
    return f"{self.name}, batch {self.batch_size}"


def flagfile_options() -> options_lib.Options:
  """Returns the options that `FLAGFILE` gives, defaults filled in."""
  return options_lib.from_flags(options_lib.parsed(FLAGFILE))


def attention(**changes: Any) -> SNEOptions:
  """Returns the literal chunk encoder: attention over a chunk's scalars."""
  literal = {
    "width": 64,
    "heads": 4,
    "chunk_function": "sab",
    "chunk_blocks": 2,
    "identifiers": "none",
    "index_features": "none",
    "activation": "relu",  # As in the Set Transformer.
  }
  return SNEOptions(**(literal | changes))


def cases(*, quick: bool = False) -> list[Case]:
  """Returns the shapes that are measured; tiny ones of all kinds if quick."""
  usual = flagfile_options()
  inr = families.build("inr")
  channels = (3, 3, 3) if quick else (16, 16, 16)
  cnn = families.build(
    "cnn", image_shape=(1, 28, 28), channels=channels, strides=2
  )
  mixed = (
    inr,
    families.build("mlp", widths=(16, 32, 32, 10)),
    cnn,
    families.build(
      "resnet", image_shape=(3, 32, 32), widths=channels[:2], num_classes=10
    ),
  )
  neuron = chunking.ChunkOptions(chunk_size=34)
  flat = chunking.ChunkOptions.published(32)
  flat_cnn = dataclasses.replace(flat, conv_rule="flat")
  kernel = dataclasses.replace(flat, chunk_size=9, conv_rule="kernel")
  literal = [  # Attention over the scalars of the INR's chunks.
    ("h 64, 2 blocks", {}),
    ("h 64, 3 blocks", {"chunk_blocks": 3}),
    ("h 64, 2 blocks, tile 32", {"chunk_tile": 32}),
    (
      "h 64, 2 blocks, gelu, tile 32",
      {"chunk_tile": 32, "activation": "gelu"},
    ),
    ("h 64, 2 blocks, coded", {"form": "coded"}),
    ("h 128, 2 blocks", {"width": 128}),
  ]
  rows = [
    *(("product, INR", (inr,), n, usual.sne, neuron) for n in (32, 64)),
    *(
      (f"attention, INR, {name}", (inr,), 64, attention(**changes), flat)
      for name, changes in literal
    ),
    ("attention, CNN by kernel, c 9", (cnn,), 32, attention(), kernel),
    ("attention, CNN flat, c 32", (cnn,), 32, attention(), flat_cnn),
    ("product, four families mixed", mixed, 32, usual.sne, neuron),
  ]
  every = [
    Case(name=name, specs=s, batch_size=size, sne=o, chunk=c)
    for name, s, size, o, c in rows
  ]
  return [small(case) for case in every] if quick else every


def reading_cases(batch_size: int) -> list[Case]:
  """Returns SNE on Arch1 CNNs, reading ever more of what they answer.

  As in experiments/flags/shared/cnn_accuracy.flags; a case for each of `READS`.
  """
  return [
    Case(
      name=f"responses {reads}",
      specs=(families.architecture("arch1", (1, 16, 16)),),
      batch_size=batch_size,
      sne=SNEOptions(identifier_dim=8, weight_scale="tensor", responses=reads),
      chunk=chunking.ChunkOptions(chunk_size=320),
    )
    for reads in READS
  ]


class Park(NamedTuple):
  """Networks and what they are run on.

  Attributes:
    specs: the architectures.
    numbers: int `[N]`, the architecture of each network.
    weights: the vector of each.
    inputs: float32 `[K, ...]`, shared by all.
  """

  specs: list[NetworkSpec]
  numbers: np.ndarray
  weights: list[np.ndarray]
  inputs: np.ndarray


def park(name: str, count: int, inputs: int) -> Park:
  """Draws networks of a case, as they are before training.

  Args:
    name: inr, arch1 or wild_park.
    count: networks.
    inputs: `K`.
  """
  rng = np.random.default_rng(0)
  if name == "inr":
    specs = [families.build("inr", widths=(1, 32, 32, 1))]
    x = rng.uniform(-1, 1, (inputs, 1))
  elif name == "arch1":
    specs = [families.architecture("arch1", (1, 16, 16))]
    x = rng.uniform(0, 1, (inputs, 1, 16, 16))
  else:
    image = (1, 8, 8)
    draws = rng.uniform(size=(max(1, count // MEMBERS), families.NUM_DRAWS))
    specs = [
      families.architecture("wild_park", image, draws=row.tolist())
      for row in draws
    ]
    specs = list(dict.fromkeys(specs))
    x = rng.uniform(0, 1, (inputs, *image))
  numbers = np.sort(np.arange(count) % len(specs))
  scheme = "siren" if name == "inr" else "he_normal"
  draw = jax.jit(
    functools.partial(families.init, scheme=scheme, bias=0.1), static_argnums=0
  )
  weights = [
    np.asarray(draw(specs[number], jax.random.key(place)))
    for place, number in enumerate(numbers)
  ]
  return Park(specs, numbers, weights, x.astype(np.float32))


def curve_cases(num_weights: int) -> dict[str, Case]:
  """Returns the cases of one place of the cost curve, by chunk function.

  The layer stage is `isab` in both: attention among all the chunks of a layer
  (`sab`) would need the square of their number. Chunks by attention are encoded
  in tiles, whose memory does not grow with the network.
  """
  usual = flagfile_options()
  spec = growing_mlp(num_weights)
  size = max(1, min(32, CURVE_BATCH // num_weights))
  product = dataclasses.replace(usual.sne, layer_function="isab")
  literal = attention(layer_function="isab", chunk_tile=32)
  encoders = {
    "product": (product, chunking.ChunkOptions(chunk_size=34)),
    "attention": (literal, chunking.ChunkOptions.published(32)),
  }
  return {
    name: Case(
      name=f"{name}, {spec.num_weights} weights",
      specs=(spec,),
      batch_size=size,
      sne=sne,
      chunk=chunk,
    )
    for name, (sne, chunk) in encoders.items()
  }


def growing_mlp(num_weights: int) -> NetworkSpec:
  """Returns the MLP of widths `(16, w, w, 10)` nearest to `num_weights`."""
  # w^2 + 28 w + 10 weights.
  width = max(1, round(math.sqrt(196 - 10 + num_weights) - 14))
  return families.build("mlp", widths=(16, width, width, 10))


class Step:
  """A case, ready to run: model, state, and batches of random networks.

  Attributes:
    batch_fn: gives the batch of a step, as training gets it.
    batch: the first of them.
    update: the compiled update that training runs; consumes its state.
    forward: `forward(params, packed)`: predictions and codes.
    state: before the first update; rebound by `time_update`.
    num_params: trained parameters.
    num_weights: weights of all networks of a batch.
  """

  def __init__(self, case: Case):
    """Builds everything but the compiled programs."""
    rng = np.random.default_rng(0)
    # Sorted, since the pipeline groups a batch by architecture.
    numbers = np.sort(np.arange(case.batch_size) % len(case.specs))
    networks = pipeline.Networks(
      case.specs,
      numbers,
      [families.random_weights(case.specs[n], rng) for n in numbers],
      rng.standard_normal((case.batch_size, 1)),
      ("property",),
    )
    how = recipe.Recipe(
      options=case.sne,
      chunks=case.chunk,
      head=model.HeadOptions(hidden_width=64, dropout=0.0),
      data=pipeline.DataOptions(
        batch_size=case.batch_size, augment_signs=False
      ),
      training=loop.TrainOptions(num_steps=1000),
    )
    trained = trainer.Trainer(networks, networks, how)
    self.state, self.batch_fn = trained.start(0)
    self.batch, self.update = self.batch_fn(0), trained.update
    self.num_weights = sum(case.specs[n].num_weights for n in numbers)
    leaves = jax.tree.leaves(self.state.params)
    self.num_params = sum(x.size for x in leaves)
    self.forward = jax.jit(
      lambda params, packed: trained.model.net.apply(
        params, packed, True, rngs={"identifiers": jax.random.key(0)}
      )
    )

  @property
  def packed(self) -> Any:
    """The packed batch of the first device."""
    return jax.tree.map(lambda x: x[0], self.batch.packed)

  def time_update(
    self, repeats: int, max_bytes: float = math.inf
  ) -> machine.Timing:
    """Times the update, its state rebound at every call as in training.

    It is compiled but not run, and its seconds are nan, where the compiled
    program asks for more than `max_bytes`.
    """

    def renew(results):
      self.state = results[0]
      return self.state, self.batch

    return machine.timed(
      self.update,
      self.state,
      self.batch,
      repeats=repeats,
      max_bytes=max_bytes,
      renew=renew,
    )


def small(case: Case) -> Case:
  """Returns the case with few networks and a narrow encoder."""
  narrow = dataclasses.replace(case.sne, width=8, heads=2, identifier_dim=4)
  size = max(2, len(case.specs))
  return dataclasses.replace(case, batch_size=size, sne=narrow)
