"""A model compiled: networks are packed, encoded and predicted from.

Parameters are arguments, so one program serves all seeds of a model, and all
steps of a training.

Dimensions: `B` networks, `P` weights of one, `S` seeds, `D` width of a code,
`T` targets, or instead `K` classes of the only target.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from scipy import special

from sne_jax.encoders import interface, table
from sne_jax.encoders.batches import folded
from sne_jax.learning.data import pipeline
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.objectives import model
from sne_jax.learning.training import large
from sne_jax.networks import checked, chunking, phases
from sne_jax.networks.spec import NetworkSpec

STREAM_ABOVE = 1_000_000
"""Weights of a network above which it is encoded by itself, part by part."""


MemoryLimitError = large.MemoryLimitError


class Program:
  """The model of a description, without parameters.

  Args:
    description: what `model.json` holds; see `Predictor`.
    batch_size: networks encoded at once.
    draws: calls averaged where the encoder is stochastic.
    stream_above: a network of more weights than this, or one that is given as
      tensors, is encoded by itself in bounded memory, with the same result, if
      the encoder can do that (`sne` can).
    memory_limit: bytes for that, for an encoder that can do it; see
      `streaming.make_encode_fn`. None: `streaming.MEMORY_LIMIT`, and other
      encoders have none.
    long_seconds: a network that is encoded by itself, and will take longer than
      that, is announced, and its progress is shown.
    before_long: what announces it; may refuse. The default logs a warning.

  Attributes:
    encoder: the encoder.
    net: encoder and head.
    classes: names of the classes; empty where targets are numbers.

  Raises:
    MemoryLimitError: the encoder cannot hold a limit that is given.
  """

  def __init__(
    self,
    description: dict[str, Any],
    *,
    batch_size: int = 64,
    draws: int = 8,
    stream_above: int = STREAM_ABOVE,
    memory_limit: int | None = None,
    long_seconds: float | int = large.LONG_SECONDS,
    before_long: large.BeforeLong = large.announce,
  ):
    self.description = description
    self._row = table.row(description["encoder"])
    given = description["encoder_options"]
    self._options = checked.rebuilt(self._row.options, given)
    self.classes = classes_of(description)
    self.encoder = build_encoder(description)
    self.net = build_model(description, self.encoder)
    self.stream_above = stream_above
    self._batch_size = batch_size
    self._draws = draws if self.encoder.stochastic else 1
    self._depth_warned = False
    self._packer = functools.lru_cache(maxsize=16)(self.encoder.make_packer)
    self._apply = jax.jit(self._outputs)
    encode = large.encode_fn(self.encoder, description["encoder"], memory_limit)
    self._large = encode and large.Large(
      self.net,
      encode,
      draws=self._draws,
      is_stochastic=self.encoder.stochastic,
      long_seconds=long_seconds,
      before_long=before_long,
    )

  def function(self, params: Sequence[Any], spec: NetworkSpec) -> Callable:
    """Returns a differentiable `f(weights [P]) -> [T]`, the mean over seeds."""
    self.remark(spec)
    self._warn_of_depth((spec,))
    template = self._packer((spec,)).template((0,))

    def predict(weights):
      flat = jnp.asarray(weights, jnp.float32)
      if flat.shape != (spec.num_weights,):
        raise ValueError(
          f"{spec.describe()}: got weights of shape {flat.shape}; map over"
          " several networks with jax.vmap"
        )
      if "phases" in self.description:
        read = phases.understood(spec, self.description["phases"])
        flat = phases.fold(read, flat, jnp)
      pad = template.room - spec.num_weights
      packed = template._replace(weights=jnp.pad(flat, (0, pad)))
      predictions = [
        self._scaled(self._apply(one, packed)[0], jnp)[0] for one in params
      ]
      return sum(predictions) / len(predictions)

    return predict

  def _outputs(self, params, packed):
    """Returns logits and codes, averaged over draws."""
    outputs = [
      self.net.apply(
        params, packed, True, rngs={"identifiers": jax.random.key(draw)}
      )
      for draw in range(self._draws)
    ]
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *outputs)

  def run_networks(
    self, params: Sequence[Any], networks: Sequence[Any]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits `[S, B, T]` and codes `[S, B, D]`.

    Args:
      params: of each seed.
      networks: `(spec, weights [P])` or `(spec, tensors)`.
    """
    alone = [self._is_large(*network) for network in networks]
    for (spec, _), is_alone in zip(networks, alone, strict=True):
      self.remark(spec, in_parts=is_alone)
    small = [n for n, one in zip(networks, alone, strict=True) if not one]
    together = iter(())
    if small:
      batches = self.batches(Networks.of(small))
      by_seed = [self.run(one, batches, len(small)) for one in params]
      each = (np.stack(part, axis=1) for part in zip(*by_seed, strict=True))
      together = iter(zip(*each, strict=True))
    rows = []
    for (spec, weights), is_alone in zip(networks, alone, strict=True):
      if is_alone and self._large is not None:
        self._warn_of_depth((spec,))
        rows.append(self._large.run(params, spec, weights))
      else:
        rows.append(next(together))
    logits, codes = (np.stack(part, axis=1) for part in zip(*rows, strict=True))
    return logits, codes

  def read(self, networks: Sequence[Any]) -> list[tuple[NetworkSpec, Any]]:
    """Returns `(spec, weights)` as the encoder reads them; see `as_read`."""
    return as_read(self.description, networks)

  def remark(self, spec: NetworkSpec, *, in_parts: bool = False) -> str:
    """Returns what the encoder says of the code of such a network, or "".

    Args:
      spec: the network.
      in_parts: whether it is encoded part by part.

    Raises:
      ValueError: such a code would be worth nothing.
    """
    return self._row.remark(self._options, self.description, spec, in_parts)

  @property
  def runs_networks(self) -> bool:
    """Whether the encoder runs networks on inputs of its own."""
    return self._row.has_probes(self._options)

  def remarks(self, networks: Sequence[Any]) -> list[str]:
    """Returns what the encoder says of each code of `run_networks`, or ""."""
    return [
      self.remark(spec, in_parts=self._is_large(spec, weights))
      for spec, weights in networks
    ]

  def _is_large(self, spec: NetworkSpec, weights: Any) -> bool:
    """Whether a network is encoded by itself, part by part."""
    large = isinstance(weights, Mapping) or spec.num_weights > self.stream_above
    return self.can_stream and large

  @property
  def can_stream(self) -> bool:
    """Whether a network can be encoded in bounded memory, from its tensors."""
    return self._large is not None

  def batches(self, networks: Networks) -> list:
    """Packs networks for `run`, once for many parameters."""
    self._warn_of_depth(networks.specs)
    packer = self._packer(networks.specs)
    return [
      (members, jax.device_put(packed))
      for members, packed in pipeline.fixed_batches(
        networks, packer, self._batch_size
      )
    ]

  def run(self, params, batches, count: int):
    """Returns logits `[B, T]` and codes `[B, D]` of packed networks."""
    outputs: list[Any] = [None] * count
    for members, packed in batches:
      logits, codes = jax.device_get(self._apply(params, packed))
      for row, member in enumerate(members):
        outputs[member] = (logits[row], codes[row])
    return tuple(np.stack(part) for part in zip(*outputs, strict=True))

  def _warn_of_depth(self, specs: Sequence[NetworkSpec]) -> None:
    """Warns, the first time, of networks deeper than those of the training."""
    seen = self.description.get("max_level")
    deepest = max(spec.num_levels for spec in specs) - 1
    if seen is None or deepest <= seen or self._depth_warned:
      return
    self._depth_warned = True
    logging.warning(
      "networks of up to %d levels were given, but the model was trained on no"
      " more than %d; its predictions may be poor",
      deepest + 1,
      seen + 1,
    )

  def scaled(self, logits: np.ndarray) -> np.ndarray:
    """Turns logits `[B, T]` into properties in their own units."""
    return np.asarray(self._scaled(logits, np))

  def _scaled(self, logits, xp):
    """Turns logits into properties in their own units."""
    if "collapsed" not in self.description:
      return self._in_units(logits, xp)
    values, gone = xp.split(logits, 2, axis=-1)
    constant = xp.asarray(self.description["collapsed"]["values"])[None, :]
    return xp.where(gone > 0, constant, self._in_units(values, xp))

  def _in_units(self, logits, xp):
    """Turns logits of properties, or of classes, into these."""
    if self.classes:
      return (jax.nn if xp is jnp else special).softmax(logits, axis=-1)
    if self.description["loss"] == "bce":
      return jax.nn.sigmoid(logits) if xp is jnp else 1 / (1 + np.exp(-logits))
    mean = xp.asarray(self.description["target_mean"])[None, :]
    spread = xp.asarray(self.description["target_spread"])[None, :]
    return logits * spread + mean


