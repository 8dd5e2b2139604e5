"""Whole networks through SANE, window by window.

Dimensions: `N` networks of `P` weights and `T` tokens of `C` entries, `D` width
of a latent token.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.encoders import sane
from sne_jax.networks import tokens, windows


def encode(
  module: sane.SANE,
  params: Any,
  layout: tokens.TokenLayout,
  tiling: windows.Windows,
  weights: Float[Array | np.ndarray, "N P"],
  *,
  at_once: int = 0,
) -> Float[Array, "N T D"]:
  """Returns the latent tokens of networks.

  Args:
    module: the autoencoder.
    params: its parameters.
    layout: tokens of the networks' spec.
    tiling: of as many tokens.
    weights: of the networks, standardised as in training.
    at_once: windows that are encoded at once, for memory; 0: all.

  Raises:
    ValueError: the autoencoder cannot read these networks.
  """
  module.options.check(layout)
  x = jnp.asarray(tokens.tokenise(layout, jnp.asarray(weights)))
  return _by_window(module, params, "encode", layout, tiling, x, at_once)


def decode(
  module: sane.SANE,
  params: Any,
  layout: tokens.TokenLayout,
  tiling: windows.Windows,
  latents: Float[Array | np.ndarray, "N T D"],
  template: Float[Array | np.ndarray, "*N P"] | None = None,
  *,
  at_once: int = 0,
) -> Float[Array, "N P"]:
  """Returns the networks of latent tokens, standardised as in training.

  Args:
    module: the autoencoder.
    params: its parameters.
    layout: of the networks to be written.
    tiling: of as many tokens.
    latents: of every token.
    template: see `tokens.detokenise`.
    at_once: see `encode`.

  Raises:
    ValueError: the autoencoder cannot write these networks, or the latents or
      the template are not of this spec.
  """
  module.options.check(layout)
  z = jnp.asarray(latents)
  y = _by_window(module, params, "decode", layout, tiling, z, at_once)
  return jnp.asarray(tokens.detokenise(layout, y, template))


def embed(latents: Float[Array, "N T D"]) -> Float[Array, "N D"]:
  """Returns the codes of whole networks: the mean of their latent tokens."""
  return jnp.mean(latents, axis=1)


def _by_window(module, params, method, layout, tiling, x, at_once):
  """Maps sequences by a method of the module, in windows."""
  cut = windows.cut(tiling, x)  # [N, W, L, C]
  count, num_windows, length = cut.shape[:3]
  flat = cut.reshape(count * num_windows, length, cut.shape[-1])
  positions = windows.cut(tiling, layout.positions)
  positions = jnp.tile(jnp.asarray(positions), (count, 1, 1))

  def apply(x, positions):
    return module.apply({"params": params}, x, positions, method=method)

  if at_once:
    y = jax.lax.map(
      lambda pair: apply(pair[0][None], pair[1][None])[0],
      (flat, positions),
      batch_size=at_once,
    )
  else:
    y = apply(flat, positions)
  y = y.reshape(count, num_windows, length, y.shape[-1])
  return jnp.asarray(windows.stitch(tiling, y))
