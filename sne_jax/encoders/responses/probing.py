"""Encoders that run networks on learned inputs and read nothing else.

`probe_gen` (Kahana et al., Deep Linear Probe Generators, ICLR 2025,
arXiv:2410.10811): 128 images of a linear generator; raw logits, class by class,
through a perceptron of six layers. `hidden_probe` (the public code of that
name, 2026, without a paper yet): the same, and what convolutional maps answer,
averaged to a grid of 4 x 4, weighted over inputs by attention, as a set of
units; both meet in a low-rank product, whose branch begins at 0. What these
sources leave open (widths of the generator, the order of norm and attention) is
ours, and both run any family here, vectors of features too.

Dimensions: `B` networks, `N` of a program, `K` inputs, `O` outputs, `U` units,
`G` places of the grid, `D` width of a code.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders import interface
from sne_jax.encoders.baselines import mlp
from sne_jax.encoders.batches import joining
from sne_jax.encoders.responses import (
  features,
  inputs,
  programs,
  running,
)
from sne_jax.encoders.responses import (
  seen as seen_lib,
)
from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeGenOptions(Checked):
  """Options of probe_gen.

  Attributes:
    inputs: learned inputs.
    source: of images. generator: linear, as published; pixels: all are free.
    width: of the perceptron's layers.
    layers: of the perceptron.
  """

  inputs: int = option(128, least=1)
  source: str = option("generator", choices=("generator", "pixels"))
  width: int = option(256, least=1)
  layers: int = option(6, least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HiddenProbeOptions(ProbeGenOptions):
  """Options of hidden_probe.

  Attributes:
    inputs: learned inputs.
    source: of images. generator: linear, as published; pixels: all are free.
    width: of the perceptron's layers.
    layers: of the perceptron.
    grid: side of the grid that maps are averaged to.
    unit_width: of what the units are pooled into.
    rank: of the product of both codes.
  """

  grid: int = option(4, least=1)
  unit_width: int = option(64, least=1)
  rank: int = option(32, least=1)


class Units(nn.Module):
  """Maps what the units of a level answer to one vector a network."""

  width: int

  @nn.compact
  def __call__(self, after, mask, depth):
    """Maps `[N, U, G, K]`, their mask `[N, U]` and a depth to `[N, width]`."""
    x = features.squeezed(jnp.swapaxes(after, 2, 3))  # [N, U, K, G]
    x = jnp.concatenate([x, jnp.full_like(x[..., :1], depth)], axis=-1)
    x = nn.gelu(nn.Dense(self.width, name="token")(x))
    weight = nn.softmax(nn.Dense(1, name="attention")(x), axis=2)
    x = (weight * x).sum(axis=2)  # [N, U, width], over inputs.
    x = nn.gelu(nn.Dense(self.width, name="unit")(x))
    x = jnp.where(mask[..., None], x, 0)
    return x.sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)[:, None]


class Probing(nn.Module):
  """Encodes networks by what they answer, as `[B, D]`.

  Attributes:
    options: of the encoder; those of hidden_probe read hidden units too.
    seen: what the training networks take and give.
  """

  options: ProbeGenOptions
  seen: seen_lib.Seen

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    del deterministic
    o, seen = self.options, self.seen
    batch = jax.tree.map(jnp.asarray, batch)
    probes = inputs.Inputs(
      *(o.inputs, seen.image, seen.features, o.source), name="probes"
    )
    reads_hidden = isinstance(o, HiddenProbeOptions)
    grid, width = (o.grid, o.unit_width) if reads_hidden else (0, 0)
    units = Units(width, name="units")
    count = len(batch.tables["networks"]["real"])
    answered = jnp.zeros((count, o.inputs * seen.outputs))
    pooled = jnp.zeros((count, width))
    for program, table, answers in running.each(batch, probes, grid):
      row, outputs = table["network"], answers.outputs
      values = features.in_order(outputs, seen.outputs)
      answered = answered.at[row].add(values, mode="drop")
      levels = running.by_level(program, answers)[:-1] if grid else ()
      for place, (_, after, mask) in enumerate(levels):
        x = units(after, mask, (1 + place) / len(levels)) / len(levels)
        pooled = pooled.at[row].add(x, mode="drop")
    code = mlp.Perceptron(o.width, o.layers, name="logits")(answered)
    if not isinstance(o, HiddenProbeOptions):
      return code
    dense = lambda name: nn.Dense(o.rank, use_bias=False, name=name)
    product = dense("hidden_factor")(pooled) * dense("logit_factor")(code)
    zeros = nn.initializers.zeros_init()
    return code + nn.Dense(o.width, kernel_init=zeros, name="out")(product)


def row(options: type[ProbeGenOptions], prefix: str) -> interface.Row:
  """Returns the row of an encoder of this file."""

  def build(options, measured) -> interface.Encoder:
    seen = seen_lib.seen_of(measured)
    return interface.Encoder(
      make_packer=_packer, module=Probing(options, seen, name="encoder")
    )

  return interface.Row(
    accepts="any",
    needs="networks that can be run: of a family, or of a traced graph",
    symmetry="exact, hidden neurons",
    options=options,
    prefix=prefix,
    measure=lambda options, networks: seen_lib.measure(networks),
    build=build,
    has_probes=lambda options: True,
  )


def _packer(specs: Any) -> joining.Packer:
  """Packs networks that can be run.

  Raises:
    ValueError: one cannot be run.
  """
  for spec in specs:
    if not programs.is_runnable(spec):
      reason = "nothing tells how it is run; probes need its forward function"
      raise interface.unsupported("probe_gen", spec, reason)
  plan = programs.Plan(specs)
  return joining.Packer(
    *(specs, plan.tables),
    refs=plan.refs(),
    none=("units",),
    seen_as=lambda spec: spec,
  )
