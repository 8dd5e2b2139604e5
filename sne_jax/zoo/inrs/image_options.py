"""Which networks are fitted to images, and how.

References:
  Navon et al., Equivariant Architectures for Learning in Deep Weight Spaces,
  ICML 2023, arXiv:2301.12780: the form `dws`. Zhou et al., Permutation
  Equivariant Neural Functionals, NeurIPS 2023, arXiv:2302.14040: the form
  `nfn`, that of Sitzmann et al., arXiv:2006.09661.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.networks.checked import Checked, option
from sne_jax.zoo.inrs import coordinates


class Form(NamedTuple):
  """What the two published conventions differ in, but for coordinates."""

  offset: float  # Added to the output.
  low: float  # Of black; white is 1.

  @property
  def peak(self) -> float:
    """The range of a signal, which PSNR is relative to."""
    return 1.0 - self.low


FORMS = {"dws": Form(0.5, 0.0), "nfn": Form(0.0, -1.0)}
"""By name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageInrOptions(Checked):
  """Which networks to fit to the images of a data set, and how.

  Attributes:
    form: dws: pixels in [0, 1], 0.5 added to the output, all weights but the
      last drawn narrowly and hidden biases 0. nfn: pixels in [-1, 1], nothing
      added, a SIREN's own first weights, biases drawn. They also differ in
      which coordinate comes first.
    refits: networks of each training image, each from other first weights; all
      of an image are in one part of the split. Test images have one.
    hidden: neurons of a hidden layer.
    layers: hidden (sine) layers.
    w0: frequency inside a layer's sine.
    learning_rate: of Adam.
    max_steps: a network is done after so many steps, or with its PSNR.
    psnr: in dB; a network is done when its image is so near. Those that end
      below are flagged as not converged.
    check_every: steps between two looks at the error.
    seed: a network is a function of the seed, its image and its refit alone.
    validation_share: share of the training images in the validation part.
    batch_members: networks fitted together: how much is lost when a run is
      broken off. 0: found from the memory that is free. It changes the weights
      by float rounding only.
  """

  form: str = option("dws", choices=coordinates.FORMS)
  refits: int = option(1, least=1)
  hidden: int = option(32, least=1)
  layers: int = option(2, least=1)
  w0: float = option(30.0, above=0)
  learning_rate: float = option(5e-4, above=0)
  max_steps: int = option(1000, least=1)
  psnr: float = option(40.0, above=0)
  check_every: int = option(25, least=1)
  seed: int = option(0, least=0)
  validation_share: float = option(0.1, above=0, below=1)
  batch_members: int = option(0, least=0)

  @property
  def like(self) -> Form:
    """What the form means."""
    return FORMS[self.form]

  @property
  def tolerance(self) -> float:
    """The mean squared error that is good enough."""
    return self.like.peak**2 * 10 ** (-self.psnr / 10)


def inr_spec(
  options: ImageInrOptions, channels: int = 1
) -> spec_lib.NetworkSpec:
  """Returns the spec of the networks of a data set."""
  widths = (2, *(options.hidden,) * options.layers, channels)
  return families.inr(widths, w0=options.w0, output_offset=options.like.offset)


def signals(
  options: ImageInrOptions, images: UInt8[np.ndarray, "N C H W"]
) -> Float[np.ndarray, "N X C"]:
  """Returns the values that networks are fitted to, pixel by pixel."""
  low = options.like.low
  rows = images.reshape(*images.shape[:2], -1).transpose(0, 2, 1)
  return (low + (1 - low) * (rows.astype(np.float64) / 255)).astype(np.float32)


def first_weights(
  spec: spec_lib.NetworkSpec, form: str, key: PRNGKeyArray
) -> dict[str, Float[Array, "..."]]:
  """Draws the weights that a fit begins with, as tensors.

  dws: weights from U(+-sqrt(6 / fan_in) / w0), the last layer from U(+-1 /
  sqrt(fan_in)) with its bias, hidden biases 0. nfn: first weights from U(+-1 /
  fan_in), the others from U(+-sqrt(6 / fan_in) / w0), biases from U(+-1 /
  sqrt(fan_in)).
  """
  w0, last = spec.option("w0"), spec.num_levels - 1
  tensors = {}
  for t in spec.tensors:
    key, drawn = jax.random.split(key)
    fan_in = spec.tensor(t.of).fan_in if t.of else t.fan_in
    plain, sine = fan_in**-0.5, (6 / fan_in) ** 0.5 / w0
    if t.of:
      reach = plain if form == "nfn" or t.level == last else 0.0
    elif form == "dws":
      reach = plain if t.level == last else sine
    else:
      reach = sine if t.level else 1 / fan_in
    unit = jax.random.uniform(drawn, t.shape, jnp.float32, -1.0, 1.0)
    tensors[t.name] = reach * unit
  return tensors
