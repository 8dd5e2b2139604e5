"""A picture of a network: its layers from top to bottom, and their weights.

Dimensions: `P` weights, `R` rows.
"""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import patches
from matplotlib import path as path_lib
from matplotlib.axes import Axes

from sne_jax.cli.reports import drawing, network_rows
from sne_jax.networks.spec import NetworkSpec

MOST = 40
"""Rows of a picture; of deeper networks, levels are joined."""

PLACES = {word: n for n, word in enumerate(network_rows.WORDS)}
"""The colour of each kind of layer."""

BOX = (0.0, 4.6)
"""Where boxes begin and end; histograms stand to the right of them."""

BARS = (5.0, 7.6)


def draw(
  path: drawing.PathLike,
  spec: NetworkSpec,
  weights: Float[np.ndarray, "P"] | None = None,
  *,
  title: str = "",
) -> pathlib.Path:
  """Draws a box for each tensor, skips beside, and a histogram of its weights.

  Args:
    path: of the picture.
    spec: the network.
    weights: its weights; None: there are no histograms.
    title: of the picture.
  """
  rows = network_rows.rows_of(spec, MOST)
  with drawing.drawing(path, (7.4, 0.9 + 0.5 * len(rows))) as axes:
    for r, row in enumerate(rows):
      _box(axes, r, row, spec)
    for source, target in spec.skips:
      _skip(axes, _row_of(rows, source), _row_of(rows, target))
    if weights is not None:
      found = network_rows.weights_of(spec, rows, [np.asarray(weights)])
      for r, row in enumerate(rows):
        _histogram(axes, r, row, found.ranges[0, r], found.counts[0, r])
    size = f"{spec.num_weights:,} weights"
    axes.set(
      xlim=(-1.5, BARS[1] + 0.1),
      ylim=(len(rows) - 0.35, -0.75),
      title=f"{title}: {size}" if title else size,
    )
    axes.set_axis_off()
  return drawing.png_path(path)


def _box(axes: Axes, r: int, row: network_rows.Row, spec: NetworkSpec) -> None:
  color = drawing.color(PLACES[row.word])
  left, right = BOX
  axes.add_patch(
    patches.FancyBboxPatch(
      (left, r - 0.36),
      *(right - left, 0.72),
      boxstyle="round,pad=0,rounding_size=0.12",
      facecolor=(*_rgb(color), 0.13),
      edgecolor=color,
      lw=1.1,
    )
  )
  if r:
    middle = (left + right) / 2
    axes.plot([middle] * 2, [r - 0.64, r - 0.36], color=drawing.PALE, lw=1)
  label = row.label if len(row.label) <= 48 else row.label[:47] + "…"
  axes.text(left + 0.12, r - 0.12, label, va="center", fontsize=8)
  told = [f"{row.word} {' x '.join(map(str, row.shape))}", *row.others]
  told += [network_rows.activation(spec, row)]
  axes.text(
    *(left + 0.12, r + 0.18, ", ".join(filter(None, told))),
    va="center",
    fontsize=7,
    color="#666666",
  )


def _skip(axes: Axes, source: int, target: int) -> None:
  if source == target:
    return
  far = BOX[0] - min(1.4, 0.5 + 0.2 * (target - source))
  begin, end = source + 0.14, target - 0.14
  route = path_lib.Path(
    [(BOX[0], begin), (far, begin), (far, end), (BOX[0], end)],
    [path_lib.Path.MOVETO, *(path_lib.Path.CURVE4,) * 3],
  )
  style: Any = {"color": drawing.INK, "lw": 0.9, "mutation_scale": 8}
  axes.add_patch(
    patches.FancyArrowPatch(path=route, arrowstyle="-|>", fill=False, **style)
  )


def _row_of(rows, level: int) -> int:
  """Returns the last row that a level has begun by."""
  return max((r for r, row in enumerate(rows) if row.first <= level), default=0)


def _histogram(
  axes: Axes, r: int, row: network_rows.Row, ranges: Any, counts: Any
) -> None:
  low, high, _, deviation = map(float, ranges)
  left, right = BARS
  base, wide = r + 0.12, (right - left) / len(counts)
  axes.bar(
    left + wide * (np.arange(len(counts)) + 0.5),
    -0.45 * counts / 255.0,
    bottom=base,
    width=0.92 * wide,
    color=drawing.color(PLACES[row.word]),
    linewidth=0,
  )
  axes.plot([left, right], [base, base], color=drawing.PALE, lw=0.7)
  if low < 0 < high:
    zero = left - low / (high - low) * (right - left)
    axes.plot(
      [zero] * 2, [base + 0.05, base - 0.48], color=drawing.INK, lw=0.6, ls=":"
    )
  style: Any = {"va": "center", "fontsize": 6.5, "color": "#666666"}
  axes.text(left, r + 0.26, f"{low:.3g}", **style)
  axes.text(right, r + 0.26, f"{high:.3g}", ha="right", **style)
  middle = (left + right) / 2
  axes.text(middle, r + 0.26, f"± {deviation:.2g}", ha="center", **style)


def _rgb(color: str) -> tuple[float, ...]:
  return tuple(int(color[n : n + 2], 16) / 255 for n in (1, 3, 5))
