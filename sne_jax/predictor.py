"""Predicts properties of networks with a trained model.

Dimensions: `B` networks, `P` weights of one, `D` width of a code, `T` targets,
or instead `K` classes of the only target.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from scipy import special

from sne_jax.encoders import interface, streaming, table, tensor_source
from sne_jax.learning import checkpoint, model, pipeline
from sne_jax.networks.spec import NetworkSpec

MODEL_FILE = "model.json"
Network = tuple[NetworkSpec, Any]
"""A spec, and weights `[P]` or tensors by the spec's names."""

STREAM_ABOVE = 1_000_000
"""Weights of a network above which it is encoded by itself, part by part."""


class PredictorError(ValueError):
  """A work directory that holds no usable model; the message says why."""


class MemoryLimitError(ValueError):
  """A limit of memory that an encoder cannot hold; the message says why."""


class Predictor:
  """A trained model: from networks to predictions, codes and gradients.

  Networks may be of architectures that were never seen in training. One that
  is deeper than all of those is encoded too, with a warning: sinusoidal levels
  are defined at any depth, but a model was never asked about them; learned
  levels have rows that were never trained, and one row for all levels beyond
  the table.

  A model of classes (`--loss=classes`) has names of them in `classes`, and
  predicts a probability for each, in that order.

  Args:
    description: what `model.json` holds: encoder, options, what the encoder has
      measured on the training networks, head, targets.
    params: parameters of the `PropertyModel`.
    batch_size: networks encoded at once.
    draws: calls averaged where the encoder is stochastic.
    stream_above: a network of more weights than this, or one that is given as
      tensors, is encoded by itself in bounded memory, with the same result, if
      the encoder can do that (`sne` can).
    memory_limit: bytes for that, for an encoder that can do it; see
      `streaming.make_encode_fn`. None: `streaming.MEMORY_LIMIT`, and other
      encoders have none.

  Raises:
    MemoryLimitError: the encoder cannot hold a limit that is given.
  """

  def __init__(
    self,
    description: dict[str, Any],
    params: Any,
    *,
    batch_size: int = 64,
    draws: int = 8,
    stream_above: int = STREAM_ABOVE,
    memory_limit: int | None = None,
  ):
    self.description = description
    self.targets = tuple(description["targets"])
    self.classes = _classes(description)
    self.params = params
    self._encoder = build_encoder(description)
    self._model = build_model(description, self._encoder)
    self._batch_size = batch_size
    self._draws = draws if self._encoder.stochastic else 1
    self._depth_warned = False
    self._packer = functools.lru_cache(maxsize=16)(self._encoder.make_packer)
    self._apply = jax.jit(self._outputs)
    self._stream_above = stream_above
    self._encode_large = self._made_large(memory_limit)

  @classmethod
  def load(cls, workdir: str | Path, **kwargs) -> "Predictor | Ensemble":
    """Loads the best checkpoint of a run, or all seeds of it as an ensemble.

    Args:
      workdir: the folder of a run (`--workdir`) or of one of its seeds.
      **kwargs: passed to `Predictor`.

    Raises:
      PredictorError: there is no finished model in that folder.
    """
    folder = Path(workdir)
    if (folder / MODEL_FILE).exists():
      try:
        params, _ = checkpoint.load_best(folder)
      except checkpoint.CheckpointError as error:
        raise PredictorError(
          f"{folder} has no trained model yet ({error})"
        ) from error
      try:
        description = json.loads((folder / MODEL_FILE).read_text())
        return cls(description, params, **kwargs)
      except MemoryLimitError:
        raise
      except (KeyError, TypeError, ValueError) as error:
        raise PredictorError(
          f"{folder / MODEL_FILE} describes no model that this version of"
          f" sne_jax can build: {error!r}"
        ) from error
    seeds = sorted(folder.glob(f"seed*/{MODEL_FILE}"))
    if not seeds:
      raise PredictorError(
        f"{folder} holds no {MODEL_FILE}, nor do folders seed* in it; give the"
        " --workdir of a run of experiments/run.py"
      )
    members: list[Any] = [cls.load(path.parent, **kwargs) for path in seeds]
    return Ensemble(members)

  def predict(self, networks: Sequence[Network]) -> np.ndarray:
    """Predicts the properties of networks: `[B, T]`, in their own units.

    Of a model of classes: their probabilities `[B, K]`. The most probable are
    `np.array(predictor.classes)[found.argmax(axis=-1)]`.

    Args:
      networks: `(spec, weights [P])` of any architectures. Instead of the
        vector there may be tensors by the spec's names, of any float type:
        arrays, memory-mapped files, or objects with `shape` and `read()`.

    Raises:
      ValueError: there are none, weights do not have their spec's length or
        tensors its shapes, or a large network needs more than `memory_limit`.
    """
    return self.predict_and_encode(networks)[0]

  def encode(self, networks: Sequence[Network]) -> np.ndarray:
    """Encodes networks as codes `[B, D]`."""
    return self.predict_and_encode(networks)[1]

  def predict_and_encode(
    self, networks: Sequence[Network]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `predict` and `encode` do, from one encoding."""
    logits, codes = self._run(networks)
    return self.scaled(logits), codes

  def logits(self, networks: Sequence[Network]) -> np.ndarray:
    """Returns what the head gives before scaling, `[B, T]` or `[B, K]`."""
    return self._run(networks)[0]

  def function(self, spec: NetworkSpec) -> Callable:
    """Returns a differentiable `f(weights [P]) -> predictions [T]` or `[K]`.

    The gradient of a predicted property with respect to a network's weights is
    `jax.grad(lambda w: f(w)[0])(weights)`.
    """
    self._warn_of_depth((spec,))
    template = self._packer((spec,)).template((0,))

    def predict(weights):
      flat = jnp.asarray(weights, jnp.float32)
      if flat.shape != (spec.num_weights,):
        raise ValueError(
          f"{spec.describe()}: got weights of shape {flat.shape}; map over"
          " several networks with jax.vmap"
        )
      pad = template.room - spec.num_weights
      packed = template._replace(weights=jnp.pad(flat, (0, pad)))
      logits, _ = self._outputs(self.params, packed)
      return self._scaled(logits, jnp)[0]

    return predict

  def _outputs(self, params, packed):
    """Returns logits and codes, averaged over draws."""
    outputs = [
      self._model.apply(
        params, packed, True, rngs={"identifiers": jax.random.key(draw)}
      )
      for draw in range(self._draws)
    ]
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *outputs)

  def _run(self, networks: Sequence[Network]):
    """Returns logits `[B, T]` and codes `[B, D]`, in the given order."""
    if not networks:
      raise ValueError("no networks given")
    large = [
      isinstance(weights, Mapping) or spec.num_weights > self._stream_above
      for spec, weights in networks
    ]
    if not self.can_stream:
      large = [False] * len(networks)
    small = [n for n, alone in zip(networks, large, strict=True) if not alone]
    together = iter(self._run_packed(small) if small else ())
    rows = [
      self._run_large(*network) if alone else next(together)
      for network, alone in zip(networks, large, strict=True)
    ]
    return tuple(np.stack(part) for part in zip(*rows, strict=True))

  def _run_packed(self, networks: Sequence[Network]):
    """Returns logits and code of each network, encoded in batches."""
    specs = tuple(dict.fromkeys(spec for spec, _ in networks))
    number = {spec: place for place, spec in enumerate(specs)}
    held = pipeline.Networks(
      specs,
      np.array([number[spec] for spec, _ in networks]),
      [_vector(*network) for network in networks],
      np.zeros((len(networks), 0)),
    )
    found = self.run(self.params, self.batches(held), len(networks))
    return zip(*found, strict=True)

  @property
  def can_stream(self) -> bool:
    """Whether a network can be encoded in bounded memory, from its tensors."""
    return self._encode_large is not None

  def _made_large(self, memory_limit: int | None) -> Any:
    """Returns what encodes one network in bounded memory, or None.

    Raises:
      MemoryLimitError: a limit that the encoder cannot hold.
    """
    make = self._encoder.make_large_fn
    if make is None and memory_limit is not None:
      raise MemoryLimitError(
        f"memory_limit is {memory_limit} bytes, but the encoder"
        f" {self.description['encoder']} has no form of bounded memory; leave"
        " the limit out, or use a model of sne"
      )
    if make is None:
      return None
    limit = streaming.MEMORY_LIMIT if memory_limit is None else memory_limit
    try:
      return make(limit)
    except ValueError as error:
      raise MemoryLimitError(str(error)) from error

  def _run_large(self, spec: NetworkSpec, weights: Any):
    """Returns logits and code of one network, averaged over draws."""
    self._warn_of_depth((spec,))
    if not isinstance(weights, Mapping):
      weights = spec.unflatten(np.asarray(weights))
    params = self.params["params"]["encoder"]
    codes = np.stack(
      [
        self._encode_large(
          params, spec, weights, identifiers=self._drawer(draw)
        )
        for draw in range(self._draws)
      ]
    )
    logits = model.head(self._model, self.params, codes)
    return np.asarray(logits).mean(axis=0), codes.mean(axis=0)

  def _drawer(self, draw: int):
    """Returns what draws a table of random identifiers; None without them."""
    if not self._encoder.stochastic:
      return None
    return lambda count: self._model.apply(
      self.params,
      rngs={"identifiers": jax.random.key(draw)},
      method=lambda net: net.encoder.draw_identifiers(count),
    )

  def batches(self, networks: pipeline.Networks) -> list:
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
    found: list[Any] = [None] * count
    for members, packed in batches:
      logits, codes = jax.device_get(self._apply(params, packed))
      for row, member in enumerate(members):
        found[member] = (logits[row], codes[row])
    return tuple(np.stack(part) for part in zip(*found, strict=True))

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
    if self.classes:
      return (jax.nn if xp is jnp else special).softmax(logits, axis=-1)
    if self.description["loss"] == "bce":
      return jax.nn.sigmoid(logits) if xp is jnp else 1 / (1 + np.exp(-logits))
    mean = xp.asarray(self.description["target_mean"])[None, :]
    spread = xp.asarray(self.description["target_spread"])[None, :]
    return logits * spread + mean


class Ensemble:
  """Several predictors of the same properties; predictions are their mean.

  Of classes: the mean of their probabilities.
  """

  def __init__(self, members: Sequence[Predictor]):
    """Joins predictors.

    Raises:
      ValueError: there are none, or they predict different properties, or
        classes.
    """
    self.members = tuple(members)
    for name in ("targets", "classes"):
      found = {getattr(m, name) for m in self.members}
      if len(found) != 1:
        raise ValueError(
          f"an ensemble predicts one set of properties, but the {name} of its"
          f" members are {sorted(found)}"
        )
    self.description = self.members[0].description
    self.targets = self.members[0].targets
    self.classes = self.members[0].classes

  def predict(self, networks: Sequence[Network]) -> np.ndarray:
    """Returns the mean prediction `[B, T]`."""
    return self.predict_and_encode(networks)[0]

  def encode(self, networks: Sequence[Network]) -> np.ndarray:
    """Returns the members' codes side by side, `[B, members * D]`."""
    return self.predict_and_encode(networks)[1]

  def predict_and_encode(
    self, networks: Sequence[Network]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `predict` and `encode` do, from one encoding by each."""
    found = [m.predict_and_encode(networks) for m in self.members]
    predictions, codes = zip(*found, strict=True)
    return np.mean(predictions, axis=0), np.concatenate(codes, axis=-1)

  @property
  def can_stream(self) -> bool:
    """Whether all members can encode a network in bounded memory."""
    return all(m.can_stream for m in self.members)

  def function(self, spec: NetworkSpec) -> Callable:
    """Returns the mean of the members' functions."""
    parts = [m.function(spec) for m in self.members]
    return lambda weights: sum(f(weights) for f in parts) / len(parts)


def _vector(spec: NetworkSpec, weights: Any) -> np.ndarray:
  """Returns weights as one float32 vector."""
  if isinstance(weights, Mapping):
    source = tensor_source.TensorSource(spec, weights)
    vector = np.empty(spec.num_weights, np.float32)
    for place, part in enumerate(spec.unflatten(vector).values()):
      part[...] = source[place]
      source.give_back(place)
    return vector
  return np.asarray(weights, np.float32)


def build_encoder(description: dict[str, Any]) -> interface.Encoder:
  """Builds the encoder that a model description names."""
  return table.build(
    description["encoder"],
    description["encoder_options"],
    description["chunk_options"],
    description,
  )


def build_model(description: dict[str, Any], encoder: interface.Encoder):
  """Builds the `PropertyModel` that a model description names."""
  outputs = _classes(description) or description["targets"]
  return model.PropertyModel(
    encoder.module, len(outputs), **description["head"]
  )


def _classes(description: dict[str, Any]) -> tuple[str, ...]:
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
