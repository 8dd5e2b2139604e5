"""Weights divided by their size: by kind and place, as training has it.

Dimensions: `P` weights of a network, `T` weights of a batch, `S` places.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.encoders.batches import joining
from sne_jax.networks import scales
from sne_jax.networks.spec import NetworkSpec


def columns(spec: NetworkSpec) -> dict[str, np.ndarray]:
  """Returns the columns `[P]` of the table of weights that scaling takes."""
  return {"scale": scales.fan_in_root(spec), "place": scales.place_of(spec)}


def scaled(
  batch: joining.Joined, place_scales: Sequence[float]
) -> Float[Array, "T"]:
  """Returns the weights, times the root of their fan-in, over their scale.

  Args:
    batch: with the columns of `columns`.
    place_scales: `[S]`, of each of `scales.PLACES`.
  """
  table, weights = batch.tables["weights"], jnp.asarray(batch.weights)
  places = jnp.asarray(place_scales, weights.dtype)
  weights = weights * jnp.asarray(table["scale"], weights.dtype)
  return weights / places[table["place"]]
