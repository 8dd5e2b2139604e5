"""The figure of a property that is a class: who was taken for whom.

Dimensions: `K` classes.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from experiments import drawing
from experiments.drawing import PathLike


def confusion_by_caption(
  folder: pathlib.Path, name: str, *, counts: np.ndarray, classes: Sequence[str]
) -> dict[str, pathlib.Path]:
  """Draws `confusion`, means over seeds, into a folder of figures."""
  caption = (
    f"Predicted {name} of the test networks by true {name}: how many, mean over"
    " seeds, and the share of the true class"
  )
  path = folder / f"confusion_{name}.png"
  return {caption: confusion(path, counts, classes, name=name)}


def confusion(
  path: PathLike,
  counts: np.ndarray,
  classes: Sequence[str],
  *,
  name: str,
  title: str = "",
  pdf: bool = False,
) -> pathlib.Path:
  """Draws a confusion matrix: counts, and shares of the true class.

  Args:
    path: of the picture.
    counts: `[K, K]`, true class by predicted class; means need not be whole.
    classes: their names.
    name: of the property, for the axes.
    title: of the picture.
    pdf: whether a PDF is written too.
  """
  counts = np.asarray(counts, float)
  total = counts.sum(axis=1, keepdims=True)
  shares = np.where(total > 0, counts / np.where(total > 0, total, 1), np.nan)
  longest = 0.075 * max(map(len, classes))
  size = (
    2.0 + longest + 0.72 * len(classes),
    1.3 + longest + 0.52 * len(classes),
  )
  with drawing.drawing(path, size, pdf) as axes:
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    axes.set_xticks(range(len(classes)), list(classes), rotation=35, ha="right")
    axes.set_yticks(range(len(classes)), list(classes))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
      spine.set_visible(False)
    for (row, column), share in np.ndenumerate(shares):
      text = f"{counts[row, column]:.1f}".removesuffix(".0")
      if np.isfinite(share):
        text += f"\n{100 * share:.0f} %"
      axes.text(
        column,
        row,
        text,
        ha="center",
        va="center",
        fontsize=8,
        color="white" if share < 0.55 else "black",
      )
    axes.set(xlabel=f"predicted {name}", ylabel=f"true {name}", title=title)
    picture = axes.get_figure()
    if picture is not None:
      picture.colorbar(image, ax=axes, label="share of the true class")
  return drawing.png_path(path)
