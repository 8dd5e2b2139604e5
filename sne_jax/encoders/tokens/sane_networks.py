"""Whole networks through SANE, window by window.

Dimensions: `N` networks of `P` weights and `T` tokens of `C` entries, `D` width
of a latent token.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.encoders.tokens import sane
from sne_jax.networks import tokens, windows


def encode(
  module: sane.SANE,
  params: Any,
  layout: tokens.TokenLayout,
  tiling: windows.Windows,
  weights: Float[Array | np.ndarray, "N P"],
) -> Float[Array, "N T D"]:
  """Returns the latent tokens of networks.

  Args:
    module: the autoencoder.
    params: its parameters.
    layout: tokens of the networks' spec.
    tiling: of as many tokens.
    weights: of the networks, standardised as in training.

  Raises:
    ValueError: the autoencoder cannot read these networks.
  """
  module.options.check(layout)
  x = jnp.asarray(tokens.tokenise(layout, jnp.asarray(weights)))
  return _by_window(module, params, "encode", layout, tiling, x)


def decode(
  module: sane.SANE,
  params: Any,
  layout: tokens.TokenLayout,
  tiling: windows.Windows,
  latents: Float[Array | np.ndarray, "N T D"],
  template: Float[Array | np.ndarray, "*N P"] | None = None,
) -> Float[Array, "N P"]:
  """Returns the networks of latent tokens, standardised as in training.

  Args:
    module: the autoencoder.
    params: its parameters.
    layout: of the networks to be written.
    tiling: of as many tokens.
    latents: of every token.
    template: see `tokens.detokenise`.

  Raises:
    ValueError: the autoencoder cannot write these networks, or the latents or
      the template are not of this spec.
  """
  module.options.check(layout)
  z = jnp.asarray(latents)
  y = _by_window(module, params, "decode", layout, tiling, z)
  return jnp.asarray(tokens.detokenise(layout, y, template))


def embed(latents: Float[Array, "N T D"]) -> Float[Array, "N D"]:
  """Returns the codes of whole networks: the mean of their latent tokens."""
  return jnp.mean(latents, axis=1)


def _by_window(module, params, method, layout, tiling, x):
  """Maps sequences by a method of the module, in windows."""
  cut = windows.cut(tiling, x)  # [N, W, L, C]
  count, num_windows, length = cut.shape[:3]
  flat = cut.reshape(count * num_windows, length, cut.shape[-1])
  positions = windows.cut(tiling, layout.positions)
  positions = jnp.tile(jnp.asarray(positions), (count, 1, 1))
  y = module.apply({"params": params}, flat, positions, method=method)
  y = y.reshape(count, num_windows, length, y.shape[-1])
  return jnp.asarray(windows.stitch(tiling, y))
