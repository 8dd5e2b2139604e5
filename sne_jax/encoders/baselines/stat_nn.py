"""Encoders of per-tensor statistics: simple, and hard to beat.

`stat_nn` concatenates the 7 statistics of every tensor, so it is tied to one
architecture; `stat_pool` pools them over tensors (mean, min, max, first,
last, for weights and biases apart) and reads any. Both are blind to what
happens within a tensor. The numbers are those of `statistics`; the variance of
a tensor of one element is 0, where the unbiased one is not defined.

Dimensions: `B` networks, `T` weights of the batch, `K` tensors of the batch.

References:
  Unterthiner et al., Predicting Neural Network Accuracy from Weights, 2020,
  arXiv:2002.11448; the perceptron after it is that of Zhou et al., NeurIPS
  2023, arXiv:2302.14040, whose head is two layers of 1000.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.encoders import interface
from sne_jax.encoders.baselines import mlp, statistics
from sne_jax.encoders.batches import joining, tied
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec

NAME = "stat_nn"

_REFS = {
  ("weights", "tensor"): "tensors",
  ("tensors", "network"): "networks",
  ("networks", "ends"): "tensors",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatOptions(Checked):
  """Options of stat_nn and stat_pool.

  Attributes:
    width: units of every layer, the last of which is the code.
    layers: layers, at least 1.
    standardise: subtract from each statistic its mean over the training
      networks and divide by its deviation; off in the authors' code.
  """

  width: int = option(256, least=1)
  layers: int = option(1, least=1)
  standardise: bool = True


class StatBody(nn.Module):
  """Standardised statistics `[B, F]` to codes `[B, D]`."""

  options: StatOptions
  mean: tuple[float, ...]
  deviation: tuple[float, ...]

  @nn.compact
  def __call__(self, x: Float[Array, "B F"]) -> Float[Array, "B D"]:
    """Returns the codes."""
    if self.mean:
      inverse = 1 / np.asarray(self.deviation)
      x = x - np.asarray(self.mean, x.dtype)[None, :]
      x = x * inverse.astype(x.dtype)[None, :]
    o = self.options
    return mlp.Perceptron(o.width, o.layers, name="body")(x)


class Stat(nn.Module):
  """Encodes networks by statistics.

  Attributes:
    options: of the encoder.
    mean: of each statistic over training networks; empty: not standardised.
    deviation: likewise.
    spec: of all networks, whose statistics of tensors are concatenated; None:
      they are of any architectures, and their statistics are pooled.
  """

  options: StatOptions
  mean: tuple[float, ...]
  deviation: tuple[float, ...]
  spec: NetworkSpec | None = None

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    if self.spec is None:
      x = pooled(batch)
    else:
      rows = tied.rows_of(batch, self.spec)
      x = statistics.tensor_statistics(self.spec, rows, xp=jnp)
    return StatBody(self.options, self.mean, self.deviation, name="stat")(x)


def pooled(batch: joining.Joined) -> Float[Array, "B 70"]:
  """Returns `statistics.pooled_statistics` of every network of a batch."""
  tensors, networks = batch.tables["tensors"], batch.tables["networks"]
  table = statistics.of_batch(batch, jnp.asarray(batch.weights))
  groups = len(statistics.ROLES) * len(networks["real"])
  group = len(statistics.ROLES) * tensors["network"] + tensors["role"]
  present = jnp.asarray(networks["present"]).reshape(-1)[:, None]
  number = jax.ops.segment_sum(jnp.ones_like(table[:, :1]), group, groups)
  average = jax.ops.segment_sum(table, group, groups) / jnp.maximum(number, 1)
  least = jax.ops.segment_min(table, group, groups)
  most = jax.ops.segment_max(table, group, groups)
  first, last = (
    table[networks["ends"][..., end]].reshape(groups, -1) for end in (0, 1)
  )
  result = jnp.stack([average, least, most, first, last], axis=1)
  result = jnp.where(present[..., None], result, 0)
  return result.reshape(len(networks["real"]), -1)


def describe(spec: NetworkSpec) -> joining.Tables:
  """Returns what a network of a spec brings into a batch of `StatPool`."""
  size = np.array([t.size for t in spec.tensors], np.int32)
  role = [statistics.ROLES.index(statistics.role(t.kind)) for t in spec.tensors]
  ends, present = np.zeros((1, 2, 2), np.int32), np.zeros((1, 2), bool)
  for number in range(len(statistics.ROLES)):
    places = np.flatnonzero(np.array(role) == number)
    if len(places):
      ends[0, number], present[0, number] = (places[0], places[-1]), True
  return {
    "weights": {
      "tensor": np.repeat(np.arange(len(size), dtype=np.int32), size)
    },
    "tensors": {
      "network": np.zeros(len(size), np.int32),
      "role": np.array(role, np.int32),
    },
    "networks": {"ends": ends, "present": present},
  }


def measure(
  options: StatOptions, networks: Sequence[interface.Network]
) -> dict[str, Any]:
  """Measures the statistics of the training networks, all of one spec."""
  spec = tied.the_spec(NAME, networks)
  moments = _moments(options, networks, statistics.tensor_statistics)
  return {"spec": spec.to_json()} | moments


def measure_pooled(
  options: StatOptions, networks: Sequence[interface.Network]
) -> dict[str, Any]:
  """Measures the pooled statistics of the training networks."""
  return _moments(options, networks, statistics.pooled_statistics)


def build(
  options: StatOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  """Builds `stat_nn`."""
  spec = NetworkSpec.from_json(measured["spec"])
  return interface.Encoder(
    make_packer=lambda specs: tied.packer(specs, spec, NAME),
    module=_module(options, measured, spec),
  )


def build_pooled(
  options: StatOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  """Builds `stat_pool`."""
  return interface.Encoder(
    make_packer=lambda specs: joining.Packer(
      specs, describe, refs=_REFS, sets=statistics.SETS
    ),
    module=_module(options, measured, None),
  )


def _module(options, measured, spec) -> Stat:
  moments = tuple(measured["mean"]), tuple(measured["deviation"])
  return Stat(options, *moments, spec, name="encoder")


def _moments(
  options: StatOptions,
  networks: Sequence[interface.Network],
  function: Callable,
) -> dict[str, Any]:
  """Returns mean and deviation of statistics; empty if they stay as they are.

  What never varies among the training networks is divided by 1.
  """
  if not options.standardise:
    return {"mean": [], "deviation": []}
  values = np.stack(
    [function(spec, np.asarray(w, np.float64)) for spec, w in networks]
  )
  deviation = values.std(axis=0)
  small = 1e-6 * np.abs(values).max(axis=0) + 1e-30
  return {
    "mean": values.mean(axis=0).tolist(),
    "deviation": np.where(deviation < small, 1.0, deviation).tolist(),
  }
