"""SNE of networks of any size, in bounded memory.

The same modules and parameters as `sne.SNE` on a packed batch, and the same
code up to rounding, but no array is as large as the network. Chunks are
gathered from the tensors where they lie, a micro-batch of one shape at a time:

1. with `weight_scale="tensor"`, the root mean square of every tensor;
2. with content identifiers, what chunks tell of their neurons, added up;
3. the codes of chunks; a layer is encoded when its last chunk is there, so that
   the chunk codes of one layer at a time are held (of all, with
   `layer_function="none"`);
4. the network, a set of layers and residual connections.

One to three passes over the tensors, therefore, and time linear in the number
of weights, unless a layer or network function is `sab`: that is quadratic in
the members of a set that is larger than a block (`large_sets`).

Dimensions: `C` weights per chunk, `h` width of a code, `d` of an identifier,
`K` neurons, `L` pseudo-layers, `Q` members of a set.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Float

from sne_jax.encoders.batches import buckets
from sne_jax.encoders.sne import chunk_stream, large_sets
from sne_jax.encoders.sne import module as sne
from sne_jax.encoders.sne import pace as pace_lib
from sne_jax.encoders.sne import slots as slots_lib
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.networks import chunking
from sne_jax.networks.chunking import ranges
from sne_jax.networks.spec import NetworkSpec

MEMORY_LIMIT = 2**30
"""Bytes, by default."""

MOST_SLOTS = 2**18
"""Slots of a micro-batch at most: more need more memory and save no time."""

MANY_MEMBERS = 2**16
"""Members of a set from which on `sab` takes minutes or more: it is said."""


def make_encode_fn(
  options: SNEOptions,
  chunk_options: chunking.ChunkOptions,
  global_scale: float = 1.0,
  place_scales: tuple[float, ...] = (),
  *,
  memory_limit: int = MEMORY_LIMIT,
) -> "Encode":
  """Returns what encodes a network in bounded memory; it jits its parts.

  Half of `memory_limit` is for a micro-batch (`chunks_at_a_time`), half for
  what is held (`held_bytes`): identifiers, tables of positions, and the chunk
  codes of the largest layer. What the interpreter, libraries and compiled
  programs take is not counted, nor are mapped files, whose pages are given
  back layer by layer.

  Args:
    options: of SNE.
    chunk_options: how tensors are cut into chunks.
    global_scale: as of `sne.SNE`.
    place_scales: as of `sne.SNE`.
    memory_limit: bytes.

  Raises:
    ValueError: the limit does not hold one chunk, or the encoder has tokens of
      whole tensors.
  """
  if options.reads_tensors:
    raise ValueError(
      "statistics_tokens and gram_tokens read whole tensors, which are not held"
      " in bounded memory; encode the network at once, or train without them"
    )
  module = sne.SNE(options, global_scale, place_scales)
  most = chunk_options.chunk_size or chunking.MOST_SLOTS
  size = chunks_at_a_time(options, most, memory_limit)
  return Encode(module, chunk_options, size, memory_limit)


class Encode:
  """Encodes one network at a time, `[h]`; `make_encode_fn` makes it."""

  def __init__(
    self,
    module: sne.SNE,
    chunk_options: chunking.ChunkOptions,
    size: int,
    memory_limit: int,
  ):
    """Notes how; nothing is compiled yet."""
    self._options, self._module = module.options, module
    self._chunk_options, self._size = chunk_options, size
    self._limit = memory_limit
    self._stages = _stages(module)

  def __call__(
    self,
    params: Any,
    spec: NetworkSpec,
    tensors: Mapping[str, Any],
    *,
    identifiers: Callable[[int], Any] | None = None,
    progress: pace_lib.Progress | None = None,
    pace: pace_lib.Pace | None = None,
  ) -> Float[np.ndarray, "h"]:
    """Encodes a network.

    Args:
      params: of `sne.SNE`, without the "params" around them.
      spec: the network.
      tensors: arrays of the spec's shapes, by the spec's names: numpy arrays of
        any float type, views, memory-mapped files, or objects with a `shape`
        and a `read()` that returns one of these.
      identifiers: where `options.identifiers` is "random", a function of
        `1 + K` that draws so many, `[1 + K, d]`, as `sne.SNE.draw_identifiers`
        does.
      progress: is told how much of the work is done.
      pace: what the work costs; see `pace.Work`.

    Raises:
      ValueError: a tensor is missing or has another shape, or the network needs
        more than the limit.
    """
    o, stages, plan, stream = self._prepared(spec, tensors)
    _warn_of_many(o, plan)
    work = pace_lib.Work(o, plan, pace, progress)
    tables = stages["tables"](params, chunk_stream.positions(o, plan))
    table = None
    if o.identifiers == "content":
      summaries = stream.map(
        lambda slots: stages["summary"](params, slots, tables),
        lambda count: work.add(count, work.pace.passes[0]),
      )
      means = _means_by_neuron(summaries, plan.neurons.total, o.width)
      table = stages["identifiers"](params, means)
    elif o.identifiers == "random":
      table = _draw(identifiers, plan)
    codes = stream.map(
      lambda slots: stages["chunks"](params, slots, tables, table),
      lambda count: work.add(count, work.pace.passes[-1]),
    )
    rows = _rows(o, plan, stages, params, codes, work)
    tell = lambda count: work.add(count, work.pace.network)
    (code,) = stages["network"](params.get("network", {}), rows, tell)
    return np.asarray(code, np.float32)

  def pace(
    self,
    params: Any,
    spec: NetworkSpec,
    tensors: Mapping[str, Any],
    *,
    identifiers: Callable[[int], Any] | None = None,
  ) -> tuple[pace_lib.Pace | None, float]:
    """Estimates how long an encoding takes, from a small piece of it.

    Args:
      params: as of a call.
      spec: likewise.
      tensors: likewise.
      identifiers: likewise.

    Returns:
      What parts cost, in seconds, and the seconds of all; `(None, 0.0)` where
      there are too few to be worth it.
    """
    o, stages, plan, stream = self._prepared(spec, tensors)
    if not pace_lib.is_worth_an_estimate(o, plan, stream.size):
      return None, 0.0
    tables = stages["tables"](params, chunk_stream.positions(o, plan))
    table, functions = None, []
    if o.identifiers == "content":
      rows = buckets.round_up(1 + plan.neurons.total)
      means = np.zeros((rows, o.width), np.float32)
      table = stages["identifiers"](params, means)
      functions = [lambda slots: stages["summary"](params, slots, tables)]
    elif o.identifiers == "random":
      table = _draw(identifiers, plan)
    functions.append(
      lambda slots: stages["chunks"](params, slots, tables, table)
    )
    pace = pace_lib.measure(o, plan, stages, params, stream, functions)
    return pace, pace_lib.Work(o, plan, pace).total

  def _prepared(self, spec: NetworkSpec, tensors: Mapping[str, Any]):
    """Returns options, stages, the plan of a network, and its chunks."""
    plan = ranges.plan(spec.layout, self._chunk_options)
    _check_held(self._options, plan, self._limit)
    stream = chunk_stream.ChunkStream(
      plan, tensors, self._module.scaling, self._size
    )
    return self._options, self._stages, plan, stream


def _draw(identifiers: Callable[[int], Any] | None, plan: ranges.Plan) -> Any:
  if identifiers is None:
    raise ValueError(
      "the options say random identifiers; pass a function that draws them"
    )
  return identifiers(1 + plan.neurons.total)


def _stages(module: sne.SNE) -> dict[str, Callable]:
  """Returns the parts of SNE, each jitted, by name."""

  def jitted(method) -> Callable:
    apply = lambda params, *args: module.apply(
      {"params": params}, *args, method=method
    )
    return jax.jit(apply)

  o = module.options
  return {
    "tables": jitted(lambda m, positions: m.index.tables(positions)),
    "summary": jitted(sne.SNE.summaries),
    "identifiers": jitted(lambda m, means: m.identifiers.of_means(means)),
    "chunks": jitted(sne.SNE.chunk_codes),
    "marks": jitted(sne.SNE.mark_layers),
    "skips": jitted(sne.SNE.skip_codes),
    "layer": large_sets.make_set_fn(o, "layer"),
    "network": large_sets.make_set_fn(o, "network"),
  }


def _rows(o: SNEOptions, plan: ranges.Plan, stages, params, codes, work):
  """Returns the members of the network's set `[Q, h]`, from codes of chunks."""
  if o.layer_function == "none":
    (rows,) = _by_layer(codes, [plan.num_chunks])
  else:
    of_layer = params.get("layer", {})  # Without blocks it has none.
    sizes = np.diff(plan.starts)
    tell = lambda count: work.add(count, work.pace.layer)
    layers = _by_layer(codes, sizes)
    rows = [stages["layer"](of_layer, c, tell) for c in layers]
    marks = plan.kind, chunk_stream.levels(plan)
    rows = stages["marks"](params, np.stack(rows), *marks)
    rows = np.asarray(rows).reshape(-1, o.width)
  if o.skip_tokens and plan.spec.skips:
    ends = slots_lib.skip_ends(plan.spec)
    skips = np.asarray(stages["skips"](params, ends)).reshape(-1, o.width)
    rows = np.concatenate([rows, skips.astype(rows.dtype)])
  return rows


