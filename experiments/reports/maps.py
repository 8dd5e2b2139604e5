"""Maps of the codes of networks, and numbers beside the pictures.

A map shows whether an encoder sorts networks by what is asked for (accuracy) or
by what should not matter (the data set that they were trained on).

Dimensions: `N` networks, `D` width of a code.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn import decomposition, manifold, neighbors

from sne_jax.cli.reports import drawing
from sne_jax.cli.reports.drawing import PathLike

NEIGHBORS = 10
MOST = 2000
"""Networks of a map, at most: t-SNE takes a minute for so many."""

VIEWS = ((20, 30), (20, 150), (80, 30))
"""Elevation and azimuth of the three-dimensional views, in degrees."""


def mixing(
  codes: np.ndarray, labels: np.ndarray, count: int = NEIGHBORS
) -> float:
  """Returns how well networks of different labels are mixed in code space.

  The share of a network's nearest neighbours that have another label, over the
  share that chance would give: 1 is mixed like chance, 0 is apart. A mean over
  labels, so that a frequent one does not outweigh the others.

  Args:
    codes: `[N, D]`; standardised here, so that every coordinate counts alike.
    labels: `[N]`, for example the data set of each.
    count: neighbours that are looked at.

  Raises:
    ValueError: fewer than two labels, or not more networks than neighbours.
  """
  labels = np.asarray(labels)
  names = np.unique(labels)
  if len(names) < 2 or len(codes) <= count:
    raise ValueError(
      f"mixing needs two labels and more than {count} networks, got"
      f" {len(names)} and {len(codes)}"
    )
  scaled = _standardised(codes)
  search = neighbors.NearestNeighbors(n_neighbors=count).fit(scaled)
  nearest = search.kneighbors(return_distance=False)  # Without themselves.
  other = labels[nearest] != labels[:, None]
  ratios = []
  for name in names:
    same = labels == name
    chance = (len(labels) - same.sum()) / (len(labels) - 1)
    ratios.append(other[same].mean() / chance)
  return float(np.mean(ratios))


def draw(
  folder: PathLike,
  codes: np.ndarray,
  colors: Mapping[str, np.ndarray],
  *,
  seed: int = 0,
) -> dict[str, pathlib.Path]:
  """Draws maps of codes: two-dimensional, and three views of three dimensions.

  Args:
    folder: for the pictures.
    codes: `[N, D]`.
    colors: what networks are coloured by `[N]`: text (one colour for each) or
      numbers (a scale).
    seed: of t-SNE, and of the draw where there are too many networks.

  Returns:
    The pictures by caption.
  """
  folder = pathlib.Path(folder)
  chosen = np.arange(len(codes))
  if len(codes) > MOST:
    chosen = np.random.default_rng(seed).permutation(chosen)[:MOST]
  scaled = _standardised(codes)[chosen]
  colors = {name: np.asarray(v)[chosen] for name, v in colors.items()}
  flat, deep = (_layouts(scaled, dimensions, seed) for dimensions in (2, 3))
  return {
    "Maps of the codes in two dimensions": _flat(
      folder / "map_2d.png", flat, colors
    ),
    "The same in three dimensions, from three sides": _deep(
      folder / "map_3d.png", deep, *next(iter(colors.items()))
    ),
  }


def _layouts(scaled: np.ndarray, dimensions: int, seed: int):
  """Returns by name the networks' places `[N, dimensions]`."""
  perplexity = min(30.0, (len(scaled) - 1) / 3)
  by_name = {
    "PCA": decomposition.PCA(dimensions, random_state=seed),
    "t-SNE": manifold.TSNE(
      dimensions, perplexity=perplexity, init="pca", random_state=seed
    ),
  }
  return {name: way.fit_transform(scaled) for name, way in by_name.items()}


def _flat(path, layouts, colors) -> pathlib.Path:
  """Rows: layouts. Columns: what the points are coloured by."""
  size = (3.9 * len(colors) + 0.4, 2.9 * len(layouts))
  with drawing.drawn(path, size) as picture:
    grid = picture.subplots(len(layouts), len(colors), squeeze=False)
    for row, (layout, points) in enumerate(layouts.items()):
      for column, (name, values) in enumerate(colors.items()):
        axes = grid[row][column]
        scatter = _points(axes, points, values)
        axes.set(xlabel=f"{layout} 1", ylabel=f"{layout} 2", title=name)
        axes.set(xticks=(), yticks=())
        if scatter is not None:
          picture.colorbar(scatter, ax=axes, shrink=0.8)
        elif row == 0:
          drawing.legend(axes)
  return path


def _deep(path, layouts, name, values) -> pathlib.Path:
  """Rows: layouts. Columns: views."""
  size = (3.2 * len(VIEWS) + 0.6, 3.1 * len(layouts))
  with drawing.drawn(path, size) as picture:
    for row, (layout, points) in enumerate(layouts.items()):
      for column, (elevation, azimuth) in enumerate(VIEWS):
        place = row * len(VIEWS) + column + 1
        axes: Any = picture.add_subplot(
          len(layouts), len(VIEWS), place, projection="3d"
        )
        _points(axes, points, values)
        axes.view_init(elevation, azimuth)
        for number, axis in enumerate("xyz", start=1):
          axes.set(**{f"{axis}ticklabels": ()})
          getattr(axes, f"set_{axis}label")(f"{layout} {number}", labelpad=-12)
        axes.set_title(f"{layout}, {name}" if column == 0 else "")
        if place == len(VIEWS):
          drawing.legend(axes)
  return path


def _points(axes, points, values):
  """Scatters points; returns what a colour bar is for, of numbers."""
  style = {"s": 9, "alpha": 0.7}
  if values.dtype.kind in "fib":
    return axes.scatter(
      *points.T, c=values, cmap="cividis", linewidths=0, **style
    )
  names, places = np.unique(values, return_inverse=True)
  return drawing.scatter_mixed(axes, points, names, places, **style)


def _standardised(codes: np.ndarray) -> np.ndarray:
  codes = np.asarray(codes, np.float64)
  spread = codes.std(axis=0)
  return (codes - codes.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
