"""Pictures of networks before and after they are edited.

Dimensions: `M` networks; images `[M, C, H, W]`, black at 0 and white at 1.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from sne_jax.cli.reports import drawing
from sne_jax.cli.reports.drawing import PathLike

MOST = 10


def draw(
  path: PathLike, rows: Mapping[str, np.ndarray], of: str = "test networks"
) -> dict[str, pathlib.Path]:
  """Draws the first networks, one in each column.

  Args:
    path: of the picture.
    rows: images by what they are, such as rendering or edited.
    of: which networks they are, for the caption.

  Returns:
    The picture by its caption.
  """
  count = min(MOST, *(len(images) for images in rows.values()))
  size = (0.9 * count + 0.9, 0.95 * len(rows))
  with drawing.drawn(path, size) as picture:
    axes = picture.subplots(len(rows), count, squeeze=False)
    for places, (name, images) in zip(axes, rows.items(), strict=True):
      for place, image in zip(places, images, strict=False):
        shown = np.clip(image.transpose(1, 2, 0), 0, 1)
        place.imshow(
          shown if len(image) == 3 else shown[..., 0],
          cmap="gray",
          vmin=0,
          vmax=1,
        )
        place.set_xticks([])
        place.set_yticks([])
      places[0].set_ylabel(name, fontsize=8)
  caption = f"The first {count} {of}, one in each column: {', '.join(rows)}"
  return {caption: drawing.png_path(path)}
