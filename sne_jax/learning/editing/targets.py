"""What images are to become: the edits by name, each made by a library.

Dimensions: `N` images of `C` channels, height `H`, width `W`.

References: Zhou et al., Permutation Equivariant Neural Functionals, NeurIPS
2023, arXiv:2302.14040: the sizes of dilation, erosion and gradient, and the
form of contrast (adaptive, limited, of the lightness of colours).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

Pixels = UInt8[np.ndarray, "N C H W"]

TILES = 3
"""Tiles along a side, each with a histogram of its own, for contrast."""

CLIP = 1 / 256
"""Share of a tile's pixels that a bin of 256 may hold: 1 times an even one."""


def dilated(images: Pixels) -> Pixels:
  """Returns the largest of 3 x 3 pixels; beyond the border there are none."""
  return ndimage.maximum_filter(images, size=(1, 1, 3, 3), mode="nearest")


def eroded(images: Pixels) -> Pixels:
  """Returns the least of 2 x 2 pixels: a pixel, and those above and left."""
  return ndimage.minimum_filter(images, size=(1, 1, 2, 2), mode="nearest")


def gradient(images: Pixels) -> Pixels:
  """Returns the range of the 2 x 2 pixels that `eroded` looks at."""
  most = ndimage.maximum_filter(images, size=(1, 1, 2, 2), mode="nearest")
  return most - eroded(images)


def contrasted(images: Pixels) -> Pixels:
  """Returns images of equalised lightness, tile by tile, within a limit.

  Raises:
    ValueError: scikit-image, which does it, is not installed.
  """
  try:
    from skimage import color, exposure
  except ImportError as error:
    raise ValueError(
      "edit contrast needs scikit-image: pip install scikit-image"
    ) from error
  height, width = images.shape[2:]
  tile = (max(1, height // TILES), max(1, width // TILES))
  equal = lambda grey: exposure.equalize_adapthist(
    grey, kernel_size=tile, clip_limit=CLIP
  )
  results = []
  for image in images / 255.0:
    if len(image) != 3:
      results.append(np.stack([equal(channel) for channel in image]))
      continue
    lab = color.rgb2lab(image, channel_axis=0)
    lab[0] = 100 * equal(lab[0] / 100)
    results.append(color.lab2rgb(lab, channel_axis=0))
  return np.rint(255 * np.clip(np.stack(results), 0, 1)).astype(np.uint8)


EDITS: dict[str, Callable[[Pixels], Pixels]] = {
  "dilate": dilated,
  "erode": eroded,
  "gradient": gradient,
  "contrast": contrasted,
}
"""By name."""


def processed(edit: str, images: Pixels) -> Pixels:
  """Returns what images become.

  Raises:
    ValueError: no such edit, or it needs a library that is not there.
  """
  if edit not in EDITS:
    raise ValueError(f"edit is {edit!r}; choose one of {', '.join(EDITS)}")
  return EDITS[edit](images)