def encoder_for(
  train: Networks,
  encoder: str = "sne",
  *,
  options: Any = None,
  chunks: chunking.ChunkOptions | None = None,
) -> interface.Encoder:
  """Builds an encoder for a training loop of one's own.

  Args:
    train: the training networks, on which it measures what it must know.
    encoder: its name, of `encoders/table.py`.
    options: its options; None: the defaults.
    chunks: how layers are cut into chunks, where the encoder does so.

  Returns:
    `make_packer(specs)`, from networks to arrays, and the linen `module`, from
    arrays to codes `[B, D]`.

  Raises:
    ValueError: no such encoder, or it does not read the networks.
  """
  options = table.row(encoder).options() if options is None else options
  measured = table.measure(encoder, options, train.pairs())
  return table.build(
    encoder,
    dataclasses.asdict(options),
    dataclasses.asdict(
      chunking.resolved(chunks or chunking.ChunkOptions(), train.specs)
    ),
    measured,
  )


def build_encoder(description: dict[str, Any]) -> interface.Encoder:
  """Builds the encoder that a model description names.

  Where phases are folded, it reads large networks whole.
  """
  encoder = table.build(
    description["encoder"],
    description["encoder_options"],
    description["chunk_options"],
    description,
  )
  if "phases" not in description:
    return encoder
  make, known = encoder.make_packer, description["phases"]
  return dataclasses.replace(
    encoder,
    make_packer=lambda specs: folded.Folded(make(specs), specs, known),
    make_large_fn=None,
  )


