"""architecture: the code of a network's description, of no weight at all.

A control for every number across architectures: what is predicted as well from
kinds, widths, depth, skips and activations alone, no weight was needed for. A
set function of tensors: what is known of each goes through a perceptron; means,
least and most over the network, and what is known of it as a whole, through
another. Its form and size are ours.

Dimensions: `B` networks, `K` tensors of the batch, `F` numbers of a tensor, `G`
of a network.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sne_jax.encoders import interface
from sne_jax.encoders.baselines import mlp
from sne_jax.encoders.batches import joining
from sne_jax.networks import families
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import KINDS, NetworkSpec

ACTIVATIONS = ("none", *families.ACTIVATIONS)
"""A name that is not among these has a place of its own, the last."""

_REFS = {("tensors", "network"): "networks"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchitectureOptions(Checked):
  """Options of architecture.

  Attributes:
    width: of all layers, the last of which is the code.
    layers: layers of each of its two perceptrons.
    activations: whether it is told what follows each layer, and options such
      as strides of pooling; without, layers and sizes alone.
  """

  width: int = option(64, least=1)
  layers: int = option(2, least=1)
  activations: bool = True


class Architecture(nn.Module):
  """Encodes networks of any architectures by their specs alone."""

  options: ArchitectureOptions

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch of `B` networks to codes `[B, D]`."""
    o, tensors = self.options, batch.tables["tensors"]
    networks = batch.tables["networks"]
    body = mlp.Perceptron(o.width, o.layers, name="tensor")
    rows = body(jnp.asarray(tensors["known"]))
    group, count = tensors["network"], len(networks["real"])
    one = jnp.ones_like(rows[:, :1])
    number = jax.ops.segment_sum(one, group, count)
    pooled = [
      jax.ops.segment_sum(rows, group, count) / jnp.maximum(number, 1),
      jax.ops.segment_min(rows, group, count),
      jax.ops.segment_max(rows, group, count),
      jnp.asarray(networks["known"]),
    ]
    return mlp.Perceptron(o.width, o.layers, name="network")(
      jnp.concatenate(pooled, axis=1)
    )


def describe(spec: NetworkSpec) -> joining.Tables:
  """Returns what a network of a spec brings into a batch."""
  known = np.array([of_tensor(spec, n) for n in range(len(spec.tensors))])
  return {
    "tensors": {
      "network": np.zeros(len(spec.tensors), np.int32),
      "known": known.astype(np.float32),
    },
    "networks": {"known": of_network(spec)[None, :]},
  }


def of_tensor(spec: NetworkSpec, number: int) -> Float[np.ndarray, "F"]:
  """Returns what is known of a tensor: kind, sizes, depth, what follows it."""
  t = spec.tensors[number]
  sizes = [*t.shape[:2], *[1] * (2 - len(t.shape[:2]))]
  sizes += [int(np.prod(t.shape[2:])), t.size, t.fan_in]
  depth = t.level / max(1, spec.num_levels - 1)
  numbers = [*np.log2(sizes) / 8, depth, np.log2(1 + t.level) / 3]
  groups = sum(factor.group is not None for axis in t.axes for factor in axis)
  numbers += [groups / 2, float(t.branch > 0), float(t.of is not None)]
  kind = np.eye(len(KINDS))[KINDS.index(t.kind)]
  follows = np.zeros(len(ACTIVATIONS) + 1)
  if spec.activations:
    name = spec.activations[t.level]
    place = ACTIVATIONS.index(name) if name in ACTIVATIONS else -1
    follows[place] = 1
  return np.concatenate([numbers, kind, follows])


def of_network(spec: NetworkSpec) -> Float[np.ndarray, "G"]:
  """Returns what is known of a network as a whole."""
  options = dict(spec.options)
  pools = np.atleast_1d(options.get("pools", ()) or (1,))
  known = [
    np.log2(spec.num_weights) / 8,
    spec.num_levels / 8,
    len(spec.tensors) / 16,
    len(spec.skips) / 4,
    np.log2(np.maximum(pools, 1)).sum() / 2,
    np.log2(1 + options.get("w0", 0.0)) / 4,
    options.get("output_offset", 0.0),
    float(bool(spec.activations)),
  ]
  return np.array(known, np.float32)


def measure(
  options: ArchitectureOptions, networks: Sequence[interface.Network]
) -> dict[str, Any]:
  """Measures nothing: sizes are on one scale as they are."""
  del options, networks
  return {}


def build(
  options: ArchitectureOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  """Builds the encoder."""
  del measured
  seen_as = lambda spec: spec if options.activations else spec.layout
  return interface.Encoder(
    make_packer=lambda specs: joining.Packer(
      [seen_as(spec) for spec in specs],
      describe,
      refs=_REFS,
      seen_as=seen_as,
    ),
    module=Architecture(options, name="encoder"),
  )


ROW = interface.Row(
  accepts="any",
  sees_weights=False,
  symmetry="exact, and blind to all weights",
  options=ArchitectureOptions,
  prefix="architecture_",
  measure=measure,
  build=build,
)
