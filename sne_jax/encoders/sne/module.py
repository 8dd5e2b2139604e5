"""SNE, the Set-based Neural network Encoder: chunk, layer, network.

Each stage is a module for one chunk, one layer or one network, mapped over all
of a packed batch: by `nn.vmap`, or, where there is attention, by itself over
leading axes. Both give the same; under `nn.vmap`, XLA copies activations for
the gradients of the kernels, which costs a third of a step on a CPU. Equations
(2) to (6) of the specification:

  u = Phi_1(chunk);  v = Psi_2((u + type) + level)      chunk  -> [h]
  z_j = Psi_4(Phi_3({v}))                               layer  -> [h]
  z = Psi_6(Phi_5({z_j + level}))                       network -> [h]

Dimensions: `...` leading axes, `M` chunks of `C` weights, `F` features of a
weight, `h` width, `d` width of an identifier, `R` roles, `Q` members of a set.

Reference: Andreis et al., Set-based Neural Network Encoding Without Weight
Tying, NeurIPS 2024, arXiv:2305.16625.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders import segments, tiling
from sne_jax.encoders.batches import joining
from sne_jax.encoders.responses import reader
from sne_jax.encoders.responses.seen import Seen
from sne_jax.encoders.sets import stacks
from sne_jax.encoders.sne import encodings, identifiers, tensor_tokens
from sne_jax.encoders.sne import slots as slots_lib
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.networks import chunking
from sne_jax.networks.spec import KINDS

NUM_ROLES = len(chunking.ROLES)
OUT = chunking.ROLES.index("out")


class Chunk(NamedTuple):
  """What the chunk encoder sees of one chunk; of many with leading axes."""

  values: Any  # [C, F], features of each weight
  weights: Any  # [C], the scaled weights
  mask: Any  # [C], True where there is a weight
  role: Any  # [C]
  marks: Any  # [C, d], index features and identifiers of weights, or None
  neuron: Any  # [d], identifier of the chunk's neuron, or None
  kind: Any  # []
  level: Any  # [2]


def _mapped(module: type[nn.Module]) -> type[nn.Module]:
  """Maps a module for one example over a leading axis, sharing parameters."""
  return nn.vmap(
    module,
    in_axes=(0, None),  # pyright: ignore[reportArgumentType]
    variable_axes={"params": None},
    split_rngs={"params": False, "dropout": True},
  )


def _blocks(o: SNEOptions, function: str, number: int) -> stacks.SetBlocks:
  """Returns the set-to-set stage Phi."""
  return stacks.SetBlocks(
    o.set_options, function, number, o.inducing_points, name="phi"
  )


def _pool(o: SNEOptions, function: str, seeds: int = 1) -> stacks.SetPool:
  """Returns the set-to-vector stage Psi: attention, or the mean (DeepSets)."""
  kind = "mean" if function == "deepsets" else "pma"
  return stacks.SetPool(o.set_options, kind, seeds, name="psi")


class ChunkEncoder(nn.Module):
  """Encodes one chunk, a set of weights, as a vector `[h]`.

  The functions `product` and `linear` are for one chunk, to be mapped; the set
  functions take leading axes too.
  """

  options: SNEOptions

  @nn.compact
  def __call__(self, chunk: Chunk, deterministic: bool = True):
    """Maps a `Chunk` to its code `[..., h]`."""
    o = self.options
    dtype = jnp.dtype(o.compute_dtype)
    combine = functools.partial(encodings.Combine, o.width, o.encoding_combine)
    types = []
    if o.type_encoding == "learned":
      types.append(nn.Embed(len(KINDS), o.width, name="type")(chunk.kind))
    level = encodings.LevelEncoding(o.width, o.level_encoding, name="level")
    level = level(chunk.level)
    mask = chunk.mask if o.pad_mask else jnp.ones_like(chunk.mask)
    if o.chunk_function in ("product", "linear"):
      sums = summary if o.chunk_function == "product" else ordered
      parts = [sums(chunk._replace(mask=mask))]
      if chunk.neuron is not None:
        parts.append(chunk.neuron)
      code = nn.Dense(o.width, dtype=dtype, name="summary")(
        jnp.concatenate(parts)
      )
      code = combine(name="combine")(code, *types, level)
      hidden = nn.Dense(o.feed_forward * o.width, dtype=dtype, name="hidden")
      out = nn.Dense(o.width, dtype=dtype, name="out")
      act = {"gelu": nn.gelu, "relu": nn.relu}[o.activation]
      return code + out(act(hidden(code)))
    tokens = self._tokens(chunk, dtype)
    u = _blocks(o, o.chunk_function, o.chunk_blocks)(
      tokens, mask, deterministic
    )
    u = combine(name="combine_type")(u, *(t[..., None, :] for t in types))
    u = combine(name="combine_level")(u, level[..., None, :])
    return _pool(o, o.chunk_function)(u, mask, deterministic)

  def _tokens(self, chunk: Chunk, dtype):
    """Returns the tokens of a chunk's weights: `[..., C, F + R]` or `[.., h]`.

    With nothing to add, the coded form takes the scalars as they are: its
    first attention block projects them to width h.
    """
    o = self.options
    roles = jax.nn.one_hot(chunk.role, NUM_ROLES, dtype=chunk.values.dtype)
    tokens = jnp.concatenate([chunk.values, roles], axis=-1)
    if chunk.marks is None and chunk.neuron is None and o.form == "coded":
      return tokens
    dense = functools.partial(nn.Dense, o.width, dtype=dtype)
    tokens = dense(name="embed")(tokens)
    if chunk.marks is not None:
      product = chunk.weights[..., None] * chunk.marks
      tokens = tokens + dense(use_bias=False, name="marks")(chunk.marks)
      tokens = tokens + dense(use_bias=False, name="product")(product)
    if chunk.neuron is not None:
      tokens = (
        tokens + dense(use_bias=False, name="own")(chunk.neuron)[..., None, :]
      )
    return tokens


def summary(chunk: Chunk):
  """Returns the sums that the product chunk function maps, `[...]`.

  Per role, mean and root mean square of the weights; for outgoing weights and
  for all others, the sum of their marks, each times its weight, over the root
  of their number.
  """
  moments = identifiers.role_moments(chunk.values, chunk.mask, chunk.role)
  weights = jnp.where(chunk.mask, chunk.weights, 0)
  sums = []
  for side in (chunk.role != OUT, chunk.role == OUT):
    chosen = jnp.where(side, weights, 0)
    count = jnp.sum(side & chunk.mask).astype(weights.dtype)
    total = jnp.sum(chosen[:, None] * chunk.marks, axis=0)
    sums.append(total / jnp.sqrt(jnp.maximum(count, 1)))
  return jnp.concatenate([moments, *sums])


def ordered(chunk: Chunk):
  """Returns what the linear chunk function maps: the weights in order, `[...]`.

  After their features comes the mean of their marks.
  """
  values = jnp.where(chunk.mask[:, None], chunk.values, 0)
  parts = [values.reshape(-1)]
  if chunk.marks is not None:
    marks = jnp.where(chunk.mask[:, None], chunk.marks, 0)
    parts.append(jnp.sum(marks, axis=0) / jnp.maximum(chunk.mask.sum(), 1))
  return jnp.concatenate(parts)


class SetEncoder(nn.Module):
  """Encodes a set of codes as one vector, or more.

  Attributes:
    options: of SNE.
    stage: layer, a set of chunk codes, as `layer_seeds` vectors; or network, a
      set of layer codes, as one.
  """

  options: SNEOptions
  stage: str

  @nn.compact
  def __call__(self, codes, mask, deterministic: bool = True):
    """Maps codes `[..., Q, h]` and their mask to `[..., seeds, h]`."""
    o = self.options
    function = getattr(o, f"{self.stage}_function")
    number = getattr(o, f"{self.stage}_blocks")
    seeds = o.layer_seeds if self.stage == "layer" else 1
    codes = _blocks(o, function, number)(codes, mask, deterministic)
    code = _pool(o, function, seeds)(codes, mask, deterministic)
    code = code.reshape(*code.shape[:-1], seeds, o.width)
    is_normed = self.stage == "network" and o.norm == "pre"
    return nn.LayerNorm(name="norm")(code) if is_normed else code


class SNE(nn.Module):
  """Encodes a packed batch of networks, of any specs, as `[B, h]`.

  Random identifiers are drawn from the rng `identifiers`, dropout from the rng
  `dropout`. All else is deterministic, and a network's code depends neither on
  its batch mates nor on padding.

  Attributes:
    options: the switches.
    global_scale: root mean square of the (fan-in scaled) training weights.
    place_scales: the same for each of `scales.PLACES`; empty: `global_scale`.
    seen: what the training networks take and give, where answers are read.
  """

  options: SNEOptions
  global_scale: float = 1.0
  place_scales: tuple[float, ...] = ()
  seen: Seen = Seen()

  def setup(self):
    """Names the parts; their names are the format of checkpoints."""
    o = self.options
    self.index = encodings.IndexFeatures(o.identifier_dim, o.index_features)
    self.level = encodings.LevelEncoding(o.width, o.level_encoding)
    self.identifiers = identifiers.Identifiers(o)
    vectors = o.chunk_function in ("product", "linear")
    self.chunk = (_mapped(ChunkEncoder) if vectors else ChunkEncoder)(o)
    self.layer = SetEncoder(o, "layer")
    self.type = nn.Embed(len(KINDS), o.width)
    self.network = SetEncoder(o, "network")
    if o.responses != "none":
      self.responses = reader.Reader(o.reader_options, self.seen)
    if o.skip_tokens:
      self.skip = self.param("skip", nn.initializers.normal(0.02), (2, o.width))
    if o.reads_tensors:
      self.tensors = tensor_tokens.TensorTokens(o)

  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a packed batch to network codes `[B, h]`."""
    return self.in_parts(batch, deterministic)[0]

  def in_parts(self, batch: joining.Joined, deterministic: bool = True):
    """Returns codes `[B, h]`, and the `slots.Parts` they are made of."""
    codes, answered, parts = self._read(batch, deterministic)
    if answered is not None:
      codes = self._alone(codes, *answered).mean(0)
    return codes, parts

  @property
  def num_readers(self) -> int:
    """How many codes a network has in training; see `reader.py`."""
    o = self.options
    if o.responses == "none":
      return 1
    return o.response_readers + (o.response_join == "apart")

  def of_each_reader(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to the codes that each reader gives alone, `[R, B, h]`."""
    codes, answered, _ = self._read(batch, deterministic)
    return codes[None] if answered is None else self._alone(codes, *answered)

  def _alone(self, codes, answered, read):
    """Returns the codes of each reader, `[R, B, h]`; apart, also of weights.

    Networks without answers have the code of their weights everywhere.
    """
    if self.options.response_join == "added":
      return codes[None] + answered
    apart = jnp.where(read[None, :, None] > 0, answered, codes[None])
    return jnp.concatenate([codes[None], apart])

  def _read(self, batch: joining.Joined, deterministic: bool):
    """Returns codes, what readers add, and the `Parts`.

    Returns:
      `[B, h]`; `[R, B, h]` with of whom they are, `[B]`, or None; `Parts`.
    """
    o = self.options
    batch = jax.tree.map(jnp.asarray, batch)
    slots = slots_lib.of_batch(batch, self.scaling)
    tables = self.index.tables(batch.tables["positions"]["number"])
    neurons = self._identifiers(slots, tables, batch)
    # Chunks: [M, 1, h].
    rows = self.chunk_codes(slots, tables, neurons, deterministic)[:, None, :]
    answered = None
    if o.responses != "none":
      of_chunks, *answered = self.responses(batch, deterministic)
      rows = rows if of_chunks is None else rows + of_chunks[:, None, :]
    parts = slots_lib.Parts(
      slots, self.index(slots, tables), neurons, rows[:, 0]
    )
    if o.layer_function != "none":
      # Layers, in the order of their table: [L, seeds, h].
      rows = _pooled(self.layer, rows, batch, "layers", deterministic)
      layers = batch.tables["layers"]
      rows = self.mark_layers(rows, layers["kind"], layers["level"])
    if o.skip_tokens:
      skips = self.skip_codes(batch.tables["skips"]["level"])
      rows = jnp.concatenate([rows, skips])
    if o.reads_tensors:
      tokens = self.tensors(batch, *slots_lib.scaled(batch, self.scaling))
      rows = jnp.concatenate([rows, tokens])
    codes = _pooled(self.network, rows, batch, "networks", deterministic)
    wide = jnp.promote_types(codes.dtype, jnp.float32)
    return codes[:, 0].astype(wide), answered, parts

  @property
  def scaling(self) -> slots_lib.Scaling:
    """How weights are scaled."""
    return slots_lib.Scaling(self.options, self.global_scale, self.place_scales)

  # The stages, for whoever has only a part of the chunks at hand.

  def summaries(self, slots: slots_lib.Slots, tables):
    """Returns what chunks tell of their own neurons, `[M, h]`."""
    values = slots_lib.values(slots, self.options)
    return self.identifiers.summaries(slots, values, self.index(slots, tables))

  def draw_identifiers(self, count: int):
    """Draws random identifiers `[count, d]`; rng `identifiers`."""
    return self.identifiers.draw(count)

  def chunk_codes(
    self, slots: slots_lib.Slots, tables, neurons, deterministic: bool = True
  ):
    """Encodes chunks as `[M, h]`.

    Args:
      slots: the chunks.
      tables: what `index.tables` gives.
      neurons: identifiers `[K, d]`, or None.
      deterministic: False to apply dropout.
    """
    o = self.options
    marks, neuron = self.index(slots, tables), None
    if marks is None and neurons is None and o.index_features != "none":
      marks = jnp.zeros((*slots.mask.shape, o.identifier_dim))
    if neurons is not None:
      neuron = neurons[slots.neuron]
      other = neurons[slots.other]
      marks = other if marks is None else marks + other
    chunks = Chunk(
      values=slots_lib.values(slots, o),
      weights=slots.weights,
      mask=slots.mask,
      role=slots.role,
      marks=marks,
      neuron=neuron,
      kind=slots.kind,
      level=slots.level,
    )
    return tiling.in_tiles(self.chunk, (chunks,), deterministic, o.chunk_tile)

  def mark_layers(self, codes, kind, level):
    """Gives layer codes `[L, seeds, h]` their level and kind once more."""
    o = self.options
    if not o.level_again:
      return codes
    marks = self.level(level)
    if o.type_encoding == "learned":
      marks = marks + self.type(kind)
    return codes + marks[:, None, :]

  def skip_codes(self, level):
    """Returns the codes of residual connections, `[skips, seeds, h]`.

    There may be none; the parameters are there all the same, for batches that
    have some.
    """
    o = self.options
    ends = self.level(level) + self.skip[None, :, :]  # [skips, 2, h]
    seeds = 1 if o.layer_function == "none" else o.layer_seeds
    return jnp.repeat(ends.sum(axis=1, keepdims=True), seeds, axis=1)

  def _identifiers(self, slots: slots_lib.Slots, tables, batch: joining.Joined):
    """Returns the identifiers of all neurons, `[K, d]`, or None."""
    kind = self.options.identifiers
    if kind == "none":
      return None
    count = len(batch.tables["neurons"]["real"])
    if kind == "random":
      return self.draw_identifiers(count)
    summaries = self.summaries(slots, tables)
    means = segments.mean(summaries, slots.neuron, count)
    return self.identifiers.of_means(means)


def _pooled(encoder, rows, batch: joining.Joined, name: str, deterministic):
  """Encodes every set of rows `[M, seeds, h]`, in the order of its owners."""
  seeds, width = rows.shape[1:]
  codes = []
  for members, is_member in batch.sets[name]:  # [S, Q]
    mask = jnp.repeat(is_member, seeds, axis=1)
    elements = rows[members].reshape(*mask.shape, width)
    codes.append(encoder(elements, mask, deterministic))
  return jnp.concatenate(codes)[batch.order[name]]
