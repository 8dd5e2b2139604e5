"""Probe features: what a network answers to learned inputs, unit by unit.

`K` learned inputs are run through every network of a batch, and the `K` values
of a unit become features of its node. Networks are of dense layers; those of a
batch may differ in depth, widths and activations. Layer by layer, weights are
gathered into a matrix as large as any of the networks at hand needs, zero where
a network has none, so that a pass is a batched product of matrices.

Weights are not normalised here: it is the networks themselves that are run.

Dimensions: `B` networks, `N` nodes, `K` probes, `L` layers, `O` and `I` outputs
and inputs of a layer, the most of any network at hand; `V` width of nodes.

Reference: Kofinas et al., Graph Neural Networks for Learning Equivariant
Representations of Neural Networks, ICLR 2024, arXiv:2403.12143, and the
authors' code, which has them for one architecture.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.encoders.batches import joining
from sne_jax.encoders.graphs import graph
from sne_jax.networks import augment, families
from sne_jax.networks.spec import NetworkSpec

READABLE = ("mlp", "inr")
"""Families of networks that can be run on probes."""


def check(name: str, probes: int, specs: Sequence[NetworkSpec]) -> None:
  """Raises `ValueError` naming the first spec that cannot be run on probes.

  Args:
    name: of the option.
    probes: its value; 0 asks for nothing.
    specs: the networks.
  """
  for spec in specs:
    if probes and spec.family not in READABLE:
      raise ValueError(
        f"{name} is {probes}, but {spec.describe()} cannot be run on probes:"
        f" only the families {' and '.join(READABLE)} can; use {name} 0"
      )


class Plan:
  """How to run some networks at once: the columns that a batch needs.

  Args:
    specs: the networks at hand, of families among `READABLE`.

  Raises:
    ValueError: a spec does not say its activations.
  """

  def __init__(self, specs: Sequence[NetworkSpec]):
    for spec in specs:
      if not spec.activations or augment.UNKNOWN in spec.activations:
        raise ValueError(
          f"{spec.describe()} does not say its activations; they are needed to"
          " run it on probes"
        )
    widths = [_widths(spec) for spec in specs]
    self._widths = [
      max(w[level] for w in widths if level < len(w))
      for level in range(max(map(len, widths)))
    ]
    self._activations = sorted(
      {pair for s in specs for pair in enumerate(s.activations)}
    )

  def network(self, spec: NetworkSpec) -> dict[str, np.ndarray]:
    """Returns the columns of a network, one row each.

    `probe_weight_LEVEL [1, O, I]` and `probe_bias_LEVEL [1, O]` are places in
    its own weights, from `probe_start` on; -1 stands for none. For activations
    that occur at a level, `probe_NAME_LEVEL` says whether it is this network's.
    """
    options = dict(spec.options)
    row = {
      "probe_start": np.zeros(1, np.int32),
      "probe_w0": np.array([options.get("w0", 1.0)], np.float32),
      "probe_offset": np.array([options.get("output_offset", 0)], np.float32),
    }
    index = spec.unflatten(np.arange(spec.num_weights, dtype=np.int32))
    for level, outputs in enumerate(self._widths[1:]):
      weight = np.full((1, outputs, self._widths[level]), -1, np.int32)
      bias = np.full((1, outputs), -1, np.int32)
      if f"layer{level}.weight" in index:
        kernel = index[f"layer{level}.weight"]
        weight[0, : kernel.shape[0], : kernel.shape[1]] = kernel
      if f"layer{level}.bias" in index:
        shift = index[f"layer{level}.bias"]
        bias[0, : len(shift)] = shift
      row |= {f"probe_weight_{level}": weight, f"probe_bias_{level}": bias}
    for level, name in self._activations:
      mine = spec.activations[level : level + 1] == (name,)
      row[f"probe_{name}_{level}"] = np.array([mine])
    return row

  def nodes(self, spec: NetworkSpec) -> dict[str, np.ndarray]:
    """Returns the column of its nodes, in order of the graph.

    `probe_place` is a unit's place among those of the largest network.
    """
    starts = np.cumsum([0, *self._widths])
    places = [
      start + np.arange(width)
      for start, width in zip(starts, _widths(spec), strict=False)
    ]
    return {"probe_place": np.concatenate(places).astype(np.int32)}


def _widths(spec: NetworkSpec) -> list[int]:
  """Returns the units of every layer, inputs first."""
  shapes = [t.shape for t in spec.tensors if t.kind == "linear_weight"]
  return [shapes[0][1], *(shape[0] for shape in shapes)]


def answers(
  batch: joining.Joined, probes: Float[Array, "K I"]
) -> Float[Array, "N K"]:
  """Runs all networks of a batch on probes.

  Args:
    batch: with the columns of a `Plan`.
    probes: inputs. A network of fewer inputs reads the first of each; what it
      has beyond them is 0.

  Returns:
    What every unit gives: the inputs themselves, hidden units after their
    activation, outputs.
  """
  row, nodes = batch.tables["networks"], batch.tables["nodes"]
  weights = jnp.asarray(batch.weights)
  start = jnp.asarray(row["probe_start"])

  def fetched(column):
    column = jnp.asarray(column)
    place = start.reshape(-1, *(1,) * (column.ndim - 1)) + column
    return jnp.where(column >= 0, weights[jnp.where(column >= 0, place, 0)], 0)

  width = row["probe_weight_0"].shape[-1]
  x = jnp.pad(probes, ((0, 0), (0, max(0, width - probes.shape[1]))))
  x = jnp.broadcast_to(x[None, :, :width], (len(start), len(probes), width))
  units, level = [x], 0
  while f"probe_weight_{level}" in row:
    x = jnp.einsum("bki,boi->bko", x, fetched(row[f"probe_weight_{level}"]))
    x = x + fetched(row[f"probe_bias_{level}"])[:, None]
    x = _activated(row, level, x)
    units.append(x)
    level += 1
  values = jnp.swapaxes(jnp.concatenate(units, axis=-1), 1, 2)
  network = jnp.asarray(nodes["network"])
  values_of_nodes = values.reshape(-1, len(probes))[
    network * values.shape[1] + nodes["probe_place"]
  ]
  offset = jnp.asarray(row["probe_offset"])[network]
  offset = jnp.where(nodes["role"] == graph.OUTPUT, offset, 0)
  return values_of_nodes + offset[:, None]


def _activated(row: Mapping[str, Any], level: int, x: Float[Array, "B K O"]):
  """Applies to each network the activation of its layer."""
  activated = x
  for name, function in families.ACTIVATIONS.items():
    mine = row.get(f"probe_{name}_{level}")
    if mine is None or name == "none":
      continue
    into = x
    if name == "sine":
      into = x * jnp.asarray(row["probe_w0"], x.dtype)[:, None, None]
    activated = jnp.where(mine[:, None, None], function(into), activated)
  return activated


class ProbeFeatures(nn.Module):
  """Learned probes, and features of nodes from what networks answer.

  Inputs, each hidden level, and outputs have a map and a norm of their own.

  Attributes:
    probes: `K`.
    width: `V`.
    inputs: coordinates of a probe.
    levels: hidden levels; deeper ones share the last.
  """

  probes: int
  width: int
  inputs: int
  levels: int

  @nn.compact
  def __call__(self, batch: joining.Joined) -> Float[Array, "N V"]:
    """Returns features of the nodes."""
    probes = self.param("probes", _uniform, (self.probes, self.inputs))
    values = answers(batch, probes)
    nodes = batch.tables["nodes"]
    level = jnp.minimum(nodes["number"], self.levels - 1)
    kind = jnp.where(
      nodes["role"] == graph.HIDDEN,
      1 + level,
      jnp.where(nodes["role"] == graph.INPUT, 0, self.levels + 1),
    )
    total = jnp.zeros((len(values), self.width), values.dtype)
    for number in range(self.levels + 2):
      y = nn.Dense(self.width, name=f"proj_{number}_0")(values)
      y = nn.LayerNorm(epsilon=1e-5, name=f"proj_{number}_1")(y)
      total = total + jnp.where((kind == number)[:, None], y, 0)
    return total


def _uniform(key, shape, dtype=jnp.float32):
  return jax.random.uniform(key, shape, dtype, -1.0, 1.0)
