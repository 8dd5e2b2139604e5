"""Pictures of networks that are images, with what is said of them.

Dimensions: `M` networks.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from sne_jax.cli.reports import drawing
from sne_jax.cli.reports.drawing import PathLike
from sne_jax.learning.data.dataset import Networks
from sne_jax.zoo.inrs import image_zoo

MOST = 32
COLUMNS = 8
SIDE = 28
"""Pixels along a side; networks have no size of their own."""


def draw(
  path: PathLike,
  networks: Networks,
  truth: Sequence[str],
  predicted: Sequence[str],
) -> dict[str, pathlib.Path]:
  """Draws the first networks, as the images that they are.

  Args:
    path: of the picture.
    networks: `M`, of any specs.
    truth: `[M]`, what each shows.
    predicted: `[M]`, what is said that it shows.

  Returns:
    The picture by its caption; none where some of the first networks are no
    images of one form.
  """
  count = min(MOST, len(networks.numbers))
  specs = {networks.specs[n] for n in networks.numbers[:count]}
  if len(specs) != 1:
    return {}
  (spec,) = specs
  if not image_zoo.is_image(spec):
    return {}
  try:
    images = image_zoo.rendered(spec, np.stack(networks.vectors[:count]), SIDE)
  except ValueError:  # Of neither form: how to draw it is not known.
    return {}
  rows = -(-count // COLUMNS)
  with drawing.drawn(path, (0.9 * COLUMNS, 1.1 * rows)) as picture:
    axes = picture.subplots(rows, COLUMNS, squeeze=False)
    for place in axes.flat:
      place.set_axis_off()
    every = zip(axes.flat, images, truth, predicted, strict=False)
    for place, image, true, said in every:
      shown = np.clip(image.transpose(1, 2, 0), 0, 1)
      place.imshow(shown if len(image) == 3 else shown[..., 0], cmap="gray")
      is_right = true == said
      place.set_title(
        str(said) if is_right else f"{said} (is {true})",
        fontsize=8,
        color="black" if is_right else "firebrick",
      )
  caption = (
    f"The first {count} test networks, drawn as the images that they are, and"
    " what is predicted; mistakes in red"
  )
  return {caption: drawing.png_path(path)}