def chunks_at_a_time(
  options: SNEOptions, chunk_size: int, memory_limit: int
) -> int:
  """Returns how many chunks make a micro-batch.

  As many as half of the limit has room for, at `bytes_per_slot`, but at most
  `MOST_SLOTS` slots.

  Raises:
    ValueError: that is not even one chunk.
  """
  each = bytes_per_slot(options, chunk_size) * chunk_size
  if memory_limit // 2 < each:
    raise ValueError(
      f"memory_limit is {memory_limit} bytes; one chunk of {chunk_size} weights"
      f" takes {each}, and half of the limit is for chunks: set it to at least"
      f" {2 * each}"
    )
  return min(memory_limit // 2 // each, max(MOST_SLOTS // chunk_size, 1))


def bytes_per_slot(options: SNEOptions, chunk_size: int) -> int:
  """Returns how many bytes a micro-batch takes for each slot of a chunk.

  An upper bound, in numbers of four bytes: the arrays of two micro-batches on
  the host; features and marks; what the chunk function makes of them.
  """
  o = options
  numbers = 2 * 12 + 5 * o.identifier_dim + 64
  if o.chunk_function in ("sab", "isab", "deepsets"):
    numbers += (10 + 2 * o.feed_forward) * o.width
  if o.chunk_function in ("sab", "isab"):
    keys = chunk_size if o.chunk_function == "sab" else o.inducing_points
    numbers += 3 * o.heads * keys
  return 4 * numbers


def held_bytes(options: SNEOptions, plan: ranges.Plan) -> dict[str, int]:
  """Returns the bytes of what is held throughout, by what it is.

  Args:
    options: of SNE.
    plan: of the network.
  """
  o = options
  counts = np.diff(plan.starts)
  members, function = int(counts.max()), o.layer_function
  where = plan.spec.tensors[plan.cuts[int(counts.argmax())].tensor].name
  if function == "none":
    members, function = int(counts.sum()), o.network_function
    where = "the whole network"
  copies = 2 if function == "sab" or o.layer_function == "none" else 1
  neurons = plan.neurons.total if o.identifiers != "none" else 0
  tables = {"io": 2, "neuron": 4}.get(o.index_features, 0)
  positions = len(chunk_stream.positions(o, plan))
  return {
    f"{members} chunk codes of {where}": 4 * copies * members * o.width,
    f"identifiers of {neurons} neurons": 4
    * neurons
    * (6 * o.width + o.identifier_dim),
    f"encodings of {positions} positions": 8
    * tables
    * positions
    * o.identifier_dim,
  }


def _check_held(o: SNEOptions, plan: ranges.Plan, memory_limit: int) -> None:
  """Refuses networks beyond the limit."""
  held = held_bytes(o, plan)
  if 2 * sum(held.values()) > memory_limit:
    what = max(held, key=lambda name: held[name])
    raise ValueError(
      f"memory_limit is {memory_limit} bytes, and half of it is for what is"
      f" held: here {sum(held.values())}, most of it {what}; set it to at least"
      f" {2 * sum(held.values())}"
      + (" or layer_function to isab" if o.layer_function == "none" else "")
    )


def _warn_of_many(o: SNEOptions, plan: ranges.Plan) -> None:
  """Says where `sab` will be slow."""
  largest = int(np.diff(plan.starts).max())
  if o.layer_function == "sab" and largest > MANY_MEMBERS:
    logging.warning(
      "a layer of %d chunks is encoded by attention among them all, which takes"
      " long; layer_function=isab is linear",
      largest,
    )


def _means_by_neuron(summaries, count: int, width: int) -> np.ndarray:
  """Averages what chunks tell over each neuron; row 0 is for no neuron.

  Args:
    summaries: pairs of neurons `[M]` and summaries `[M, h]`.
    count: `K`.
    width: `h`.

  Returns:
    Means, with rows of zeros up to one of few sizes.
  """
  total = np.zeros((buckets.round_up(1 + count), width), np.float32)
  number = np.zeros((len(total), 1), np.float32)
  for neurons, rows in summaries:
    # Chunks of a neuron follow one another: sum the runs, then add those.
    starts = np.flatnonzero(np.diff(neurons, prepend=-1))
    np.add.at(total, neurons[starts], np.add.reduceat(rows, starts, axis=0))
    np.add.at(number[:, 0], neurons, 1)
  return total / np.maximum(number, 1)


def _by_layer(codes, sizes) -> Iterator[np.ndarray]:
  """Yields the codes of one layer at a time, `[Q, h]`.

  Args:
    codes: pairs of which the second are the codes of chunks, in order.
    sizes: chunks of each layer.
  """
  left, held, filled = iter(sizes), None, 0
  for _, rows in codes:
    while len(rows):
      if held is None:
        held, filled = np.empty((next(left), rows.shape[1]), rows.dtype), 0
      count = min(len(held) - filled, len(rows))
      held[filled : filled + count] = rows[:count]
      rows, filled = rows[count:], filled + count
      if filled == len(held):
        yield held
        held = None
