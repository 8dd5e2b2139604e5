"""Random damage to weights: no symmetry, but what an encoder should bear.

All functions act on the host, on one network, and give float32.

Dimensions: `P` weights of a network.

Reference: Shamsian et al., Improved Generalization of Weight Space Networks
via Augmentations, ICML 2024, arXiv:2402.04081.
"""

import numpy as np
from jaxtyping import Float

from sne_jax.networks import spec as spec_lib

Weights = Float[np.ndarray, "P"]


def add_noise(
  spec: spec_lib.NetworkSpec,
  weights: Weights,
  share: float,
  rng: np.random.Generator,
) -> Weights:
  """Adds normal noise, `share` of each tensor's own standard deviation.

  A tensor of one weight has none, and stays.
  """
  noise = rng.standard_normal(len(weights), np.float32)
  spread = [
    np.full(t.size, tensor.std() * share, np.float32)
    for t, tensor in zip(
      spec.tensors, spec.unflatten(weights).values(), strict=True
    )
  ]
  return np.asarray(weights + noise * np.concatenate(spread), np.float32)


def shift_output(
  spec: spec_lib.NetworkSpec, weights: Weights, amount: float
) -> Weights:
  """Adds a constant to all outputs: to the biases of the last level.

  A classifier chooses and rates as before; the mean of a signal moves. A
  network without biases there stays as it is.
  """
  tensors = dict(spec.unflatten(np.array(weights, np.float32)))
  for t in spec.tensors:
    if t.level == spec.num_levels - 1 and t.kind.endswith("_bias"):
      tensors[t.name] = tensors[t.name] + np.float32(amount)
  return np.asarray(spec.flatten(tensors, np), np.float32)


def draw_biases(
  spec: spec_lib.NetworkSpec,
  weights: Weights,
  share: float,
  rng: np.random.Generator,
) -> Weights:
  """Adds to biases what those who draw first biases begin with.

  Evenly within `share / sqrt(fan_in)` of the weight that a bias belongs to; a
  share of 1 is what PyTorch draws. Biases that are all 0 have some then, which
  noise in units of their own would not give them.
  """
  tensors = dict(spec.unflatten(np.array(weights, np.float32)))
  fans = {t.name: t.fan_in for t in spec.tensors}
  for t in spec.tensors:
    if t.kind.endswith("_bias") and t.of in fans:
      drawn = rng.uniform(-1, 1, t.shape) * share / np.sqrt(fans[t.of])
      tensors[t.name] = tensors[t.name] + drawn.astype(np.float32)
  return np.asarray(spec.flatten(tensors, np), np.float32)


def mask(
  weights: Weights, probability: float, rng: np.random.Generator
) -> Weights:
  """Sets each weight to 0 with a probability, and scales up the others.

  They are divided by `1 - probability`, so that means stay.

  Raises:
    ValueError: the probability is not in [0, 1).
  """
  if not 0 <= probability < 1:
    raise ValueError(f"probability is {probability}; must be in [0, 1)")
  kept = rng.random(len(weights)) >= probability
  return np.where(kept, weights / (1 - probability), 0).astype(np.float32)


def drop_smallest(weights: Weights, share: float) -> Weights:
  """Sets that share of the weights to 0, the smallest by size.

  Raises:
    ValueError: the share is not in [0, 1].
  """
  if not 0 <= share <= 1:
    raise ValueError(f"share is {share}; must be in [0, 1]")
  size = np.abs(weights)
  threshold = np.quantile(size, share)
  return np.where(size < threshold, 0, weights).astype(np.float32)
