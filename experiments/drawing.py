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

Interval = Mapping[str, float]
"""`value` (or `mean`) with `low` and `high`, as `learning.metrics` gives."""

PathLike = str | os.PathLike


@contextlib.contextmanager
def drawing(path, size, pdf: bool) -> Iterator[Axes]:
  """Gives the axes of a fresh figure, and writes it at the end."""
  with mpl.rc_context(STYLE):
    picture = figure.Figure(figsize=size, layout="constrained")
    backend_agg.FigureCanvasAgg(picture)
    yield picture.add_subplot()
    target = png_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # No software or date in the file: equal data give equal bytes.
    picture.savefig(target, dpi=150, metadata={"Software": None})
    if pdf:
      picture.savefig(
        target.with_suffix(".pdf"), metadata={"CreationDate": None}
      )


def png_path(path: PathLike) -> pathlib.Path:
  """The path with the suffix `.png`; other dots belong to the name."""
  path = pathlib.Path(path)
  known = path.suffix in (".png", ".pdf")
  return (
    path.with_suffix(".png") if known else path.with_name(path.name + ".png")
  )


def color(place: int) -> str:
  """The colour of the series at that place."""
  return PALETTE[place % len(PALETTE)]


def with_unit(name: str, unit: str) -> str:
  """The label of an axis: `name [unit]`."""
  return f"{name} [{unit}]" if unit else name


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


def scale(axes: Axes, *, y_log: bool) -> None:
  """A logarithmic axis that has labels also within one decade."""
  if not y_log:
    return
  axes.set_yscale("log")
  low, high = axes.get_ylim()
  if high / low < 30:
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
  axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))


def scatter_mixed(axes: Axes, y, predictions) -> None:
  """Scatters the series in mixed order, so that none covers the others."""
  size = float(np.clip(3000 / max(y.size, 1), 2, 18))
  count = len(predictions)
  for place, label in enumerate(predictions):
    axes.plot([], [], "o", color=color(place), ms=4.5, label=label or None)
  order = np.random.default_rng(0).permutation(count * y.size)
  colors = np.repeat([color(place) for place in range(count)], y.size)
  values = [np.asarray(p, float) for p in predictions.values()]
  axes.scatter(
    np.tile(y, count)[order],
    np.concatenate(values)[order],
    s=size,
    c=colors[order].tolist(),
    alpha=0.45 if y.size > 200 else 0.7,
    linewidths=0,
    rasterized=True,
    zorder=2,
  )


def error_inset(axes: Axes, y, predictions, unit: str) -> None:
  """A histogram of the errors in the empty corner below the diagonal."""
  inset = axes.inset_axes((0.66, 0.1, 0.31, 0.2))
  errors = [np.asarray(p, float) - y for p in predictions.values()]
  everything = np.concatenate([e[np.isfinite(e)] for e in errors] or [y])
  if everything.size == 0:
    inset.remove()
    return
  reach = float(np.percentile(np.abs(everything), 99)) or 1.0
  bins = np.linspace(-reach, reach, 32).tolist()
  for place, error in enumerate(errors):
    inset.hist(
      np.clip(error[np.isfinite(error)], -reach, reach),
      bins=bins,
      color=color(place),
      histtype="stepfilled",
      alpha=0.85 if len(errors) == 1 else 0.4,
    )
  inset.axvline(0, color=INK, lw=0.6)
  inset.set_yticks([])
  inset.spines["left"].set_visible(False)
  inset.patch.set_alpha(0.85)
  inset.tick_params(labelsize=7, length=2)
  inset.xaxis.set_major_locator(ticker.MaxNLocator(3, symmetric=True))
  inset.set_title(with_unit("error", unit), fontsize=7, pad=2, loc="center")
