"""What is known of every slot of every chunk, before anything is encoded.

Dimensions: `M` chunks of `C` slots, `T` weights of a packed batch, `F` features
of a weight.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.encoders.baselines import statistics
from sne_jax.encoders.batches import buckets, joining
from sne_jax.encoders.responses import programs
from sne_jax.encoders.sne import encodings, tensor_tokens
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.networks import chunking, scales
from sne_jax.networks.spec import NetworkSpec


class Slots(NamedTuple):
  """Chunks of any networks, whatever they were gathered from."""

  weights: Any  # float32 [M, C], scaled; 0 where there is none
  log_scale: Any  # float32 [M, C], of the weight's tensor, or None
  mask: Any  # bool [M, C], True where there is a weight
  role: Any  # int32 [M, C], as in `chunking.ROLES`
  # int32 [M, C], rows of the position tables, one for each of
  # `encodings.POSITIONS`; None where all of them are 0, which is "none".
  positions: Any
  other: Any  # int32 [M, C], neuron at the other end, or None without these
  neuron: Any  # int32 [M], neuron that the chunk belongs to, or None likewise
  chunk: Any  # int32 [M], number of the chunk within its layer
  kind: Any  # int32 [M], kind of its layer
  level: Any  # float32 [M, 2], level, and level / deepest level


class Parts(NamedTuple):
  """What is known of the chunks of a batch."""

  slots: Slots
  marks: Any  # [M, C, d], index features of weights, or None
  neurons: Any  # [K, d], identifiers, or None
  rows: Any  # [M, h], codes


class Scaling(NamedTuple):
  """How weights are scaled before they are encoded.

  Attributes:
    options: `fan_in_scale` and `weight_scale`.
    global_scale: root mean square of the (fan-in scaled) training weights.
    place_scales: the same for each of `scales.PLACES`; empty: `global_scale`.
  """

  options: SNEOptions
  global_scale: float
  place_scales: tuple[float, ...]

  @property
  def by_place(self) -> np.ndarray:
    """What weights are divided by, `[places]`; 1 where tensors say it."""
    count = len(scales.PLACES)
    known = {"none": (1.0,) * count, "tensor": (1.0,) * count}
    known["global"] = (self.global_scale,) * count
    known["place"] = self.place_scales or known["global"]
    return np.asarray(known[self.options.weight_scale], np.float32)


def packer(
  specs: Sequence[NetworkSpec],
  options: SNEOptions,
  chunk_options: chunking.ChunkOptions,
) -> joining.Packer:
  """Returns the packer of SNE: chunks, and what is a set of what.

  Chunks are sets of slots, layers sets of chunks, networks sets of layers (or
  of chunks, without a layer function), then of residual connections, and then
  of `tensor_tokens`.

  Args:
    specs: the architectures at hand.
    options: say which columns and sets are needed.
    chunk_options: how tensors are cut into chunks; a chunk size of 0 is derived
      from all of the specs.
  """
  chunk_options = chunking.resolved(chunk_options, specs)
  rows = "chunks" if options.layer_function == "none" else "layers"
  networks = [(rows, "network")]
  if options.skip_tokens:
    networks.append(("skips", "network"))
  networks += tensor_tokens.members(options)
  sets = {"networks": networks}
  if rows == "layers":
    sets["layers"] = [("chunks", "layer")]
  if options.statistics_tokens:
    sets |= statistics.SETS
  layouts = [chunking.layout(spec.layout, chunk_options) for spec in specs]
  last = max(
    (
      int(column.max(initial=0))
      for layout in layouts
      for column in encodings.positions_of(layout, options.index_features)
    ),
    default=0,
  )
  positions = np.arange(buckets.round_up(1 + last), dtype=np.float32)
  refs = {}
  if options.responses == "none":
    seen_as = lambda spec: spec.layout
    plan = None
  else:
    seen_as = lambda spec: spec
    plan = programs.Plan(specs)
    refs = plan.refs() | {("chunks", "unit"): "units"}
  return joining.Packer(
    specs,
    functools.partial(describe, options, chunk_options, plan=plan),
    refs=refs
    | {
      ("weights", "tensor"): "tensors",
      **tensor_tokens.REFS,
      ("chunks", "index"): "weights",
      ("chunks", "layer"): "layers",
      ("chunks", "neuron"): "neurons",
      ("chunks", "other"): "neurons",
    },
    none=("neurons", "units"),
    sets=sets,
    seen_as=seen_as,
    shared={"positions": {"number": positions}},
  )


def describe(
  options: SNEOptions,
  chunk_options: chunking.ChunkOptions,
  spec: NetworkSpec,
  plan: programs.Plan | None = None,
) -> joining.Tables:
  """Returns what a network of a spec brings into a batch."""
  layout = chunking.layout(spec, chunk_options)
  level = with_relative(layout.layer_level, spec)
  sizes = [t.size for t in spec.tensors]
  chunks = {
    "index": layout.index,
    "mask": layout.mask,
    "role": layout.role,
    "number": layout.chunk,
    "layer": layout.layer,
    "kind": layout.layer_kind[layout.layer],
    "level": level[layout.layer],
  }
  names = encodings.POSITIONS[options.index_features]
  columns = encodings.positions_of(layout, options.index_features)
  chunks |= dict(zip(names, columns, strict=True))
  tables = {
    "weights": {
      "scale": scales.fan_in_root(spec),
      "place": scales.place_of(spec),
      "tensor": np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
    },
    "tensors": {
      "size": np.array(sizes, np.int32),
      "network": np.zeros(len(sizes), np.int32),
    },
    "chunks": chunks,
    "layers": {"kind": layout.layer_kind, "level": level},
  }
  if options.skip_tokens:
    tables["skips"] = {"level": skip_ends(spec)}
  of_tensors = with_relative(np.array([t.level for t in spec.tensors]), spec)
  for name, columns in tensor_tokens.describe(
    options, spec, of_tensors
  ).items():
    tables[name] = tables.get(name, {}) | columns
  if options.identifiers != "none":
    chunks |= {"neuron": layout.owner, "other": layout.other}
    numbers = np.arange(1, 1 + layout.num_neurons, dtype=np.int32)
    tables["neurons"] = {"number": numbers}
  if plan is not None:
    chunks["unit"] = programs.unit_of_chunks(spec, layout)
    tables |= plan.tables(spec)
  return tables


def skip_ends(spec: NetworkSpec) -> np.ndarray:
  """Returns the levels of both ends of skips, `[skips, 2, 2]`."""
  return with_relative(np.array(spec.skips, np.float32).reshape(-1, 2), spec)


def with_relative(levels: np.ndarray, spec: NetworkSpec) -> np.ndarray:
  """Returns levels `[...]` with their share of the deepest, `[..., 2]`."""
  deepest = max(spec.num_levels - 1, 1)
  return np.stack([levels, levels / deepest], axis=-1).astype(np.float32)


def of_batch(batch: joining.Joined, scaling: Scaling) -> Slots:
  """Gathers the slots of a packed batch."""
  chunks = batch.tables["chunks"]
  index, mask = chunks["index"], chunks["mask"]
  flat, log_scale = scaled(batch, scaling)
  if log_scale is not None:
    log_scale = log_scale[batch.tables["weights"]["tensor"][index]]
    log_scale = jnp.where(mask, log_scale, 0)
  names = encodings.POSITIONS[scaling.options.index_features]
  return Slots(
    weights=jnp.where(mask, flat[index], 0),
    log_scale=log_scale,
    mask=mask,
    role=chunks["role"],
    positions=tuple(chunks[name] for name in names),
    other=chunks.get("other"),
    neuron=chunks.get("neuron"),
    chunk=chunks["number"],
    kind=chunks["kind"],
    level=chunks["level"],
  )


def values(slots: Slots, options: SNEOptions):
  """Returns the features of weights, `[M, C, F]`."""
  features = encodings.value_features(slots.weights, options.value_features)
  if slots.log_scale is None:
    return features
  return jnp.concatenate([features, slots.log_scale[..., None]], axis=-1)


def root_mean_square(total, count):
  """Returns that of tensors, from the sums of their squares."""
  return (total / count + 1e-12) ** 0.5


def scaled(batch: joining.Joined, scaling: Scaling):
  """Returns scaled weights `[T]`, and log scales of tensors `[K]` or None."""
  o, table = scaling.options, batch.tables["weights"]
  flat = batch.weights
  if o.fan_in_scale:
    flat = flat * table["scale"]
  if o.weight_scale == "none":
    return flat, None
  if o.weight_scale != "tensor":
    return flat / jnp.asarray(scaling.by_place)[table["place"]], None
  size = batch.tables["tensors"]["size"].astype(flat.dtype)
  total = jax.ops.segment_sum(flat**2, table["tensor"], len(size))
  rms = root_mean_square(total, jnp.maximum(size, 1))
  return flat / rms[table["tensor"]], jnp.log(rms)
