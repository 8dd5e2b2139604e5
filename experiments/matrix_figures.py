"""Heat maps of matrices: trained on a row, tested on a column.

Dimensions: `R` rows, `C` columns.
"""

import pathlib
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib import figure
from matplotlib.backends import backend_agg

from experiments import drawing
from experiments.drawing import PathLike

COLUMNS = 4
"""Panels beside one another, at most."""


def heat_maps(
  path: PathLike,
  models: Mapping[str, np.ndarray],
  rows: Sequence[str],
  columns: Sequence[str],
  *,
  name: str,
) -> pathlib.Path:
  """Draws a panel for each model, all on one scale.

  Args:
    path: of the picture.
    models: values `[R, C]` by model; nan is left white.
    rows: what was trained on.
    columns: what was tested on.
    name: of the values, for the colour bar.
  """
  high = -(-len(models) // COLUMNS)
  wide = -(-len(models) // high)
  values = np.concatenate([np.ravel(v) for v in models.values()])
  finite = values[np.isfinite(values)]
  low, top = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
  labels = max(len(row) for row in rows)
  size = (
    wide * (0.9 + 0.75 * len(columns)) + 0.075 * labels + 0.8,
    high * (0.7 + 0.5 * len(rows)) + 0.075 * max(len(c) for c in columns),
  )
  with mpl.rc_context(drawing.STYLE):
    picture = figure.Figure(figsize=size, layout="constrained")
    backend_agg.FigureCanvasAgg(picture)
    grid = picture.subplots(high, wide, squeeze=False, sharex=True, sharey=True)
    image = None
    for axes, (model, array) in zip(grid.flat, models.items(), strict=False):
      image = axes.imshow(array, vmin=low, vmax=top, cmap="cividis")
      axes.set_title(model)
      axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
      axes.set_yticks(range(len(rows)), rows)
      axes.tick_params(length=0)
      for spine in axes.spines.values():
        spine.set_visible(False)
      for (row, column), value in np.ndenumerate(array):
        if np.isfinite(value):
          bright = value < low + 0.55 * (top - low)
          axes.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            color="white" if bright else "black",
          )
    for column in range(len(models) - (high - 1) * wide, wide):
      grid[-1][column].set_visible(False)
      grid[-2][column].tick_params(labelbottom=True)
    if image is not None:
      picture.colorbar(image, ax=grid.ravel().tolist(), label=name, shrink=0.8)
    picture.supylabel("trained on", fontsize=9)
    picture.supxlabel("tested on", fontsize=9)
    target = drawing.png_path(path)
    picture.savefig(target, dpi=150, metadata={"Software": None})
  return target
