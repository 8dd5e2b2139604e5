"""Pictures of the inputs that an encoder has learned to run networks on.

Dimensions: `K` inputs, `C` channels, `H`, `W` height and width, `I` features.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sne_jax.cli.reports import drawing
from sne_jax.cli.reports.drawing import PathLike
from sne_jax.encoders.responses import inputs
from sne_jax.learning.training import records, train_state
from sne_jax.learning.training.workdirs import MODEL_FILE

MOST = 64
"""Images of a grid, at most."""

COLUMNS = 8


def draw(folder: PathLike, seed: pathlib.Path) -> dict[str, pathlib.Path]:
  """Draws the inputs of a trained seed.

  Args:
    folder: for the pictures.
    seed: the folder of the seed.

  Returns:
    The pictures by caption; none where the encoder learns no inputs.
  """
  if not (seed / MODEL_FILE).exists():
    return {}
  description = records.read_json(seed / MODEL_FILE)
  params, _ = train_state.load_best(seed)
  learned = _found(params)
  if learned is None:
    return {}
  folder, drawn = pathlib.Path(folder), {}
  known = inputs.shown(learned, description.get("seen", description))
  if (images := known.get("images")) is not None:
    low, high = np.percentile(images, (1, 99))
    shown = f"{min(len(images), MOST)} of {len(images)}"
    caption = (
      f"Images that networks are run on, as learned ({shown}), {seed.name};"
      f" black is {low:.2g}, white {high:.2g}"
    )
    drawn[caption] = grid(folder / "learned_images.png", images)
  if (points := known.get("points")) is not None:
    caption = f"Coordinates that networks are run on, as learned, {seed.name}"
    drawn[caption] = scatter(folder / "learned_points.png", points)
  return drawn


def grid(path: PathLike, images: np.ndarray) -> pathlib.Path:
  """Draws images `[K, C, H, W]` beside one another, all on one scale.

  Three channels are red, green and blue; of any other number, their mean is
  grey.
  """
  images = np.asarray(images)[:MOST]
  low, high = np.percentile(images, (1, 99))
  scaled = np.clip((images - low) / max(high - low, 1e-9), 0, 1)
  columns = min(COLUMNS, len(images))
  rows = -(-len(images) // columns)
  with drawing.drawn(path, (0.8 * columns, 0.8 * rows)) as picture:
    axes = picture.subplots(rows, columns, squeeze=False)
    for place in axes.flat:
      place.set_axis_off()
    for place, image in zip(axes.flat, scaled, strict=False):
      if len(image) == 3:
        place.imshow(image.transpose(1, 2, 0))
      else:
        place.imshow(image.mean(axis=0), cmap="gray", vmin=0, vmax=1)
  return drawing.png_path(path)


def scatter(path: PathLike, points: np.ndarray) -> pathlib.Path:
  """Draws coordinates `[K, I]` of one or two dimensions, within [-1, 1].

  Of one dimension, in ascending order from the bottom to the top.
  """
  points = np.asarray(points)
  flat = points.shape[1] == 1
  with drawing.drawing(path, (4.2, 2.6 if flat else 4.2)) as axes:
    if flat:
      x, y = np.sort(points[:, 0]), np.arange(len(points))
      axes.set(xlabel="coordinate", ylabel="input, in order")
    else:
      x, y = points.T
      axes.set(xlabel="first coordinate", ylabel="second", aspect="equal")
      axes.set_ylim(-1.05, 1.05)
    axes.set_xlim(-1.05, 1.05)
    axes.scatter(x, y, s=14, color=drawing.color(0), linewidths=0)
    axes.grid(True)
  return drawing.png_path(path)


def _found(params: Any) -> Mapping[str, Any] | None:
  """Returns the parameters of the module `inputs.Inputs`, if there is one."""
  if not isinstance(params, Mapping):
    return None
  own = params.get("probes")
  if isinstance(own, Mapping) and "vectors" in own:
    return own
  each = (_found(value) for value in params.values())
  return next((found for found in each if found is not None), None)
