"""Figures of a report, one function each. No screen, no global state.

Every function writes `path` with the suffix `.png` and returns the path. Values
that are not finite are left out of a curve, and bars without a value are marked
as missing.

Dimensions: `N` members, `S` steps, `K` classes, `R` rows, `C` columns.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker

from sne_jax.cli.reports import drawing
from sne_jax.cli.reports.drawing import Interval, Number, PathLike

PANELS = 4
"""Heat maps beside one another, at most."""

PALE_BAR = "#B9CBDA"


def predicted_against_true(
  path: PathLike,
  y: np.ndarray,
  predictions: Mapping[str, np.ndarray],
  *,
  name: str,
) -> pathlib.Path:
  """Scatters predictions over the truth.

  Args:
    path: of the picture.
    y: true property `[N]`.
    predictions: `[N]` by name (seeds).
    name: of the property, for the axes.
  """
  with drawing.drawing(path, (4.8, 4.6)) as axes:
    y = np.asarray(y, float)
    low, high = drawing.limits([y, *predictions.values()])
    axes.plot([low, high], [low, high], color=drawing.PALE, lw=1, zorder=1)
    every = np.concatenate([np.asarray(p, float) for p in predictions.values()])
    drawing.scatter_mixed(
      axes,
      np.stack([np.tile(y, len(predictions)), every], axis=1),
      list(predictions),
      np.repeat(np.arange(len(predictions)), y.size),
      s=float(np.clip(3000 / max(y.size, 1), 2, 18)),
      alpha=0.45 if y.size > 200 else 0.7,
    )
    axes.set(
      xlim=(low, high),
      ylim=(low, high),
      aspect="equal",
      xlabel=f"true {name}",
      ylabel=f"predicted {name}",
    )
    axes.grid(True)
    drawing.legend(axes)
  return drawing.png_path(path)


def learning_curves(
  path: PathLike,
  panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
) -> pathlib.Path:
  """Draws quantities over steps: a panel for each, as they differ in units.

  Args:
    path: of the picture.
    panels: by quantity (the label of its axis), `(steps [S], values [S])` by
      name. The axis is logarithmic where all values are above 0.
  """
  count = max(len(panels), 1)
  with drawing.drawn(path, (3.9 * count + 0.8, 3.2)) as picture:
    grid = picture.subplots(1, count, squeeze=False)[0]
    for axes, (quantity, curves) in zip(grid, panels.items(), strict=False):
      least = np.inf
      for place, (name, (steps, values)) in enumerate(curves.items()):
        values = np.asarray(values, float)
        keep = np.isfinite(values)
        least = min([least, *values[keep]])
        axes.plot(
          np.asarray(steps)[keep],
          values[keep],
          color=drawing.color(place),
          label=name,
        )
      axes.set(xlabel="step", ylabel=quantity)
      axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
      if 0 < least < np.inf:
        drawing.log_scale(axes)
      axes.grid(True, which="major")
    drawing.legend(grid[-1])
  return drawing.png_path(path)


def error_against_property(
  path: PathLike, y: np.ndarray, prediction: np.ndarray, *, name: str
) -> pathlib.Path:
  """Scatters the absolute error over the property, with a running mean.

  The mean is of a tenth of the members, in the order of the property.

  Args:
    path: of the picture.
    y: true property `[N]`.
    prediction: its prediction `[N]`.
    name: of the property.
  """
  y, prediction = np.asarray(y, float), np.asarray(prediction, float)
  order = np.argsort(y, kind="stable")
  error = np.abs(prediction - y)[order]
  y = y[order]
  window = max(y.size // 10, 1)
  with drawing.drawing(path, (5.6, 3.4)) as axes:
    axes.scatter(
      y,
      error,
      s=6,
      color=drawing.PALE,
      alpha=0.5,
      linewidths=0,
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
    axes.set(xlabel=name, ylabel="absolute error")
    if (error[np.isfinite(error)] > 0).any():
      drawing.log_scale(axes)
    axes.grid(True, which="major")
    drawing.legend(axes)
  return drawing.png_path(path)


def bars_with_intervals(
  path: PathLike,
  rows: Mapping[str, Interval | Number],
  *,
  xlabel: str,
  highlight: Sequence[str] = (),
  x_log: bool = False,
) -> pathlib.Path:
  """Horizontal bars with intervals, for ablations and comparisons.

  Args:
    path: of the picture.
    rows: by name, a value and its interval; from top to bottom.
    xlabel: the metric, with its unit.
    highlight: names of the bars in the strong colour; all by default.
    x_log: whether the axis is logarithmic; it begins below the least value
      above 0, and holds 1.
  """
  values = {name: drawing.interval(row) for name, row in rows.items()}
  least = min([0.1, *(v for v, _, _ in values.values() if v > 0)])
  base = 10.0 ** np.floor(np.log10(least) - 0.3) if x_log else 0.0
  ends = [base]
  with drawing.drawing(path, (5.8, 0.9 + 0.36 * max(len(rows), 2))) as axes:
    for place, (name, (value, low, high)) in enumerate(values.items()):
      if not np.isfinite(value):
        drawing.note(axes, "undefined", base, place)
        continue
      end = max(value, base) if x_log else value
      strong = not highlight or name in highlight
      color = drawing.color(0) if strong else PALE_BAR
      axes.barh(place, end - base, left=base, height=0.62, color=color)
      if np.isfinite(low) and np.isfinite(high):
        for color, width in (("white", 3.0), (drawing.INK, 1.2)):
          axes.plot([low, high], [place, place], color=color, lw=width)
        end = max(high, value) if value >= 0 else min(low, value)
      ends.append(end)
      drawing.note(axes, f"{value:.3g}", end, place, left=value < 0)
    left, right = min(ends), max(ends)
    if x_log:
      axes.axvline(1.0, color=drawing.PALE, lw=1, ls=(0, (4, 3)))
      axes.set_xscale("log")
      axes.set_xlim(base, max(right, 1.0) * (max(right, 1.0) / base) ** 0.12)
    else:
      room = 0.14 * ((right - left) or 1.0)
      axes.set_xlim(left - room * (left < 0), right + room * (right >= 0))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(max(len(rows), 2) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.set_xlabel(xlabel)
  return drawing.png_path(path)


def lines(
  path: PathLike,
  series: Mapping[str, Mapping[Number, Interval | Number]],
  *,
  xlabel: str,
  ylabel: str,
  title: str = "",
  x_log: bool = False,
  y_log: bool = False,
) -> pathlib.Path:
  """Lines with intervals: data efficiency, rates, cost.

  Args:
    path: of the picture.
    series: by name, values (with intervals, or plain) by place on the x axis.
    xlabel: what is varied, with its unit.
    ylabel: what is measured, with its unit.
    title: of the picture.
    x_log: whether the x axis is logarithmic; the places are its ticks.
    y_log: whether the y axis is.
  """
  height = max(3.4, 0.6 + 0.2 * len(series))
  with drawing.drawing(path, (5.6, height)) as axes:
    for place, (name, points) in enumerate(series.items()):
      x = np.array(sorted(points), float)
      rows = [drawing.interval(points[key]) for key in sorted(points)]
      value, low, high = np.array(rows, float).reshape(-1, 3).T
      keep, color = np.isfinite(value), drawing.color(place)
      axes.plot(
        x[keep],
        value[keep],
        color=color,
        marker=drawing.MARKERS[place % 7],
        ls=("-", "--", ":")[place // 7 % 3],
        ms=4.5,
        label=name,
      )
      known = keep & np.isfinite(low) & np.isfinite(high)
      if y_log:
        low = np.maximum(low, 0.2 * value)  # An end below 0 has no place.
      axes.fill_between(
        x[known], low[known], high[known], color=color, alpha=0.15, lw=0
      )
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if x_log:
      axes.set_xscale("log")
      places = sorted({float(x) for points in series.values() for x in points})
      if len(places) <= 10:
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.minorticks_off()
    if y_log:
      drawing.log_scale(axes)
    axes.grid(True, which="major")
    if len(series) > 1:
      drawing.legend(axes)
  return drawing.png_path(path)


def confusion(
  path: PathLike, counts: np.ndarray, classes: Sequence[str], *, name: str
) -> pathlib.Path:
  """Draws a confusion matrix: counts, and shares of the true class.

  Args:
    path: of the picture.
    counts: `[K, K]`, true class by predicted class; means need not be whole.
    classes: their names.
    name: of the property, for the axes.
  """
  counts = np.asarray(counts, float)
  total = counts.sum(axis=1, keepdims=True)
  shares = np.where(total > 0, counts / np.where(total > 0, total, 1), np.nan)
  longest = 0.075 * max(map(len, classes))
  size = (
    2.0 + longest + 0.72 * len(classes),
    1.3 + longest + 0.52 * len(classes),
  )
  texts = [
    [
      f"{count:.1f}".removesuffix(".0")
      + (f"\n{100 * share:.0f} %" if np.isfinite(share) else "")
      for count, share in zip(*row, strict=True)
    ]
    for row in zip(counts, shares, strict=True)
  ]
  with drawing.drawn(path, size) as picture:
    axes = picture.add_subplot()
    image = drawing.heat_map(axes, shares, texts, classes, classes, (0, 1))
    axes.set(xlabel=f"predicted {name}", ylabel=f"true {name}")
    picture.colorbar(image, ax=axes, label="share of the true class")
  return drawing.png_path(path)


def heat_maps(
  path: PathLike,
  models: Mapping[str, np.ndarray],
  rows: Sequence[str],
  columns: Sequence[str],
  *,
  name: str,
  undefined: Mapping[str, np.ndarray] | None = None,
) -> pathlib.Path:
  """Draws a panel for each model, all on one scale.

  Args:
    path: of the picture.
    models: values `[R, C]` by model; nan is left white.
    rows: what was trained on.
    columns: what was tested on.
    name: of the values, for the colour bar.
    undefined: by model, which cells without a value were measured, bool
      `[R, C]`: they say "undefined". None: none.
  """
  high = -(-len(models) // PANELS)
  wide = -(-len(models) // high)
  values = np.concatenate([np.ravel(v) for v in models.values()])
  finite = values[np.isfinite(values)]
  limits = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
  size = (
    wide * (0.9 + 0.75 * len(columns)) + 0.075 * max(map(len, rows)) + 0.8,
    high * (0.7 + 0.5 * len(rows)) + 0.075 * max(map(len, columns)),
  )
  with drawing.drawn(path, size) as picture:
    grid = picture.subplots(high, wide, squeeze=False, sharex=True, sharey=True)
    image = None
    for axes, (model, array) in zip(grid.flat, models.items(), strict=False):
      said = np.zeros(array.shape, bool)
      if undefined is not None:
        said |= undefined[model]
      texts = [
        [
          f"{value:.2f}" if np.isfinite(value) else "undefined" * bool(is_said)
          for value, is_said in zip(*both, strict=True)
        ]
        for both in zip(array, said, strict=True)
      ]
      image = drawing.heat_map(axes, array, texts, rows, columns, limits)
      axes.set_title(model)
    for column in range(len(models) - (high - 1) * wide, wide):
      grid[-1][column].set_visible(False)
      grid[-2][column].tick_params(labelbottom=True)
    if image is not None:
      picture.colorbar(image, ax=grid.ravel().tolist(), label=name, shrink=0.8)
    picture.supylabel("trained on", fontsize=9)
    picture.supxlabel("tested on", fontsize=9)
  return drawing.png_path(path)
