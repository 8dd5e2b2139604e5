"""Views of networks, made on the fly: permuted, noisy, partly erased.

A view is a function of a key and a vector, in this order: permutation of
hidden neurons, noise, erasing. All is pure and may be compiled and mapped over
networks and keys; nothing is written in place, so two views never meet.

Dimensions: `P` weights of a network.

References:
  Schuerholt et al., NeurIPS 2021, arXiv:2110.15288, and ICML 2024,
  arXiv:2406.09997; Zhong et al., Random Erasing Data Augmentation, AAAI 2020,
  arXiv:1708.04896.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sne_jax.networks import symmetry
from sne_jax.networks.spec import NetworkSpec

ERASINGS = ("block", "scatter")
VALUES = ("zero", "normal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewOptions:
  """How a view differs from its network.

  Raises:
    ValueError: a value is out of its range; the message names it.
  """

  permute: bool = True  # Permute hidden neurons, uniformly over the group.
  pool_size: int = 0  # Draw from so many fixed permutations; 0: from all.
  noise: float = 0.0  # Deviation of noise added to the weights.
  relative_noise: float = 0.0  # Deviation of noise as a share of each weight.
  erase: float = 0.0  # Probability with which weights are erased.
  erase_low: float = 0.02  # Least share of weights that is erased then.
  erase_high: float = 0.33  # Largest share.
  # block: weights that follow one another in the vector. scatter: places drawn
  # one by one, with replacement.
  erasing: str = "block"
  erase_value: str = "zero"  # What is put there: zero, or normal numbers.

  def __post_init__(self):
    for name in ("pool_size", "noise", "relative_noise"):
      if not 0 <= getattr(self, name) < math.inf:
        raise ValueError(
          f"{name} must be at least 0 (0: off), got {getattr(self, name)}"
        )
    if not 0 <= self.erase <= 1:
      raise ValueError(f"erase is a probability, got {self.erase}")
    if not 0 <= self.erase_low <= self.erase_high < 1:
      raise ValueError(
        "need 0 <= erase_low <= erase_high < 1, got erase_low"
        f" {self.erase_low} and erase_high {self.erase_high}"
      )
    for name, known in (("erasing", ERASINGS), ("erase_value", VALUES)):
      if getattr(self, name) not in known:
        raise ValueError(
          f"unknown {name} {getattr(self, name)!r}; known are"
          f" {', '.join(known)}"
        )


def make_view_sampler(
  spec: NetworkSpec, options: ViewOptions
) -> Callable[[PRNGKeyArray, Float[Array, "P"]], Float[Array, "P"]]:
  """Returns `sample(key, weights) -> view`. Pure."""
  draw = symmetry.make_permutation_sampler(spec)
  pool_key = jax.random.key(options.pool_size)

  def sample(key: PRNGKeyArray, weights: Float[Array, "P"]):
    key_permutation, key_add, key_scale, key_erase = jax.random.split(key, 4)
    if options.permute:
      if options.pool_size:
        number = jax.random.randint(key_permutation, (), 0, options.pool_size)
        key_permutation = jax.random.fold_in(pool_key, number)
      weights = weights[draw(key_permutation)]
    if options.noise:
      weights = add_noise(key_add, weights, options.noise)
    if options.relative_noise:
      weights = scale_noise(key_scale, weights, options.relative_noise)
    if options.erase:
      weights = erase(key_erase, weights, options)
    return weights

  return sample


def add_noise(
  key: PRNGKeyArray, x: Float[Array, "..."], deviation: float
) -> Float[Array, "..."]:
  """Returns `x + deviation * noise`."""
  return x + deviation * jax.random.normal(key, x.shape, x.dtype)


def scale_noise(
  key: PRNGKeyArray, x: Float[Array, "..."], deviation: float
) -> Float[Array, "..."]:
  """Returns `x * (1 + deviation * noise)`; zeros stay, so padding does."""
  return x * (1 + deviation * jax.random.normal(key, x.shape, x.dtype))


def erase(
  key: PRNGKeyArray, weights: Float[Array, "P"], options: ViewOptions
) -> Float[Array, "P"]:
  """Erases, with the probability of the options, a share of a vector.

  A block may begin at every place where it fits; the references never erase
  the last weight, which nothing calls for.
  """
  key_whether, key_share, key_place, key_value = jax.random.split(key, 4)
  size = weights.shape[0]
  share = jax.random.uniform(
    key_share, (), minval=options.erase_low, maxval=options.erase_high
  )
  length = jnp.floor(size * share).astype(jnp.int32)
  if options.erasing == "block":
    start = jax.random.randint(key_place, (), 0, size - length + 1)
    place = jnp.arange(size)
    gone = (place >= start) & (place < start + length)
  else:
    most = math.ceil(size * options.erase_high)
    drawn = jax.random.randint(key_place, (most,), 0, size)
    drawn = jnp.where(jnp.arange(most) < length, drawn, size)
    gone = jnp.zeros(size, bool).at[drawn].set(True, mode="drop")
  value = jnp.zeros_like(weights)
  if options.erase_value == "normal":
    value = jax.random.normal(key_value, weights.shape, weights.dtype)
  happens = jax.random.bernoulli(key_whether, options.erase)
  return jnp.where(gone & happens, value, weights)
