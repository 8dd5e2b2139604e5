"""The picture of a sweep: its metric over every option, a panel each."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.cli.reports import drawing
from sne_jax.cli.reports.drawing import PathLike

WIDE = 8.0
"""Numbers above 0 whose ends are so far apart have a logarithmic axis."""

FEW = 6
"""So many numbers, at most, have a label each."""

ACROSS = 3
"""Panels beside one another, at most."""


def draw(
  path: PathLike,
  trials: Sequence[tuple[Mapping[str, Any], float]],
  names: Sequence[str],
  *,
  label: str,
  best: int = -1,
) -> pathlib.Path:
  """Draws a point for each trial, the selected one ringed.

  Args:
    path: of the picture.
    trials: what each has changed, and its value; not finite: it is left out.
    names: of the options, a panel each.
    label: of the values.
    best: place of the trial that is selected; -1: none is.
  """
  across = max(1, min(ACROSS, len(names)))
  down = max(1, -(-len(names) // across))
  with drawing.drawn(path, (0.6 + 3.3 * across, 3.1 * down)) as picture:
    grid = picture.subplots(down, across, squeeze=False, sharey=True)
    for axes in grid.flat[len(names) :]:
      axes.set_visible(False)
    for place, (axes, name) in enumerate(zip(grid.flat, names, strict=False)):
      rows = [
        (changes[name], value, n == best)
        for n, (changes, value) in enumerate(trials)
        if name in changes and np.isfinite(value)
      ]
      x = _axis(axes, [row[0] for row in rows])
      y = np.array([row[1] for row in rows], float)
      ringed = np.array([row[2] for row in rows], bool)
      style = {"s": 26, "linewidths": 0, "alpha": 0.75}
      axes.scatter(x, y, color=drawing.color(0), **style)
      axes.scatter(
        *(x[ringed], y[ringed]),
        s=90,
        facecolors="none",
        edgecolors=drawing.color(1),
        linewidths=1.6,
      )
      axes.set_xlabel(name)
      if place % across == 0:
        axes.set_ylabel(label)
      axes.grid(True)
  return drawing.png_path(path)


def _axis(axes: Any, values: Sequence[Any]) -> np.ndarray:
  """Prepares the axis of an option; returns where its values are."""
  is_number = [
    isinstance(v, int | float) and not isinstance(v, bool) for v in values
  ]
  if not values or not all(is_number):
    words = list(dict.fromkeys(str(value) for value in values))
    axes.set_xticks(range(len(words)), words, rotation=35, ha="right")
    axes.set_xlim(-0.6, max(len(words), 1) - 0.4)
    return np.array([words.index(str(value)) for value in values], float)
  numbers = np.array(values, float)
  if numbers.min() > 0 and numbers.max() / numbers.min() >= WIDE:
    axes.set_xscale("log")
  each = np.unique(numbers)
  if len(each) <= FEW and _are_apart(each, axes.get_xscale() == "log"):
    axes.set_xticks(each, [f"{number:g}" for number in each])
    axes.minorticks_off()
  elif axes.get_xscale() != "log":
    axes.locator_params(axis="x", nbins=5)
  return numbers


def _are_apart(each: np.ndarray, is_log: bool) -> bool:
  """Whether labels at some numbers do not lie on one another."""
  places = np.log(each) if is_log else each
  width = places[-1] - places[0]
  return len(each) < 2 or bool(np.diff(places).min() > 0.12 * width)
