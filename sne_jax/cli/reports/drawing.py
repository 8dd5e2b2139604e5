"""What the figures share: style, colours, files, and labels of axes."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import figure, ticker
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.image import AxesImage

from sne_jax import atomic

PALETTE = (
  "#0072B2",  # blue
  "#D55E00",  # vermilion
  "#009E73",  # green
  "#CC79A7",  # pink
  "#E69F00",  # orange
  "#56B4E9",  # sky
  "#000000",
)
"""Okabe and Ito's colours, which the colour-blind tell apart."""

MARKERS = "osD^vPX"

INK, PALE = "#333333", "#9A9A9A"

STYLE: Any = {
  "font.size": 9,
  "axes.titlesize": 10,
  "axes.labelsize": 9,
  "axes.edgecolor": INK,
  "axes.labelcolor": INK,
  "axes.linewidth": 0.8,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.titlelocation": "left",
  "text.color": INK,
  "xtick.color": INK,
  "ytick.color": INK,
  "xtick.labelsize": 8,
  "ytick.labelsize": 8,
  "legend.fontsize": 8,
  "legend.frameon": False,
  "grid.color": "#E4E4E4",
  "grid.linewidth": 0.7,
  "axes.axisbelow": True,
  "lines.linewidth": 1.6,
}

Number = float | int | np.floating | np.integer
"""A number of Python or NumPy."""

Interval = Mapping[str, Number | None]
"""`value` (or `mean`) with `low` and `high`, as `learning.metrics` gives."""

PathLike = str | os.PathLike


@contextlib.contextmanager
def drawn(
  path: PathLike, size: tuple[float | int, float | int]
) -> Iterator[figure.Figure]:
  """Gives an empty figure in our style, and writes it at the end."""
  with mpl.rc_context(STYLE):
    picture = figure.Figure(figsize=size, layout="constrained")
    backend_agg.FigureCanvasAgg(picture)
    yield picture
    target = png_path(path)
    # No software in the file: equal data give equal bytes.
    how: Any = {"format": "png", "dpi": 150, "metadata": {"Software": None}}
    atomic.replace_file(target, lambda name: picture.savefig(name, **how))


@contextlib.contextmanager
def drawing(
  path: PathLike, size: tuple[float | int, float | int]
) -> Iterator[Axes]:
  """Gives the axes of a figure of one panel; see `drawn`."""
  with drawn(path, size) as picture:
    yield picture.add_subplot()


def png_path(path: PathLike) -> pathlib.Path:
  """The path with the suffix `.png`; other dots belong to the name."""
  path = pathlib.Path(path)
  return path if path.suffix == ".png" else path.with_name(f"{path.name}.png")


def heat_map(axes: Axes, values, texts, rows, columns, limits) -> AxesImage:
  """Draws a matrix: a colour for each value, and a text upon it.

  Args:
    axes: to draw on.
    values: `[R, C]`; what is not finite stays white.
    texts: `[R, C]`, what stands in each cell.
    rows: their names.
    columns: theirs.
    limits: least and largest value of the scale of colours.
  """
  low, high = limits
  image = axes.imshow(
    values, vmin=low, vmax=high, cmap="cividis", aspect="auto"
  )
  axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
  axes.set_yticks(range(len(rows)), rows)
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  for (row, column), value in np.ndenumerate(values):
    bright = not value < low + 0.55 * (high - low)
    axes.text(
      *(column, row, texts[row][column]),
      ha="center",
      va="center",
      fontsize=8,
      color="black" if bright else "white",
    )
  return image


def note(axes: Axes, text: str, x: Number, y: Number, *, left=False) -> None:
  """Writes a short text beside a point, on white."""
  axes.annotate(
    *(text, (x, y)),
    xytext=(-5 if left else 5, 0),
    textcoords="offset points",
    ha="right" if left else "left",
    va="center",
    fontsize=8,
    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
  )


def legend(axes: Axes) -> None:
  """Puts the legend beside the axes, where it covers nothing."""
  if axes.get_legend_handles_labels()[0]:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def color(place: int | np.integer) -> str:
  """The colour of the series at that place."""
  return PALETTE[place % len(PALETTE)]


def interval(row) -> tuple[float, float, float]:
  """Returns value, low, high; nan where unknown."""
  if not isinstance(row, Mapping):
    return float(row), np.nan, np.nan
  value = row.get("value", row.get("mean", np.nan))
  numbers = (value, row.get("low", np.nan), row.get("high", np.nan))
  value, low, high = (np.nan if x is None else float(x) for x in numbers)
  return value, low, high


def limits(arrays) -> tuple[float, float]:
  """Limits that hold all finite values, with a margin."""
  values = np.concatenate([np.ravel(np.asarray(a, float)) for a in arrays])
  values = values[np.isfinite(values)]
  if values.size == 0:
    return 0.0, 1.0
  margin = 0.04 * (np.ptp(values) or 1.0)
  return float(values.min() - margin), float(values.max() + margin)


def log_scale(axes: Axes) -> None:
  """A logarithmic y axis that has labels also within one decade."""
  axes.set_yscale("log")
  low, high = axes.get_ylim()
  if high / low < 30:
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    labels = [y for y in axes.get_yticks() if low <= y <= high]
    if len(labels) < 3:
      axes.yaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
  axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))


def scatter_mixed(axes: Any, points, names, places, **style: Any) -> None:
  """Scatters several series in mixed order, so that none covers the others.

  Args:
    axes: to draw on, of `D` dimensions.
    points: `[N, D]`.
    names: of the series.
    places: `[N]`, the series of each point.
    **style: of the points.
  """
  for place, name in enumerate(names):
    nowhere = [[]] * points.shape[1]
    axes.plot(*nowhere, "o", color=color(place), ms=4.5, label=name)
  order = np.random.default_rng(0).permutation(len(points))
  colors = [color(place) for place in places[order]]
  axes.scatter(*points[order].T, c=colors, linewidths=0, **style)
