"""What networks that are images show, differentiable in their weights.

Images are black at -1 and white at 1, whatever range the networks have: the
units in which errors of edits are published.

Dimensions: `B` networks of `P` weights, images of `C` channels, `H` by `W`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import dense, layers, sine
from sne_jax.zoo.inrs import coordinates, image_options, image_zoo


def make_render_fn(
  spec: spec_lib.NetworkSpec, height: int, width: int = 0
) -> Callable[[Float[Array, "B P"]], Float[Array, "B C H W"]]:
  """Returns `render(weights [B, P]) -> images [B, C, H, W]`, not compiled.

  Args:
    spec: of the networks.
    height: of the images; pixels lie where the form of the networks has them.
    width: of the images; 0: as their height.

  Raises:
    ValueError: networks that are no images.
  """
  form = image_zoo.form_of(spec)
  points = coordinates.coordinates(form, height, width)
  low = image_options.FORMS[form].low

  def activate(level, name, x, w0):
    if name == "sine" and x.dtype == jnp.float32:
      return sine.sine(w0 * x)
    return layers.activated(level, name, x, w0)

  def one(weights):
    tensors = spec.unflatten(weights)
    return dense.run_inputs_last(spec, tensors, points, activate=activate)

  def render(weights):
    values = jax.vmap(one)(jnp.asarray(weights))  # [B, X, C]
    values = values.reshape(len(weights), height, width or height, -1)
    values = 2 * (values - low) / (1 - low) - 1
    return jnp.transpose(values, (0, 3, 1, 2))

  return render


def signed(
  images: UInt8[np.ndarray, "N C H W"],
) -> Float[np.ndarray, "N C H W"]:
  """Returns pixels as `make_render_fn` has them."""
  return images.astype(np.float32) / 127.5 - 1
