"""How much work the encoding of a large network is, and how long it will take.

Work has a cost in any unit: by default that of a chunk, or, where a small piece
was timed, seconds. It is of two kinds: chunks, once in every pass, and steps of
set functions, each of a block of members with another (`large_sets.steps`).

Dimensions: `C` passes over the chunks.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from sne_jax.encoders.sne import chunk_stream, large_sets
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.networks.chunking import ranges

Progress = Callable[[float, float], None]
"""Called with the work that is done, and all of it."""

FEW_PARTS = 16
"""Micro-batches and steps that are not worth an estimate: it takes several."""


class Pace(NamedTuple):
  """What each part of the work costs."""

  passes: tuple[float, ...]  # A chunk, in each pass over them `[C]`.
  layer: float  # A step of the layer function.
  network: float


class Work:
  """Counts the work of one encoding as it is done.

  Attributes:
    pace: what each part costs.
    total: cost of all of it.
  """

  def __init__(
    self,
    options: SNEOptions,
    plan: ranges.Plan,
    pace: Pace | None = None,
    progress: Progress | None = None,
  ):
    """Adds up the work of a network.

    Args:
      options: of SNE.
      plan: of the network.
      pace: what parts cost; None: 1 for a chunk, as much as its members for a
        step.
      progress: is told what is done.
    """
    size = float(large_sets.BLOCK)
    self.pace = pace or Pace((1.0,) * passes(options), size, size)
    steps = set_steps(options, plan)
    self.total = plan.num_chunks * sum(self.pace.passes)
    self.total += steps["layer"] * self.pace.layer
    self.total += steps["network"] * self.pace.network
    self._done, self._progress = 0.0, progress

  def add(self, count: int, cost: float) -> None:
    """Says that so many parts of one cost are done."""
    self._done = min(self._done + count * cost, self.total)
    if self._progress is not None:
      self._progress(self._done, self.total)


def passes(options: SNEOptions) -> int:
  """Returns `C`."""
  return 2 if options.identifiers == "content" else 1


def set_steps(options: SNEOptions, plan: ranges.Plan) -> dict[str, int]:
  """Returns the steps of set functions by stage: of layers, of the network."""
  sizes = np.diff(plan.starts).tolist()
  count = lambda stage, size: large_sets.steps(options, stage, size)
  if options.layer_function == "none":
    return {"layer": 0, "network": count("network", sum(sizes))}
  of_all = len(sizes) * options.layer_seeds
  if options.skip_tokens:
    of_all += len(plan.spec.skips)
  layers = sum(count("layer", size) for size in sizes)
  return {"layer": layers, "network": count("network", of_all)}


def is_worth_an_estimate(
  options: SNEOptions, plan: ranges.Plan, size: int
) -> bool:
  """Whether there are more than a few parts; of fewer, timing some is a waste.

  Args:
    options: of SNE.
    plan: of the network.
    size: chunks of a micro-batch.
  """
  batches = passes(options) * -(-plan.num_chunks // size)
  return batches + sum(set_steps(options, plan).values()) > FEW_PARTS


def measure(
  options: SNEOptions,
  plan: ranges.Plan,
  stages: dict[str, Callable],
  params: Any,
  stream: chunk_stream.ChunkStream,
  functions: list[Callable],
) -> Pace:
  """Times a small piece of each kind of work, once it is compiled.

  Args:
    options: of SNE.
    plan: of the network.
    stages: the jitted parts of SNE.
    params: of SNE.
    stream: the network's chunks.
    functions: of a micro-batch, of each pass `[C]`.
  """
  count = min(stream.size, plan.num_chunks)
  of_chunk = tuple(
    _seconds(lambda f=f: f(stream.slots(0, count))) / count for f in functions
  )
  sizes = np.diff(plan.starts).tolist()
  largest = {"layer": max(sizes), "network": 0}
  if options.layer_function == "none":
    largest = {"layer": 0, "network": sum(sizes)}

  def of_step(stage: str) -> float:
    size = min(largest[stage], 2 * large_sets.BLOCK)
    if not size:  # A few vectors of layers: nothing beside the rest.
      return 0.0
    rng = np.random.default_rng(0)
    members = rng.standard_normal((size, options.width)).astype(np.float32)
    of_stage = params.get(stage, {})
    run = lambda: stages[stage](of_stage, members.copy())
    return _seconds(run) / large_sets.steps(options, stage, size)

  return Pace(of_chunk, of_step("layer"), of_step("network"))


def _seconds(run: Callable[[], Any]) -> float:
  """Returns the seconds of a second call: the first may have compiled."""
  jax.block_until_ready(run())
  began = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - began
