"""An editor as a file describes it, and what it makes of networks.

Dimensions: `N` networks of `P` weights, in parts of `B`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from sne_jax.encoders import editor, table
from sne_jax.learning.editing import rendering
from sne_jax.networks import chunking
from sne_jax.networks.spec import NetworkSpec

AT_ONCE = 32
"""Networks that are edited at once."""


def describe(
  edit: str,
  spec: NetworkSpec,
  weights: Float[np.ndarray, "N P"],
  *,
  encoder: str,
  options: Any,
  chunks: chunking.ChunkOptions,
  scale: float,
) -> dict[str, Any]:
  """Returns what `Program` must know: plain values, kept with the parameters.

  Args:
    edit: what the training's images were made by.
    spec: of all networks.
    weights: the training networks, and no others.
    encoder: its name.
    options: its options.
    chunks: how layers are cut into chunks, where the encoder does so.
    scale: see `encoders.editor`.
  """
  networks = [(spec, np.asarray(row, np.float32)) for row in weights]
  return {
    "edit": edit,
    "spec": spec.to_json(),
    "encoder": encoder,
    "encoder_options": dataclasses.asdict(options),
    "chunk_options": dataclasses.asdict(chunking.resolved(chunks, [spec])),
    "measured": table.measure(encoder, options, networks),
    "scale": scale,
  }


class Program:
  """The editor of a description, without parameters.

  Attributes:
    spec: of the networks.
    net: maps a packed batch to edited weights `[B, P]`.
    packer: of such batches.

  Raises:
    ValueError: the encoder cannot edit.
  """

  def __init__(self, description: Mapping[str, Any]):
    self.spec = NetworkSpec.from_json(description["spec"])
    self.net, self.packer = editor.build(
      description["encoder"],
      self.spec,
      description["encoder_options"],
      description["chunk_options"],
      description["measured"],
      description["scale"],
    )
    self._edit = jax.jit(self.applied)
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
    """Returns edited weights `[B, P]`; with a key as in training."""
    keys = jax.random.split(jax.random.key(0) if key is None else key)
    return self.net.apply(
      params,
      template._replace(weights=weights.reshape(-1)),
      key is None,
      rngs={"identifiers": keys[0], "dropout": keys[1]},
    )

  def edit(
    self, params, weights: Float[np.ndarray, "N P"]
  ) -> Float[np.ndarray, "N P"]:
    """Edits networks, in parts of one size."""
    rows = []
    for first in range(0, len(weights), AT_ONCE):
      part = np.asarray(weights[first : first + AT_ONCE])
      filled = part[np.arange(AT_ONCE) % len(part)]
      edited = self._edit(params, self._template(AT_ONCE), filled)
      rows.append(np.asarray(edited)[: len(part)])
    return np.concatenate(rows)


def errors(
  spec: NetworkSpec,
  weights: Float[np.ndarray, "N P"],
  images: UInt8[np.ndarray, "N C H W"],
) -> Float[np.ndarray, "N"]:
  """Returns the mean squared error per pixel of what networks show.

  Pixels are in [-1, 1].
  """
  measure = _measure_fn(spec, *images.shape[2:])
  parts = []
  for first in range(0, len(weights), AT_ONCE):
    part = np.arange(first, first + AT_ONCE) % len(weights)
    signed = rendering.signed(images[part])
    parts.append(np.asarray(measure(np.asarray(weights)[part], signed)))
  return np.concatenate(parts)[: len(weights)]


@functools.lru_cache(maxsize=8)
def _measure_fn(spec: NetworkSpec, height: int, width: int):
  """Returns the compiled function from networks and images to errors."""
  render = rendering.make_render_fn(spec, height, width)
  return jax.jit(
    lambda weights, images: jnp.mean(
      (render(weights) - images) ** 2, axis=(1, 2, 3)
    )
  )
