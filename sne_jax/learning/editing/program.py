"""An editor as a file describes it, and what it makes of networks.

Dimensions: `N` networks of `P` weights, in parts of `B`.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from sne_jax.encoders import editor
from sne_jax.learning.editing import rendering
from sne_jax.learning.per_weight import program
from sne_jax.networks.spec import NetworkSpec

AT_ONCE = program.AT_ONCE


class Program(program.Program):
  """The editor of a description, without parameters; `run` edits."""

  def __init__(self, description: Mapping[str, Any]):
    """Builds the model.

    Args:
      description: of `per_weight.program.describe`, with `edit`, what the
        training's images were made by, and `scale`, of `encoders.editor`.

    Raises:
      ValueError: the encoder cannot edit.
    """
    super().__init__(description, editor.build, description["scale"])


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
