"""Figures of a report, one function each. No screen, no global state.

Every function writes `path` with the suffix `.png` (150 dots per inch), and
`.pdf` too on request, and returns the PNG's path. Values that are not finite
are left out of a curve, and bars without a value are marked as missing.

Dimensions: `N` members, `S` steps.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

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

STYLE = {
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


def predicted_against_true(
  path: PathLike,
  y: np.ndarray,
  predictions: np.ndarray | Mapping[str, np.ndarray],
  *,
  name: str,
  unit: str = "",
  title: str = "",
  notes: Sequence[str] = (),
  pdf: bool = False,
) -> pathlib.Path:
  """Scatters predictions over the truth, with the errors in an inset.

  Args:
    path: of the picture.
    y: true property `[N]`.
    predictions: `[N]`, or several by name (seeds); those share one picture.
    name: of the property, for the axes.
    unit: of the property.
    title: of the picture.
    notes: short lines of text, such as the metrics.
    pdf: whether a PDF is written too.
  """
  if not isinstance(predictions, Mapping):
    predictions = {"": predictions}
  with _drawing(path, (4.8, 4.6), pdf) as axes:
    y = np.asarray(y, float)
    low, high = _limits([y, *predictions.values()])
    axes.plot([low, high], [low, high], color=PALE, lw=1, zorder=1)
    _scatter_mixed(axes, y, predictions)
    axes.set(
      xlim=(low, high),
      ylim=(low, high),
      aspect="equal",
      xlabel=_with_unit(f"true {name}", unit),
      ylabel=_with_unit(f"predicted {name}", unit),
      title=title,
    )
    axes.grid(True)
    if notes:
      axes.text(
        0.03, 0.97, "\n".join(notes), transform=axes.transAxes, va="top",
        fontsize=8,
      )  # fmt: skip
    if len(predictions) > 1:
      axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _error_inset(axes, y, predictions, unit)
  return _png(path)


def learning_curves(
  path: PathLike,
  curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
  *,
  ylabel: str,
  title: str = "",
  log: bool = True,
  floor: float = 0.0,
  pdf: bool = False,
) -> pathlib.Path:
  """Draws losses over steps; names that begin with `train` are thin.

  Args:
    path: of the picture.
    curves: `(steps [S], values [S])` by name, such as `train/loss`.
    ylabel: the quantity, with its unit.
    title: of the picture.
    log: whether the values have a logarithmic axis.
    floor: subtracted from the values, such as the entropy of the targets.
    pdf: whether a PDF is written too.
  """
  with _drawing(path, (5.6, 3.4), pdf) as axes:
    for place, (name, (steps, values)) in enumerate(curves.items()):
      values = np.asarray(values, float) - floor
      keep = np.isfinite(values) & ((values > 0) | (not log))
      thin = name.startswith("train")
      axes.plot(
        np.asarray(steps)[keep],
        values[keep],
        color=_color(place),
        lw=1.0 if thin else 1.8,
        alpha=0.75 if thin else 1.0,
        label=name,
      )
    axes.set(xlabel="step", ylabel=ylabel, title=title)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    _scale(axes, y_log=log)
    axes.grid(True, which="major")
    if curves:
      axes.legend()
  return _png(path)


def error_against_property(
  path: PathLike,
  y: np.ndarray,
  prediction: np.ndarray,
  *,
  name: str,
  unit: str = "",
  title: str = "",
  window: int | None = None,
  pdf: bool = False,
) -> pathlib.Path:
  """Scatters the absolute error over the property, with a running mean.

  Args:
    path: of the picture.
    y: true property `[N]`.
    prediction: its prediction `[N]`.
    name: of the property.
    unit: of the property.
    title: of the picture.
    window: members in the running mean, in the order of `y`; a tenth of them
      by default.
    pdf: whether a PDF is written too.
  """
  y, prediction = np.asarray(y, float), np.asarray(prediction, float)
  order = np.argsort(y, kind="stable")
  error = np.abs(prediction - y)[order]
  y = y[order]
  window = min(max(window or y.size // 10, 1), y.size)
  with _drawing(path, (5.6, 3.4), pdf) as axes:
    axes.scatter(
      y, error, s=6, color=PALE, alpha=0.5, linewidths=0, rasterized=True,
      label="member",
    )  # fmt: skip
    if y.size:
      kernel = np.full(window, 1 / window)
      axes.plot(
        np.convolve(y, kernel, "valid"),
        np.convolve(error, kernel, "valid"),
        color=_color(1),
        label=f"mean of {window} members",
      )
    positive = bool((error[np.isfinite(error)] > 0).any())
    axes.set(
      xlabel=_with_unit(name, unit),
      ylabel=_with_unit("absolute error", unit),
      title=title,
    )
    _scale(axes, y_log=positive)
    axes.grid(True, which="major")
    axes.legend(loc="best", markerscale=2)
  return _png(path)


def invariance(
  path: PathLike,
  true_symmetries: Mapping[str, float],
  false_symmetries: Mapping[str, float],
  *,
  title: str = "",
  pdf: bool = False,
) -> pathlib.Path:
  """Bars of the change under transformations, relative to the variance.

  Args:
    path: of the picture.
    true_symmetries: by name, the error ratio under transformations that leave
      the function as it is: should be small.
    false_symmetries: by name, the same under transformations that change the
      function: should be large, or the code cannot see them.
    title: of the picture.
    pdf: whether a PDF is written too.
  """
  names = [*true_symmetries, *false_symmetries]
  values = np.array([*true_symmetries.values(), *false_symmetries.values()])
  shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
  bottom = np.nanmin(shown) if np.isfinite(shown).any() else 1e-3
  bottom = 10.0 ** np.floor(np.log10(min(bottom, 0.1)) - 0.3)
  with _drawing(path, (5.8, 0.9 + 0.42 * max(len(names), 2)), pdf) as axes:
    places = np.arange(len(names))
    is_true = places < len(true_symmetries)
    for chosen, color, label in (
      (is_true, _color(0), "true symmetry: should be small"),
      (~is_true, _color(1), "false symmetry: should be large"),
    ):
      axes.barh(
        places[chosen],
        np.nan_to_num(shown[chosen], nan=bottom) - bottom,
        left=bottom,
        height=0.62,
        color=color,
        label=label,
      )
    for place, value in zip(places, values, strict=True):
      known = np.isfinite(value)
      axes.annotate(
        f"{value:.2g}" if known else "missing",
        (value if known and value > bottom else bottom, place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
      )
    axes.axvline(1.0, color=PALE, lw=1, ls=(0, (4, 3)))
    top = np.nanmax(np.append(shown, 1.0))
    axes.set_xscale("log")
    axes.set_xlim(bottom, top * (top / bottom) ** 0.12)
    axes.set_yticks(places, names)
    axes.set_ylim(max(len(names), 2) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set(
      xlabel="squared change of the output / its variance over members",
      title=title,
    )
    picture = axes.get_figure()
    if picture is not None:
      picture.legend(
        loc="outside lower right", ncols=2, columnspacing=1.2, handlelength=1.0
      )
  return _png(path)


def bars_with_intervals(
  path: PathLike,
  rows: Mapping[str, Interval],
  *,
  xlabel: str,
  title: str = "",
  highlight: Sequence[str] = (),
  baseline: float | None = None,
  pdf: bool = False,
) -> pathlib.Path:
  """Horizontal bars with intervals, for ablations and comparisons.

  Args:
    path: of the picture.
    rows: by name, a value and its interval; from top to bottom.
    xlabel: the metric, with its unit.
    title: of the picture.
    highlight: names of the bars in the strong colour; all by default.
    baseline: a value to mark by a dashed line.
    pdf: whether a PDF is written too.
  """
  with _drawing(path, (5.8, 0.9 + 0.36 * max(len(rows), 2)), pdf) as axes:
    ends = [0.0]
    for place, (name, row) in enumerate(rows.items()):
      value, low, high = _interval(row)
      strong = not highlight or name in highlight
      if not np.isfinite(value):
        axes.annotate(
          "missing",
          (0, place),
          xytext=(5, 0),
          textcoords="offset points",
          va="center",
          fontsize=8,
        )
        continue
      axes.barh(
        place, value, height=0.62, color=_color(0) if strong else "#B9CBDA"
      )
      end = value
      if np.isfinite(low) and np.isfinite(high):
        axes.plot([low, high], [place, place], color=INK, lw=1.2)
        end = high if value >= 0 else low
      ends.append(end)
      axes.annotate(
        f"{value:.3g}",
        (end, place),
        xytext=(4 if value >= 0 else -4, 0),
        textcoords="offset points",
        va="center",
        ha="left" if value >= 0 else "right",
        fontsize=8,
      )
    if baseline is not None:
      axes.axvline(baseline, color=PALE, lw=1, ls=(0, (4, 3)))
      ends.append(baseline)
    span = (max(ends) - min(ends)) or 1.0
    left = min(ends) - (0.14 * span if min(ends) < 0 else 0)
    axes.set_xlim(left, max(ends) + (0.14 * span if max(ends) > 0 else 0))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(max(len(rows), 2) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.set(xlabel=xlabel, title=title)
  return _png(path)


def lines(
  path: PathLike,
  series: Mapping[str, Mapping[float, Interval | float]],
  *,
  xlabel: str,
  ylabel: str,
  title: str = "",
  x_log: bool = False,
  y_log: bool = False,
  x_base: int = 10,
  pdf: bool = False,
) -> pathlib.Path:
  """Lines with intervals: data efficiency, sweeps, cost.

  Args:
    path: of the picture.
    series: by name, values (with intervals, or plain) by place on the x axis.
    xlabel: what is varied, with its unit.
    ylabel: what is measured, with its unit.
    title: of the picture.
    x_log: whether the x axis is logarithmic; the places are its ticks.
    y_log: whether the y axis is.
    x_base: base of the logarithm: 2 for sizes that double.
    pdf: whether a PDF is written too.
  """
  with _drawing(path, (5.6, 3.4), pdf) as axes:
    for place, (name, points) in enumerate(series.items()):
      x = np.array(sorted(points), float)
      rows = [_interval(points[key]) for key in sorted(points)]
      value, low, high = np.array(rows, float).reshape(-1, 3).T
      keep = np.isfinite(value)
      color = _color(place)
      axes.plot(
        x[keep], value[keep], color=color, marker=MARKERS[place % 7], ms=4.5,
        label=name,
      )  # fmt: skip
      known = keep & np.isfinite(low) & np.isfinite(high)
      if y_log:
        low = np.maximum(low, 0.2 * value)  # an end below 0 has no place
      axes.fill_between(
        x[known], low[known], high[known], color=color, alpha=0.15, lw=0
      )
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if x_log:
      axes.set_xscale("log", base=x_base)
      places = sorted({float(x) for points in series.values() for x in points})
      if len(places) <= 10:
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.minorticks_off()
    _scale(axes, y_log=y_log)
    axes.grid(True, which="major")
    if len(series) > 1:
      axes.legend()
  return _png(path)


@contextlib.contextmanager
def _drawing(path, size, pdf: bool) -> Iterator[Axes]:
  """Gives the axes of a fresh figure, and writes it at the end."""
  with mpl.rc_context(STYLE):
    picture = figure.Figure(figsize=size, layout="constrained")
    backend_agg.FigureCanvasAgg(picture)
    yield picture.add_subplot()
    target = _png(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # No software or date in the file: equal data give equal bytes.
    picture.savefig(target, dpi=150, metadata={"Software": None})
    if pdf:
      picture.savefig(
        target.with_suffix(".pdf"), metadata={"CreationDate": None}
      )


def _png(path) -> pathlib.Path:
  path = pathlib.Path(path)
  known = path.suffix in (".png", ".pdf")
  return (
    path.with_suffix(".png") if known else path.with_name(path.name + ".png")
  )


def _color(place: int) -> str:
  return PALETTE[place % len(PALETTE)]


def _with_unit(name: str, unit: str) -> str:
  return f"{name} [{unit}]" if unit else name


def _interval(row) -> tuple[float, float, float]:
  """Returns value, low, high; nan where unknown."""
  if not isinstance(row, Mapping):
    return float(row), np.nan, np.nan
  value = row.get("value", row.get("mean", np.nan))
  numbers = (value, row.get("low", np.nan), row.get("high", np.nan))
  value, low, high = (np.nan if x is None else float(x) for x in numbers)
  return value, low, high


def _limits(arrays) -> tuple[float, float]:
  """Limits that hold all finite values, with a margin."""
  values = np.concatenate([np.ravel(np.asarray(a, float)) for a in arrays])
  values = values[np.isfinite(values)]
  if values.size == 0:
    return 0.0, 1.0
  margin = 0.04 * (np.ptp(values) or 1.0)
  return float(values.min() - margin), float(values.max() + margin)


def _scale(axes: Axes, *, y_log: bool) -> None:
  """A logarithmic axis that has labels also within one decade."""
  if not y_log:
    return
  axes.set_yscale("log")
  low, high = axes.get_ylim()
  if high / low < 30:
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
  axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))


def _scatter_mixed(axes: Axes, y, predictions) -> None:
  """Scatters the series in mixed order, so that none covers the others."""
  size = float(np.clip(3000 / max(y.size, 1), 2, 18))
  count = len(predictions)
  for place, label in enumerate(predictions):
    axes.plot([], [], "o", color=_color(place), ms=4.5, label=label or None)
  order = np.random.default_rng(0).permutation(count * y.size)
  colors = np.repeat([_color(place) for place in range(count)], y.size)
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


def _error_inset(axes: Axes, y, predictions, unit: str) -> None:
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
      np.clip(error[np.isfinite(error)], -reach, reach), bins=bins,
      color=_color(place), histtype="stepfilled",
      alpha=0.85 if len(errors) == 1 else 0.4,
    )  # fmt: skip
  inset.axvline(0, color=INK, lw=0.6)
  inset.set_yticks([])
  inset.spines["left"].set_visible(False)
  inset.patch.set_alpha(0.85)
  inset.tick_params(labelsize=7, length=2)
  inset.xaxis.set_major_locator(ticker.MaxNLocator(3, symmetric=True))
  inset.set_title(_with_unit("error", unit), fontsize=7, pad=2, loc="center")
