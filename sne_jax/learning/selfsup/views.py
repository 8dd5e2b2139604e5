"""Views of networks, drawn on the fly: permuted, noisy, partly erased.

A view is a function of a key and a vector, in this order: permutation of
hidden neurons, noise, erasing. All is pure and may be compiled and mapped over
networks and keys; nothing is written in place, so two views never meet.

Dimensions: `P` weights of a network.

References:
  Schuerholt et al., NeurIPS 2021, arXiv:2110.15288, and ICML 2024,
  arXiv:2406.09997.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sne_jax.networks import symmetry
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewOptions(Checked):
  """How a view differs from its network.

  Attributes:
    permute: permute hidden neurons, uniformly over the group.
    relative_noise: deviation of noise as a share of each weight. 0: none.
    erase: probability with which a block of weights, which follow one another
      in the vector, is set to 0.
    erase_low: least share of weights that is erased then.
    erase_high: largest share.

  Raises:
    ValueError: a value is out of its range; the message names it.
  """

  permute: bool = True
  relative_noise: float = option(0.0, least=0)
  erase: float = option(0.0, least=0, most=1)
  erase_low: float = option(0.02, least=0, below=1)
  erase_high: float = option(0.33, least=0, below=1)

  def __post_init__(self):
    super().__post_init__()
    if self.erase_low > self.erase_high:
      raise ValueError(
        f"erase_low is {self.erase_low}, above erase_high {self.erase_high};"
        " swap them"
      )


def make_view_sampler(
  spec: NetworkSpec, options: ViewOptions
) -> Callable[[PRNGKeyArray, Float[Array, "P"]], Float[Array, "P"]]:
  """Returns `sample(key, weights) -> view`. Pure."""
  draw = symmetry.make_permutation_sampler(spec)

  def sample(key: PRNGKeyArray, weights: Float[Array, "P"]):
    key_permutation, _, key_scale, key_erase = jax.random.split(key, 4)
    if options.permute:
      weights = weights[draw(key_permutation)]
    if options.relative_noise:
      noise = jax.random.normal(key_scale, weights.shape, weights.dtype)
      weights = weights * (1 + options.relative_noise * noise)
    if options.erase:
      weights = erase(key_erase, weights, options)
    return weights

  return sample


def erase(
  key: PRNGKeyArray, weights: Float[Array, "P"], options: ViewOptions
) -> Float[Array, "P"]:
  """Erases, with the probability of the options, a share of a vector.

  A block may begin at every place where it fits; the references never erase
  the last weight, which nothing calls for.
  """
  key_whether, key_share, key_place, _ = jax.random.split(key, 4)
  size = weights.shape[0]
  share = jax.random.uniform(
    key_share, (), minval=options.erase_low, maxval=options.erase_high
  )
  length = jnp.floor(size * share).astype(jnp.int32)
  start = jax.random.randint(key_place, (), 0, size - length + 1)
  place = jnp.arange(size)
  gone = (place >= start) & (place < start + length)
  happens = jax.random.bernoulli(key_whether, options.erase)
  return jnp.where(gone & happens, 0.0, weights)
