"""Learned inputs, of any shape, from one set of parameters.

Images come from one array of pixels, or from a generator, and are resized and
projected to the shape that a network takes: one encoder serves 8 x 8 in grey
and 32 x 32 in colour. Inputs that are no images (coordinates, features) have an
array of their own; coordinates are kept in the domain by a tanh.

The generator is linear in its latent vectors, as that of ProbeGen (Kahana et
al., Deep Linear Probe Generators, arXiv:2410.10811), whose linear form acts as
a regulariser; its sizes here are ours. Or nothing is learned: `noise` is the
same for all encoders, so that no input can name what training networks know.

Dimensions: `K` inputs, `C` channels, `S` side of the images, `F` features.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

LATENT = 32
"""Width of the generator's latent vectors."""

SPECTRA = (1.0, 2.0)
"""Amplitudes of noise fall with these powers of the frequency."""


class Inputs(nn.Module):
  """The learned inputs of an encoder.

  Attributes:
    count: `K`.
    image: channels, height and width of the largest images in training; (0, 0,
      0): none were seen.
    features: most features of an input that is no image.
    source: "pixels", "generator", or "noise", which is not learned.
  """

  count: int
  image: tuple[int, int, int]
  features: int
  source: str = "pixels"

  def setup(self):
    """Makes the parameters."""
    channels, height, width = self.image
    side = min(max(height, width, 8), 32)
    shape = (self.count, max(channels, 1), side, side)
    if self.source == "noise":
      self.pixels = jnp.asarray(_noise_images(*shape[:3]))
    elif self.source == "pixels":
      self.pixels = self.param("pixels", natural, shape)
    else:
      self.generator = Generator(shape)
    features = (self.count, max(self.features, 1))
    if self.source == "noise":
      self.vectors = jnp.asarray(_noise_vectors(*features))
    else:
      self.vectors = self.param("vectors", _spread, features)

  def __call__(self, shape: Sequence[int], *, is_signal: bool = False):
    """Returns inputs `[K, *shape]`.

    Args:
      shape: of one input: channels, height, width, or a number of features.
      is_signal: whether they are coordinates, in [-1, 1].
    """
    if len(shape) == 3:
      return _reshaped(self._images(), shape)
    (count,) = shape
    side = math.isqrt(count)
    if not is_signal and side * side == count and side >= 4:
      # A dense classifier of flattened grey images.
      return _reshaped(self._images(), (1, side, side)).reshape(-1, count)
    vectors = jnp.tanh(self.vectors) if is_signal else self.vectors
    repeats = -(-count // vectors.shape[1])
    return jnp.tile(vectors, (1, repeats))[:, :count]

  def _images(self):
    return self.generator() if self.source == "generator" else self.pixels


def shown(
  params: Mapping[str, Any], seen: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Returns what was learned, as the training networks took it, for pictures.

  Args:
    params: of `Inputs`.
    seen: what `seen.measure` returned.

  Returns:
    `images` `[K, C, H, W]`, of the largest size that was taken, and `points`
    `[K, I]`, coordinates of one or two dimensions; each where there are such.
  """
  channels, height, width = seen["image"]
  count, features = len(params["vectors"]), seen["features"]
  source = "pixels" if "pixels" in params else "generator"
  module = Inputs(count, (channels, height, width), features, source)
  found = {}
  side = math.isqrt(features)
  if channels:
    shape = (channels, height, width)
    found["images"] = module.apply({"params": params}, shape)
  elif side >= 4 and side * side == features:
    images: Any = module.apply({"params": params}, (features,))
    found["images"] = images.reshape(count, 1, side, side)
  if seen["signals"] and features in (1, 2):
    points = module.apply({"params": params}, (features,), is_signal=True)
    found["points"] = points
  return {name: np.asarray(values) for name, values in found.items()}


class Generator(nn.Module):
  """Makes images of latent vectors, without nonlinearity but a last tanh.

  Attributes:
    shape: `[K, C, S, S]` of the images.
  """

  shape: tuple[int, int, int, int]

  @nn.compact
  def __call__(self):
    """Returns images in [-0.5, 1.5]."""
    count, channels, side, _ = self.shape
    latent = self.param("latent", nn.initializers.normal(1), (count, LATENT))
    doublings = max(0, math.ceil(math.log2(side / 4)))
    start = -(-side // 2**doublings)
    x = nn.Dense(start * start * 32, name="project")(latent)
    x = x.reshape(count, start, start, 32)
    for place in range(doublings):
      width = max(8, 32 >> (place + 1))
      x = nn.ConvTranspose(width, (4, 4), (2, 2), name=f"up{place}")(x)
    x = nn.ConvTranspose(channels, (3, 3), name="out")(x)
    return 0.5 + jnp.tanh(jnp.transpose(x[:, :side, :side], (0, 3, 1, 2)))


def natural(key, shape, dtype=jnp.float32):
  """Draws images of a natural spectrum, of mean 0.3 and deviation 0.5."""
  side = shape[-1]
  frequency = np.hypot.outer(np.fft.fftfreq(side), np.fft.fftfreq(side))
  frequency[0, 0] = 1 / side
  frequency = frequency.reshape(*(1,) * (len(shape) - 2), side, side)
  noise = jax.random.normal(key, shape)
  image = jnp.fft.ifft2(jnp.fft.fft2(noise) / frequency).real
  deviation = image.std(axis=(-2, -1), keepdims=True)
  return (0.3 + 0.5 * image / deviation).astype(dtype)


@functools.cache
def _noise_images(count: int, channels: int, side: int) -> np.ndarray:
  """Returns images `[K, C, S, S]` of natural spectra, always the same.

  Spectra take turns; contrasts and means differ between images.
  """
  rng = np.random.RandomState(0)  # Its numbers are the same in all versions.
  frequency = np.hypot.outer(np.fft.fftfreq(side), np.fft.fftfreq(side))
  frequency[0, 0] = 1 / side
  images = np.zeros((count, channels, side, side), np.float32)
  for place in range(count):
    power = SPECTRA[place % len(SPECTRA)]
    noise = np.fft.fft2(rng.normal(size=(channels, side, side)))
    image = np.fft.ifft2(noise / frequency**power).real
    image = (image - image.mean()) / image.std()
    images[place] = rng.uniform(0.5, 2) * image + 0.5 * rng.normal()
  return images


@functools.cache
def _noise_vectors(count: int, features: int) -> np.ndarray:
  """Returns vectors `[K, F]` like those of `_spread`, always the same."""
  rng = np.random.RandomState(0)
  vectors = np.arctanh(rng.uniform(-0.97, 0.97, (count, features)))
  return vectors.astype(np.float32)


def _spread(key, shape, dtype=jnp.float32):
  """Draws vectors whose tanh is spread evenly over (-1, 1)."""
  return jnp.arctanh(jax.random.uniform(key, shape, dtype, -0.97, 0.97))


def _reshaped(images, shape):
  """Returns images `[K, C, S, S]` resized, and of so many channels."""
  channels, height, width = shape
  if images.shape[2:] != (height, width):
    size = (*images.shape[:2], height, width)
    images = jax.image.resize(images, size, "linear")
  if images.shape[1] == channels:
    return images
  if channels == 1:
    return images.mean(axis=1, keepdims=True)
  repeats = -(-channels // images.shape[1])
  return jnp.tile(images, (1, repeats, 1, 1))[:, :channels]
