"""A model of weights in, values out, as a file describes it.

Dimensions: `N` networks of `P` weights, in parts of `B`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from sne_jax.encoders import table
from sne_jax.networks import chunking
from sne_jax.networks.spec import NetworkSpec

AT_ONCE = 32
"""Networks that are read at once."""


def describe(
  spec: NetworkSpec,
  weights: Float[np.ndarray, "N P"],
  *,
  encoder: str,
  options: Any,
  chunks: chunking.ChunkOptions,
  **more: Any,
) -> dict[str, Any]:
  """Returns what `Program` must know: plain values, kept with the parameters.

  Args:
    spec: of all networks.
    weights: the training networks, and no others.
    encoder: its name.
    options: its options.
    chunks: how layers are cut into chunks, where the encoder does so.
    **more: what else describes the model, as plain values.
  """
  networks = [(spec, np.asarray(row, np.float32)) for row in weights]
  return more | {
    "spec": spec.to_json(),
    "encoder": encoder,
    "encoder_options": dataclasses.asdict(options),
    "chunk_options": dataclasses.asdict(chunking.resolved(chunks, [spec])),
    "measured": table.measure(encoder, options, networks),
  }


class Program:
  """The model of a description, without parameters.

  Attributes:
    spec: of the networks.
    net: maps a packed batch to a value of every weight, `[B, P]`.
    packer: of such batches.
  """

  def __init__(
    self,
    description: Mapping[str, Any],
    build: Callable[..., tuple[Any, Any]],
    *more: Any,
  ):
    """Builds the model.

    Args:
      description: of `describe`.
      build: from encoder, spec, options, options of chunks, what was measured,
        and `more`, to the module and its packer.
      *more: see `build`.

    Raises:
      ValueError: the encoder gives no value for every weight.
    """
    self.spec = NetworkSpec.from_json(description["spec"])
    self.net, self.packer = build(
      description["encoder"],
      self.spec,
      description["encoder_options"],
      description["chunk_options"],
      description["measured"],
      *more,
    )
    self._run = jax.jit(self.applied)
    self._template = functools.cache(
      lambda count: jax.device_put(self.packer.template([0] * count))
    )

  def init(self, seed: Any) -> Any:
    """Draws parameters."""
    zeros = [np.zeros(self.spec.num_weights, np.float32)]
    key_params, key_ids = jax.random.split(jax.random.key(seed))
    rngs = {"params": key_params, "identifiers": key_ids}
    return self.net.init(rngs, self.packer.pack((0,), zeros))

  def applied(self, params, template, weights, key=None):
    """Returns values of weights `[B, P]`; with a key as in training."""
    keys = jax.random.split(jax.random.key(0) if key is None else key)
    return self.net.apply(
      params,
      template._replace(weights=weights.reshape(-1)),
      key is None,
      rngs={"identifiers": keys[0], "dropout": keys[1]},
    )

  def run(
    self, params, weights: Float[np.ndarray, "N P"]
  ) -> Float[np.ndarray, "N P"]:
    """Returns values of all weights, in parts of one size."""
    rows = []
    for first in range(0, len(weights), AT_ONCE):
      part = np.asarray(weights[first : first + AT_ONCE])
      filled = part[np.arange(AT_ONCE) % len(part)]
      values = self._run(params, self._template(AT_ONCE), filled)
      rows.append(np.asarray(values)[: len(part)])
    return np.concatenate(rows)
