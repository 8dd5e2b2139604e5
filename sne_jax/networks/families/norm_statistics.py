"""Running statistics of batch norms, from images: conditioning a network.

A network that was sampled has weights and running statistics that need not
agree. Images run through it, each norm using their own statistics, and the
running ones move towards these; nothing else changes.

Dimensions: `P` weights of a network, `B` images of `C` channels, height `H`,
width `W`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import layers, residual


def update(
  spec: spec_lib.NetworkSpec,
  weights: Float[Array | np.ndarray, "P"],
  images: Float[Array | np.ndarray, "B C H W"],
  momentum: float | Float[Array, ""] = 0.1,
) -> Float[Array, "P"]:
  """Returns a network whose running statistics have seen a batch of images.

  Pure: may be compiled, mapped over networks, and scanned over batches.

  Args:
    spec: the network.
    weights: its vector.
    images: of the task that it is for; training or validation images.
    momentum: share by which the running statistics move. The variance of the
      batch is the unbiased one.

  Returns:
    The vector; a network without running statistics as it was.

  Raises:
    ValueError: the network has running statistics and is of a family without
      batch norms, or there is but one value per channel.
  """
  if not any(t.kind == "norm_mean" for t in spec.tensors):
    return jnp.asarray(weights)
  if spec.family != "resnet":
    raise ValueError(
      f"batch norms of {spec.describe()} cannot be run; of the families, resnet"
      " has batch norms"
    )
  found = {}

  def norm(tensors, name, x, eps):
    if f"{name}.mean" not in tensors:
      return x
    count = x[0].size
    if count < 2:
      raise ValueError(
        f"{name} sees one value per channel of {images.shape[0]} images; give"
        " more images, for a variance"
      )
    mean, var = x.mean(axis=(1, 2, 3)), x.var(axis=(1, 2, 3))
    found[f"{name}.mean"] = mean
    found[f"{name}.var"] = var * (count / (count - 1))
    batch = {f"{name}.mean": mean, f"{name}.var": var}
    return layers.batch_norm({**tensors, **batch}, name, x, eps)

  values = spec.unflatten(jnp.asarray(weights))
  residual.run(spec, values, images, norm=norm)
  for name, seen in found.items():
    values[name] = values[name] + momentum * (seen - values[name])
  return spec.flatten(values, jnp)
