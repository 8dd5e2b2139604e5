"""Graphs of any networks as tables of a batch, and what is measured of them.

Dimensions: `T` weights of a batch, `N` nodes, `E` edges, `B` networks, `K`
values of an edge.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.encoders import interface, scaling
from sne_jax.encoders.batches import joining
from sne_jax.encoders.graphs import graph, probe_inputs
from sne_jax.networks import scales
from sne_jax.networks.spec import NetworkSpec

REFS = {
  ("networks", "probe_start"): "weights",
  ("nodes", "network"): "networks",
  ("nodes", "value"): "weights",
  ("edges", "network"): "networks",
  ("edges", "source"): "nodes",
  ("edges", "target"): "nodes",
  ("edges", "index"): "weights",
  ("outputs", "node"): "nodes",
}


def packer(
  specs: Sequence[NetworkSpec],
  places: int,
  *,
  dense: bool,
  num_probes: int = 0,
  outputs: int = 0,
  activations: Sequence[str] = (),
) -> joining.Packer:
  """Returns the packer of graphs.

  Args:
    specs: the architectures at hand.
    places: values of an edge.
    dense: pad the nodes of every network to the most that a spec has, for
      arrays of all pairs.
    num_probes: above 0: with the columns that running them takes.
    outputs: above 0: of every network, as a code of the output nodes needs it.
    activations: names that are marked at hidden nodes.

  Raises:
    ValueError: of `probes.check`, or a network has another number of outputs.
  """
  probe_inputs.check("probes", num_probes, specs)
  for spec in specs if outputs else ():
    count = int((graph.graph_of(spec, places).role == graph.OUTPUT).sum())
    if count != outputs:
      raise ValueError(
        f"readout is last, for networks of {outputs} outputs, but"
        f" {spec.describe()} has {count}; train with readout pool, which reads"
        " any"
      )
  plan = probe_inputs.Plan(specs) if num_probes else None
  widest = 0
  if dense:
    widest = max(len(graph.graph_of(s, places).value) for s in specs)
  return joining.Packer(
    specs,
    functools.partial(describe, places, plan, tuple(activations)),
    refs=REFS,
    shared={"dense": {"node": np.arange(widest)}} if dense else {},
    seen_as=lambda spec: spec if plan or activations else spec.layout,
  )


def describe(
  places: int,
  plan: probe_inputs.Plan | None,
  activations: tuple[str, ...],
  spec: NetworkSpec,
) -> joining.Tables:
  """Returns what a network of a spec brings into a batch."""
  g = graph.graph_of(spec, places)
  count, links = len(g.value), len(g.source)
  outputs = np.flatnonzero(g.role == graph.OUTPUT).astype(np.int32)
  return {
    "weights": scaling.columns(spec),
    "nodes": {
      "network": np.zeros(count, np.int32),
      "local": np.arange(count, dtype=np.int32),
      "value": g.value,
      "has_value": g.has_value,
      "role": g.role,
      "number": g.number,
    }
    | (plan.nodes(spec) if plan else {})
    | ({"activation": _marks(g, spec, activations)} if activations else {}),
    "edges": {
      "network": np.zeros(links, np.int32),
      "source": g.source,
      "target": g.target,
      "local_source": g.source.copy(),
      "local_target": g.target.copy(),
      "index": g.index,
      "mask": g.mask,
      "constant": g.constant,
      "kind": g.kind,
      "part": g.part,
    },
    "outputs": {"node": outputs},
    "networks": plan.network(spec) if plan else {},
  }


def _marks(
  g: graph.Graph, spec: NetworkSpec, activations: tuple[str, ...]
) -> np.ndarray:
  """Returns the activation after each hidden node, by number; -1: none known.

  Inputs and outputs have no mark, nor has an activation without a name here.
  """
  known = [
    activations.index(a) if a in activations else -1 for a in spec.activations
  ]
  marks = np.array(known or [-1], np.int32)
  level = np.minimum(g.number, len(marks) - 1)
  return np.where(g.role == graph.HIDDEN, marks[level], -1).astype(np.int32)


def measure(
  networks: Sequence[interface.Network], num_probes: int = 0
) -> dict[str, Any]:
  """Measures training networks: sizes of weights, and of their graphs.

  Args:
    networks: the training networks.
    num_probes: how many probes they are to be run on.

  Returns:
    Scales of weights; `places` of an edge; rows of the position table for
    inputs, hidden levels and outputs; `outputs` if all have as many, else 0;
    `parts` of parallel edges; names of `activations`; and `delta`, the mean of
    log(degree + 1).

  Raises:
    ValueError: of `probes.check`.
  """
  specs = dict.fromkeys(spec for spec, _ in networks)
  probe_inputs.check("probes", num_probes, tuple(specs))
  places = max(graph.places_of(spec) for spec in specs)
  by_spec = {spec: graph.graph_of(spec, places) for spec in specs}
  logs, nodes = 0.0, 0
  for spec, _ in networks:
    g = by_spec[spec]
    degree = np.bincount(g.target, minlength=len(g.value))
    logs, nodes = logs + np.log(degree + 1).sum(), nodes + len(degree)

  def most(role):
    return max(
      int(g.number[g.role == role].max(initial=0)) + 1 for g in by_spec.values()
    )

  outputs = {int((g.role == graph.OUTPUT).sum()) for g in by_spec.values()}
  return scales.described(networks, fan_in=True) | {
    "places": places,
    "positions": [most(graph.INPUT), most(graph.HIDDEN), most(graph.OUTPUT)],
    "outputs": outputs.pop() if len(outputs) == 1 else 0,
    "parts": 1 + max(int(g.part.max()) for g in by_spec.values()),
    "activations": sorted({a for spec in specs for a in spec.activations}),
    "delta": float(logs / nodes),
  }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """What `measure` gives, as a field of modules."""

  place_scales: tuple[float, ...]
  places: int
  positions: tuple[int, ...]
  parts: int
  outputs: int
  delta: float
  activations: tuple[str, ...] = ()  # Earlier versions have measured none.

  @classmethod
  def of(cls, measured: Mapping[str, Any]) -> "Measured":
    """Returns these of what was measured, which may hold more."""
    names = {field.name for field in dataclasses.fields(cls)}
    known: dict[str, Any] = {
      name: tuple(value) if isinstance(value, list | tuple) else value
      for name, value in measured.items()
      if name in names
    }
    return cls(**known)