def build_model(description: dict[str, Any], encoder: interface.Encoder):
  """Builds the `PropertyModel` that a model description names."""
  outputs = classes_of(description) or description["targets"]
  each = 2 if "collapsed" in description else 1
  return model.PropertyModel(
    encoder.module, each * len(outputs), **description["head"]
  )


def classes_of(description: dict[str, Any]) -> tuple[str, ...]:
  """Returns the names of the classes; none where properties are numbers."""
  if description["loss"] != "classes":
    return ()
  return tuple(description["classes"])


def init_params(net, encoder: interface.Encoder, spec: NetworkSpec, seed: Any):
  """Draws parameters, with one network of zeros as the example."""
  packer = encoder.make_packer((spec,))
  packed = packer.pack((0,), [np.zeros(spec.num_weights, np.float32)])
  key_params, key_ids = jax.random.split(jax.random.key(seed))
  return net.init({"params": key_params, "identifiers": key_ids}, packed)


def as_read(
  description: Mapping[str, Any], networks: Sequence[Any]
) -> list[tuple[NetworkSpec, Any]]:
  """Returns `(spec, weights)` as a model reads them: phases folded.

  Args:
    description: of the model, see `Predictor`.
    networks: `(spec, weights)` of each.
  """
  if "phases" not in description:
    return list(networks)
  known = description["phases"]
  return [
    (
      spec,
      weights
      if isinstance(weights, Mapping)
      else phases.fold(phases.understood(spec, known), np.asarray(weights)),
    )
    for spec, weights in networks
  ]
