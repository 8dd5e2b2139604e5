"""Figures of a report, one function each. No screen, no global state.

Every function writes `path` with the suffix `.png` (150 dots per inch), and
`.pdf` too on request, and returns the PNG's path. Values that are not finite
are left out of a curve, and bars without a value are marked as missing.

Dimensions: `N` members, `S` steps.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker

from experiments import drawing
from experiments.drawing import Interval, PathLike


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
  with drawing.drawing(path, (4.8, 4.6), pdf) as axes:
    y = np.asarray(y, float)
    low, high = drawing.limits([y, *predictions.values()])
    axes.plot([low, high], [low, high], color=drawing.PALE, lw=1, zorder=1)
    drawing.scatter_mixed(axes, y, predictions)
    axes.set(
      xlim=(low, high),
      ylim=(low, high),
      aspect="equal",
      xlabel=drawing.with_unit(f"true {name}", unit),
      ylabel=drawing.with_unit(f"predicted {name}", unit),
      title=title,
    )
    axes.grid(True)
    if notes:
      axes.text(
        0.03,
        0.97,
        "\n".join(notes),
        transform=axes.transAxes,
        va="top",
        fontsize=8,
      )
    if len(predictions) > 1:
      axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    drawing.error_inset(axes, y, predictions, unit)
  return drawing.png_path(path)


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
  with drawing.drawing(path, (5.6, 3.4), pdf) as axes:
    for place, (name, (steps, values)) in enumerate(curves.items()):
      values = np.asarray(values, float) - floor
      keep = np.isfinite(values) & ((values > 0) | (not log))
      thin = name.startswith("train")
      axes.plot(
        np.asarray(steps)[keep],
        values[keep],
        color=drawing.color(place),
        lw=1.0 if thin else 1.8,
        alpha=0.75 if thin else 1.0,
        label=name,
      )
    axes.set(xlabel="step", ylabel=ylabel, title=title)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    drawing.scale(axes, y_log=log)
    axes.grid(True, which="major")
    if curves:
      axes.legend()
  return drawing.png_path(path)


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
  with drawing.drawing(path, (5.6, 3.4), pdf) as axes:
    axes.scatter(
      y,
      error,
      s=6,
      color=drawing.PALE,
      alpha=0.5,
      linewidths=0,
      rasterized=True,
      label="member",
    )
    if y.size:
      kernel = np.full(window, 1 / window)
      axes.plot(
        np.convolve(y, kernel, "valid"),
        np.convolve(error, kernel, "valid"),
        color=drawing.color(1),
        label=f"mean of {window} members",
      )
    positive = bool((error[np.isfinite(error)] > 0).any())
    axes.set(
      xlabel=drawing.with_unit(name, unit),
      ylabel=drawing.with_unit("absolute error", unit),
      title=title,
    )
    drawing.scale(axes, y_log=positive)
    axes.grid(True, which="major")
    axes.legend(loc="best", markerscale=2)
  return drawing.png_path(path)


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
  size = (5.8, 0.9 + 0.42 * max(len(names), 2))
  with drawing.drawing(path, size, pdf) as axes:
    places = np.arange(len(names))
    is_true = places < len(true_symmetries)
    for chosen, color, label in (
      (is_true, drawing.color(0), "true symmetry: should be small"),
      (~is_true, drawing.color(1), "false symmetry: should be large"),
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
    axes.axvline(1.0, color=drawing.PALE, lw=1, ls=(0, (4, 3)))
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
  return drawing.png_path(path)


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
  size = (5.8, 0.9 + 0.36 * max(len(rows), 2))
  with drawing.drawing(path, size, pdf) as axes:
    ends = [0.0]
    for place, (name, row) in enumerate(rows.items()):
      value, low, high = drawing.interval(row)
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
        place,
        value,
        height=0.62,
        color=drawing.color(0) if strong else "#B9CBDA",
      )
      end = value
      if np.isfinite(low) and np.isfinite(high):
        for color, width in (("white", 3.0), (drawing.INK, 1.2)):
          axes.plot([low, high], [place, place], color=color, lw=width)
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
      axes.axvline(baseline, color=drawing.PALE, lw=1, ls=(0, (4, 3)))
      ends.append(baseline)
    ends = ends if any(ends) else [0.0, 1.0]
    span = max(ends) - min(ends)
    left = min(ends) - (0.14 * span if min(ends) < 0 else 0)
    axes.set_xlim(left, max(ends) + (0.14 * span if max(ends) > 0 else 0))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(max(len(rows), 2) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.set(xlabel=xlabel, title=title)
  return drawing.png_path(path)


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
  with drawing.drawing(path, (5.6, 3.4), pdf) as axes:
    for place, (name, points) in enumerate(series.items()):
      x = np.array(sorted(points), float)
      rows = [drawing.interval(points[key]) for key in sorted(points)]
      value, low, high = np.array(rows, float).reshape(-1, 3).T
      keep = np.isfinite(value)
      color = drawing.color(place)
      axes.plot(
        x[keep],
        value[keep],
        color=color,
        marker=drawing.MARKERS[place % 7],
        ms=4.5,
        label=name,
      )
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
    drawing.scale(axes, y_log=y_log)
    axes.grid(True, which="major")
    if len(series) > 1:
      axes.legend()
  return drawing.png_path(path)
